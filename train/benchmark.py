"""Times parts of the training code against the least they could cost, in one run on one machine.

python -m train.benchmark planes [--frames 10000] [--output FILE.json]

planes: evaluating frames as finetune_planes.py does, against the image tower's bare forward passes.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets_scripts.schema import PLANES
from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.modeling_dualrep import DualRepForImageClassification
from train.arguments import COMMAND_LINE, ArgumentsError, build, help_text, read_flags, require
from train.finetune_arguments import FinetunePlanesArguments
from train.finetune_planes import PlaneTask, build_processor, evaluate_split
from train.frame_sets import FrameSet
from train.metrics_file import current_code_version, describe_machine
from train.pixels import channels_first
from train.plane_results import split_scores
from train.scan_splits import ScanSplit

SCANS = 45  # in the paper's test split


@dataclass(frozen=True)
class PlanesArguments:
    """Evaluating frames against the bare image tower.

    Args:
        frames: how many, of random pixels.
        rounds: how often each of the two is timed, in turns; they are run once before that.
        batch_size: frames in a forward pass of both; that of fine-tuning by default.
        image_config: fields of DualRepImageConfig; by default the full size.
        seed: of the frames and weights.
        output: JSON file for the result; left out, it is only printed.
    """

    frames: int = 10_000
    rounds: int = 5
    batch_size: int = FinetunePlanesArguments.per_device_eval_batch_size
    image_config: dict = field(default_factory=dict)
    seed: int = 0
    output: str | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "rounds", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        has_folder = self.output is None or Path(self.output).resolve().parent.is_dir()
        require(self, "output", has_folder, "a file in a folder that is there")
        try:
            DualRepConfig(image_config=self.image_config)
        except (TypeError, ValueError) as error:
            raise ArgumentsError(f"Under `image_config`: {error}") from error


def alternating_rounds(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in each round, after one untimed run of each.

    The order is turned round after round, so that a machine that grows warm or busy favours none.
    """
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for _ in range(rounds):
        for name in names:
            start_s = _now_s()
            tasks[name]()
            seconds[name].append(_now_s() - start_s)
        names.reverse()
    return seconds


def _now_s() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def comparison(seconds: dict[str, list[float]], measured: str, bare: str) -> dict[str, Any]:
    """Medians over the rounds, and the median over the rounds of `measured / bare`.

    Both of a round ran side by side, so what else the machine did weighs less on their ratio than on them.
    """
    ratios = [one / other for one, other in zip(seconds[measured], seconds[bare], strict=True)]
    return {
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def benchmark_planes(arguments: PlanesArguments) -> dict[str, Any]:
    """Evaluating frames as finetune_planes.py does, from the decoded set in memory to the scores, against the
    bare image tower.

    The bare forward passes take the very tensors that the evaluation makes of the frames, prepared
    beforehand: of the same precision, memory layout and batch size.

    Returns:
        see `comparison`; evaluated frames a second in the median round too.
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
    compared = comparison(seconds, "evaluation", "bare_tower")
    return {**compared, "frames_per_second": arguments.frames / compared["median_seconds"]["evaluation"]}


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


BENCHMARKS = {"planes": (PlanesArguments, benchmark_planes)}


def main(command_line: list[str] | None = None) -> int:
    """The command; an input that cannot be used ends in a sentence and exit status 2."""
    words = sys.argv[1:] if command_line is None else command_line
    if {"-h", "--help"} & set(words):
        print("\n\n".join([__doc__, *(help_text(arguments) for arguments, _ in BENCHMARKS.values())]))
        return 0
    try:
        if not words or words[0] not in BENCHMARKS:
            raise ArgumentsError(f"Name the benchmark first: {', '.join(BENCHMARKS)}.")
        arguments_class, benchmark = BENCHMARKS[words[0]]
        arguments = build(arguments_class, read_flags(words[1:]), COMMAND_LINE)
    except ArgumentsError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    settings = {**dataclasses.asdict(arguments), "threads": torch.get_num_threads()}
    del settings["output"]
    result = {"benchmark": words[0], **benchmark(arguments), "settings": settings}
    result |= {"code_version": current_code_version(), "machine": describe_machine()}
    print(json.dumps(result, indent=2))
    if arguments.output is not None:
        Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
