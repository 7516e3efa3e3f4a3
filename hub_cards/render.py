"""Writes a model's card from the files that its run left.

python -m hub_cards.render RUN_FOLDER [--model_id ORG/NAME] [--base_model ORG/NAME]
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id

from hub_cards.card_facts import (
    IMAGE_PLANES,
    PRETRAINED,
    SALIENCY,
    TOWER,
    VIDEO_PLANES,
    CardError,
    CardFacts,
    read_facts,
)
from hub_cards.card_results import eval_results, found_limits, results_text

CARD_FILE = "README.md"
LICENSE = "apache-2.0"
NO_ID = "PATH_OR_HUB_ID"
TEMPLATES = {
    PRETRAINED: "model_card.md",
    IMAGE_PLANES: "planes_model_card.md",
    VIDEO_PLANES: "planes_model_card.md",
    SALIENCY: "saliency_model_card.md",
    TOWER: "tower_model_card.md",
}
PIPELINE_TAGS = {
    PRETRAINED: "feature-extraction",
    IMAGE_PLANES: "image-classification",
    VIDEO_PLANES: "video-classification",
    SALIENCY: "image-feature-extraction",
    TOWER: "feature-extraction",
}
TAGS = {
    PRETRAINED: ["self-supervised", "audio-visual", "retrieval"],
    IMAGE_PLANES: ["standard-planes"],
    VIDEO_PLANES: ["standard-planes"],
    SALIENCY: ["saliency", "gaze"],
    TOWER: ["self-supervised"],
}
# What a tower takes, by the model_type of its configuration.
TOWERS = {"dualrep_video": "video", "dualrep_audio": "speech", "dualrep_image": "image"}
# Fields of recipe.yaml that a card shows; none that may hold a path of somebody's machine.
RECIPE_FIELDS = (
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "mixed_precision",
    "max_train_clips",
    "minimum_speech_fraction",
    "linear_probe",
    "balance",
    "label_share",
    "split_method",
    "num_splits",
)
STARTING_WEIGHTS = ("video_weights", "audio_weights", "image_weights")
PUBLIC_WEIGHTS = ("kinetics", "imagenet", "panns")
OBJECTIVE_FIELDS = (
    "projection_dim",
    "temperature",
    "contrastive_balance",
    "margin",
    "negatives",
    "use_contrastive_loss",
    "use_similarity_loss",
    "use_audio",
    "use_image",
    "audio_loss_weight",
    "image_loss_weight",
    "fuse_candidates_with_anchor_video",
)
# Fields of the set's info.json that say nothing of its rows.
DATA_FIELDS_LEFT_OUT = ("config", "data_hash", "former_data_hashes")


def render_card(folder: Path, model_id: str | None = None, base_model: str | None = None) -> ModelCard:
    """The card of a folder that a run left, or of a single tower.

    Args:
        folder: with config.json and, but for a tower, metrics.json and recipe.yaml; data.json and pictures as
            far as there are any.
        model_id: id on the Hub that the snippets load; None leaves it open.
        base_model: id on the Hub of the model that it started from, if there is one.

    Raises:
        CardError: see `read_facts`; or an id that the Hub refuses.
    """
    facts = read_facts(folder)
    for name in (model_id, base_model):
        _check_id(name)
    return ModelCard.from_template(
        card_data(facts, model_id, base_model),
        template_path=str(Path(__file__).with_name(TEMPLATES[facts.kind])),
        **template_values(facts, model_id, base_model),
    )


def write_card(folder: Path, model_id: str | None = None, base_model: str | None = None) -> Path:
    """Writes the card of a folder into it, over an older one; returns its path.

    Raises:
        CardError: see `render_card`.
    """
    path = Path(folder) / CARD_FILE
    aside = path.with_name(f".{CARD_FILE}.partial")
    aside.write_text(str(render_card(folder, model_id, base_model)), encoding="utf-8")
    os.replace(aside, path)
    return path


def hub_id(model: str) -> str | None:
    """The id on the Hub of what a recipe calls its model; None for a folder here, `random` or `imagenet`."""
    if "/" not in model or Path(model).exists():
        return None
    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return model


def present_base_model(folder: Path) -> str | None:
    """The base model that the folder's present card names."""
    path = Path(folder) / CARD_FILE
    if not path.is_file():
        return None
    return ModelCard.load(path).data.base_model


