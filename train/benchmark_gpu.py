"""Training on a GPU: where the time of a step goes, against the roofline and against the plain loop.

The roofline is the sum over the groups of kernels of their floors (train/roofline.py), at the memory
bandwidth and the bf16 rate that are measured in the same run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import BatchFeature

from modeling_dualrep.tower import DualRepTower
from train.arguments import merge, require
from train.bare_training import Step, benchmarked_run, plain_steps, random_batch, take_steps, training_steps
from train.benchmark_step import pretraining
from train.cpu_cores import available_cores
from train.random_clips import random_clip_batches
from train.roofline import Rates, Work, kernel_group, step_work
from train.timing import (
    BenchmarkResult,
    Ratio,
    SkippedError,
    alternating_rounds,
    median_ratio,
    median_seconds,
    now_s,
)
from train.training_run import TrainingRun

ROOFLINE_BAR = 0.8
SPEED_UP_BAR = 2.0
WAITING_BAR = 0.03
CONVOLUTIONS = ("3d", "factorised")
PLAIN_LOOP = "plain_loop"
COPY_BYTES = 2**30
MATRIX_SIZE = 8192
OPERATIONS_TIMED = 20  # copies or products in a round: a single one is too short to time
RATE_ROUNDS = 5
KERNELS_NAMED = 5  # of each group, the longest
KERNEL_NAME_LENGTH = 120


@dataclass(frozen=True)
class GpuArguments:
    """A training step on a GPU: bf16, channels last, compiled towers.

    Args:
        batch_size: clips in a step.
        steps: steps a round.
        rounds: how often each is timed, in turns; they are run once before that.
        loader_steps: steps that are fed by a loader of clips as they are stored.
        loader_workers: its processes; left out: the CPU cores but one.
        clip_seconds: length of a clip's sound.
        model: fields of DualRepConfig; by default the full size.
        seed: of the batch and the weights.
    """

    batch_size: int = 64
    steps: int = 20
    rounds: int = 3
    loader_steps: int = 60
    loader_workers: int | None = None
    clip_seconds: float = 6.0
    model: dict = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 2, "at least 2")
        for name in ("steps", "rounds", "loader_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        workers = self.loader_workers
        require(self, "loader_workers", workers is None or workers >= 0, "at least 0")
        require(self, "clip_seconds", self.clip_seconds > 0, "above 0")
        pretraining(self.model, None, self.seed, compiled=False).model_config()


def benchmark_gpu(arguments: GpuArguments) -> BenchmarkResult:
    """A compiled bf16 step against its roofline and the plain loop, and its kernels by group.

    Raises:
        SkippedError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise SkippedError("needs a CUDA device", gpu_ratios(None, None, None))
    return measure_training(arguments, torch.device("cuda"), compiled=True)


def measure_training(arguments: GpuArguments, device: torch.device, compiled: bool) -> BenchmarkResult:
    """The measurement itself, which can be tried out on a CPU.

    Both ways to compute the video tower's convolutions are timed; the quicker one is held against the bars.
    """
    rates = measured_rates(device)
    runs = {name: prepared_run(arguments, device, compiled, name) for name in CONVOLUTIONS}
    config = runs[CONVOLUTIONS[0]].arguments.model_config()
    batch = random_batch(config, arguments.batch_size, arguments.clip_seconds, arguments.seed)
    tasks = {name: training_steps(run, batch, arguments.steps) for name, run in runs.items()}
    tasks[PLAIN_LOOP] = float32_as_tf32(plain_steps(config, batch, device, arguments.steps))
    seconds = alternating_rounds(tasks, arguments.rounds)
    convolution = min(CONVOLUTIONS, key=median_seconds(seconds).__getitem__)
    step_seconds = median_seconds(seconds)[convolution] / arguments.steps
    run = runs[convolution]
    work = step_work(tower_inputs(run, batch))
    floors = {group: rates.floor_seconds(of_group) for group, of_group in work.items()}
    waiting = waiting_share(arguments, run, batch)
    speed_up = median_ratio(seconds, PLAIN_LOOP, convolution)
    details = {
        "convolution": convolution,
        "kernel_groups": kernel_table(kernel_seconds(training_steps(run, batch, 1), device), floors),
        "seconds": seconds,
        "clips_per_second": arguments.batch_size / step_seconds,
        **utilisation(work, rates, step_seconds),
    }
    return BenchmarkResult(gpu_ratios(sum(floors.values()) / step_seconds, speed_up, waiting), details)


def gpu_ratios(roofline: float | None, speed_up: float | None, waiting: float | None) -> list[Ratio]:
    """The three ratios with their bars; None for what was not measured."""
    plain = "the eager float32-TF32 loop with torchvision's towers"
    return [
        Ratio("roofline: floor of a step / its time", roofline, ROOFLINE_BAR, is_at_most=False),
        Ratio(f"speed of training / of {plain}", speed_up, SPEED_UP_BAR, is_at_most=False),
        Ratio("share of the time that the GPU waits for data", waiting, WAITING_BAR, is_at_most=True),
    ]


