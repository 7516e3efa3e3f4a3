"""What `train/reproduce.py` is told: tables of rows, the pretrainings behind them, seeds, splits, searches.

A pretraining is made in settings: `printed`, the paper's own, `best`, and each option alone. A row is one
initialisation and the way it is fine-tuned; a table is rows in settings on tasks.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from train.arguments import ArgumentsError, build, check_names, merge, read_recipe, require
from train.rate_search import SearchSpec
from train.starting_model import IMAGENET, RANDOM

# On the image tower, on the video tower, and with either of them frozen.
PLANES, SALIENCY, PLANE_CLIPS, FROZEN = "planes", "saliency", "plane_clips", "_frozen"
TASKS = tuple(base + end for base in (PLANES, SALIENCY, PLANE_CLIPS) for end in ("", FROZEN))
STEPS, EPOCHS, CLIPS = "steps", "epochs", "clips"
MEDIUM, LARGE = "medium", "large"


@dataclass(frozen=True)
class SettingSpec:
    """One way to pretrain.

    Args:
        title: for the tables.
        over: the setting whose fields it takes over; None: those of `pretraining` alone.
        fields: of PretrainArguments, put over those.
    """

    title: str
    over: str | None = None
    fields: dict = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainingSpec:
    """What is pretrained on, and what is left out of the model, in whichever setting.

    Args:
        clips: medium (6 s) or large (2 s).
        matched_in: steps: as many optimizer steps as the setting says; epochs: as many passes over these
            clips as that makes over the medium ones; clips: as many steps, on as many clips as there are
            medium ones, drawn by the seed.
        fields: of PretrainArguments, put over those of the setting.
        relevant_speech: share of the remarks that are about the picture; None: as the benchmark has it.
        shuffled_speech: every clip has the sound of another one.
    """

    clips: str = MEDIUM
    matched_in: str = STEPS
    fields: dict = field(default_factory=dict)
    relevant_speech: float | None = None
    shuffled_speech: bool = False

    def __post_init__(self) -> None:
        require(self, "clips", self.clips in (MEDIUM, LARGE), f"{MEDIUM} or {LARGE}")
        matched = self.matched_in in (STEPS, EPOCHS, CLIPS)
        require(self, "matched_in", matched, f"{STEPS}, {EPOCHS} or {CLIPS}")
        share = self.relevant_speech is None or 0 <= self.relevant_speech <= 1
        require(self, "relevant_speech", share, "between 0 and 1")


@dataclass(frozen=True)
class RowSpec:
    """One initialisation, and how it is fine-tuned.

    Args:
        title: for the tables.
        start: imagenet, random, or the name of a pretraining.
        finetuning: fields of the fine-tuning, put over those of the task.
    """

    title: str
    start: str
    finetuning: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TableSpec:
    """Rows side by side, in each setting, on each task.

    Args:
        title: above the table.
        tasks: planes, saliency (both of frames), plane_clips; or these with `_frozen`, the head alone
            trained.
        rows: names of rows.
        settings: in which pretraining is done.
        draws: of the data, among the recipe's; None: all of these.
    """

    title: str
    tasks: tuple[str, ...]
    rows: tuple[str, ...]
    settings: tuple[str, ...]
    draws: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        require(self, "tasks", set(self.tasks) <= set(TASKS), f"among {', '.join(TASKS)}")


@dataclass(frozen=True)
class ClaimSpec:
    """A difference that the paper, or this project, expects; rows by their full names, setting included."""

    name: str
    task: str
    metric: str
    better: str
    worse: str


@dataclass(frozen=True)
class ExperimentRecipe:
    """Everything that decides which runs there are.

    Args:
        name: for titles and metrics.json.
        quick: sizes of a smoke test, whose numbers mean nothing.
        seeds: of pretraining, and of fine-tuning after it.
        draws: of the benchmark's data.
        splits: of the labelled scans, drawn by patient.
        train_share: share of the patients that a split trains on.
        split_seed: of the splits.
        pretraining: fields of PretrainArguments that all settings share.
        settings, pretrainings, rows, tables: by name.
        finetuning: by task without `_frozen`: fields of its fine-tuning.
        searches: by task: which learning rates and lengths are tried.
        claims: what the differences are tested for.
    """

    name: str
    seeds: tuple[int, ...]
    draws: tuple[int, ...]
    splits: int
    train_share: float
    split_seed: int
    pretraining: dict
    settings: dict
    pretrainings: dict
    rows: dict
    tables: dict
    finetuning: dict
    searches: dict
    claims: tuple[ClaimSpec, ...]
    quick: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "draws", "tables", "rows"):
            require(self, name, len(getattr(self, name)) > 0, "a list of one at least")
        require(self, "splits", self.splits >= 1, "at least 1")
        require(self, "train_share", 0 < self.train_share < 1, "above 0 and below 1")

    def to_yaml(self) -> str:
        """The recipe with every field written out."""
        fields = dataclasses.asdict(self)
        return yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)

    def pretraining_fields(self, setting: str) -> dict[str, Any]:
        """The fields of PretrainArguments in a setting, those that it is put over included."""
        spec = self.settings[setting]
        below = self.pretraining if spec.over is None else self.pretraining_fields(spec.over)
        return merge(below, spec.fields)


class _Dumper(yaml.SafeDumper):
    """Lists for tuples, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