def card_data(facts: CardFacts, model_id: str | None, base_model: str | None) -> ModelCardData:
    """The metadata, with every result in the model index."""
    results = eval_results(facts)
    return ModelCardData(
        base_model=base_model,
        eval_results=results or None,
        library_name="transformers",
        license=LICENSE,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=_title(facts, model_id) if results else None,
        pipeline_tag=PIPELINE_TAGS[facts.kind],
        tags=["fetal-ultrasound", "dualrep", *TAGS[facts.kind]],
    )


def template_values(facts: CardFacts, model_id: str | None, base_model: str | None) -> dict[str, Any]:
    """What the templates name."""
    measured = facts.measured
    machine = measured and measured["machine"]
    return {
        "facts": facts,
        "model_name": _title(facts, model_id),
        "model_id": model_id or NO_ID,
        "base_model": base_model,
        "measured": measured,
        "results": results_text(facts),
        "limits": found_limits(facts),
        "recipe_table": settings_table(facts),
        "data_table": data_table(facts),
        "machine": machine and f"{machine['gpu'] or machine['cpu']} ({machine['cores']} cores)",
        "space": "embeds" if facts.config.get("use_contrastive_loss") else "similarity_embeds",
        "tower": TOWERS.get(facts.config["model_type"]),
        "citation": Path(__file__).with_name("citation.md").read_text(encoding="utf-8").strip(),
    }


def settings_table(facts: CardFacts) -> str:
    """The settings of the run that the recipe gives, and of a pretraining its objective, as Markdown."""
    if facts.recipe is None:
        return ""
    settings = {name: facts.recipe[name] for name in RECIPE_FIELDS if name in facts.recipe}
    if facts.kind == PRETRAINED:
        settings |= {name: _source(facts.recipe[name]) for name in STARTING_WEIGHTS}
        settings |= _everyday_words(facts.recipe["speech_words"])
        settings |= {name: facts.config[name] for name in OBJECTIVE_FIELDS}
    return _two_columns("setting", settings)


def data_table(facts: CardFacts) -> str:
    """What the set says of itself, as Markdown; empty where it says nothing."""
    if facts.data is None:
        return ""
    fields = {name: value for name, value in facts.data.items() if name not in DATA_FIELDS_LEFT_OUT}
    return _two_columns("the set", fields)


def _two_columns(title: str, fields: dict[str, Any]) -> str:
    rows = [
        f"| {name.replace('_', ' ')} | {_shown(value)} |"
        for name, value in fields.items()
        if value is not None
    ]
    return "\n".join([f"| {title} | |", "|---|---|", *rows])


def _source(weights: dict[str, Any] | None) -> str | None:
    """Where a tower's first weights are from; a folder of somebody's machine is not named."""
    if weights is None:
        return None
    return weights["source"] if weights["source"] in PUBLIC_WEIGHTS else "another model of this kind"


def _everyday_words(taught: dict[str, Any]) -> dict[str, Any]:
    """What the speech tower was taught before, as settings."""
    if not taught["steps"]:
        return {}
    return {"everyday words taught before": taught["words"], "steps on everyday words": taught["steps"]}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(facts: CardFacts, model_id: str | None) -> str:
    return model_id.split("/")[-1] if model_id else facts.name


def _check_id(name: str | None) -> None:
    if name is None:
        return
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CardError(f"{name!r} is no name of a model on the Hub: {error}") from error


def main(command_line: list[str] | None = None) -> int:
    """Writes the card; a folder of which none can be made ends in a sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m hub_cards.render", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that a run left")
    parser.add_argument("--model_id", help="id on the Hub that the card's snippets load")
    parser.add_argument("--base_model", help="id on the Hub of the model that it started from; as before")
    arguments = parser.parse_args(command_line)
    try:
        base_model = arguments.base_model or present_base_model(arguments.folder)
        path = write_card(arguments.folder, arguments.model_id, base_model)
    except CardError as error:
        print(f"render: {error}", file=sys.stderr)
        return 2
    print(f"Card: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
