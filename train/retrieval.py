"""How well embeddings find each other, and whether they have collapsed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

RECALL_AT = (1, 5, 10)


def positive_ranks(queries: Tensor, candidates: Tensor, positives: Tensor, block_size: int = 1024) -> Tensor:
    """At which place, from 1, each query finds its own candidate by cosine similarity.

    A tie counts against the query: a model that gives every clip the same embedding finds nothing.

    Args:
        queries: (queries, features).
        candidates: (candidates, features).
        positives: (queries,) index of each query's own candidate.
        block_size: queries compared at a time, which bounds memory to block_size x candidates.

    Returns:
        (queries,) int64.

    Raises:
        ValueError: embeddings that are not finite, which would compare as false and look perfect.
    """
    if not (queries.isfinite().all() and candidates.isfinite().all()):
        raise ValueError("Embeddings hold NaN or infinite values: no retrieval can be computed from them.")
    queries, candidates = normalize(queries.double(), dim=1), normalize(candidates.double(), dim=1)
    ranks = []
    # One block's memory for all of them: new memory costs as much time as the products that fill it.
    memory = queries.new_empty(min(block_size, len(queries)), len(candidates))
    for block, own in zip(queries.split(block_size), positives.split(block_size), strict=True):
        similarity = torch.mm(block, candidates.T, out=memory[: len(block)])
        # Rounding makes equal embeddings differ in the last bits: within 1e-9 is a tie.
        ranks.append((similarity >= similarity.gather(1, own[:, None]) - 1e-9).sum(dim=1))
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.int64)


def recall(ranks: Tensor, at: Sequence[int] = RECALL_AT) -> dict[int, float]:
    """The share of queries whose own candidate is among the first k, for each k."""
    return {k: (ranks <= k).double().mean().item() for k in at}


def chance_recall(k: int, candidates: int) -> float:
    """Recall at k of a random order."""
    return min(1.0, k / candidates)


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of positive pairs on the unit sphere (Wang & Isola, 2020); 0 is perfect.

    Args:
        first, second: (pairs, features), row i of one belongs to row i of the other.
    """
    distance = normalize(first.double(), dim=1) - normalize(second.double(), dim=1)
    return distance.square().sum(dim=1).mean().item()


def uniformity(embeds: Tensor, block_size: int = 1024) -> float:
    """log of the mean of exp(-2 d^2) over all pairs on the unit sphere (Wang & Isola, 2020).

    0 where all embeddings are one point; lower is more evenly spread.

    Args:
        embeds: (rows, features), two rows at least.
        block_size: rows compared at a time, which bounds memory to block_size x rows.
    """
    rows = normalize(embeds.double(), dim=1)
    total = 0.0
    for start in range(0, len(rows), block_size):
        # With those of earlier blocks, its rows have been compared already.
        cosines = rows[start : start + block_size] @ rows[start:].T
        # On the sphere d^2 is 2 - 2 cos; above the diagonal each pair stands once.
        total += cosines.sub_(1).mul_(4).exp_().triu_(1).sum().item()
    return math.log(total / math.comb(len(rows), 2))


def effective_rank(embeds: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, 2007): how many dimensions are in
    use.

    Args:
        embeds: (rows, features), taken on the unit sphere and centred, so that a shared offset counts as
            nothing.

    Returns:
        1 to min(rows, features); 0 where all rows are equal.
    """
    rows = normalize(embeds.double(), dim=1)
    singular_values = torch.linalg.svdvals(rows - rows.mean(dim=0))
    total = singular_values.sum()
    if total < 1e-9:
        return 0.0
    shares = singular_values / total
    return torch.special.entr(shares).sum().exp().item()
