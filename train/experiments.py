"""The runs of the experiments on disk: what each is told, whether it is done, what it gave."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from transformers.utils import SAFE_WEIGHTS_NAME

from datasets_scripts.schema import GAZE_CONFIG, PLANE_CLIPS_CONFIG, PLANES_CONFIG
from train.arguments import ArgumentsError, PretrainArguments, SpeechWordsArguments, build, merge
from train.checkpoint import LAST_OR_NEW
from train.experiment_plan import (
    ClipSetKey,
    Finetuning,
    Pretraining,
    RateSearch,
    Run,
    Selection,
    clip_set_key,
    finetuning_place,
    pretraining_of,
    select_all,
    table_draws,
    table_rows,
    with_needs,
)
from train.experiment_recipe import (
    CLIPS,
    EPOCHS,
    FROZEN,
    MEDIUM,
    PLANE_CLIPS,
    PLANES,
    SALIENCY,
    STEPS,
    ExperimentRecipe,
    read_experiment_recipe,
)
from train.finetune_arguments import FinetuneArguments, FinetunePlanesArguments, FinetuneSaliencyArguments
from train.json_files import write_json
from train.metrics_file import MetricsError, read_metrics
from train.model_folder import METRICS_FILE, RECIPE_FILE
from train.rate_search import SearchError, at_edge, check_search, read_search
from train.starting_model import IMAGENET, RANDOM
from train.stored_rows import data_hash
from train.triples import list_clips

EXPERIMENT_FILE = "reproduce.yaml"
NOT_RUN = "not run"
NOT_AVAILABLE = "weights not available"
ONLY_SIMULATED = "only on simulated recordings"
ELSEWHERE = "Give another output folder, or remove that one."
NO_IMAGE_TOWER = "no image tower"
# Of a seed all pretrainings begin with the same speech tower: it is taught once.
TAUGHT_SPEECH = "taught_speech"
CONFIGS = {PLANES: PLANES_CONFIG, SALIENCY: GAZE_CONFIG, PLANE_CLIPS: PLANE_CLIPS_CONFIG}
ARGUMENTS = {
    PLANES: FinetunePlanesArguments,
    SALIENCY: FinetuneSaliencyArguments,
    PLANE_CLIPS: FinetunePlanesArguments,
}
# Fields that say where things lie, or how a run is taken up, not what comes out.
PLACES = (
    "output_dir",
    "overwrite_output_dir",
    "dataset",
    "dataloader_num_workers",
    "report_to",
    "push_to_hub",
)
PRETRAINING_PLACES = (*PLACES, "resume_from_checkpoint")
FINETUNING_PLACES = (*PLACES, "model", "split_file")


class ExperimentError(ValueError):
    """Experiments that cannot be made as they are told; the text says why and what to do."""


class UnavailableError(RuntimeError):
    """A run that cannot be made here; the text is what its row of a table says."""


@dataclass(frozen=True)
class Experiments:
    """What all runs share.

    Args:
        recipe: what is run.
        output: folder of all results.
        clips: the folder of each set of clips that there is.
        frames: of each draw, the folder with the labelled frames.
    """

    recipe: ExperimentRecipe
    output: Path
    clips: dict[ClipSetKey, str]
    frames: dict[int, str]


def is_done(output: Path, run: Run) -> bool:
    """Whether the run has left its result."""
    path = output / run.place
    if isinstance(run, RateSearch):
        return path.is_file() and read_search(path).choice is not None
    return (path / METRICS_FILE).is_file()


def remove_without_weights(recipe: ExperimentRecipe, output: Path, runs: Sequence[Run]) -> None:
    """Removes finished pretrainings that lost their weights and that a run still to be made needs.

    They are then made again. The others stay, for what they measured.
    """
    to_do = [run for run in runs if not is_done(output, run)]
    for run in with_needs(recipe, to_do):
        folder = output / run.place
        is_finished = isinstance(run, Pretraining) and is_done(output, run)
        if is_finished and not (folder / SAFE_WEIGHTS_NAME).is_file():
            shutil.rmtree(folder)


def check_run(experiments: Experiments, run: Run) -> None:
    """Refuses what was made, or begun, by another recipe or on other data.

    Raises:
        ExperimentError: names the first difference.
    """
    path = experiments.output / run.place
    try:
        if isinstance(run, RateSearch):
            if path.is_file():
                check_search(path, read_search(path), search_made_of(experiments, run))
        elif (path / RECIPE_FILE).is_file():
            _check_folder(experiments, run)
    except SearchError as error:
        raise ExperimentError(str(error)) from error
    except (ArgumentsError, MetricsError, UnavailableError) as error:
        raise ExperimentError(f"{path}: {error} {ELSEWHERE}") from error


def _check_folder(experiments: Experiments, run: Pretraining | Finetuning) -> None:
    path, was_finished = experiments.output / run.place, is_done(experiments.output, run)
    if isinstance(run, Finetuning) and not was_finished:
        return  # It begins anew, with what its search has found.
    wanted = arguments_of(experiments, run)
    _check_recipe(path, wanted)
    if was_finished:
        made_on = read_metrics(path / METRICS_FILE)["data_hash"]
        if made_on != data_hash(wanted.dataset, wanted.dataset_config):
            raise ExperimentError(
                f"{path} was made on other data than {wanted.dataset} holds now. {ELSEWHERE}"
            )
    if isinstance(run, Finetuning) and _text(path / "splits.json") != _text(Path(wanted.split_file)):
        raise ExperimentError(f"{path} was made on other splits of the scans. {ELSEWHERE}")


def _check_recipe(path: Path, wanted: PretrainArguments | FinetuneArguments) -> None:
    stored = yaml.safe_load((path / RECIPE_FILE).read_text(encoding="utf-8"))
    # Built, a recipe of an earlier version has the defaults of fields that came later.
    there = build(type(wanted), stored, str(path / RECIPE_FILE))
    places = PRETRAINING_PLACES if isinstance(wanted, PretrainArguments) else FINETUNING_PLACES
    for field in fields(wanted):
        made, here = (_without_place(getattr(told, field.name)) for told in (there, wanted))
        if field.name not in places and made != here:
            raise ExperimentError(
                f"{path} was made by another recipe: its {field.name} is {made!r}, here it is {here!r}. "
                f"{ELSEWHERE}"
            )


def _without_place(value: Any) -> Any:
    return replace(value, kept_in=None) if isinstance(value, SpeechWordsArguments) else value


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def arguments_of(experiments: Experiments, run: Pretraining | Finetuning) -> Any:
    """What the run is told, checked."""
    if isinstance(run, Pretraining):
        return pretraining_arguments(experiments, run)
    choice = read_search(experiments.output / RateSearch(run.draw, run.task, run.row).place).choice
    arguments = finetuning_arguments(experiments, run)
    return replace(arguments, learning_rate=choice.learning_rate, max_steps=choice.max_steps)


def pretraining_arguments(experiments: Experiments, run: Pretraining) -> PretrainArguments:
    """What a pretraining is told.

    Raises:
        UnavailableError: its clips are not there.
    """
    recipe = experiments.recipe
    spec, key = recipe.pretrainings[run.name], clip_set_key(recipe, run)
    if key not in experiments.clips:
        raise UnavailableError(ONLY_SIMULATED)
    told = merge(recipe.pretraining_fields(run.setting), spec.fields) | {
        "output_dir": str(experiments.output / run.place),
        "dataset": experiments.clips[key],
        "dataset_config": spec.clips,
        "seed": run.seed,
        "resume_from_checkpoint": LAST_OR_NEW,
        "report_to": "none",
    }
    arguments = build(PretrainArguments, told, f"the pretraining {run.setting}_{run.name}")
    if arguments.speech_words.steps:
        words = replace(arguments.speech_words, kept_in=str(experiments.output / TAUGHT_SPEECH))
        arguments = replace(arguments, speech_words=words)
    return MATCHED[spec.matched_in](arguments)


def in_epochs_of_medium(arguments: PretrainArguments) -> PretrainArguments:
    """With as many passes over the clips as `max_steps` steps make over the medium ones."""
    batch = arguments.per_device_train_batch_size
    here, medium = (
        max(1, len(list_clips(arguments.dataset, config, "train")) // batch)
        for config in (arguments.dataset_config, MEDIUM)
    )
    return replace(arguments, max_steps=round(arguments.max_steps * here / medium))


def on_as_many_as_medium(arguments: PretrainArguments) -> PretrainArguments:
    """On as many clips as there are medium ones."""
    return replace(arguments, max_train_clips=len(list_clips(arguments.dataset, MEDIUM, "train")))


MATCHED = {STEPS: lambda arguments: arguments, EPOCHS: in_epochs_of_medium, CLIPS: on_as_many_as_medium}


def finetuning_arguments(experiments: Experiments, run: RateSearch | Finetuning) -> FinetuneArguments:
    """What a fine-tuning is told, with the rate and length that the recipe happens to give."""
    recipe, base = experiments.recipe, run.task.removesuffix(FROZEN)
    seed = run.seed if isinstance(run, Finetuning) else recipe.seeds[0]
    row = recipe.rows[run.row.name]
    told = merge(merge(recipe.finetuning[base], _start_fields(experiments, run, seed)), row.finetuning)
    told |= {
        "output_dir": str(experiments.output / run.place),
        "overwrite_output_dir": True,
        "dataset": experiments.frames[run.draw],
        "dataset_config": CONFIGS[base],
        "split_file": str(split_file(experiments.output, run.draw, base)),
        "num_splits": recipe.splits,
        "linear_probe": run.task.endswith(FROZEN),
        "max_steps": recipe.searches[run.task].steps[0],
        "seed": seed,
    }
    if base == SALIENCY:
        told["compare_with_random"] = False
    return build(ARGUMENTS[base], told, f"the fine-tuning of {run.row.full_name} for {run.task}")


def _start_fields(experiments: Experiments, run: RateSearch | Finetuning, seed: int) -> dict[str, Any]:
    """Model and architecture that a row starts from: the same architecture for all but ImageNet's."""
    recipe = experiments.recipe
    model = recipe.pretraining["model"]
    if run.row.setting is not None:
        (pretraining,) = pretraining_of(recipe, run.draw, run.row, seed)
        return {"model": str(experiments.output / pretraining.place)}
    start = recipe.rows[run.row.name].start
    if start == RANDOM:
        return {"model": RANDOM, "model_config": model}
    return {"model": IMAGENET, "model_config": {"image_config": {"image_size": _image_size(recipe)}}}


