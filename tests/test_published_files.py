"""A run's folder is published as far as it may be, and refused with a sentence where it may not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_helpers import write_run
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from hub_cards.published_files import model_files
from hub_cards.push_errors import PushError

NAME = "me/tiny"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder that no test changes."""
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def remove(*names: str) -> Callable[[Path], object]:
    return lambda run: [(run / name).unlink() for name in names]


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


def change_json(name: str, **fields: object) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | fields))


def poison(value: float) -> Callable[[Path], object]:
    def spoil(run: Path) -> None:
        tensors = load_file(run / "model.safetensors")
        name = [name for name, tensor in tensors.items() if tensor.is_floating_point()][-1]
        tensors[name].view(-1)[-1] = value
        save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})

    return spoil


REFUSED = {
    "NaN": (poison(float("nan")), "hold NaN or infinity"),
    "infinity": (poison(float("-inf")), "hold NaN or infinity"),
    "no licence": (write("README.md", "---\ntags: [a]\n---\n# A"), "names no licence"),
    "no card metadata": (write("README.md", "# A card"), "names no licence"),
    "broken card": (write("README.md", "---\nlicense: [\n---\n"), "no readable metadata"),
    "card with a path": (
        write("README.md", "---\nlicense: mit\n---\nfrom /home/me/runs"),
        "names /home/me/runs, a place on this machine",
    ),
    "pickle": (write("pytorch_model.bin", "x"), r"holds pytorch_model.bin: a pickle"),
    "pt": (write("model.pt", "x"), "a pickle can run code"),
    "ckpt": (write("last.ckpt", "x"), "a pickle can run code"),
    "pkl": (write("model.pkl", "x"), "a pickle can run code"),
    "no weights": (remove("model.safetensors"), "holds no model.safetensors"),
    "disguised pickle": (write("model.safetensors", "\x80\x04 no"), "no whole safetensors file"),
    "no metrics": (remove("metrics.json"), r"There is no .*metrics\.json"),
    "metrics with a path": (change_json("metrics.json", recipe="/home/me/a.yaml"), "names /home/me/a.yaml"),
    "path in a dict": (change_json("metrics.json", machine={"cpu": "at /srv/data/x"}), "names /srv/data/x"),
    "Windows path": (change_json("metrics.json", recipe="C:\\Users\\me"), r"names C:\\Users\\me"),
    "damaged metrics": (write("metrics.json", "{"), "is no JSON"),
    "metrics of no fields": (write("metrics.json", "[]"), "holds no fields"),
    "no config": (remove("config.json"), r"There is no .*config\.json"),
    "no code named": (change_json("config.json", auto_map=None), "lacks auto_map"),
    "code missing": (remove("tower.py"), r"lacks tower\.py, code that the model needs"),
    "no processor": (remove("processor_config.json"), "holds no processor"),
    "damaged recipe": (write("recipe.yaml", "a: ["), "is no YAML"),
    "recipe that tells a path": (write("recipe.yaml", "a: see /home/me/x"), "names /home/me/x"),
    "no folder": (shutil.rmtree, "is no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_must_not_be_published_is_refused(case: str, run: Path) -> None:
    damage, told = REFUSED[case]
    model_files(run, NAME)
    damage(run)
    with pytest.raises(PushError, match=told):
        model_files(run, NAME)


def test_a_card_is_made_where_the_run_left_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "README.md").unlink()
    asked = []

    def render(*arguments: object) -> ModelCard:
        asked.append(arguments)
        return ModelCard("---\nlicense: apache-2.0\n---\n# Made")

    monkeypatch.setattr("hub_cards.published_files.render_card", render)
    assert b"# Made" in model_files(run, NAME)["README.md"]
    assert asked == [(run, NAME, None)]
