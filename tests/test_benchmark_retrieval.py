"""Search in blocks against the whole matrix: both find the same; how long it takes is not tested."""

import pytest
import torch

import train.benchmark_retrieval as benchmark_retrieval_module
from train.arguments import ArgumentsError
from train.benchmark_retrieval import (
    RetrievalArguments,
    benchmark_retrieval,
    peak_memory_bytes,
    whole_matrix_ranks,
    whole_matrix_uniformity,
)
from train.retrieval import positive_ranks, uniformity


def test_time_and_memory_are_compared() -> None:
    result = benchmark_retrieval(RetrievalArguments(clips=3000, features=8, rounds=2))
    time, *of_memory = result.ratios
    assert time.value > 0 and time.bar == 1.1 and time.is_at_most
    assert set(result.details["seconds"]) == {"blocks", "whole_matrix"}
    peak = result.details["peak_memory_bytes"]["whole_matrix"]
    assert bool(of_memory) == (peak is not None)
    for memory in of_memory:
        assert memory.bar == 0.3 and memory.is_at_most
        assert peak > 3000 * 3000 * 8


def test_both_ways_find_the_same() -> None:
    videos = torch.randn(300, 6)
    frames = videos + torch.randn(300, 6)
    assert torch.equal(
        positive_ranks(frames, videos, torch.arange(300), 70), whole_matrix_ranks(frames, videos)
    )
    assert uniformity(videos, 70) == pytest.approx(whole_matrix_uniformity(videos), rel=1e-12)


def test_the_peak_counts_what_was_freed_again() -> None:
    def take_and_free() -> None:
        torch.ones(50_000_000)

    peak = peak_memory_bytes(take_and_free)
    assert peak is None or peak > 190_000_000


def test_a_system_that_answers_nonsense_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_retrieval_module, "_reported_peak_bytes", lambda task: 0)
    assert peak_memory_bytes(lambda: None) is None
    assert len(benchmark_retrieval(RetrievalArguments(clips=20, features=4, rounds=1)).ratios) == 1


def test_a_gallery_has_two_clips_at_least() -> None:
    with pytest.raises(ArgumentsError, match="clips is 1"):
        RetrievalArguments(clips=1)
