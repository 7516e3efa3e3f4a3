"""Search by FAISS, against the exact search."""

from pathlib import Path

import numpy as np
import pytest
import torch
from search_helpers import drawn, write_recordings

from train.nearest import nearest
from train.search_faiss import faiss_path, nearest_by_faiss
from train.search_index import SPEECH_EMBEDDING, VIDEO_EMBEDDING, SearchError, SearchIndex


@pytest.mark.parametrize("column", [VIDEO_EMBEDDING, SPEECH_EMBEDDING])
def test_flat_faiss_finds_what_the_exact_search_finds(column: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 300, "none": 0, "b": 200}, size=16)
    index, query = SearchIndex(path), drawn(1, 16, seed=9)[0]
    rows, similarity = nearest(query, index.blocks(column), 20)
    for _ in range(2):  # made, then read
        found, found_similarity = nearest_by_faiss(query, index, column, 20, "flat")
        assert found.tolist() == rows.tolist()
        torch.testing.assert_close(found_similarity, similarity, atol=1e-6, rtol=0)


def test_faiss_files_follow_the_index(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 30})
    old = SearchIndex(path)
    nearest_by_faiss(drawn(1)[0], old, VIDEO_EMBEDDING, 3, "flat")
    video, _, _ = write_recordings(path, {"b": 5, "a": 30})
    new = SearchIndex(path)
    rows, _ = nearest_by_faiss(video[33], new, VIDEO_EMBEDDING, 50, "flat")
    assert rows[0] == 33 and len(rows) == 35
    assert not faiss_path(old, VIDEO_EMBEDDING, "flat").exists()


def test_faiss_by_cells_finds_nearly_all(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 3000, "b": 3000}, size=8)
    index, shares = SearchIndex(path), []
    for seed in range(10):
        query = drawn(1, 8, seed=1000 + seed)[0]
        exact, _ = nearest(query, index.blocks(SPEECH_EMBEDDING), 10)
        found, _ = nearest_by_faiss(query, index, SPEECH_EMBEDDING, 10, "ivf")
        shares.append(len(np.intersect1d(exact, found)) / 10)
    assert np.mean(shares) > 0.8


def test_without_faiss_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 3})
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(SearchError, match="faiss-cpu"):
        nearest_by_faiss(drawn(1)[0], SearchIndex(path), VIDEO_EMBEDDING, 3, "flat")


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_an_index_without_clips_has_nothing_to_find(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    path = tmp_path / "index.parquet"
    write_recordings(path, {"short": 0})
    rows, similarity = nearest_by_faiss(drawn(1)[0], SearchIndex(path), SPEECH_EMBEDDING, 3, kind)
    assert len(rows) == len(similarity) == 0
