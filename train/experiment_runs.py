"""Makes the runs of the experiments: a pretraining in a process of its own, the others in this one."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from datasets import get_dataset_config_names

from train.arguments import ArgumentsError
from train.experiment_plan import Pretraining, RateSearch, Row, Run
from train.experiment_recipe import FROZEN, PLANE_CLIPS, PLANES, SALIENCY, ExperimentRecipe
from train.experiments import (
    CONFIGS,
    NOT_AVAILABLE,
    ExperimentError,
    Experiments,
    UnavailableError,
    arguments_of,
    check_available,
    finetuning_arguments,
    inner_split_file,
    pretraining_arguments,
    search_made_of,
    split_file,
)
from train.finetune_arguments import FinetuneArguments
from train.finetune_planes import finetune_planes
from train.finetune_saliency import finetune_saliency
from train.fixation_maps import FixationError
from train.frame_sets import FrameSetError, labels_of_scans, patients_of_scans
from train.interruption import ending_held_back
from train.loop import DivergedError
from train.metrics_file import MetricsError, read_metrics
from train.model_folder import CHECKPOINTS, METRICS_FILE
from train.plane_results import PlaneResultsError
from train.rate_search import SearchError, Trial, search_rates
from train.saliency_results import ScoreError
from train.scan_splits import ScanSplit, ScanSplitError, random_splits, write_scan_splits
from train.starting_model import IMAGENET, StartingModelError

RUN_ERRORS = (
    ArgumentsError,
    DivergedError,
    ExperimentError,
    FixationError,
    FrameSetError,
    MetricsError,
    PlaneResultsError,
    ScanSplitError,
    ScoreError,
    SearchError,
    StartingModelError,
)
PRETRAIN = Path(__file__).with_name("pretrain.py")
SPLITS_DRAWN = 1000
FINETUNINGS = {PLANES: finetune_planes, SALIENCY: finetune_saliency, PLANE_CLIPS: finetune_planes}
# What searches are scored by, and whether more of it is better.
SEARCH_METRICS = {PLANES: ("test/f1", 1), SALIENCY: ("test/kld", -1), PLANE_CLIPS: ("test/f1", 1)}


def make(experiments: Experiments, run: Run, log: TextIO, lock: int) -> None:
    """Makes a run, or goes on with it.

    Args:
        experiments: what all runs share.
        run: one whose needs are done.
        log: open file for what a pretraining prints.
        lock: descriptor of the file that claims the run.

    Raises:
        UnavailableError: it needs weights or data that are not there.
        ValueError, RuntimeError: one of RUN_ERRORS.
    """
    if isinstance(run, Pretraining):
        pretrain_apart(experiments, run, log, lock)
    elif isinstance(run, RateSearch):
        search(experiments, run)
    else:
        finetune_run(run.task, arguments_of(experiments, run), run.row)


def pretrain_apart(experiments: Experiments, run: Pretraining, log: TextIO, lock: int) -> None:
    """Pretrains in a process of its own, which goes on from its last checkpoint where it has one.

    Raises:
        UnavailableError: weights that it starts from cannot be had.
        ExperimentError: it ended otherwise.
    """
    arguments = pretraining_arguments(experiments, run)
    name = f"{run.setting}_{run.name}"
    recipe = experiments.output / "recipes" / f"draw_{run.draw}" / f"seed_{run.seed}" / f"{name}.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(arguments.to_yaml(), encoding="utf-8")
    command = [sys.executable, str(PRETRAIN), str(recipe)]
    process = None
    try:
        with ending_held_back():
            # It keeps the lock where this process is killed, so that no other takes up the same run.
            process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=(lock,))
        status = process.wait()
    except BaseException:
        if process is not None:
            process.terminate()  # It leaves a checkpoint.
            process.wait()
        raise
    if status:
        raise _error_of(run, status, Path(log.name))
    shutil.rmtree(Path(arguments.output_dir) / CHECKPOINTS, ignore_errors=True)


def _error_of(run: Pretraining, status: int, log: Path) -> RuntimeError | ExperimentError:
    lines = log.read_text(encoding="utf-8").splitlines()
    error = next((line for line in reversed(lines) if line.strip()), "It printed nothing.")
    if status == 2 and re.match(r"pretrain\.py: (video|audio|image)_weights: ", error):
        return UnavailableError(NOT_AVAILABLE)
    return ExperimentError(f"The pretraining ended with status {status}: {error} See {log}.")


def search(experiments: Experiments, run: RateSearch) -> Trial:
    """Chooses learning rate and length on the inner split, within the training scans of the first split.

    Raises:
        UnavailableError: the tower or the weights that the row starts from cannot be had.
    """
    check_available(experiments, run)
    base = run.task.removesuffix(FROZEN)
    path = experiments.output / run.place
    trials_folder = path.with_name(f"{path.stem}_trial")
    arguments = replace(
        finetuning_arguments(experiments, run),
        output_dir=str(trials_folder),
        split_file=str(inner_split_file(experiments.output, run.draw, base)),
    )
    metric, sign = SEARCH_METRICS[base]

    def score(learning_rate: float, max_steps: int) -> float | None:
        told = replace(arguments, learning_rate=learning_rate, max_steps=max_steps)
        try:
            finetune_run(run.task, told, run.row)
        except (DivergedError, PlaneResultsError, ScoreError):
            return None
        return sign * read_metrics(trials_folder / METRICS_FILE)["metrics"][metric]

    try:
        return search_rates(
            path, search_made_of(experiments, run), experiments.recipe.searches[run.task], score
        )
    except StartingModelError as error:
        if arguments.model == IMAGENET:
            raise UnavailableError(NOT_AVAILABLE) from error
        raise
    finally:
        shutil.rmtree(trials_folder, ignore_errors=True)


def finetune_run(task: str, arguments: FinetuneArguments, row: Row) -> None:
    """Fine-tunes in this process."""
    FINETUNINGS[task.removesuffix(FROZEN)](arguments, row.full_name)


def write_splits(experiments: Experiments, runs: Iterable[Run]) -> None:
    """Draws the splits of the labelled scans that the runs are tested on, by patient, and the inner ones.

    They depend on the scans and the recipe alone.

    Raises:
        FrameSetError, ScanSplitError: there are no scans, or too few.
    """
    recipe = experiments.recipe
    tuned = [run for run in runs if not isinstance(run, Pretraining)]
    for draw, base in {(run.draw, run.task.removesuffix(FROZEN)) for run in tuned}:
        if CONFIGS[base] not in get_dataset_config_names(experiments.frames[draw]):
            continue  # Its rows say so.
        patients = patients_of_scans(experiments.frames[draw], CONFIGS[base])
        labels = labels_of_scans(experiments.frames[draw], CONFIGS[base])
        splits = splits_with_all_classes(recipe, patients, labels, recipe.splits)
        inside = {scan: patients[scan] for scan in splits[0].train}
        inner = splits_with_all_classes(recipe, inside, labels, 1)
        split_file(experiments.output, draw, base).parent.mkdir(parents=True, exist_ok=True)
        write_scan_splits(split_file(experiments.output, draw, base), splits)
        write_scan_splits(inner_split_file(experiments.output, draw, base), inner)


def splits_with_all_classes(
    recipe: ExperimentRecipe, patients: dict[str, str], labels: dict[str, set[int]], number: int
) -> list[ScanSplit]:
    """The first of the random splits in which every class is trained on: in small sets some are rare.

    Args:
        recipe: gives share and seed.
        patients: the patient of each scan.
        labels: the classes of each scan; those of scans that are not in `patients` are not looked at.
        number: of splits.

    Raises:
        ScanSplitError: there are not so many among those that are drawn.
    """
    wanted = set().union(*(labels[scan] for scan in patients))
    drawn = random_splits(patients, SPLITS_DRAWN, recipe.train_share, recipe.split_seed)
    whole = [split for split in drawn if set().union(*(labels[scan] for scan in split.train)) == wanted]
    if len(whole) < number:
        raise ScanSplitError(
            f"Of {SPLITS_DRAWN} random splits of {len(patients)} scans, {len(whole)} have every class among "
            f"the training frames, but {number} are needed: add scans, or raise train_share in the recipe."
        )
    return whole[:number]
