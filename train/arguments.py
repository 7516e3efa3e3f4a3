"""What a pretraining run is told: a recipe in YAML, flags over it, one frozen dataclass out of both.

Every field is checked at once, and a misspelt one is refused with the names that come near it, so that
nothing is learnt about a recipe only after hours of training.
"""

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from modeling_dualrep.configuration_dualrep import DualRepConfig

Arguments = TypeVar("Arguments")
COMMAND_LINE = "the command line"
SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine")


class ArgumentsError(ValueError):
    """A recipe or flag that cannot be used; the text says where it stands and what to do."""


@dataclass(frozen=True)
class AugmentationArguments:
    """How the frames of a clip are varied in training; the video and the single frame are varied apart.

    Args:
        crop_scale: smallest share of the frame's area that a crop keeps; 1 crops nothing.
        brightness: a frame is multiplied by a factor from 1 - brightness to 1 + brightness (gain of the
            machine).
        gamma: the exponent of the grey values lies between 1 / (1 + gamma) and 1 + gamma.
        horizontal_flip: probability of mirroring; 0 where left and right matter.
        rotation_degrees: the frame is turned by up to this angle either way.
        speckle: grey values are multiplied by noise around 1, of up to this standard deviation.
        shadow: probability of a fan-shaped shadow below the probe.
    """

    crop_scale: float = 0.7
    brightness: float = 0.2
    gamma: float = 0.3
    horizontal_flip: float = 0.0
    rotation_degrees: float = 0.0
    speckle: float = 0.0
    shadow: float = 0.0

    def __post_init__(self) -> None:
        require(self, "crop_scale", 0 < self.crop_scale <= 1, "above 0 and at most 1")
        require(self, "brightness", 0 <= self.brightness < 1, "at least 0 and below 1")
        require(self, "gamma", self.gamma >= 0, "at least 0")
        for name in ("horizontal_flip", "shadow"):
            require(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        require(self, "rotation_degrees", 0 <= self.rotation_degrees <= 45, "between 0 and 45")
        require(self, "speckle", 0 <= self.speckle <= 1, "between 0 and 1")


@dataclass(frozen=True)
class SpeechAugmentationArguments:
    """How the log-mel of a clip is varied in training; by default not at all.

    Args:
        stretch: speech becomes slower or quicker by up to this share.
        shift_bins: everything moves up or down by up to so many mel bins, as with another voice.
        gain_db: louder or quieter by up to this.
        masks: so many spans of time and bands of frequency are left out, as by SpecAugment (Park et al.,
            Interspeech 2019).
    """

    stretch: float = 0.0
    shift_bins: int = 0
    gain_db: float = 0.0
    masks: int = 0

    def __post_init__(self) -> None:
        for name in ("stretch", "shift_bins", "gain_db", "masks"):
            require(self, name, getattr(self, name) >= 0, "at least 0")


@dataclass(frozen=True)
class TowerWeightsArguments:
    """Weights that a tower starts from.

    Args:
        source: kinetics (video), imagenet (image), panns (audio, needs conv_dim 2), or the folder of a
            DualRep model.
        path: the file as published; left out, torchvision's are downloaded.
    """

    source: str
    path: str | None = None


@dataclass(frozen=True)
class SpeechWordsArguments:
    """Teaching the speech tower to hear, on synthetic everyday words, before it meets any recording.

    Args:
        steps: steps of the training; 0 leaves it out.
        batch_size: clips of 4 s a step.
        learning_rate: of Adam, rising and then falling to 0 along a cosine.
        words: how many different words there are to tell apart.
        readers: drawn voices, each of which reads all words once; one of them is held out.
        kept_in: folder where a taught tower is kept, by its first weights and how it was taught, and taken
            from by the next run that wants the same; left out, it is taught in every run.
    """

    steps: int = 0
    batch_size: int = 24
    learning_rate: float = 3e-3
    words: int = 128
    readers: int = 8
    kept_in: str | None = None

    def __post_init__(self) -> None:
        require(self, "steps", self.steps >= 0, "at least 0")
        for name in ("batch_size", "words", "readers"):
            require(self, name, getattr(self, name) >= 2, "at least 2")
        require(self, "learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True)
class PretrainArguments:
    """One pretraining run.

    Args:
        output_dir: folder for the model, its card, metrics.json, pictures, and the checkpoints on the way.
        overwrite_output_dir: start anew although output_dir holds another run.
        dataset: folder that `prepare_clips` wrote, its URL (`s3://...`, read by fsspec), or the id of a set
            on the Hub (`OWNER/NAME`, `hf://datasets/OWNER/NAME@REVISION`).
        dataset_config: the clips to take of it: medium (6 s), large (2 s), or any other length it holds.
        data_dir: where `recordings` and `clips` are made, when `simulation` is given in place of a dataset.
        simulation: fields of the simulator (see `python -m datasets_scripts.simulate_scans --help`).
        clips: fields of the cutting of those recordings (see `python -m datasets_scripts.prepare_clips
            --help`).
        model: fields of DualRepConfig, with video_config, audio_config and image_config inside.
        video_weights, audio_weights, image_weights: pre-trained weights that a tower starts from.
        speech_words: teach the speech tower everyday words first.
        seed: of the weights, the order of the clips and the augmentation.
        max_steps: optimizer steps; where it is given, num_train_epochs is not looked at.
        num_train_epochs: passes over the training clips.
        per_device_train_batch_size: clips a step on each process; the other clips of the batch are the
            negatives.
        learning_rate: of Adam.
        weight_decay: of Adam, added to the gradient.
        lr_scheduler_type: constant, constant_with_warmup, linear or cosine.
        warmup_steps: steps over which the learning rate rises from 0.
        max_grad_norm: the gradient is scaled down to this norm where it is longer.
        mean_negatives_steps: first steps in which the similarity losses take the mean over all negatives,
            before those that model.negatives names.
        mixed_precision: no (float32) or bf16; where it is left out, what accelerate was configured to, and
            else bf16 where the hardware computes it quickly. The saved weights are float32 in any case.
        deterministic: on a GPU, compute with algorithms that give the same bits every time, slower; on a CPU
            they do so anyway.
        compile_towers: compile each tower with torch.compile; it takes minutes at first, and pays on GPUs.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        gradient_cache_clips: clips that go through the towers at a time, twice, so that a batch may be far
            larger than memory; the gradient stays that of the whole batch. In training each such part is
            normalised by its own BatchNorm statistics. Left out: all clips at once.
        sync_batch_norm: BatchNorm of the video and the frame over the clips of all processes; needs GPUs.
        dataloader_num_workers: processes that decode clips; 0 decodes in the training process.
        max_train_clips: train on so many clips alone, drawn by the seed; left out: on all.
        shuffle_buffer_clips: clips from which the next one is drawn, on top of shuffled shards.
        max_clips_of_scan: most clips of one scan in a batch, that of all processes; left out: as they come.
        clips_of_scan_together: clips of one scan that stand together in the order, so that many negatives
            are of the same scan and differ in what is shown; left out: as they come.
        near_duplicate_seconds: clips of one scan that start in the same window of this length do not count as
            negatives of each other.
        keep_clips_in_memory: every worker keeps the clips that it has decoded; for small sets.
        augmentation: how frames are varied in training.
        speech_augmentation: how speech is varied in training.
        minimum_speech_fraction: a clip in which less of the time is speech counts as one without usable
            sound.
        evaluation_steps: evaluate on held-out scans every so many steps; left out: only at the end.
        evaluation_clips: clips in the gallery that retrieval searches.
        checkpointing_steps: write a checkpoint every so many steps, and after the last one; left out: none,
            but at SIGTERM.
        checkpoints_total_limit: older checkpoints are removed beyond this number.
        resume_from_checkpoint: `last`, `last_or_new` (start anew where no checkpoint was written yet: for
            jobs that a cluster puts back into its queue), or the path of a checkpoint folder.
        bad_steps_limit: a step whose loss or gradient is no number is skipped; so many in a row end the run,
            at the next log line.
        logging_steps: steps between two log lines.
        report_to: tracker of accelerate's: tensorboard, wandb, ..., or none.
        push_to_hub: ORG/NAME on the Hub, where the finished model is published, in private.
        expected_processes: processes that are meant to train together, on all machines; the run refuses
            another number. Left out: any.
    """

    output_dir: str
    overwrite_output_dir: bool = False
    dataset: str | None = None
    dataset_config: str = "medium"
    data_dir: str | None = None
    simulation: dict | None = None
    clips: dict | None = None
    model: dict = field(default_factory=dict)
    video_weights: TowerWeightsArguments | None = None
    audio_weights: TowerWeightsArguments | None = None
    image_weights: TowerWeightsArguments | None = None
    speech_words: SpeechWordsArguments = field(default_factory=SpeechWordsArguments)
    seed: int = 0
    max_steps: int | None = None
    num_train_epochs: int | None = None
    per_device_train_batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    lr_scheduler_type: str = "constant"
    warmup_steps: int = 0
    max_grad_norm: float | None = None
    mean_negatives_steps: int = 0
    mixed_precision: str | None = None
    deterministic: bool = False
    compile_towers: bool = False
    gradient_checkpointing: bool = False
    gradient_cache_clips: int | None = None
    sync_batch_norm: bool = False
    dataloader_num_workers: int = 0
    max_train_clips: int | None = None
    shuffle_buffer_clips: int = 1000
    max_clips_of_scan: int | None = None
    clips_of_scan_together: int | None = None
    near_duplicate_seconds: float | None = None
    keep_clips_in_memory: bool = False
    augmentation: AugmentationArguments = field(default_factory=AugmentationArguments)
    speech_augmentation: SpeechAugmentationArguments = field(default_factory=SpeechAugmentationArguments)
    minimum_speech_fraction: float = 0.0
    evaluation_steps: int | None = None
    evaluation_clips: int = 100
    checkpointing_steps: int | None = None
    checkpoints_total_limit: int = 3
    resume_from_checkpoint: str | None = None
    bad_steps_limit: int = 10
    logging_steps: int = 10
    report_to: str = "tensorboard"
    push_to_hub: str | None = None
    expected_processes: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        one_source = (self.dataset is None) != (self.simulation is None)
        require(self, "dataset", one_source, "given, unless a simulation is given in its place (not both)")
        made = self.simulation is None or self.data_dir is not None
        require(self, "data_dir", made, "given with a simulation: recordings and clips are written there")
        length = self.max_steps is not None or self.num_train_epochs is not None
        require(self, "max_steps", length, "given, or num_train_epochs")
        require(
            self, "lr_scheduler_type", self.lr_scheduler_type in SCHEDULERS, f"one of {', '.join(SCHEDULERS)}"
        )
        precisions = (None, "no", "bf16")
        require(self, "mixed_precision", self.mixed_precision in precisions, "no or bf16")
        in_one_graph = not (self.gradient_checkpointing or self.sync_batch_norm)
        require(
            self,
            "compile_towers",
            in_one_graph or not self.compile_towers,
            "False with gradient_checkpointing or sync_batch_norm, which break the graph of a tower",
        )

    def _check_numbers(self) -> None:
        positive = (
            "max_steps",
            "num_train_epochs",
            "evaluation_steps",
            "checkpointing_steps",
            "logging_steps",
        )
        positive += ("checkpoints_total_limit", "shuffle_buffer_clips", "expected_processes")
        positive += ("bad_steps_limit", "gradient_cache_clips", "max_train_clips")
        for name in positive:
            value = getattr(self, name)
            require(self, name, value is None or value >= 1, "at least 1")
        for name in ("per_device_train_batch_size", "evaluation_clips"):
            require(self, name, getattr(self, name) >= 2, "at least 2: a clip alone has no negatives")
        for name in ("weight_decay", "warmup_steps", "mean_negatives_steps", "dataloader_num_workers"):
            require(self, name, getattr(self, name) >= 0, "at least 0")
        for name in ("max_clips_of_scan", "clips_of_scan_together"):
            clips = getattr(self, name)
            require(self, name, clips is None or clips >= 1, "at least 1")
        is_one = self.max_clips_of_scan is None or self.clips_of_scan_together is None
        require(self, "clips_of_scan_together", is_one, "left out where max_clips_of_scan is given")
        window = self.near_duplicate_seconds
        require(self, "near_duplicate_seconds", window is None or window > 0, "above 0 seconds")
        share = 0 <= self.minimum_speech_fraction <= 1
        require(self, "minimum_speech_fraction", share, "between 0 and 1")
        require(self, "learning_rate", self.learning_rate > 0, "above 0")
        require(self, "max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0, "above 0")

    def model_config(self) -> DualRepConfig:
        """The model's configuration; its own refusals become errors of the field `model`.

        Raises:
            ArgumentsError: the section `model` holds an unknown field, a value that makes no sense, or leaves
                a tower out that another section gives something to begin with.
        """
        try:
            config = DualRepConfig(**self.model)
        except (TypeError, ValueError) as error:
            raise ArgumentsError(f"Under `model`: {error}") from error
        self._check_towers(config)
        return config

    def _check_towers(self, config: DualRepConfig) -> None:
        for switch, begins_with in (
            ("use_audio", {"audio_weights": self.audio_weights, "speech_words": self.speech_words.steps}),
            ("use_image", {"image_weights": self.image_weights}),
        ):
            for name, given in begins_with.items():
                if given and not getattr(config, switch):
                    raise ArgumentsError(
                        f"{name} is for a tower that model.{switch} false leaves out: leave out the one or "
                        "the other."
                    )

    def to_yaml(self) -> str:
        """The run as a recipe, every field written out."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 3e-3 for a text; recipes are full of such numbers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def require(arguments: Any, name: str, holds: bool, what: str) -> None:
    """Raises ArgumentsError unless `holds`; `what` says what the field must be."""
    if not holds:
        raise ArgumentsError(f"{name} is {getattr(arguments, name)!r}, but must be {what}.")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The fields of a YAML recipe, not yet checked.

    Raises:
        ArgumentsError: no such file, or not a mapping of fields.
    """
    path = Path(path)
    if not path.is_file():
        raise ArgumentsError(f"There is no recipe {path}. Give the path of a YAML file.")
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ArgumentsError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ArgumentsError(
            f"{path} holds no fields. A recipe is made of lines such as `learning_rate: 3e-3`."
        )
    return recipe


def read_flags(flags: list[str]) -> dict[str, Any]:
    """Nested fields from `--field value`, `--field=value` and `--section.field value`; values are read as
    YAML.

    Raises:
        ArgumentsError: a flag without a value, or a value without a flag.
    """
    fields: dict[str, Any] = {}
    words = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    for position in range(0, len(words), 2):
        flag, value = words[position], words[position + 1 : position + 2]
        if not flag.startswith("--"):
            raise ArgumentsError(f"{flag!r} on the command line belongs to no flag. Write `--field value`.")
        if not value or re.match(r"--[A-Za-z]", value[0]):
            raise ArgumentsError(f"{flag} has no value. Write `{flag} value`.")
        *sections, name = flag.removeprefix("--").split(".")
        place = fields
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.load(value[0], _Loader)
    return fields


def build(cls: type[Arguments], fields: dict[str, Any], source: str, section: str = "") -> Arguments:
    """A checked dataclass out of a mapping.

    Args:
        cls: the dataclass; its field types are held, nested dataclasses are built from nested mappings.
        fields: what the recipe or the command line says.
        source: file or command line, for the text of an error.
        section: dotted name of the section that `fields` stands in.

    Raises:
        ArgumentsError: an unknown field, a value of another type, or one that the dataclass refuses.
    """
    check_names(cls, fields, source, section)
    hints = typing.get_type_hints(cls)
    values = {
        name: _typed(hints[name], value, source, _dotted(section, name)) for name, value in fields.items()
    }
    missing = [f.name for f in dataclasses.fields(cls) if _is_required(f) and f.name not in values]
    if missing:
        raise ArgumentsError(f"{source}: {_dotted(section, missing[0])} is missing, and has no default.")
    try:
        return cls(**values)
    except ValueError as error:
        raise ArgumentsError(f"{source}: {_dotted(section, '')}{error}") from error


def check_names(cls: type, fields: dict[str, Any], source: str, section: str = "") -> None:
    """Raises ArgumentsError for a field that the dataclass does not have, naming those that come near."""
    known = [f.name for f in dataclasses.fields(cls)]
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"The fields are: {', '.join(known)}."
            raise ArgumentsError(f"{source}: there is no field {_dotted(section, str(name))!r}. {hint}")


def merge(fields: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`fields` with those of `over` put in their place, section by section."""
    merged = dict(fields)
    for name, value in over.items():
        nested = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if nested else value
    return merged


def parse_arguments(command_line: list[str], default_recipe: str | Path) -> PretrainArguments:
    """The arguments of a run from `[RECIPE.yaml] [--field value ...]`.

    Without a recipe and without `--dataset` the default recipe is taken; with `--dataset` alone, the fields'
    defaults.

    Raises:
        ArgumentsError: anything that cannot be used, with the file or flag and what to do.
    """
    has_recipe = bool(command_line) and not command_line[0].startswith("--")
    flags = read_flags(command_line[1:] if has_recipe else command_line)
    check_names(PretrainArguments, flags, COMMAND_LINE)
    if has_recipe:
        source = command_line[0]
    elif "dataset" in flags:
        return _with_model_checked(build(PretrainArguments, flags, COMMAND_LINE), COMMAND_LINE)
    else:
        source = str(default_recipe)
    recipe = read_recipe(source)
    check_names(PretrainArguments, recipe, source)
    if "dataset" in flags and "simulation" in recipe:
        recipe = {
            name: value for name, value in recipe.items() if name not in ("simulation", "clips", "data_dir")
        }
    place = f"{source} with {COMMAND_LINE}" if flags else source
    return _with_model_checked(build(PretrainArguments, merge(recipe, flags), place), place)


def help_text(cls: type = PretrainArguments) -> str:
    """The dataclass's own description with the default of every field."""
    lines = [cls.__doc__.strip(), "", "Defaults:"]
    for f in dataclasses.fields(cls):
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        shown = "(must be given)" if _is_required(f) else default
        lines.append(f"  --{f.name} {shown}")
    return "\n".join(lines)


def _with_model_checked(arguments: PretrainArguments, source: str) -> PretrainArguments:
    try:
        arguments.model_config()
    except ArgumentsError as error:
        raise ArgumentsError(f"{source}: {error}") from error
    return arguments


def _typed(hint: Any, value: Any, source: str, name: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    wanted = next(option for option in options if option is not types.NoneType)
    if dataclasses.is_dataclass(wanted) and isinstance(value, dict):
        return build(wanted, value, source, name)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(typing.get_args(wanted)[0], each, source, name) for each in value)
    if typing.get_origin(wanted) is typing.Literal:
        wanted = str
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        kind = (
            "a section of fields" if dataclasses.is_dataclass(wanted) or wanted is dict else wanted.__name__
        )
        raise ArgumentsError(f"{source}: {name} is {value!r}, but must be of type {kind}.")
    return value


def _is_required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _dotted(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name
