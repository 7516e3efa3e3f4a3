"""Every public name says what it is, and what it raises; functions of tensors tell their shapes."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import modeling_dualrep

ROOT = Path(__file__).resolve().parents[1]
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


PACKAGES = ("modeling_dualrep", "datasets_scripts", "train", "hub_cards")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
Described = ast.FunctionDef | ast.ClassDef


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, Described]]:
    """Public functions and classes of a file, and the public methods that its public classes write."""
    for node in tree.body:
        if isinstance(node, Described) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
                yield from ((f"{node.name}.{m.name}", m) for m in methods if not m.name.startswith("_"))


def errors_raised(function: ast.FunctionDef) -> set[str]:
    """The named errors that its own body raises, not those of functions within it.

    What stands in a `try` is the matter of its handlers.
    """
    raised, rest = set(), list(function.body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            raised |= {error.id} if isinstance(error, ast.Name) and error.id[0].isupper() else set()
        if isinstance(node, ast.Try) and node.handlers:
            rest += [*node.handlers, *node.orelse, *node.finalbody]
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            rest += ast.iter_child_nodes(node)
    return raised


def undescribed(tree: ast.Module) -> list[str]:
    """Public names without a docstring, and functions whose docstring is silent on what they raise.

    A main turns what it raises into a sentence, and what a subclass must write is no error of its use.
    """
    found = [] if ast.get_docstring(tree) else ["the module"]
    for name, node in public_definitions(tree):
        text = ast.get_docstring(node) or ""
        if not text:
            found.append(name)
        elif isinstance(node, ast.FunctionDef) and name != "main" and "Raises" not in text:
            raised = errors_raised(node) - {"NotImplementedError"}
            found += [f"{name} raises {error}" for error in sorted(raised) if error not in text]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_public_name_is_described_and_what_it_raises(path: Path) -> None:
    assert undescribed(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_what_a_docstring_leaves_out_is_found() -> None:
    code = '''
def silent(): ...
def loud(path):
    """Reads."""
    raise PathError(path)
def told(path):
    """PathError where there is none."""
    raise PathError(path)
def caught():
    """Tries."""
    try:
        raise PathError
    except PathError:
        return None
def outer():
    """Makes a function."""
    def inner():
        raise PathError
    return inner
class Kind:
    """A kind."""
    def method(self):
        """Again.

        Raises:
            PathError: it is gone.
        """
        raise GoneError
    def bare(self): ...
    def _private(self): ...
'''
    assert undescribed(ast.parse(code)) == ["the module", "silent", "loud raises PathError", "Kind.bare"]


SHAPES = re.compile(r"\(\w+(, [\w ./*+]+)*,?\)|any shape")


@pytest.mark.parametrize(
    "name", ["losses", "fusion", "distributed", "saliency", "sounding_rows", "gradient_cache"]
)
def test_functions_of_tensors_tell_their_shapes(name: str) -> None:
    """Of what they take, as `(batch, features)`, and of what they give."""
    tree = ast.parse((ROOT / "modeling_dualrep" / f"{name}.py").read_text(encoding="utf-8"))
    missing = []
    for qualified, node in public_definitions(tree):
        takes = isinstance(node, ast.FunctionDef) and any(
            argument.annotation and "Tensor" in ast.unparse(argument.annotation)
            for argument in node.args.args
        )
        if takes and not SHAPES.search(ast.get_docstring(node) or ""):
            missing.append(qualified)
    assert missing == []
