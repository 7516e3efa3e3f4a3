"""Fine-tunes for saliency, where the sonographer looks in a frame, on several splits by patient.

accelerate launch train/finetune_saliency.py train/recipes/demo_saliency.yaml --dataset FRAMES
accelerate launch train/finetune_saliency.py train/recipes/paper_saliency.yaml --dataset FRAMES \\
    --model PATH_OR_ID|random|imagenet --output_dir OUT
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedModel
from transformers.utils import logging

from datasets_scripts.schema import SCAN_ID, TIME_S
from hub_cards.push import check_before_training, push_finished_run
from hub_cards.push_errors import PushError
from hub_cards.render import hub_id, write_card
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepForSaliencyPrediction
from train.arguments import ArgumentsError, help_text
from train.data_facts import write_data_facts
from train.finetune_arguments import FinetuneSaliencyArguments, parse_finetune_arguments
from train.finetuning import (
    choose_splits,
    decoded_frames,
    draw_label_share,
    finetune,
    join_processes,
    process_state,
    seed_of_split,
)
from train.fixation_maps import FixationError, center_prior, density_map
from train.frame_sets import FrameSet, FrameSetError
from train.loop import DivergedError
from train.metrics_file import write_metrics
from train.model_folder import METRICS_FILE, PICTURES, refuse_other_run, write_recipe, written_aside
from train.pixels import PixelStatistics
from train.row_order import RowOrder
from train.saliency_frames import SaliencyFrames, keep_fixations_inside, predict_maps
from train.saliency_pictures import SaliencyRow, choose_frames, save_saliency
from train.saliency_results import (
    COLUMNS,
    FrameScores,
    ScoreError,
    SeenFrames,
    over_splits,
    results_table,
    score_frames,
    write_predictions,
)
from train.scan_splits import ScanSplit, ScanSplitError, write_scan_splits
from train.score_intervals import frame_score_intervals
from train.starting_model import (
    RANDOM,
    StartingModelError,
    given_config_fields,
    starting_config,
    starting_model,
)
from train.stored_rows import data_hash

GROUPS = {"test": "this model", "center_prior": "centre prior", "random": "random, first split"}
ERRORS = (
    ArgumentsError,
    DivergedError,
    FixationError,
    FrameSetError,
    ScanSplitError,
    ScoreError,
    StartingModelError,
    PushError,
)


@dataclass(frozen=True)
class SaliencyTask:
    """What all splits share.

    Args:
        arguments: the run.
        frame_set: the frames; all fixations lie inside of them.
        splits: the scans of each split.
        processor: what makes a picture ready for the model.
    """

    arguments: FinetuneSaliencyArguments
    frame_set: FrameSet
    splits: list[ScanSplit]
    processor: DualRepImageProcessor

    @property
    def statistics(self) -> PixelStatistics:
        """What pixels are normalised by."""
        return PixelStatistics(self.processor.image_mean, self.processor.image_std)

    def rows_of(self, scan_ids: Iterable[str]) -> np.ndarray:
        """The frames of these scans that have a fixation."""
        rows = self.frame_set.rows_of(scan_ids)
        return rows[[len(self.frame_set.fixations[row]) > 0 for row in rows]]

    def training_rows(self, number: int) -> np.ndarray:
        """The frames that split `number`, from 1, is trained on."""
        rows = self.rows_of(self.splits[number - 1].train)
        return draw_label_share(rows, self.arguments.label_share, seed_of_split(self.arguments, number))


@dataclass(frozen=True)
class SplitResult:
    """What came of one split.

    Args:
        model: as trained.
        test_rows: (frames,) of the frame set.
        scores: of the model's maps of these.
        prior_scores: of the centre prior, which is fitted on the training frames.
    """

    model: PreTrainedModel
    test_rows: np.ndarray
    scores: FrameScores
    prior_scores: FrameScores


def main(command_line: list[str] | None = None) -> int:
    """Reads the command line and runs; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\n{help_text(FinetuneSaliencyArguments)}")
        return 0
    try:
        finetune_saliency(*parse_finetune_arguments(FinetuneSaliencyArguments, words))
    except ERRORS as error:
        print(f"finetune_saliency.py: {error}", file=sys.stderr)
        return 2
    return 0


