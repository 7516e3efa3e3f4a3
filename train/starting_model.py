"""The model that fine-tuning starts from: a tower, pretrained or new, under a new head."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.convert_weights import load_tower_weights
from train.arguments import merge
from train.finetune_arguments import FinetuneArguments

RANDOM, IMAGENET = "random", "imagenet"


class StartingModelError(ValueError):
    """A model that fine-tuning cannot start from; the text says why and what to do."""


def starting_model(
    model_class: type[PreTrainedModel],
    model: str,
    config_fields: dict[str, Any],
    linear_probe: bool = False,
    **head_fields: Any,
) -> PreTrainedModel:
    """A task model whose tower holds the weights asked for, and whose head is drawn.

    Args:
        model_class: a task model on the image or the video tower.
        model: the folder of a DualRep model or its id on the Hub, whose tower is taken; `random`, a new one;
            or `imagenet`, for the image tower at full size.
        config_fields: fields of DualRepConfig, over the folder's own.
        linear_probe: freeze the tower.
        head_fields: fields of DualRepConfig that describe the head, such as id2label.

    Raises:
        StartingModelError: no such model, one without the tower that the task needs or with weights that do
            not fit `config_fields`, or weights that cannot be downloaded.
    """
    (modality,) = model_class.input_modalities
    config = starting_config(model, config_fields, **head_fields)
    getattr(config, f"{modality}_config").freeze = linear_probe
    started = model_class(config)
    tower = getattr(started, f"{modality}_model")
    if model == IMAGENET:
        _load_imagenet(tower, modality)
    elif model != RANDOM:
        _load_tower(tower, model, modality)
    return started


def starting_config(model: str, config_fields: dict[str, Any], **head_fields: Any) -> DualRepConfig:
    """The configuration of `starting_model`, which tells the size of the frames before there is a model.

    Raises:
        StartingModelError: no such model, or fields that it refuses.
    """
    is_saved = model not in (RANDOM, IMAGENET)
    fields = merge(read_config_fields(model), config_fields) if is_saved else config_fields
    try:
        return DualRepConfig.from_dict(fields | head_fields)
    except (TypeError, ValueError) as error:
        raise StartingModelError(f"Under `model_config`: {error}") from error


def given_config_fields(arguments: FinetuneArguments) -> dict[str, Any]:
    """The fields of `model_config`, over those of the model that `config_from` names.

    Raises:
        StartingModelError: there is no such model.
    """
    if arguments.config_from is None:
        return arguments.model_config
    return merge(read_config_fields(arguments.config_from), arguments.model_config)


def read_config_fields(model: str) -> dict[str, Any]:
    """The fields of a saved model's DualRepConfig.

    Args:
        model: its folder, or its id on the Hub.

    Raises:
        StartingModelError: there is none, or it is of another architecture.
    """
    try:
        if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
            # transformers would take the default configuration
            raise ValueError("the folder has no config.json.")
        return DualRepConfig.from_pretrained(model).to_dict()
    except (OSError, ValueError) as error:
        raise StartingModelError(
            f"There is no DualRep model {model!r}: {error} Give the folder that train/pretrain.py wrote, a "
            f"model's id on the Hub, or {RANDOM}."
        ) from error


def _load_tower(tower: PreTrainedModel, model: str, modality: str) -> None:
    """Puts the tower of a saved model, alone or beside others, into the new one."""
    try:
        saved = type(tower).from_pretrained(model)
    except (OSError, ValueError) as error:
        raise StartingModelError(f"{model} gives no {modality} tower: {error}") from error
    try:
        tower.load_state_dict(saved.state_dict())
    except RuntimeError as error:
        raise StartingModelError(
            f"The {modality} tower of {model} does not fit model_config, which gives it another shape: leave "
            f"{modality}_config out of it, and the saved one is taken."
        ) from error


def _load_imagenet(tower: PreTrainedModel, modality: str) -> None:
    if modality != "image":
        raise StartingModelError(
            "ImageNet's weights are for frames, not for clips. For clips, write a folder with Kinetics' by "
            "`python -m modeling_dualrep.convert_weights --video kinetics FOLDER`, and give it as model."
        )
    try:
        load_tower_weights(tower, IMAGENET)
    except OSError as error:
        raise StartingModelError(
            f"torchvision's ImageNet weights cannot be downloaded ({error}). Download them where there is a "
            "network, write a folder by `python -m modeling_dualrep.convert_weights --image FILE FOLDER`, "
            "and give it as model."
        ) from error
    except ValueError as error:
        raise StartingModelError(f"{error} Leave image_config out of model_config.") from error