SECTIONS = {
    "settings": SettingSpec,
    "pretrainings": PretrainingSpec,
    "rows": RowSpec,
    "tables": TableSpec,
    "searches": SearchSpec,
}


def read_experiment_recipe(path: Path, quick: bool = False) -> ExperimentRecipe:
    """The checked recipe of a YAML file.

    Args:
        path: the file. What it says is put over the recipe beside it that its line `over` names, if there is
            one; its section `quick` holds the fields of a smoke test, put over the others.
        quick: whether to take them.

    Raises:
        ArgumentsError: no such file, an unknown field or name, or a value that cannot be used.
    """
    fields = _read_over(Path(path))
    if isinstance(fields.get("quick"), dict):  # A kept recipe says whether it is one in its place.
        over = fields.pop("quick")
        check_names(ExperimentRecipe, over, str(path), "quick")
        fields = merge(fields, over) | {"quick": True} if quick else fields
    check_names(ExperimentRecipe, fields, str(path))
    for section, cls in SECTIONS.items():
        if section in fields:
            fields[section] = _entries(cls, fields[section], str(path), section)
    recipe = build(ExperimentRecipe, {"name": Path(path).stem, **fields}, str(path))
    _check_names_used(recipe, str(path))
    return recipe


def _read_over(path: Path) -> dict[str, Any]:
    fields = read_recipe(path)
    if "over" not in fields:
        return fields
    below = path.parent / str(fields.pop("over"))
    if below.resolve() == path.resolve():
        raise ArgumentsError(f"{path}: over names the recipe itself. Name another one, or leave it out.")
    return merge(_read_over(below), fields)


def _entries(cls: type, entries: Any, source: str, section: str) -> dict[str, Any]:
    if not isinstance(entries, dict):
        raise ArgumentsError(f"{source}: {section} is {entries!r}, but must be a section of names.")
    return {
        str(name): build(cls, entry or {}, source, f"{section}.{name}") for name, entry in entries.items()
    }


def _check_names_used(recipe: ExperimentRecipe, source: str) -> None:
    """Raises ArgumentsError for a name that stands for nothing, and for settings that go in a circle."""

    def check(names: tuple[Any, ...], known: Any, place: str) -> None:
        for name in names:
            if name not in known:
                there = ", ".join(sorted(map(str, known)))
                raise ArgumentsError(f"{source}: {place} names {name!r}, but there is only {there}.")

    for name in recipe.settings:
        over, seen = recipe.settings[name].over, [name]
        while over is not None:
            check((over,), recipe.settings, f"settings.{seen[-1]}.over")
            if over in seen:
                raise ArgumentsError(f"{source}: settings.{name}.over goes in a circle: {', '.join(seen)}.")
            seen.append(over)
            over = recipe.settings[over].over
    for name, row in recipe.rows.items():
        check((row.start,), (IMAGENET, RANDOM, *recipe.pretrainings), f"rows.{name}.start")
    for name, table in recipe.tables.items():
        check(table.rows, recipe.rows, f"tables.{name}.rows")
        check(table.settings, recipe.settings, f"tables.{name}.settings")
        check(table.draws or (), recipe.draws, f"tables.{name}.draws")
        check(table.tasks, recipe.searches, f"tables.{name}.tasks, whose searches are missing,")
        bases = tuple(task.removesuffix(FROZEN) for task in table.tasks)
        check(bases, recipe.finetuning, f"tables.{name}.tasks, whose finetuning is missing,")
    for claim in recipe.claims:
        check((claim.better, claim.worse), full_row_names(recipe), f"the claim {claim.name!r}")
        check((claim.task,), recipe.searches, f"the claim {claim.name!r}")


def full_row_name(recipe: ExperimentRecipe, row: str, setting: str) -> str:
    """`<setting>_<row>` where there is pretraining, else the row's own name."""
    return f"{setting}_{row}" if recipe.rows[row].start in recipe.pretrainings else row


def full_row_names(recipe: ExperimentRecipe) -> set[str]:
    """Of every row in every setting that a table has."""
    return {
        full_row_name(recipe, row, setting)
        for table in recipe.tables.values()
        for setting in table.settings
        for row in table.rows
    }
