"""Evaluating frames as finetune_planes.py does, against the image tower's bare forward passes."""

from dataclasses import dataclass, field

import numpy as np
import torch

from datasets_scripts.schema import PLANES
from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.modeling_dualrep import DualRepForImageClassification
from train.arguments import ArgumentsError, require
from train.finetune_arguments import FinetunePlanesArguments
from train.finetune_planes import PlaneTask, build_processor, evaluate_split
from train.frame_sets import FrameSet
from train.pixels import channels_first
from train.plane_results import split_scores
from train.scan_splits import ScanSplit
from train.timing import BenchmarkResult, Ratio, alternating_rounds, median_ratio, median_seconds

SCANS = 45  # in the paper's test split
BAR = 1.15


@dataclass(frozen=True)
class PlanesArguments:
    """Evaluating frames against the bare image tower.

    Args:
        frames: how many, of random pixels.
        rounds: how often each of the two is timed, in turns; they are run once before that.
        batch_size: frames in a forward pass of both; that of fine-tuning by default.
        image_config: fields of DualRepImageConfig; by default the full size.
        seed: of the frames and weights.
    """

    frames: int = 5_000
    rounds: int = 3
    batch_size: int = FinetunePlanesArguments.per_device_eval_batch_size
    image_config: dict = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "rounds", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        try:
            DualRepConfig(image_config=self.image_config)
        except (TypeError, ValueError) as error:
            raise ArgumentsError(f"Under `image_config`: {error}") from error


def benchmark_planes(arguments: PlanesArguments) -> BenchmarkResult:
    """Evaluating frames as finetune_planes.py does, from the decoded set in memory to the scores, against the
    bare image tower.

    The bare forward passes take the very tensors that the evaluation makes of the frames, prepared
    beforehand: of the same precision, memory layout and batch size.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(arguments.seed)
    config = DualRepConfig(image_config=arguments.image_config, num_labels=len(PLANES))
    model = DualRepForImageClassification(config).eval().to(device)
    task = evaluation_of_random_frames(arguments, config)
    statistics, frames = task.statistics, task.frame_set.frames
    prepared = [
        statistics.normalise(channels_first(frames[first : first + arguments.batch_size]).to(device))
        for first in range(0, arguments.frames, arguments.batch_size)
    ]

    def evaluate() -> None:
        split_scores(evaluate_split(task, task.splits[0], model), PLANES)

    @torch.inference_mode()
    def run_bare_tower() -> None:
        for pixel_values in prepared:
            model.image_model(pixel_values)

    seconds = alternating_rounds({"evaluation": evaluate, "bare_tower": run_bare_tower}, arguments.rounds)
    ratio = median_ratio(seconds, "evaluation", "bare_tower")
    frames_per_second = arguments.frames / median_seconds(seconds)["evaluation"]
    return BenchmarkResult(
        [Ratio("evaluating frames / bare forward passes of the image tower", ratio, BAR, is_at_most=True)],
        {"seconds": seconds, "frames_per_second": frames_per_second},
    )


def evaluation_of_random_frames(arguments: PlanesArguments, config: DualRepConfig) -> PlaneTask:
    """What a fine-tuning run knows when it evaluates a split that tests on all of the frames."""
    size, chance = config.image_config.image_size, np.random.default_rng(arguments.seed)
    scan_ids = [str(number % SCANS) for number in range(arguments.frames)]
    frame_set = FrameSet(
        frames=chance.integers(0, 256, (arguments.frames, size, size, 3), dtype=np.uint8),
        scan_ids=scan_ids,
        patients=scan_ids,
        times_s=np.arange(arguments.frames, dtype=np.float64),
        splits=["test"] * arguments.frames,
        labels=chance.integers(0, len(PLANES), arguments.frames),
        class_names=PLANES,
    )
    run = FinetunePlanesArguments(
        output_dir="",
        model="random",
        dataset="random frames",
        max_steps=1,
        per_device_eval_batch_size=arguments.batch_size,
    )
    split = ScanSplit(train=("none of these",), test=tuple(sorted(set(scan_ids))))
    return PlaneTask(run, frame_set, [split], build_processor(run, config))
