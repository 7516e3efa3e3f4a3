"""Every public name of the package says what it is."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import modeling_dualrep

MODULES = [
    importlib.import_module(f"modeling_dualrep.{module.name}")
    for module in pkgutil.iter_modules(modeling_dualrep.__path__)
]


def is_ours(value: object) -> bool:
    return getattr(value, "__module__", "").split(".")[0] == "modeling_dualrep"


def public_names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public functions and classes of a module, and the public methods that its classes write."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        yield name, value
        if inspect.isclass(value):
            yield from ((f"{name}.{method}", function) for method, function in public_methods(value))


def public_methods(owner: type) -> Iterator[tuple[str, object]]:
    for name, value in vars(owner).items():
        function = getattr(value, "__func__", value)  # of a class method
        function = function.fget if isinstance(function, property) else function
        if inspect.isfunction(function) and (name == "__call__" or not name.startswith("_")):
            yield name, function


def described(owner: type | None, name: str, value: object) -> bool:
    """Whether it has a docstring, or one of our base classes describes the method that it overrides."""
    if (value.__doc__ or "").strip():
        return True
    bases = [] if owner is None else [base for base in owner.__mro__[1:] if is_ours(base)]
    return any((getattr(vars(base).get(name), "__doc__", None) or "").strip() for base in bases)


@pytest.mark.parametrize("name", modeling_dualrep.__all__)
def test_a_public_class_is_described_with_its_methods(name: str) -> None:
    owner = getattr(modeling_dualrep, name)
    assert (owner.__dict__.get("__doc__") or "").strip()
    missing = [method for method, function in public_methods(owner) if not described(owner, method, function)]
    assert not missing


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_a_module_is_described_with_its_names(module: ModuleType) -> None:
    assert module.__doc__
    missing = []
    for name, value in public_names(module):
        owner = getattr(module, name.split(".")[0])
        owner = owner if inspect.isclass(owner) else None
        if not described(owner, name.split(".")[-1], value):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize(
    "name",
    ["DualRepModel", "DualRepForImageClassification", "DualRepForVideoClassification", "DualRepVideoModel"],
)
def test_what_a_forward_pass_takes_is_described(name: str) -> None:
    forward = getattr(modeling_dualrep, name).forward
    described_here = inspect.getdoc(forward)
    arguments = [
        argument for argument in inspect.signature(forward).parameters if argument not in ("self", "kwargs")
    ]
    assert all(f"{argument}:" in described_here for argument in arguments)
    assert "Raises:" in described_here


def test_a_missing_docstring_is_found() -> None:
    class Silent:
        def speak(self) -> None:
            pass

    assert not described(Silent, "speak", Silent.speak)
