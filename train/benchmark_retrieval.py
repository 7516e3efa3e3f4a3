"""Searching a gallery block by block, as evaluation does it, against the plain way with one whole matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from train.arguments import require
from train.retrieval import positive_ranks, uniformity
from train.timing import BenchmarkResult, Ratio, alternating_rounds, median_ratio, median_seconds

TIME_BAR, MEMORY_BAR = 1.1, 0.3
NOISE = 3.0  # so far are frames from the video of their clip that some are found and some are not
RESET_PEAK = "5"  # of proc(5), for clear_refs
PROBE_BYTES = 2**27


@dataclass(frozen=True)
class RetrievalArguments:
    """Searching block by block against one whole matrix of similarities.

    Args:
        clips: in the gallery.
        features: of an embedding.
        rounds: how often each way is timed, in turns; they are run once before that.
        seed: of the embeddings.
    """

    clips: int = 10_000
    features: int = 512
    rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, "clips", self.clips >= 2, "at least 2")
        for name in ("features", "rounds"):
            require(self, name, getattr(self, name) >= 1, "at least 1")


def benchmark_retrieval(arguments: RetrievalArguments) -> BenchmarkResult:
    """Ranks of all clips among all, and their uniformity: in blocks, and from a matrix of all pairs, which
    both give the same numbers; in time and in the memory that they take beside the embeddings.
    """
    generator = torch.Generator().manual_seed(arguments.seed)
    videos = torch.randn(arguments.clips, arguments.features, generator=generator)
    frames = videos + NOISE * torch.randn(videos.shape, generator=generator)

    def in_blocks() -> tuple[Tensor, float]:
        return positive_ranks(frames, videos, torch.arange(len(videos))), uniformity(videos)

    def with_whole_matrix() -> tuple[Tensor, float]:
        return whole_matrix_ranks(frames, videos), whole_matrix_uniformity(videos)

    tasks = {"blocks": in_blocks, "whole_matrix": with_whole_matrix}
    seconds = alternating_rounds(tasks, arguments.rounds)
    ratio = median_ratio(seconds, "blocks", "whole_matrix")
    ratios = [Ratio("search in blocks / with one whole matrix, seconds", ratio, TIME_BAR, is_at_most=True)]
    peak_bytes = {name: peak_memory_bytes(task) for name, task in tasks.items()}
    if None not in peak_bytes.values():
        ratio = peak_bytes["blocks"] / peak_bytes["whole_matrix"]
        ratios.append(Ratio("search in blocks / with one whole matrix, memory", ratio, MEMORY_BAR, True))
    clips_per_second = arguments.clips / median_seconds(seconds)["blocks"]
    details = {"seconds": seconds, "peak_memory_bytes": peak_bytes, "clips_per_second": clips_per_second}
    return BenchmarkResult(ratios, details)


def whole_matrix_ranks(queries: Tensor, candidates: Tensor) -> Tensor:
    """(queries,) the place at which each query finds the candidate of its own row."""
    similarity = normalize(queries.double(), dim=1) @ normalize(candidates.double(), dim=1).T
    return (similarity >= similarity.diagonal()[:, None] - 1e-9).sum(dim=1)


def whole_matrix_uniformity(embeds: Tensor) -> float:
    """log of the mean of exp(-2 d^2) over all pairs."""
    rows = normalize(embeds.double(), dim=1)
    potentials = (rows @ rows.T).sub_(1).mul_(4).exp_()
    pairs = len(rows) * (len(rows) - 1)
    return ((potentials.sum() - potentials.trace()) / pairs).log().item()


def peak_memory_bytes(task: Callable[[], object]) -> int | None:
    """By how much the process grew at most while the task ran; None where the system does not tell."""
    # Some sandboxes have the files and answer nonsense: a known peak shows whether they can be believed.
    known = _reported_peak_bytes(lambda: torch.ones(PROBE_BYTES, dtype=torch.uint8))
    if known is None or known < 0.9 * PROBE_BYTES:
        return None
    return _reported_peak_bytes(task)


def _reported_peak_bytes(task: Callable[[], object]) -> int | None:
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.is_file() and reset.is_file()):
        return None

    def kilobytes(name: str) -> int:
        return int(status.read_text().split(f"{name}:")[1].split()[0])

    try:
        reset.write_text(RESET_PEAK)
        before = kilobytes("VmRSS")
        task()
        return 1024 * (kilobytes("VmHWM") - before)
    except (OSError, IndexError):
        return None
