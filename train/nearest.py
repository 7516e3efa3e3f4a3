"""The rows nearest to a query, exactly: one block of rows in memory at a time."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize

Block = tuple[Tensor, Tensor]
"""Numbers of rows, (rows,) int64, and their embeddings, (rows, features)."""


def nearest(query: Tensor, blocks: Iterable[Block], top: int) -> tuple[Tensor, Tensor]:
    """The `top` rows of highest cosine similarity to a query, the highest first.

    The similarity is that of `train.retrieval.positive_ranks`, in float64, rounded to 1e-9, within which it
    counts as equal there too. Of rows that are equally near, the one with the lower number comes first.

    Args:
        query: (features,).
        blocks: no more than one of them is held, beside `top` rows.
        top: how many rows are wanted; fewer are returned where there are fewer.

    Returns:
        Row numbers, int64, and similarities, float64, each of at most `top`.

    Raises:
        ValueError: embeddings that are not finite.
    """
    query = unit_rows(query[None])[0]
    best_rows, best = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    for rows, embeds in blocks:
        rows = torch.cat([best_rows, rows])
        similarity = torch.cat([best, (unit_rows(embeds) @ query).round(decimals=9)])
        # Stable, and the best so far stand before the block: so equals stay in the order of the rows.
        order = similarity.argsort(descending=True, stable=True)[:top]
        best_rows, best = rows[order], similarity[order]
    return best_rows, best


def unit_rows(embeds: Tensor) -> Tensor:
    """(rows, features) in float64, each of length 1.

    Raises:
        ValueError: embeddings that are not finite, which would compare as false and never be found.
    """
    if not embeds.isfinite().all():
        raise ValueError("Embeddings hold NaN or infinite values: nothing can be searched by them.")
    return normalize(embeds.double(), dim=1)