def finetune_saliency(arguments: FinetuneSaliencyArguments, recipe_name: str) -> None:
    """The whole run: checks, frames, a model a split, its scores, the folder and the table."""
    logging.disable_progress_bar()
    state = join_processes(arguments)
    if state.is_main_process:
        refuse_other_run(arguments, "fine-tuning")
        if arguments.push_to_hub is not None:
            check_before_training(arguments.push_to_hub, arguments.model)
    state.wait_for_everyone()
    size = starting_config(arguments.model, given_config_fields(arguments)).image_config.image_size
    with decoded_frames(arguments, size) as decoded:
        frame_set = with_fixations_inside(decoded, arguments, state.is_main_process)
        processor = DualRepImageProcessor(size={"height": size, "width": size})
        task = SaliencyTask(arguments, frame_set, choose_splits(arguments, frame_set), processor)
        for number, split in enumerate(task.splits, start=1):
            check_split(task, split, number, state.num_processes)
        results = [
            run_split(task, number, arguments.model, f"Split {number} of {len(task.splits)}")
            for number in range(1, len(task.splits) + 1)
        ]
        random = None
        if arguments.compare_with_random and arguments.model != RANDOM:
            random = run_split(task, 1, RANDOM, "Random initialisation")
        if state.is_main_process:
            finish(task, results, random, recipe_name)
        state.wait_for_everyone()


def with_fixations_inside(
    frame_set: FrameSet, arguments: FinetuneSaliencyArguments, is_main_process: bool
) -> FrameSet:
    """The set without fixations outside of their frame; what is dropped is counted and said.

    Raises:
        FrameSetError: the set has no fixations.
        FixationError: none of them lies inside.
    """
    if frame_set.fixations is None or frame_set.frames.ndim != 4:
        raise FrameSetError(
            f"{arguments.dataset_config!r} of {arguments.dataset!r} does not hold frames with fixations: "
            "prepare it with `python -m datasets_scripts.prepare_gaze`, and name that configuration."
        )
    kept = keep_fixations_inside(frame_set.fixations)
    if is_main_process and kept.report():
        print(kept.report())
    return replace(frame_set, fixations=kept.fixations)


def check_split(task: SaliencyTask, split: ScanSplit, number: int, processes: int) -> None:
    """Raises ScanSplitError unless a split can be trained and tested on."""
    training = len(task.training_rows(number))
    batch = task.arguments.per_device_train_batch_size * processes
    if training < batch:
        raise ScanSplitError(
            f"Split {number} has {training} training frames with a fixation, fewer than the {batch} of one "
            "step: lower per_device_train_batch_size, or prepare more recordings."
        )
    if not len(task.rows_of(split.test)):
        raise ScanSplitError(f"Split {number} has no test frame with a fixation: choose another seed.")


def run_split(task: SaliencyTask, number: int, model: str, title: str) -> SplitResult | None:
    """Trains a model on one side of a split; its maps, and the centre prior, are scored on the other.

    Args:
        task: the run.
        number: of the split, from 1.
        model: what it starts from; `random` takes the architecture of the run's own.
        title: for log lines.

    Returns:
        None but on the main process, which alone tests.
    """
    arguments, frame_set = task.arguments, task.frame_set
    seed = seed_of_split(arguments, number)
    set_seed(seed)
    fields = given_config_fields(arguments)
    if model == RANDOM:
        fields = starting_config(arguments.model, fields).to_dict()
    started = starting_model(DualRepForSaliencyPrediction, model, fields, arguments.linear_probe)
    rows = task.training_rows(number)
    frames = SaliencyFrames(frame_set, seed, arguments.augmentation, arguments.fixation_maps, task.statistics)
    trained = finetune(started, arguments, frames, seed, title, order=RowOrder(rows, seed))
    if not process_state().is_main_process:
        return None
    result = score_split(task, number, trained)
    kld = result.scores.means()["kld"]
    print(f"{title}: KLD {kld:.2f} on {len(result.test_rows)} test frames.", flush=True)
    return result


def score_split(task: SaliencyTask, number: int, model: PreTrainedModel) -> SplitResult:
    """Scores the model's maps of the test frames, one at a time, and the prior of the training frames."""
    arguments, frame_set = task.arguments, task.frame_set
    rows, size = task.rows_of(task.splits[number - 1].test), task.processor.size["height"]
    trained_on = [frame_set.fixations[row] for row in task.training_rows(number)]
    prior = center_prior(trained_on, size, size, arguments.fixation_maps)
    seen = SeenFrames(
        scan_ids=[frame_set.scan_ids[row] for row in rows],
        times_s=frame_set.times_s[rows],
        fixations=[frame_set.fixations[row] for row in rows],
        gaussian=arguments.fixation_maps,
        center_prior=prior,
    )
    maps = predict_maps(model, frame_set, rows, task.statistics, arguments.per_device_eval_batch_size)
    scores = score_frames(maps, seen)
    return SplitResult(model.cpu(), rows, scores, score_frames(repeat(prior, len(rows)), seen))