def check_available(experiments: Experiments, run: RateSearch) -> None:
    """Raises UnavailableError where the data lack the task's labels, or the pretraining the task's tower."""
    recipe, base = experiments.recipe, run.task.removesuffix(FROZEN)
    if not split_file(experiments.output, run.draw, base).is_file():
        raise UnavailableError(f"no {CONFIGS[base]} in the data")
    if run.row.setting is None or base == PLANE_CLIPS:
        return
    (pretraining,) = pretraining_of(recipe, run.draw, run.row, recipe.seeds[0])
    if not pretraining_arguments(experiments, pretraining).model_config().use_image:
        raise UnavailableError(NO_IMAGE_TOWER)


def _image_size(recipe: ExperimentRecipe) -> int:
    setting = next(iter(recipe.settings))
    told = recipe.pretraining_fields(setting) | {"output_dir": "", "dataset": ""}
    return build(PretrainArguments, told, "the pretraining").model_config().image_config.image_size


def search_made_of(experiments: Experiments, run: RateSearch) -> dict[str, Any]:
    """What a search's scores depend on, as JSON has it."""
    arguments, base = finetuning_arguments(experiments, run), run.task.removesuffix(FROZEN)
    made_of = {
        "search": asdict(experiments.recipe.searches[run.task]),
        "finetuning": {
            name: value for name, value in asdict(arguments).items() if name not in FINETUNING_PLACES
        },
        "split": _text(inner_split_file(experiments.output, run.draw, base)),
        "data_hash": data_hash(arguments.dataset, arguments.dataset_config),
    }
    return json.loads(json.dumps(made_of))


