"""The paper's Tables 1, 2 and 3, and what goes beyond them, from one command.

python train/reproduce.py --tables 1 2 3 --output OUT                  # on the simulated benchmark
python train/reproduce.py --tables 1 3 --quick --output OUT            # a smoke test: its numbers say nothing
python train/reproduce.py --tables further --minutes 9 --output OUT    # the other tables, for a short lease
python train/reproduce.py --dataset_clips CLIPS --dataset_frames FRAMES --output OUT   # on your own

Every run leaves its result in a folder of its own: the same command goes on where it was stopped, and the
same command a second time beside the first shares its work; on one machine bind each to cores of its own
(`taskset`), or their threads wait for each other.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from train.arguments import ArgumentsError
from train.claim_results import ClaimError, claim_results, with_holm
from train.cpu_cores import available_cores
from train.experiment_plan import (
    ClipSetKey,
    Pretraining,
    Run,
    Selection,
    clip_set_key,
    planned_runs,
)
from train.experiment_recipe import ExperimentRecipe, read_experiment_recipe
from train.experiment_runs import write_splits
from train.experiments import (
    EXPERIMENT_FILE,
    ExperimentError,
    Experiments,
    check_run,
    is_done,
    note_path,
    read_note,
    read_results,
    remove_without_weights,
    results_with_provenance,
)
from train.frame_sets import FrameSetError
from train.json_files import write_json
from train.kept_predictions import PREDICTIONS, keep_predictions, with_predictions
from train.kept_results import (
    RESULTS_FILE,
    KeptResults,
    as_row_results,
    check_kept_data,
    read_kept,
    with_kept_claims,
    with_kept_rows,
)
from train.metrics_file import MetricsError
from train.paired_differences import DifferenceError
from train.pretraining_results import pretraining_table, read_pretrainings
from train.rate_search import SearchError
from train.result_figures import save_figures
from train.result_tables import (
    TABLES_FILE,
    claims_table,
    provenance_table,
    result_tables,
    write_tables,
)
from train.scan_splits import ScanSplitError
from train.shared_work import FAILED, work_in_processes
from train.stored_rows import StoredRowsError

RECIPE = Path(__file__).parent / "recipes" / "reproduce.yaml"
TABLES, FIGURES = "tables", "figures"
PAPER_TABLES = ("1", "2", "3")
FURTHER = "further"
ERRORS = (
    ArgumentsError,
    ClaimError,
    DifferenceError,
    ExperimentError,
    FrameSetError,
    MetricsError,
    ScanSplitError,
    SearchError,
    StoredRowsError,
)


def main(command_line: Sequence[str] | None = None) -> int:
    """Reads the command line and runs; an input that cannot be used ends in a sentence and exit status 2."""
    try:
        return reproduce(build_parser().parse_args(command_line))
    except ERRORS as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tables", nargs="+", default=PAPER_TABLES, help="1, 2, 3, further, or any name in the recipe")
    add("--rows", nargs="+", help="these rows alone")
    add("--settings", nargs="+", help="pretraining in these settings alone, such as printed, best")
    add("--draws", nargs="+", type=int, help="of the data, among the recipe's")
    add("--seeds", nargs="+", type=int, help="of pretraining and fine-tuning, among the recipe's")
    add("--output", type=Path, required=True, help="folder for data, runs and tables")
    add("--recipe", type=Path, default=RECIPE, help="what is run")
    add("--quick", action="store_true", help="sizes of a smoke test")
    add(
        "--dataset_clips",
        help="your own: folder, or its URL, that prepare_clips wrote, with large and medium",
    )
    add("--dataset_frames", help="your own: folder, or its URL, that prepare_planes and prepare_gaze wrote")
    add("--processes", type=int, help="that share the runs; default: one a core, or one where there is a GPU")
    add("--minutes", type=float, help="begin no run after so many minutes")
    add(
        "--kept",
        type=Path,
        help="results.json of earlier runs, with `predictions` beside it, for the rows that are not run here",
    )
    add("--list", action="store_true", help="show the runs and which are done, and end")
    return parser


def reproduce(options: argparse.Namespace) -> int:
    """Makes the data, the runs and the tables; 1 where some runs failed, else 0."""
    end_time = None if options.minutes is None else time.time() + 60 * options.minutes
    recipe = read_experiment_recipe(options.recipe, options.quick)
    selection = select(recipe, options)
    runs = planned_runs(recipe, selection)
    if options.list:
        print(listing(options.output, runs))
        return 0
    kept = kept_results(recipe, options)
    keep_recipe(recipe, options.output)
    experiments = with_data(recipe, runs, options)
    write_splits(experiments, runs)
    remove_without_weights(recipe, options.output, runs)
    for run in runs:
        check_run(experiments, run)
        note_path(options.output, run).unlink(missing_ok=True)  # What could not be made is tried again.
    work_in_processes(experiments, runs, end_time, options.processes or default_processes())
    report(recipe, options.output, kept)
    if recipe.quick:
        print("A smoke test: its numbers say nothing.")
    return summarise(options.output, runs)


def kept_results(recipe: ExperimentRecipe, options: argparse.Namespace) -> KeptResults:
    """What `--kept` names, or nothing.

    Raises:
        ExperimentError: it cannot be read, or is of another recipe or other data.
    """
    if options.kept is None:
        return KeptResults()
    kept = read_kept(options.kept, recipe)
    if options.dataset_frames is not None:
        check_kept_data(options.kept, kept, options.dataset_frames)
    return kept


def select(recipe: ExperimentRecipe, options: argparse.Namespace) -> Selection:
    """What the flags ask for.

    Raises:
        ArgumentsError: a name or number that the recipe does not have, or nothing that is left.
    """
    further = [name for name in recipe.tables if name not in PAPER_TABLES]
    tables = [table for name in options.tables for table in (further if name == FURTHER else [name])]
    draws = recipe.draws if options.draws is None else options.draws
    if options.dataset_clips is not None:
        draws = recipe.draws[:1]
    selection = Selection(
        tuple(dict.fromkeys(tables)),
        tuple(draws),
        tuple(recipe.seeds if options.seeds is None else options.seeds),
        None if options.settings is None else tuple(options.settings),
        None if options.rows is None else tuple(options.rows),
    )
    for flag, chosen, known in (
        ("tables", selection.tables, recipe.tables),
        ("rows", selection.rows or (), recipe.rows),
        ("settings", selection.settings or (), recipe.settings),
        ("draws", selection.draws, recipe.draws),
        ("seeds", selection.seeds, recipe.seeds),
    ):
        unknown = [str(name) for name in chosen if name not in known]
        if unknown:
            there = ", ".join(map(str, known))
            raise ArgumentsError(f"--{flag}: {options.recipe} has no {', '.join(unknown)}, but {there}.")
    if not planned_runs(recipe, selection):
        raise ArgumentsError(
            f"{options.recipe} has nothing of that: the tables {', '.join(selection.tables)} have no such "
            "rows, settings or draws. Ask for others, or for all."
        )
    return selection


def keep_recipe(recipe: ExperimentRecipe, output: Path) -> None:
    """Keeps the recipe beside its results.

    Raises:
        ExperimentError: the folder is of a smoke test and this is none, or the other way round.
    """
    path = output / EXPERIMENT_FILE
    if path.is_file() and read_experiment_recipe(path).quick != recipe.quick:
        made = "without" if recipe.quick else "with"
        raise ExperimentError(f"{output} holds results made {made} --quick. Give another --output.")
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe.to_yaml(), encoding="utf-8")


def with_data(recipe: ExperimentRecipe, runs: Sequence[Run], options: argparse.Namespace) -> Experiments:
    """The experiments on the sets that their runs need: the user's own, or the benchmark's.

    Raises:
        ArgumentsError: one of the two folders is missing.
    """
    if (options.dataset_clips is None) != (options.dataset_frames is None):
        raise ArgumentsError("Give both, --dataset_clips and --dataset_frames, or neither.")
    keys = {clip_set_key(recipe, run): None for run in runs if isinstance(run, Pretraining)}
    draws = list(dict.fromkeys(run.draw for run in runs))
    if options.dataset_clips is not None:
        clips = {ClipSetKey(draw): options.dataset_clips for draw in draws}
        frames = dict.fromkeys(draws, options.dataset_frames)
        return Experiments(recipe, options.output, clips, frames)
    clips, frames = benchmark_data(options.output / "data", draws, list(keys), recipe.quick)
    return Experiments(recipe, options.output, clips, frames)


def benchmark_data(
    folder: Path, draws: Sequence[int], keys: Sequence[ClipSetKey], quick: bool
) -> tuple[dict[ClipSetKey, str], dict[int, str]]:
    """The benchmark's clips and labelled frames, made where they are not there yet.

    Raises:
        ExperimentError: they cannot be made as the benchmark tells.
    """
    # They need the speech synthesiser, which own recordings do without.
    from datasets_scripts.benchmark_sets import make_sets, read_spec
    from datasets_scripts.benchmark_spec import BenchmarkError

    clips, frames = {}, {}
    try:
        spec = read_spec(quick=quick)
        for key in dict.fromkeys([*map(ClipSetKey, draws), *keys]):
            made = make_sets(spec, key.draw, folder, key.relevant_speech, key.shuffled_speech)
            clips[key], frames[key.draw] = str(made.clips), str(made.labelled)
    except BenchmarkError as error:
        raise ExperimentError(str(error)) from error
    return clips, frames


def default_processes() -> int:
    """One a core; on a GPU, which all would share, one."""
    return 1 if torch.accelerator.is_available() else available_cores()


def listing(output: Path, runs: Sequence[Run]) -> str:
    """A line a run."""
    lines = []
    for run in runs:
        note = read_note(output, run)
        state = "done" if is_done(output, run) else "to do" if note is None else note.reason
        lines.append(f"{state:24}{run.place}")
    done = sum(is_done(output, run) for run in runs)
    return "\n".join([*lines, f"{done} of {len(runs)} runs are done."])


def report(recipe: ExperimentRecipe, output: Path, kept: KeptResults) -> None:
    """Writes results.json, tables and figures of all results that there are, here or kept."""
    results = read_results(output)
    measured = with_kept_rows(results_with_provenance(output, results), kept.results)
    rows = with_predictions(as_row_results(measured), results, kept.predictions)
    keep_predictions(rows, recipe.claims, output / PREDICTIONS)
    claims = with_holm(with_kept_claims(claim_results(recipe, rows), kept.claims))
    pretrainings = read_pretrainings(recipe, output, kept.pretrainings)
    contents = {"recipe": recipe.name, "quick": recipe.quick, "results": measured}
    contents |= {"claims": [asdict(claim) for claim in claims], "pretrainings": pretrainings}
    write_json(output / RESULTS_FILE, contents)
    write_tables(
        output / TABLES,
        [*result_tables(recipe, rows, claims), pretraining_table(pretrainings, recipe.quick)],
        claims_table(claims, recipe.quick),
        provenance_table(measured, recipe.quick),
    )
    save_figures(output / FIGURES, recipe, rows, claims)


def summarise(output: Path, runs: Sequence[Run]) -> int:
    """Says what is done and what is not, and why; 1 where a run failed."""
    done = sum(is_done(output, run) for run in runs)
    print(f"{done} of {len(runs)} runs are done. Results: {output / TABLES / TABLES_FILE}")
    notes = {note.detail: note for run in runs if (note := read_note(output, run)) is not None}
    for detail in notes:
        print(detail, file=sys.stderr)
    return 1 if any(note.reason == FAILED for note in notes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