def utilisation(work: dict[str, Work], rates: Rates, step_seconds: float) -> dict[str, float]:
    """Model FLOPs of a step, and as a share of the measured bf16 rate."""
    flops = sum(of_group.flops for of_group in work.values())
    return {
        "step_seconds": step_seconds,
        "model_flops_of_a_step": flops,
        "model_flops_utilisation": flops / step_seconds / rates.flops_per_second,
        "measured_bytes_per_second": rates.bytes_per_second,
        "measured_bf16_flops_per_second": rates.flops_per_second,
    }


def prepared_run(
    arguments: GpuArguments, device: torch.device, compiled: bool, convolution: str
) -> TrainingRun:
    """A bf16 run that computes the video tower's convolutions in this way."""
    model = merge(arguments.model, {"video_config": {"convolution": convolution}})
    return benchmarked_run(pretraining(model, "bf16", arguments.seed, compiled), device.type)


def tower_inputs(run: TrainingRun, batch: BatchFeature) -> Iterator[tuple[DualRepTower, torch.Size]]:
    """The towers of the run, each with the shape of its input."""
    for tower in run.accelerator.unwrap_model(run.model).children():
        if isinstance(tower, DualRepTower):
            yield tower, batch[tower.main_input_name].shape


def measured_rates(device: torch.device) -> Rates:
    """Bandwidth of a large copy and rate of a large product of bf16 matrices."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    factor = torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).bfloat16()
    product = torch.empty_like(factor)
    tasks = {
        "copy": repeated(lambda: target.copy_(source), OPERATIONS_TIMED),
        "product": repeated(lambda: torch.mm(factor, factor, out=product), OPERATIONS_TIMED),
    }
    seconds = median_seconds(alternating_rounds(tasks, RATE_ROUNDS))
    return Rates(
        bytes_per_second=OPERATIONS_TIMED * 2 * COPY_BYTES / seconds["copy"],
        flops_per_second=OPERATIONS_TIMED * 2 * MATRIX_SIZE**3 / seconds["product"],
    )


def repeated(operation: Callable[[], object], times: int) -> Step:
    """The operation so many times, one right after the other."""

    def run_all() -> None:
        for _ in range(times):
            operation()

    return run_all


def float32_as_tf32(step: Step) -> Step:
    """The step with float32 products and convolutions computed in TF32 where the hardware has it."""

    def run_in_tf32() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")  # that of convolutions is so by default
        try:
            step()
        finally:
            torch.set_float32_matmul_precision(before)

    return run_in_tf32


def kernel_seconds(step: Step, device: torch.device) -> dict[str, float]:
    """Seconds that each kernel of a step took on the device, by name; on a CPU, each operator."""
    step()
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        step()
        now_s()  # waits for the device
    wanted, time = (
        (DeviceType.CUDA, "self_device_time_total") if on_gpu else (DeviceType.CPU, "self_cpu_time_total")
    )
    kernels = [
        each for each in profiled.key_averages() if each.device_type == wanted and not each.is_user_annotation
    ]
    return {each.key: getattr(each, time) / 1e6 for each in kernels}


def kernel_table(kernels: dict[str, float], floors: dict[str, float]) -> list[dict[str, Any]]:
    """Milliseconds, share of the step and floor of each group of kernels, the longest first.

    Args:
        kernels: seconds of each kernel, by its name.
        floors: seconds that each group takes at least.
    """
    of_groups: dict[str, dict[str, float]] = {group: {} for group in floors}
    for name, seconds in kernels.items():
        of_groups.setdefault(kernel_group(name), {})[name] = seconds
    total = sum(kernels.values())
    rows = []
    for group, of_group in of_groups.items():
        longest = sorted(of_group.items(), key=lambda kernel: -kernel[1])[:KERNELS_NAMED]
        rows.append(
            {
                "group": group,
                "milliseconds": 1e3 * sum(of_group.values()),
                "share": sum(of_group.values()) / total,
                "floor_milliseconds": 1e3 * floors.get(group, 0.0),
                "longest_kernels": {name[:KERNEL_NAME_LENGTH]: 1e3 * seconds for name, seconds in longest},
            }
        )
    return sorted(rows, key=lambda row: -row["milliseconds"])


def waiting_share(arguments: GpuArguments, run: TrainingRun, batch: BatchFeature) -> float:
    """By how much steps that are fed by a loader take longer than steps on a batch that is there, as a share
    of the former's time.
    """
    workers = arguments.loader_workers
    batches = random_clip_batches(
        run.arguments,
        arguments.batch_size,
        arguments.clip_seconds,
        workers=max(1, available_cores() - 1) if workers is None else workers,
        device=run.accelerator.device,
    )
    seconds = {}
    for name, step in (
        ("loaded", lambda: take_steps(run, batches, arguments.loader_steps)),
        ("at_hand", training_steps(run, batch, arguments.loader_steps)),
    ):
        step()  # fills the queue of the loader
        start_s = now_s()
        step()
        seconds[name] = now_s() - start_s
    return max(0.0, 1.0 - seconds["at_hand"] / seconds["loaded"])