def split_file(output: Path, draw: int, base_task: str) -> Path:
    """The splits of the labelled scans that every row is tested on."""
    return output / f"draw_{draw}" / "splits" / f"{base_task}.json"


def inner_split_file(output: Path, draw: int, base_task: str) -> Path:
    """A split within the training scans of the first of those splits."""
    return output / f"draw_{draw}" / "splits" / f"{base_task}_inner.json"


@dataclass(frozen=True)
class Note:
    """Why a run was not made.

    Args:
        reason: as a table says it.
        detail: the whole story.
    """

    reason: str
    detail: str


def note_path(output: Path, run: Run) -> Path:
    """Of the run's note."""
    return output / "notes" / f"{run.place.replace('/', '.')}.json"


def read_note(output: Path, run: Run) -> Note | None:
    """Why the run was not made, if it was tried."""
    path = note_path(output, run)
    return Note(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def write_note(output: Path, run: Run, note: Note) -> None:
    """Keeps why the run was not made."""
    write_json(note_path(output, run), asdict(note))


@dataclass(frozen=True)
class RowResult:
    """What a table shows of one row, draw and seed.

    Args:
        table, row: names; the row's with its setting.
        title: of the row, for people.
        task: one of the recipe's: planes, planes_frozen, ...
        draw, seed: of the data and the training.
        folder: of the fine-tuning, with metrics.json and predictions.parquet; None where it is gone.
        metrics: `split/name`: number, as metrics.json has them; None where there is no result.
        unavailable: why there is none; None where there is one.
    """

    table: str
    row: str
    title: str
    task: str
    draw: int
    seed: int
    folder: Path | None
    metrics: dict[str, float] | None
    unavailable: str | None

    @property
    def place(self) -> str:
        """Of its fine-tuning below the output folder."""
        return finetuning_place(self.draw, self.task, self.row, self.seed)


def read_results(output: Path, selection: Selection | None = None) -> list[RowResult]:
    """Every row of the tables, draw and seed, with its result or the reason why there is none.

    Args:
        output: folder that `train/reproduce.py` wrote.
        selection: None: all that its recipe has.

    Raises:
        ArgumentsError: the folder has no recipe.
        MetricsError: a result is not as it was written.
    """
    recipe = read_experiment_recipe(output / EXPERIMENT_FILE)
    selection = selection or select_all(recipe)
    return [
        _row_result(recipe, output, table, Finetuning(draw, task, row, seed))
        for table in selection.tables
        for task in recipe.tables[table].tasks
        for row in table_rows(recipe, selection, table)
        for draw in table_draws(recipe, selection, table)
        for seed in selection.seeds
    ]


def _row_result(recipe: ExperimentRecipe, output: Path, table: str, run: Finetuning) -> RowResult:
    title = recipe.rows[run.row.name].title
    if run.row.setting is not None:
        title = f"{title} ({recipe.settings[run.row.setting].title})"
    folder, metrics, unavailable = output / run.place, None, None
    if is_done(output, run):
        metrics = read_metrics(folder / METRICS_FILE)["metrics"]
    else:
        notes = [read_note(output, each) for each in with_needs(recipe, [run])]
        unavailable = next((note.reason for note in notes if note is not None), NOT_RUN)
    return RowResult(
        table, run.row.full_name, title, run.task, run.draw, run.seed, folder, metrics, unavailable
    )


def results_with_provenance(output: Path, results: list[RowResult]) -> list[dict[str, Any]]:
    """The results as JSON takes them, each with the whole of its metrics.json and what its search chose."""
    recipe = read_experiment_recipe(output / EXPERIMENT_FILE)
    return [
        {
            **{name: value for name, value in asdict(result).items() if name not in ("folder", "metrics")},
            "measured": None if result.metrics is None else read_metrics(result.folder / METRICS_FILE),
            "rate_search": None if result.metrics is None else _chosen(output, recipe, result),
        }
        for result in results
    ]


def _chosen(output: Path, recipe: ExperimentRecipe, result: RowResult) -> dict[str, Any]:
    path = output / f"draw_{result.draw}" / "rate_search" / result.task / f"{result.row}.json"
    choice = read_search(path).choice
    return asdict(choice) | {"at_edge": at_edge(recipe.searches[result.task], choice)}