def finish(
    task: SaliencyTask, results: list[SplitResult], random: SplitResult | None, recipe_name: str
) -> None:
    """Writes the folder and prints the table."""
    arguments = task.arguments
    metrics = all_metrics(results, random) | all_intervals(task, results, random)
    write_recipe(arguments)
    with written_aside(Path(arguments.output_dir)) as aside:
        results[0].model.save_pretrained(aside)
        task.processor.save_pretrained(aside)
        write_metrics(
            aside / METRICS_FILE,
            metrics,
            recipe=recipe_name,
            seed=arguments.seed,
            data_hash=data_hash(arguments.dataset, arguments.dataset_config),
        )
        write_data_facts(aside, arguments.dataset, arguments.dataset_config)
        write_scan_splits(aside / "splits.json", task.splits)
        write_predictions(prediction_rows(task, results), aside / "predictions.parquet")
        save_saliency(picture_rows(task, results[0], random), aside / PICTURES / "saliency.png")
    write_card(Path(arguments.output_dir), base_model=hub_id(arguments.model))
    print(f"Mean over {len(results)} splits (standard deviation):")
    print(results_table(metrics, GROUPS))
    left_out = sum((result.scores.left_out for result in results), Counter())
    for reason, frames in left_out.items():
        print(f"Left out of a mean, {frames} test frames without {reason}.")
    print(f"Model of split 1, metrics.json, card, predictions and picture: {arguments.output_dir}")
    if arguments.push_to_hub is not None:
        print(push_finished_run(arguments.output_dir, arguments.push_to_hub, arguments.model))


def all_metrics(results: list[SplitResult], random: SplitResult | None) -> dict[str, float]:
    """The scores by their names in metrics.json: over the splits, and of each split."""
    of_splits = [result.scores.means() for result in results]
    metrics = over_splits("test", of_splits)
    metrics |= over_splits("center_prior", [result.prior_scores.means() for result in results])
    if random is not None:
        metrics |= over_splits("random", [random.scores.means()])
    for number, scores in enumerate(of_splits, start=1):
        metrics |= {f"split_{number}/{name}": value for name, value in scores.items()}
    return metrics


def all_intervals(
    task: SaliencyTask, results: list[SplitResult], random: SplitResult | None
) -> dict[str, float]:
    """The 95% intervals of the model's scores and both baselines', by their names in metrics.json."""
    groups = {
        "test": [(result.test_rows, result.scores) for result in results],
        "center_prior": [(result.test_rows, result.prior_scores) for result in results],
        "random": [] if random is None else [(random.test_rows, random.scores)],
    }
    intervals = {}
    for group, splits in groups.items():
        scan_ids = [[task.frame_set.scan_ids[row] for row in rows] for rows, _ in splits]
        scores = [of_split.frames for _, of_split in splits]
        intervals |= frame_score_intervals(group, scan_ids, scores, list(COLUMNS)) if splits else {}
    return intervals


def prediction_rows(task: SaliencyTask, results: list[SplitResult]) -> list[dict]:
    """A row a test frame and split."""
    frame_set = task.frame_set
    return [
        {"split": number, SCAN_ID: frame_set.scan_ids[row], TIME_S: frame_set.times_s[row], **scores}
        for number, result in enumerate(results, start=1)
        for row, scores in zip(result.test_rows, result.scores.frames, strict=True)
    ]


def picture_rows(task: SaliencyTask, result: SplitResult, random: SplitResult | None) -> list[SaliencyRow]:
    """Test frames of the first split with their gaze and the maps of the models."""
    frame_set, gaussian = task.frame_set, task.arguments.fixation_maps
    scan_ids = [frame_set.scan_ids[row] for row in result.test_rows]
    times_s = frame_set.times_s[result.test_rows]
    rows = result.test_rows[choose_frames(scan_ids, times_s, task.arguments.pictured_frames)]
    size = task.processor.size["height"]
    columns = {"gaze": [density_map(frame_set.fixations[row], size, size, gaussian) for row in rows]}
    for title, shown in (("this model", result), ("random initialisation", random)):
        if shown is not None:
            columns[title] = list(predict_maps(shown.model, frame_set, rows, task.statistics, len(rows)))
    return [
        SaliencyRow(
            title=f"scan {frame_set.scan_ids[row][:8]}\n{frame_set.times_s[row]:.1f} s",
            frame=frame_set.frames[row],
            fixations=frame_set.fixations[row],
            maps={title: maps[place] for title, maps in columns.items()},
        )
        for place, row in enumerate(rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
