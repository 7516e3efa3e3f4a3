"""Training with pretrain.py's defaults on a CPU against the plain float32 loop with torchvision's towers."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

import torch

from modeling_dualrep.configuration_dualrep import DualRepConfig
from train.arguments import require
from train.bare_training import Step, benchmarked_run, plain_steps, random_batch, training_steps
from train.benchmark_step import chosen_rounds, pretraining
from train.precision import computes_bf16_quickly
from train.timing import BenchmarkResult, Ratio, alternating_rounds, median_ratio, median_seconds

BAR_WITH_BF16 = 2.5
BAR_WITHOUT_BF16 = 1.3
prepared: list[Step] = []  # the plain loop, in the process that it has to itself


@dataclass(frozen=True)
class CpuArguments:
    """pretrain.py's defaults on a CPU against the plain loop.

    Args:
        batch_size: clips in a step.
        rounds: how often each of the two is timed, in turns; they are run once before that. Left out: as in
            the benchmark of a step.
        clip_seconds: length of a clip's sound.
        model: fields of DualRepConfig; by default the full size. The plain loop takes of it only the speech
            tower, the number and size of the frames, and the size of the embeddings.
        seed: of the batch and the weights.
    """

    batch_size: int = 8
    rounds: int | None = None
    clip_seconds: float = 6.0
    model: dict = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 2, "at least 2")
        require(self, "rounds", self.rounds is None or self.rounds >= 1, "at least 1")
        require(self, "clip_seconds", self.clip_seconds > 0, "above 0")
        pretraining(self.model, None, self.seed, compiled=False).model_config()


@contextmanager
def plain_loop_apart(arguments: CpuArguments) -> Iterator[Step]:
    """A step of the plain loop, taken in a process of its own.

    There, what pretrain.py sets for its whole process, such as how memory is kept, does not help it.
    """
    given = (arguments, torch.get_num_threads())
    with ProcessPoolExecutor(1, get_context("spawn"), prepare_plain_loop, given) as pool:
        yield lambda: pool.submit(take_plain_step).result()


def prepare_plain_loop(arguments: CpuArguments, threads: int) -> None:
    """Builds the plain loop of this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(arguments.seed)
    config = DualRepConfig(**arguments.model)
    batch = random_batch(config, arguments.batch_size, arguments.clip_seconds, arguments.seed)
    prepared.append(plain_steps(config, batch, torch.device("cpu"), 1))


def take_plain_step() -> None:
    """A step of the plain loop of this process."""
    prepared[0]()


def benchmark_cpu(arguments: CpuArguments) -> BenchmarkResult:
    """A step of the training loop by default settings against one of the plain loop on the same batch."""
    run = benchmarked_run(pretraining(arguments.model, None, arguments.seed, compiled=False), "cpu")
    config = run.arguments.model_config()
    batch = random_batch(config, arguments.batch_size, arguments.clip_seconds, arguments.seed)
    with plain_loop_apart(arguments) as plain_step:
        tasks = {"step": training_steps(run, batch, 1), "plain_loop": plain_step}
        seconds = alternating_rounds(tasks, chosen_rounds(arguments.rounds, "cpu"))
    has_bf16 = computes_bf16_quickly("cpu")
    bar = BAR_WITH_BF16 if has_bf16 else BAR_WITHOUT_BF16
    return BenchmarkResult(
        [
            Ratio(
                "speed of training by default / of the plain float32 loop with torchvision's towers",
                median_ratio(seconds, "plain_loop", "step"),
                bar,
                is_at_most=False,
            )
        ],
        {
            "seconds": seconds,
            "precision": run.accelerator.mixed_precision,
            "processor_has_bf16": has_bf16,
            "clips_per_second": arguments.batch_size / median_seconds(seconds)["step"],
        },
    )
