"""Fine-tunes for standard plane detection: which plane a frame, or a clip, shows; on several splits.

accelerate launch train/finetune_planes.py train/recipes/demo_planes.yaml --dataset FRAMES
accelerate launch train/finetune_planes.py --model PATH_OR_ID|random|imagenet --dataset FRAMES ...
accelerate launch train/finetune_planes.py RECIPE.yaml --dataset CLIPS --dataset_config plane_clips
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from datasets_scripts.schema import PLANE_CLIPS_CONFIG, UNLABELLED
from hub_cards.push import check_before_training, push_finished_run
from hub_cards.push_errors import PushError
from hub_cards.render import hub_id, write_card
from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepForImageClassification, DualRepForVideoClassification
from modeling_dualrep.video_processing_dualrep import DualRepVideoProcessor
from train.arguments import ArgumentsError, help_text
from train.data_facts import write_data_facts
from train.finetune_arguments import FinetuneArguments, FinetunePlanesArguments, parse_finetune_arguments
from train.finetuning import (
    choose_splits,
    decoded_frames,
    draw_label_share,
    finetune,
    join_processes,
    seed_of_split,
)
from train.frame_sets import FrameSet, FrameSetError
from train.loop import DivergedError
from train.metrics_file import write_metrics
from train.model_folder import METRICS_FILE, PICTURES, refuse_other_run, write_recipe, written_aside
from train.pixels import PixelStatistics
from train.plane_frames import PlaneFrames, class_weights, predict
from train.plane_pictures import save_confusion_matrix, save_reliability
from train.plane_results import (
    PlaneResultsError,
    SplitPredictions,
    calibration_text,
    check_class_names,
    over_splits,
    results_table,
    split_scores,
    write_predictions,
)
from train.row_order import RowOrder
from train.scan_splits import ScanSplit, ScanSplitError, write_scan_splits
from train.score_intervals import plane_intervals
from train.starting_model import StartingModelError, given_config_fields, starting_config, starting_model
from train.stored_rows import data_hash


@dataclass(frozen=True)
class PlaneTask:
    """What all splits share.

    Args:
        arguments: the run.
        frame_set: the labelled frames or clips.
        splits: the scans of each split.
        processor: what makes a picture or a clip ready for the model.
    """

    arguments: FinetunePlanesArguments
    frame_set: FrameSet
    splits: list[ScanSplit]
    processor: DualRepImageProcessor | DualRepVideoProcessor

    @property
    def statistics(self) -> PixelStatistics:
        """What pixels are normalised by."""
        return PixelStatistics(self.processor.image_mean, self.processor.image_std)

    @property
    def num_frames(self) -> int:
        """Frames that the model takes."""
        return self.processor.num_frames if takes_clips(self.arguments) else 1


def main(command_line: list[str] | None = None) -> int:
    """Reads the command line and runs; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print("\n".join([__doc__, FinetuneArguments.__doc__, help_text(FinetunePlanesArguments)]))
        return 0
    try:
        finetune_planes(*parse_finetune_arguments(FinetunePlanesArguments, words))
    except (
        ArgumentsError,
        DivergedError,
        FrameSetError,
        PlaneResultsError,
        PushError,
        ScanSplitError,
        StartingModelError,
    ) as error:
        print(f"finetune_planes.py: {error}", file=sys.stderr)
        return 2
    return 0


def finetune_planes(arguments: FinetunePlanesArguments, recipe_name: str) -> None:
    """The whole run: checks, frames, a model a split, its predictions, the folder and the table."""
    logging.disable_progress_bar()
    state = join_processes(arguments)
    if state.is_main_process:
        refuse_other_run(arguments, "fine-tuning")
        if arguments.push_to_hub is not None:
            check_before_training(arguments.push_to_hub, arguments.model)
    state.wait_for_everyone()
    config = starting_config(arguments.model, given_config_fields(arguments))
    processor = build_processor(arguments, config)
    with decoded_frames(arguments, processor.size["height"]) as frame_set:
        check_labels(frame_set, arguments)
        task = PlaneTask(arguments, frame_set, choose_splits(arguments, frame_set), processor)
        for number, split in enumerate(task.splits, start=1):
            check_split(task, split, number, state.num_processes)
        if state.is_main_process:
            print(description(task))
        first_model, tested = run_splits(task, state.is_main_process)
        if state.is_main_process:
            finish(task, first_model, tested, recipe_name)
        state.wait_for_everyone()


