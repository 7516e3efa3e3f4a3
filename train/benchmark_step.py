"""A training step of pretrain.py against the bare towers' forward, backward and Adam step."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from train.arguments import PretrainArguments, require
from train.bare_training import bare_towers_steps, benchmarked_run, random_batch, training_steps
from train.precision import computes_bf16_quickly
from train.timing import BenchmarkResult, Ratio, alternating_rounds, median_ratio, median_seconds

BAR = 1.05
ROUNDS, ROUNDS_WITHOUT_BF16 = 5, 2
GPU_STEPS = 20  # a single one is too short there to time


@dataclass(frozen=True)
class StepArguments:
    """A training step against the bare towers.

    Args:
        batch_size: clips in a step; on a GPU this is doubled as long as it fits.
        rounds: how often each of the two is timed, in turns; they are run once before that. Left out: 5, or 2
            where the hardware has no bf16, on which a step takes several times as long.
        clip_seconds: length of a clip's sound.
        model: fields of DualRepConfig; by default the full size.
        mixed_precision: as in pretrain.py, whose default is taken where it is left out.
        seed: of the batch and the weights.
    """

    batch_size: int = 16
    rounds: int | None = None
    clip_seconds: float = 6.0
    model: dict = field(default_factory=dict)
    mixed_precision: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 2, "at least 2")
        require(self, "rounds", self.rounds is None or self.rounds >= 1, "at least 1")
        require(self, "clip_seconds", self.clip_seconds > 0, "above 0")
        pretraining(self.model, self.mixed_precision, self.seed, compiled=False).model_config()


def benchmark_step(arguments: StepArguments) -> BenchmarkResult:
    """A step of the training loop, with bytes made numbers, fusion, losses, clipping, accelerate and logging,
    against the bare towers on the same tensors; on a GPU both are compiled.
    """
    on_gpu = torch.cuda.is_available()
    device_type, steps = ("cuda", GPU_STEPS) if on_gpu else ("cpu", 1)
    batch_size = arguments.batch_size
    if on_gpu:
        batch_size = largest_batch(arguments)
        gc.collect()  # what was tried lies in cycles of references
        torch.cuda.empty_cache()
    run = benchmarked_run(
        pretraining(arguments.model, arguments.mixed_precision, arguments.seed, compiled=on_gpu), device_type
    )
    config = run.arguments.model_config()
    batch = random_batch(config, batch_size, arguments.clip_seconds, arguments.seed)
    tasks = {"step": training_steps(run, batch, steps), "bare_towers": bare_towers_steps(run, batch, steps)}
    seconds = alternating_rounds(tasks, chosen_rounds(arguments.rounds, device_type))
    ratio = median_ratio(seconds, "step", "bare_towers")
    clips_per_second = steps * batch_size / median_seconds(seconds)["step"]
    return BenchmarkResult(
        [Ratio("a training step / the bare towers' forward, backward and Adam", ratio, BAR, is_at_most=True)],
        {
            "seconds": seconds,
            "steps_a_round": steps,
            "batch_size": batch_size,
            "precision": run.accelerator.mixed_precision,
            "clips_per_second": clips_per_second,
        },
    )


def chosen_rounds(rounds: int | None, device_type: str) -> int:
    """Rounds as told, or so many that all benchmarks together take a quarter of an hour on two cores."""
    if rounds is not None:
        return rounds
    return ROUNDS if computes_bf16_quickly(device_type) else ROUNDS_WITHOUT_BF16


def pretraining(model: dict, mixed_precision: str | None, seed: int, compiled: bool) -> PretrainArguments:
    """A pretraining run of pretrain.py's defaults, with gradient clipping, that nothing is read or written
    for.
    """
    return PretrainArguments(
        output_dir="",
        dataset="random",
        max_steps=1,
        max_grad_norm=1.0,
        report_to="none",
        model=model,
        mixed_precision=mixed_precision,
        compile_towers=compiled,
        seed=seed,
    )


def largest_batch(arguments: StepArguments) -> int:
    """Clips in the largest step that fits on the GPU, the batch size doubled from that of the arguments.

    It is looked for uncompiled, which needs more memory: every size would be compiled anew.
    """
    uncompiled = pretraining(arguments.model, arguments.mixed_precision, arguments.seed, compiled=False)
    run = benchmarked_run(uncompiled, "cuda")

    def fits(batch_size: int) -> bool:
        batch = random_batch(uncompiled.model_config(), batch_size, arguments.clip_seconds, arguments.seed)
        try:
            training_steps(run, batch, 1)()
        except torch.cuda.OutOfMemoryError:
            return False
        return True

    return doubled_while(fits, arguments.batch_size)


def doubled_while(fits: Callable[[int], bool], first: int) -> int:
    """`first`, doubled as long as twice as much fits."""
    size = first
    while fits(2 * size):
        size *= 2
    return size
