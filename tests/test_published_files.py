"""A run's folder is published as far as it may be, and refused with a sentence where it may not."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from card_folders import write_image_planes, write_saliency
from hub_helpers import write_run
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from hub_cards.published_files import model_files
from hub_cards.push_errors import PushError
from hub_cards.render import render_card, write_card

IMAGE_OF_FRAMES = re.compile(r"!\[saliency\]\(pictures/saliency\.png\)\n*")
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
    "metrics with a host": (change_json("metrics.json", recipe="on node1.lan"), r"names node1\.lan, a host"),
    "a field for a host": (change_json("metrics.json", host="x"), "host is missing or more than"),
    "recipe with a password": (write("recipe.yaml", "a: at s3://me:key@x/y"), "names s3://me:key@x"),
    "card with a file's address": (
        write("README.md", "---\nlicense: mit\n---\nsee file:///home/me"),
        "names file:///home/me",
    ),
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


@pytest.mark.parametrize("write_folder", [write_image_planes, write_saliency])
def test_a_card_that_nobody_edited_is_made_for_its_name(
    write_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The card of a run knows neither its name on the Hub nor that of its base."""
    folder = write_folder(tmp_path / "run")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": "runs/base"}))
    write_card(folder)
    made = model_files(folder, "me/task", "me/base")["README.md"].decode()
    assert made == IMAGE_OF_FRAMES.sub("", str(render_card(folder, "me/task", "me/base")))
    assert "It started from `me/base`" in made and "# task" in made
    write_card(folder, base_model="me/base")
    assert model_files(folder, "me/task")["README.md"].decode() == made


def test_pictures_of_scans_are_sent_only_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_saliency(tmp_path / "run")
    write_card(folder)
    kept_back = model_files(folder, "me/task")
    assert "pictures/saliency.png" not in kept_back and b"saliency.png" not in kept_back["README.md"]
    sent = model_files(folder, "me/task", with_frames=True)
    assert sent["pictures/saliency.png"] == folder / "pictures" / "saliency.png"
    assert b"(pictures/saliency.png)" in sent["README.md"]


def test_a_card_that_somebody_edited_is_kept(tmp_path: Path) -> None:
    folder = write_image_planes(tmp_path / "run")
    path = write_card(folder)
    path.write_text(path.read_text() + "\nSeen by us.\n")
    card = model_files(folder, "me/task")["README.md"].decode()
    assert card.endswith("Seen by us.\n") and 'model="me/task"' in card and "# run" in card


def test_a_recipe_keeps_the_last_name_of_a_place(run: Path) -> None:
    recipe = {
        "dataset": "s3://bucket/of/scans",
        "also": "file:///home/me/scans",
        "more": ["https://hub.example.org/x/scans", "hf://datasets/org/clips@v1"],
        "model": "org/base",
        "output_dir": "/home/me/runs/tiny",
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert yaml.safe_load(model_files(run, NAME)["recipe.yaml"]) == {
        "dataset": "scans",
        "also": "scans",
        "more": ["scans", "hf://datasets/org/clips@v1"],
        "model": "org/base",
        "output_dir": "tiny",
    }