def takes_clips(arguments: FinetunePlanesArguments) -> bool:
    """Whether the run is on the video tower."""
    return arguments.dataset_config == PLANE_CLIPS_CONFIG


def build_processor(
    arguments: FinetunePlanesArguments, config: DualRepConfig
) -> DualRepImageProcessor | DualRepVideoProcessor:
    """The processor with the tower's sizes."""
    if takes_clips(arguments):
        video = config.video_config
        size = {"height": video.image_size, "width": video.image_size}
        return DualRepVideoProcessor(size=size, num_frames=video.num_frames)
    size = {"height": config.image_config.image_size, "width": config.image_config.image_size}
    return DualRepImageProcessor(size=size)


def check_labels(frame_set: FrameSet, arguments: FinetunePlanesArguments) -> None:
    """Raises FrameSetError or PlaneResultsError unless planes can be learnt from the set."""
    place = f"{arguments.dataset_config!r} of {arguments.dataset!r}"
    if frame_set.labels is None:
        raise FrameSetError(
            f"{place} has no labels: give a set of labelled frames, as prepare_planes writes."
        )
    if (frame_set.labels == UNLABELLED).all():
        raise FrameSetError(f"{place} has labels, but no row with one: there is nothing to learn.")
    check_class_names(frame_set.class_names)
    if (frame_set.frames.ndim == 5) != takes_clips(arguments):
        raise FrameSetError(f"{place} has not the columns of its name: prepare it anew with prepare_planes.")


def check_split(task: PlaneTask, split: ScanSplit, number: int, processes: int) -> None:
    """Raises ScanSplitError unless a split can be trained and tested on."""
    labels, names = task.frame_set.labels, task.frame_set.class_names
    training = training_rows(task, split, number)
    missing = np.setdiff1d(labels[labels != UNLABELLED], labels[training])
    if len(missing):
        raise ScanSplitError(
            f"Split {number} has no training frame of {', '.join(names[index] for index in missing)}, which "
            "the set has: choose another seed or split_method, or add scans with it."
        )
    batch = task.arguments.per_device_train_batch_size * processes
    if len(training) < batch:
        raise ScanSplitError(
            f"Split {number} has {len(training)} training frames, fewer than the {batch} of one step: lower "
            "per_device_train_batch_size."
        )
    if not len(task.frame_set.rows_of(split.test)):
        raise ScanSplitError(f"Split {number} has no labelled test frame: choose another seed.")


def training_rows(task: PlaneTask, split: ScanSplit, number: int) -> np.ndarray:
    """The labelled rows of the split's training scans, or the share of them that is trained on."""
    arguments, rows = task.arguments, task.frame_set.rows_of(split.train)
    seed = seed_of_split(arguments, number)
    return draw_label_share(rows, arguments.label_share, seed, task.frame_set.labels[rows])


def description(task: PlaneTask) -> str:
    """What is learnt from, in a sentence; with it what is left out."""
    frame_set = task.frame_set
    labels = frame_set.labels[frame_set.labels != UNLABELLED]
    rows = "clips" if takes_clips(task.arguments) else "frames"
    text = (
        f"{len(labels)} {rows} of {len(np.unique(labels))} classes from {len(set(frame_set.scan_ids))} scans "
        f"of {len(set(frame_set.patients))} patients."
    )
    unlabelled = len(frame_set.labels) - len(labels)
    if unlabelled:
        text += f" {unlabelled} {rows} without a label are left out."
    return text


