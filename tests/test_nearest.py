"""The exact search by blocks, against sorting everything at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import blocks_of, drawn

from train.nearest import nearest
from train.retrieval import positive_ranks


@given(
    rows=st.integers(0, 40), block_rows=st.integers(1, 50), top=st.integers(1, 12), seed=st.integers(0, 2**16)
)
@settings(max_examples=60, deadline=None)
def test_blocks_find_what_sorting_everything_finds(rows: int, block_rows: int, top: int, seed: int) -> None:
    embeds, query = drawn(rows, seed=seed), drawn(1, seed=seed + 1)[0]
    embeds[rows // 2 :] = embeds[: rows - rows // 2].clone()  # equals, which stay in the order of the rows
    found, similarity = nearest(query, blocks_of(embeds, block_rows), top)
    cosines = torch.nn.functional.cosine_similarity(embeds.double(), query.double()[None], dim=1)
    torch.testing.assert_close(similarity, cosines.sort(descending=True).values[:top])
    torch.testing.assert_close(cosines[found], similarity)
    whole, _ = nearest(query, blocks_of(embeds, 100), top)
    assert found.tolist() == whole.tolist()
    assert all(
        a < b
        for a, b, equal in zip(found, found[1:], similarity[1:] == similarity[:-1], strict=False)
        if equal
    )


def test_the_place_of_the_own_clip_is_the_rank_of_the_evaluation() -> None:
    queries, candidates = drawn(20, 8), drawn(20, 8, seed=1)
    ranks = positive_ranks(queries, candidates, torch.arange(20))
    for number, query in enumerate(queries):
        found, _ = nearest(query, blocks_of(candidates, 7), 20)
        assert found.tolist().index(number) + 1 == ranks[number]


@pytest.mark.parametrize("where", ["query", "rows"])
def test_numbers_that_are_none_are_refused(where: str) -> None:
    query, rows = drawn(1)[0], drawn(5)
    (query if where == "query" else rows[3])[0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        nearest(query, blocks_of(rows, 2), 3)
