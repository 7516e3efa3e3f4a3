"""Recall against a brute-force count, chance, ties, and the signs of collapse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.retrieval import alignment, chance_recall, effective_rank, positive_ranks, recall, uniformity


def brute_force_rank(query: np.ndarray, candidates: np.ndarray, own: int) -> int:
    def cosine(other: np.ndarray) -> float:
        return float(query @ other / np.linalg.norm(query) / np.linalg.norm(other))

    return sum(cosine(candidate) >= cosine(candidates[own]) - 1e-9 for candidate in candidates)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(1, 5), st.integers(0, 10**6))
def test_ranks_are_those_of_a_count_by_hand(
    queries: int, candidates: int, block_size: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    # Small integers make ties likely.
    query_rows = chance.integers(-2, 3, (queries, 3)) + np.array([0.5, 0, 0])
    candidate_rows = chance.integers(-2, 3, (candidates, 3)) + np.array([0.5, 0, 0])
    own = chance.integers(0, candidates, queries)
    ranks = positive_ranks(
        torch.tensor(query_rows), torch.tensor(candidate_rows), torch.tensor(own), block_size
    )
    expected = [brute_force_rank(query, candidate_rows, i) for query, i in zip(query_rows, own, strict=True)]
    assert ranks.tolist() == expected


def test_equal_embeddings_find_nothing() -> None:
    embeds = torch.ones(50, 8) * torch.linspace(1, 2, 50)[:, None]
    ranks = positive_ranks(embeds, embeds, torch.arange(50))
    assert recall(ranks) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_perfect_embeddings_find_everything_whatever_their_length() -> None:
    embeds = torch.eye(20)
    ranks = positive_ranks(embeds * torch.linspace(0.1, 9, 20)[:, None], embeds, torch.arange(20))
    assert recall(ranks) == {1: 1.0, 5: 1.0, 10: 1.0}


def test_random_embeddings_are_at_chance() -> None:
    torch.manual_seed(0)
    ranks = torch.cat(
        [positive_ranks(torch.randn(100, 16), torch.randn(100, 16), torch.arange(100)) for _ in range(50)]
    )
    for k, share in recall(ranks).items():
        assert share == pytest.approx(chance_recall(k, 100), abs=4 * math.sqrt(k / 100 / 5000))


def test_chance_is_at_most_one() -> None:
    assert chance_recall(10, 4) == 1.0


def test_recall_counts_places_from_one() -> None:
    assert recall(torch.tensor([1, 2, 5, 6]), at=(1, 5, 6)) == {1: 0.25, 5: 0.75, 6: 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_embeddings_that_are_no_numbers_are_refused(bad: float) -> None:
    good, broken = torch.eye(3), torch.eye(3)
    broken[1, 1] = bad
    for pair in ((good, broken), (broken, good)):
        with pytest.raises(ValueError, match="NaN"):
            positive_ranks(*pair, torch.arange(3))


def test_alignment_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [0.0, -1.0]])
    assert alignment(first, second) == pytest.approx((0 + 4) / 2)


def test_uniformity_by_hand() -> None:
    corners = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    squared_distances = [2, 4, 2]
    expected = math.log(sum(math.exp(-2 * d) for d in squared_distances) / 3)
    assert uniformity(corners) == pytest.approx(expected)
    assert uniformity(torch.ones(4, 2)) == pytest.approx(0)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 12), st.integers(1, 8), st.integers(0, 10**6))
def test_uniformity_in_blocks_is_that_of_all_pairs_at_once(
    rows: int, block_size: int, features: int, seed: int
) -> None:
    embeds = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    distances = torch.nn.functional.pdist(torch.nn.functional.normalize(embeds.double(), dim=1))
    expected = distances.square().mul(-2).exp().mean().log().item()
    assert uniformity(embeds, block_size) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_no_matrix_of_all_pairs_is_kept() -> None:
    """Of 3,000 embeddings it would hold 72 MB, half of it as distances of pairs 36 MB."""
    queries, candidates = torch.randn(3000, 4), torch.randn(3000, 4)
    seen: list[int] = []

    class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            result = function(*arguments, **(named or {}))
            seen.extend(each.nbytes for each in [result] if isinstance(each, torch.Tensor))
            return result

    with LargestTensor():
        positive_ranks(queries, candidates, torch.arange(3000), block_size=100)
        uniformity(queries, block_size=100)
        effective_rank(queries)
    assert max(seen) == 100 * 3000 * 8


def test_effective_rank_counts_the_directions_in_use() -> None:
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    assert effective_rank(axes) == pytest.approx(4)
    assert effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(1)
    assert effective_rank(torch.ones(6, 3)) == 0.0


def test_effective_rank_by_hand() -> None:
    angles = torch.tensor([0.3, -0.3, 0.3 + math.pi, -0.3 + math.pi])
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    along, across = 2 * math.cos(0.3), 2 * math.sin(0.3)
    shares = [along / (along + across), across / (along + across)]
    assert effective_rank(rows) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-5)