def run_splits(task: PlaneTask, is_main_process: bool) -> tuple[PreTrainedModel, list[SplitPredictions]]:
    """Trains a model a split; returns the first and, on the main process, the predictions of each."""
    first_model, tested = None, []
    for number, split in enumerate(task.splits, start=1):
        title = f"Split {number} of {len(task.splits)}"
        model = train_split(task, split, number, title)
        if is_main_process:
            tested.append(evaluate_split(task, split, model))
            scores = split_scores(tested[-1], task.frame_set.class_names)
            frames = f"{len(tested[-1].labels)} test rows of {len(split.test)} scans"
            print(f"{title}: F1 {100 * scores['f1']:.1f} % on {frames}.", flush=True)
        first_model = first_model or model.cpu()
    return first_model, tested


def train_split(task: PlaneTask, split: ScanSplit, number: int, title: str) -> PreTrainedModel:
    """A model trained on the split's training scans."""
    arguments, frame_set = task.arguments, task.frame_set
    seed = seed_of_split(arguments, number)
    set_seed(seed)
    names = dict(enumerate(frame_set.class_names))
    model = starting_model(
        DualRepForVideoClassification if takes_clips(arguments) else DualRepForImageClassification,
        arguments.model,
        given_config_fields(arguments),
        linear_probe=arguments.linear_probe,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    rows = training_rows(task, split, number)
    labels = frame_set.labels[rows]
    weights = class_weights(labels, len(names))

    def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        pixels = task.statistics.normalise(torch.stack([pixels for pixels, _ in items]))
        return {model.main_input_name: pixels, "labels": torch.tensor([label for _, label in items])}

    is_balanced = arguments.balance == "balanced_sampling"
    return finetune(
        model,
        arguments,
        PlaneFrames(frame_set, seed, arguments.augmentation, task.num_frames),
        seed,
        title,
        collate,
        order=RowOrder(rows, seed, weights[labels] if is_balanced else None),
        class_weights=torch.from_numpy(weights).float() if arguments.balance == "class_weights" else None,
    )


def evaluate_split(task: PlaneTask, split: ScanSplit, model: PreTrainedModel) -> SplitPredictions:
    """What the model says of the split's test scans."""
    frame_set = task.frame_set
    rows = frame_set.rows_of(split.test)
    batch_size = task.arguments.per_device_eval_batch_size
    return SplitPredictions(
        [frame_set.scan_ids[row] for row in rows],
        frame_set.times_s[rows],
        frame_set.labels[rows],
        predict(model, frame_set, rows, task.statistics, batch_size, task.num_frames),
    )


def finish(task: PlaneTask, model: PreTrainedModel, tested: list[SplitPredictions], recipe_name: str) -> None:
    """Writes the folder and prints the table."""
    arguments, names = task.arguments, task.frame_set.class_names
    metrics = over_splits([split_scores(test, names) for test in tested]) | plane_intervals(tested, names)
    labels = np.concatenate([test.labels for test in tested])
    predicted = np.concatenate([test.predicted for test in tested])
    confidences = np.concatenate([test.confidences for test in tested])
    write_recipe(arguments)
    with written_aside(Path(arguments.output_dir)) as aside:
        model.save_pretrained(aside)
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
        write_predictions(tested, names, aside / "predictions.parquet")
        save_confusion_matrix(labels, predicted, names, aside / PICTURES / "confusion_matrix.png")
        save_reliability(
            confidences, predicted == labels, calibration_text(metrics), aside / PICTURES / "reliability.png"
        )
    write_card(Path(arguments.output_dir), base_model=hub_id(arguments.model))
    print(results_table(metrics, names))
    print(f"Model of split 1, metrics.json, card, predictions and pictures: {arguments.output_dir}")
    if arguments.push_to_hub is not None:
        print(push_finished_run(arguments.output_dir, arguments.push_to_hub, arguments.model))


if __name__ == "__main__":
    sys.exit(main())
