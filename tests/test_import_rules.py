"""Who may import whom: the four parts know each other only through files and names."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("datasets_scripts", "hub_cards", "modeling_dualrep", "train")
TOWERS = ("tower", "video_r2plus1d", "audio_cnn14", "image_resnet", "fusion")
MAINS = (
    "train.pretrain",
    "train.finetune_planes",
    "train.finetune_saliency",
    "train.timeline",
    "train.benchmark",
    "train.benchmark_loader",
    "train.benchmark_prepare",
    "train.reproduce",
    "train.demo",
    "train.clip_planes",
    "train.probe_speech",
    "train.search",
    "train.search_model",
    "train.search_queries",
    "train.search_recordings",
    "train.prepare_clips_without_waveform",
)

# The first pattern that fits a module decides which of our modules it may import.
ALLOWED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("datasets_scripts.schema", ()),
    ("datasets_scripts*", ("datasets_scripts*",)),
    ("hub_cards.push_dataset", ("hub_cards*", "datasets_scripts.privacy_check")),
    # The app is a main, as those of train are.
    ("hub_cards.space*", ("*",)),
    ("hub_cards*", ("hub_cards*",)),
    ("modeling_dualrep.configuration_dualrep", ()),
    ("modeling_dualrep.losses", ()),
    ("modeling_dualrep.distributed", ()),
    *(
        (f"modeling_dualrep.{name}", ("modeling_dualrep.configuration_dualrep", "modeling_dualrep.tower"))
        for name in TOWERS
    ),
    ("modeling_dualrep*", ("modeling_dualrep*",)),
    ("train.metrics.*", ("train.metrics.*",)),
    *((name, ("*",)) for name in MAINS),
    ("train*", ("train*", "modeling_dualrep*", "datasets_scripts.schema")),
)
# What a module may need beyond us and the standard library, where the design bounds it.
BOUNDED_LIBRARIES = {
    "datasets_scripts.schema": {"datasets"},
    "modeling_dualrep.losses": {"torch", "numpy"},
    "train.retrieval": {"torch", "numpy"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Every module a file imports, wherever in it; `from package import module` counts as the module."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            submodules = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in submodules if is_ours(name)} or {base}
    return found


def is_ours(name: str) -> bool:
    file = ROOT.joinpath(*name.split("."))
    return name.split(".")[0] in PARTS and (file.with_suffix(".py").is_file() or file.is_dir())


SOURCES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    name = module_name(path)
    allowed = next(targets for pattern, targets in ALLOWED if fnmatch(name, pattern))
    ours = {imported for imported in imported_modules(path) if imported.split(".")[0] in PARTS}
    forbidden = {imported for imported in ours if not any(fnmatch(imported, target) for target in allowed)}
    assert not forbidden, f"{name} must not import {sorted(forbidden)}"


@pytest.mark.parametrize("name", BOUNDED_LIBRARIES)
def test_bounded_modules_need_no_more_libraries(name: str) -> None:
    import sys

    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    libraries = {imported.split(".")[0] for imported in imported_modules(path)}
    assert libraries - set(sys.stdlib_module_names) - set(PARTS) <= BOUNDED_LIBRARIES[name]


@pytest.mark.parametrize("path", sorted((ROOT / "modeling_dualrep").glob("*.py")), ids=lambda path: path.stem)
def test_published_code_imports_its_siblings_relatively(path: Path) -> None:
    """transformers copies files that stand beside each other, found by `from .name import`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module and "." not in node.module
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = (
                [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            )
            if not getattr(node, "level", 0):
                assert all(name.split(".")[0] not in PARTS for name in names)


def test_a_forbidden_import_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    for package in PARTS:
        (tmp_path / package).mkdir()
    (tmp_path / "modeling_dualrep" / "losses.py").touch()
    file = tmp_path / "datasets_scripts" / "clips.py"
    file.write_text(
        "from modeling_dualrep import losses\ndef f():\n    from . import other\n    import train.loop\n"
    )
    assert imported_modules(file) == {"modeling_dualrep.losses", "datasets_scripts", "train.loop"}
    with pytest.raises(AssertionError, match=r"modeling_dualrep\.losses.*train\.loop"):
        test_a_module_imports_only_what_it_may(file)
