"""What a model's card is made of: the files that a run left in its folder, read and checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
DATA_FILE = "data.json"
PICTURES = "pictures"

PRETRAINED, IMAGE_PLANES, VIDEO_PLANES, SALIENCY = "pretrained", "image_planes", "video_planes", "saliency"
TOWER = "tower"
KINDS = {
    "DualRepModel": PRETRAINED,
    "DualRepForImageClassification": IMAGE_PLANES,
    "DualRepForVideoClassification": VIDEO_PLANES,
    "DualRepForSaliencyPrediction": SALIENCY,
    "DualRepVideoModel": TOWER,
    "DualRepAudioModel": TOWER,
    "DualRepImageModel": TOWER,
}
MEASURED_KEYS = ("metrics", "recipe", "seed", "code_version", "data_hash", "machine")


class CardError(ValueError):
    """A folder of which no truthful card can be made."""


@dataclass(frozen=True)
class CardFacts:
    """A run's folder, as far as its card speaks of it.

    Args:
        name: of the folder.
        kind: of the model, a value of KINDS.
        config: contents of config.json.
        measured: contents of metrics.json; None for a tower, which was measured in its whole.
        recipe: contents of recipe.yaml; None for a tower.
        data: contents of data.json, the set's own info.json; None where the set brought none.
        pictures: paths relative to the folder.
    """

    name: str
    kind: str
    config: dict[str, Any]
    measured: dict[str, Any] | None
    recipe: dict[str, Any] | None
    data: dict[str, Any] | None
    pictures: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """`split/name`: number; empty for a tower."""
        return {} if self.measured is None else self.measured["metrics"]

    @property
    def is_simulated(self) -> bool:
        """Whether the run made its recordings itself."""
        return self.recipe is not None and self.recipe.get("simulation") is not None


def read_facts(folder: Path) -> CardFacts:
    """The facts of a folder that pretrain, finetune_planes or finetune_saliency wrote, or of one tower.

    Raises:
        CardError: a file is missing or damaged, the model is none of ours, or metrics.json lacks a key.
    """
    folder = Path(folder)
    config = _read(folder / CONFIG_FILE)
    architectures = config.get("architectures")
    kind = KINDS.get(architectures[0]) if architectures else None
    if kind is None:
        raise CardError(
            f"{folder / CONFIG_FILE} names the architecture {architectures}, which is none of DualRep's: "
            "give a folder that train/pretrain.py, finetune_planes.py or finetune_saliency.py wrote."
        )
    is_tower = kind == TOWER
    return CardFacts(
        name=folder.resolve().name,
        kind=kind,
        config=config,
        measured=None if is_tower else _read_measured(folder / METRICS_FILE),
        recipe=None if is_tower else _read(folder / RECIPE_FILE),
        data=_read(folder / DATA_FILE) if (folder / DATA_FILE).is_file() else None,
        pictures=tuple(f"{PICTURES}/{path.name}" for path in sorted((folder / PICTURES).glob("*.png"))),
    )


def _read_measured(path: Path) -> dict[str, Any]:
    measured = _read(path)
    missing = [key for key in MEASURED_KEYS if key not in measured]
    if missing:
        raise CardError(f"{path} lacks {', '.join(missing)}: let the run that wrote it end again.")
    return measured


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CardError(
            f"{path} cannot be read ({error.strerror}): a card needs the files that training writes at "
            "its end."
        ) from error
    try:
        contents = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise CardError(f"{path} is damaged: {error}. Let the run that wrote it end again.") from error
    if not isinstance(contents, dict):
        raise CardError(f"{path} holds no fields. Let the run that wrote it end again.")
    return contents
