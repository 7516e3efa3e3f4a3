"""Timing side by side, and what a benchmark finds: ratios with their bars."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Ratio:
    """One ratio of a benchmark, measured in one run, and the bar that it is held against.

    Args:
        name: what is compared with what.
        value: the ratio; None where it was not measured.
        bar: what it should be.
        is_at_most: whether it should be at most the bar; otherwise at least.
        skipped: what the machine lacks to measure it; None where it was.
    """

    name: str
    value: float | None
    bar: float
    is_at_most: bool
    skipped: str | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the ratio is on the right side of its bar; None where it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bar if self.is_at_most else self.value >= self.bar


class SkippedError(RuntimeError):
    """A benchmark that this machine cannot run.

    Args:
        lacking: what the machine lacks, for people.
        ratios: those that would have been measured, without values.
    """

    def __init__(self, lacking: str, ratios: Sequence[Ratio] = ()) -> None:
        super().__init__(lacking)
        self.ratios = [replace(ratio, skipped=lacking) for ratio in ratios]


@dataclass(frozen=True)
class BenchmarkResult:
    """What one benchmark found.

    Args:
        ratios: in the order of the table.
        details: seconds, rates and sizes behind them, as JSON takes it.
    """

    ratios: list[Ratio]
    details: dict[str, Any] = field(default_factory=dict)


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
            start_s = now_s()
            tasks[name]()
            seconds[name].append(now_s() - start_s)
        names.reverse()
    return seconds


def now_s() -> float:
    """The clock, once all that was given to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def median_ratio(seconds: dict[str, list[float]], measured: str, bare: str) -> float:
    """The median over the rounds of `measured / bare`.

    Both of a round ran side by side, so what else the machine did weighs less on their ratio than on them.
    """
    return statistics.median(one / other for one, other in zip(seconds[measured], seconds[bare], strict=True))


def median_seconds(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median over the rounds of each task's seconds."""
    return {name: statistics.median(values) for name, values in seconds.items()}
