"""The runs behind the tables: which there are, where each leaves its result, what it needs.

There are three kinds: a pretraining, a search for the learning rate and length of a fine-tuning (once a row,
on the first seed and split), and a fine-tuning on all splits with what was found. Each has a place of its own
below the output folder, so that any of them can be made at any time, anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from train.experiment_recipe import ExperimentRecipe


@dataclass(frozen=True)
class Row:
    """A row of the tables in one setting.

    Args:
        name: its own name, as in the recipe.
        setting: of its pretraining; None without pretraining.
    """

    name: str
    setting: str | None = None

    @property
    def full_name(self) -> str:
        """As in folders and claims."""
        return self.name if self.setting is None else f"{self.setting}_{self.name}"


@dataclass(frozen=True)
class Pretraining:
    """A pretraining of the recipe's, in a setting, with a seed, on a draw of the data."""

    draw: int
    setting: str
    name: str
    seed: int

    @property
    def place(self) -> str:
        """Of its folder below the output folder."""
        return f"draw_{self.draw}/pretraining/{self.setting}_{self.name}/seed_{self.seed}"

    def needs(self, recipe: ExperimentRecipe) -> tuple["Run", ...]:
        """Runs that must be done before."""
        return ()


@dataclass(frozen=True)
class RateSearch:
    """The search for the learning rate and length of a row's fine-tuning, on its first seed."""

    draw: int
    task: str
    row: Row

    @property
    def place(self) -> str:
        """Of its JSON below the output folder."""
        return f"draw_{self.draw}/rate_search/{self.task}/{self.row.full_name}.json"

    def needs(self, recipe: ExperimentRecipe) -> tuple["Run", ...]:
        """The pretraining of the recipe's first seed."""
        return pretraining_of(recipe, self.draw, self.row, recipe.seeds[0])


@dataclass(frozen=True)
class Finetuning:
    """A fine-tuning of a row on all splits."""

    draw: int
    task: str
    row: Row
    seed: int

    @property
    def place(self) -> str:
        """Of its folder below the output folder."""
        return finetuning_place(self.draw, self.task, self.row.full_name, self.seed)

    def needs(self, recipe: ExperimentRecipe) -> tuple["Run", ...]:
        """Its pretraining and its rate search."""
        search = RateSearch(self.draw, self.task, self.row)
        return (*pretraining_of(recipe, self.draw, self.row, self.seed), search)


Run = Pretraining | RateSearch | Finetuning


def finetuning_place(draw: int, task: str, row: str, seed: int) -> str:
    """Of a fine-tuning's folder below the output folder; `row` is named with its setting."""
    return f"draw_{draw}/{task}/{row}/seed_{seed}"


def pretraining_of(recipe: ExperimentRecipe, draw: int, row: Row, seed: int) -> tuple[Pretraining, ...]:
    """What a row starts from; nothing where there is no pretraining."""
    if row.setting is None:
        return ()
    return (Pretraining(draw, row.setting, recipe.rows[row.name].start, seed),)


def with_needs(recipe: ExperimentRecipe, runs: Sequence[Run]) -> list[Run]:
    """The runs and all that they need, each once, what is needed before what needs it."""
    ordered: dict[Run, None] = {}
    for run in runs:
        for needed in with_needs(recipe, run.needs(recipe)):
            ordered.setdefault(needed)
        ordered.setdefault(run)
    return list(ordered)


@dataclass(frozen=True)
class ClipSetKey:
    """Which clips: of a draw, as the benchmark has them or with another share of relevant speech, or with the
    sound of other clips."""

    draw: int
    relevant_speech: float | None = None
    shuffled_speech: bool = False


def clip_set_key(recipe: ExperimentRecipe, run: Pretraining) -> ClipSetKey:
    """The clips that it trains on."""
    spec = recipe.pretrainings[run.name]
    return ClipSetKey(run.draw, spec.relevant_speech, spec.shuffled_speech)


@dataclass(frozen=True)
class Selection:
    """Which of the recipe's runs are asked for.

    Args:
        tables: by name.
        settings, rows: those alone; None: all that the tables have.
        draws, seeds: among the recipe's.
    """

    tables: tuple[str, ...]
    draws: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None


def select_all(recipe: ExperimentRecipe) -> Selection:
    """Everything that the recipe has."""
    return Selection(tuple(recipe.tables), recipe.draws, recipe.seeds)


def table_rows(recipe: ExperimentRecipe, selection: Selection, table: str) -> list[Row]:
    """The rows of a table, those without pretraining once and first, the others setting by setting."""
    spec, rows = recipe.tables[table], {}
    for setting in spec.settings:
        for name in spec.rows:
            is_pretrained = recipe.rows[name].start in recipe.pretrainings
            chosen = selection.rows is None or name in selection.rows
            if is_pretrained and selection.settings is not None:
                chosen &= setting in selection.settings
            if chosen:
                rows[Row(name, setting if is_pretrained else None)] = None
    return sorted(rows, key=lambda row: row.setting is not None)


def table_draws(recipe: ExperimentRecipe, selection: Selection, table: str) -> list[int]:
    """The draws of the data that a table is made on."""
    own = recipe.tables[table].draws
    return [draw for draw in selection.draws if own is None or draw in own]


def planned_runs(recipe: ExperimentRecipe, selection: Selection) -> list[Run]:
    """Every run that the tables need, draw by draw and seed by seed, so that whole tables come early."""
    return with_needs(
        recipe,
        [
            Finetuning(draw, task, row, seed)
            for draw in selection.draws
            for seed in selection.seeds
            for table in selection.tables
            if draw in table_draws(recipe, selection, table)
            for task in recipe.tables[table].tasks
            for row in table_rows(recipe, selection, table)
        ],
    )
