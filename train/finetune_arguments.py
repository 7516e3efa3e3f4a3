"""What a fine-tuning run is told: the fields that both tasks share, and those of each."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml

from datasets_scripts.schema import GAZE_CONFIG, PLANE_CLIPS_CONFIG, PLANES_CONFIG
from train.arguments import (
    COMMAND_LINE,
    SCHEDULERS,
    AugmentationArguments,
    build,
    check_names,
    merge,
    read_flags,
    read_recipe,
    require,
)
from train.fixation_maps import GaussianArguments

SPLIT_METHODS = ("random", "group_k_fold", "given")
BALANCES = ("none", "class_weights", "balanced_sampling")
Arguments = TypeVar("Arguments", bound="FinetuneArguments")


@dataclass(frozen=True)
class FinetuneArguments:
    """What fine-tuning for any task is told.

    Args:
        output_dir: folder for the model of the first split, metrics.json, splits.json, predictions, pictures.
        model: where the tower's weights come from: the folder of a DualRep model or its id on the Hub,
            `random`, or `imagenet` (torchvision's ResNet18, for frames). The head is always new.
        dataset: folder that `prepare_planes`, `prepare_gaze` or `public_sets` wrote, its URL (`s3://...`,
            read by fsspec), or the id of a set on the Hub (`OWNER/NAME`, `hf://datasets/OWNER/NAME@REVISION`).
        dataset_config: configuration of the set.
        overwrite_output_dir: start anew although output_dir holds another run.
        config_from: folder or id of a model whose configuration, not its weights, `random` takes.
        model_config: fields of DualRepConfig, over those that come with `model` or `config_from`.
        split_method: random, group_k_fold, or given (the split that the set is stored in). All by patient.
        num_splits: random splits or folds; the result is the mean over them.
        train_share: share of the patients that a random split trains on.
        split_file: splits.json of an earlier run, to compare on the same splits; then split_method is not
            looked at.
        label_share: share of the training frames of each split that is trained on, drawn by the seed, of each
            class alike; every class keeps one frame at least.
        seed: of the splits, the head, the order of the frames and their augmentation.
        max_steps: optimizer steps of each split; where it is given, num_train_epochs is not looked at.
        num_train_epochs: passes over the training frames of each split.
        per_device_train_batch_size: frames a step on each process.
        per_device_eval_batch_size: frames at a time in testing.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        lr_scheduler_type: constant, constant_with_warmup, linear or cosine.
        warmup_steps: steps over which the learning rate rises from 0.
        max_grad_norm: the gradient is scaled down to this norm where it is longer.
        mixed_precision: no or bf16; where it is left out, accelerate's own configuration decides.
        linear_probe: train the head alone, on a frozen tower.
        augmentation: how frames are varied in training.
        dataloader_num_workers: processes that vary frames; 0 does it in the training process.
        report_to: tracker of transformers: tensorboard, wandb, ..., or none.
        push_to_hub: ORG/NAME on the Hub, where the finished model is published, in private.
        logging_steps: steps between two log lines.
        frame_memory: memory, or memory_map for sets that do not fit: a file beside output_dir while it runs.
    """

    output_dir: str
    model: str
    dataset: str
    dataset_config: str = PLANES_CONFIG
    overwrite_output_dir: bool = False
    config_from: str | None = None
    model_config: dict = field(default_factory=dict)
    split_method: str = "random"
    num_splits: int = 5
    train_share: float = 2 / 3
    split_file: str | None = None
    label_share: float = 1.0
    seed: int = 0
    max_steps: int | None = None
    num_train_epochs: int | None = None
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    mixed_precision: str | None = None
    linear_probe: bool = False
    augmentation: AugmentationArguments = field(default_factory=AugmentationArguments)
    dataloader_num_workers: int = 0
    report_to: str = "none"
    push_to_hub: str | None = None
    logging_steps: int = 50
    frame_memory: str = "memory"

    def __post_init__(self) -> None:
        self._check_numbers()
        _require_one_of(self, "split_method", SPLIT_METHODS)
        _require_one_of(self, "lr_scheduler_type", SCHEDULERS)
        _require_one_of(self, "frame_memory", ("memory", "memory_map"))
        require(self, "mixed_precision", self.mixed_precision in (None, "no", "bf16"), "no or bf16")
        length = self.max_steps is not None or self.num_train_epochs is not None
        require(self, "max_steps", length, "given, or num_train_epochs")
        random = self.config_from is None or self.model == "random"
        require(self, "config_from", random, "left out, unless model is random")

    def _check_numbers(self) -> None:
        positive = ("max_steps", "num_train_epochs", "num_splits", "logging_steps")
        positive += ("per_device_train_batch_size", "per_device_eval_batch_size")
        for name in positive:
            value = getattr(self, name)
            require(self, name, value is None or value >= 1, "at least 1")
        for name in ("seed", "weight_decay", "warmup_steps", "dataloader_num_workers"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "max_grad_norm"):
            require(self, name, getattr(self, name) > 0, "above 0")
        require(self, "train_share", 0 < self.train_share < 1, "above 0 and below 1")
        require(self, "label_share", 0 < self.label_share <= 1, "above 0 and at most 1")

    def to_yaml(self) -> str:
        """The run as a recipe, every field written out."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class FinetunePlanesArguments(FinetuneArguments):
    """Fine-tuning for standard plane detection: frames (`planes`) or clips (`plane_clips`) to planes.

    Args, beside those of every fine-tuning (see FinetuneArguments):
        balance: none; class_weights, a loss that weighs each frame by how rare its class is; or
            balanced_sampling, which shows all classes equally often. Rare means: in the training split.
    """

    balance: str = "balanced_sampling"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_of(self, "dataset_config", (PLANES_CONFIG, PLANE_CLIPS_CONFIG))
        _require_one_of(self, "balance", BALANCES)


@dataclass(frozen=True)
class FinetuneSaliencyArguments(FinetuneArguments):
    """Fine-tuning for saliency: frames to maps of where the sonographer looks.

    The loss and the centre bias are fields of the model: `saliency_loss` and `saliency_center_bias` in
    `model_config`.

    Args, beside those of every fine-tuning (see FinetuneArguments):
        fixation_maps: the Gaussian that makes a map of fixations: `sigma_share`, or `sigma_degrees` with
            `image_width_degrees`.
        compare_with_random: train a randomly initialised model of the same architecture on the first split
            too, for the picture and the table; not where model is random itself.
        pictured_frames: rows of the picture, each a test frame of another scan.
    """

    dataset_config: str = GAZE_CONFIG
    fixation_maps: GaussianArguments = field(default_factory=lambda: GaussianArguments(sigma_share=0.05))
    compare_with_random: bool = True
    pictured_frames: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "pictured_frames", self.pictured_frames >= 1, "at least 1")


def parse_finetune_arguments(cls: type[Arguments], command_line: list[str]) -> tuple[Arguments, str]:
    """The arguments of a run from `[RECIPE.yaml] [--field value ...]`, and the recipe's name.

    Raises:
        ArgumentsError: anything that cannot be used, with the file or flag and what to do.
    """
    has_recipe = bool(command_line) and not command_line[0].startswith("--")
    flags = read_flags(command_line[1:] if has_recipe else command_line)
    check_names(cls, flags, COMMAND_LINE)
    if not has_recipe:
        return build(cls, flags, COMMAND_LINE), cls.__name__.removesuffix("Arguments").lower()
    source = command_line[0]
    recipe = read_recipe(source)
    check_names(cls, recipe, source)
    place = f"{source} with {COMMAND_LINE}" if flags else source
    return build(cls, merge(recipe, flags), place), Path(source).stem


def _require_one_of(arguments: FinetuneArguments, name: str, choices: tuple[str, ...]) -> None:
    require(arguments, name, getattr(arguments, name) in choices, f"one of {', '.join(choices)}")
