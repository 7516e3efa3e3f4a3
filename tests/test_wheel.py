"""The wheel, unpacked where this checkout is not seen."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from card_folders import run_elsewhere, write_image_planes, write_inputs, write_pretrained

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOADS = """
import sys
sys.path.insert(0, {target!r})
import modeling_dualrep
assert modeling_dualrep.__file__.startswith({target!r}), modeling_dualrep.__file__
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
from transformers import AutoModelForImageClassification, AutoModelForVideoClassification
for auto_class, name in (
    (AutoConfig, "DualRepConfig"),
    (AutoModel, "DualRepModel"),
    (AutoModelForImageClassification, "DualRepForImageClassification"),
    (AutoModelForVideoClassification, "DualRepForVideoClassification"),
    (AutoProcessor, "DualRepProcessor"),
):
    loaded = auto_class.from_pretrained({model!r})
    assert type(loaded) is getattr(modeling_dualrep, name), type(loaded)
assert len(pipeline("image-classification", model={planes!r})("frame.png", top_k=14)) == 14
assert not any(name.startswith("transformers_modules") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the README's command, which must have the build backend at hand or fetch it."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    assert "\nuv build " in README and "\npip install dist/*.whl\n" in README
    command = [uv, "build", "--out-dir", folder, ROOT]
    for how in (["--offline"], []):
        done = subprocess.run([*command, *how], cwd=folder, capture_output=True, text=True)
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("the build backend is not at hand and cannot be fetched")
    raise AssertionError(done.stderr)


@pytest.mark.slow
def test_the_wheel_ships_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    code = {name for name in names if name.endswith(".py")}
    assert code == {f"modeling_dualrep/{path.name}" for path in (ROOT / "modeling_dualrep").glob("*.py")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_auto_classes_need_no_trust_once_the_package_is_imported(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    # What `pip install` does, without fetching what the wheel needs.
    install = ["uv", "pip", "install", "--offline", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    folders = {
        "target": str(target),
        "model": str(write_pretrained(tmp_path / "model")),
        "planes": str(write_image_planes(tmp_path / "planes")),
    }
    run_elsewhere(write_inputs(tmp_path), LOADS.format(**folders), without=("train", "datasets_scripts"))
