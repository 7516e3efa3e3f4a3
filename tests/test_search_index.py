"""The index file: what is written is read, and what is no index is told."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from search_helpers import SETTINGS, drawn, moments_of, write_recordings

from train.search_index import (
    METADATA_KEY,
    SPEECH_EMBEDDING,
    VIDEO_EMBEDDING,
    IndexSettings,
    SearchError,
    SearchIndex,
    index_table,
    write_index,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    video, speech, has_speech = write_recordings(path, {"a": 5, "short": 0, "b/c": 7, "d": 1})
    index = SearchIndex(path)
    assert index.settings == SETTINGS and index.clips == 13
    assert [(each.name, each.clips) for each in index.recordings] == [
        ("a", 5),
        ("short", 0),
        ("b/c", 7),
        ("d", 1),
    ]
    rows, embeds = (torch.cat(part) for part in zip(*index.blocks(VIDEO_EMBEDDING), strict=True))
    assert rows.tolist() == list(range(13)) and torch.equal(embeds, video)
    rows, embeds = (torch.cat(part) for part in zip(*index.blocks(SPEECH_EMBEDDING), strict=True))
    assert rows.tolist() == has_speech.nonzero().flatten().tolist()
    assert torch.equal(embeds, speech[has_speech])
    assert [len(rows) for rows, _ in index.blocks(SPEECH_EMBEDDING)] == [4, 5, 1]
    assert index.moments([12, 0, 4, 5, 11]) == [
        moments_of("d", 1)[0],
        moments_of("a", 5)[0],
        moments_of("a", 5)[4],
        moments_of("b/c", 7)[0],
        moments_of("b/c", 7)[6],
    ]
    assert [len(table) for _, table in index.tables()] == [5, 0, 7, 1]
    assert pq.read_schema(path).field("start_s").type == pa.float64()


def test_a_writing_that_fails_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 3})
    before = path.read_bytes()

    def tables():
        yield from SearchIndex(path).tables()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_index(path, SETTINGS, tables())
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["index.parquet"]


def test_settings_that_differ_are_told() -> None:
    clips = {"clip_seconds": 2.0}
    for other, words in (
        (IndexSettings("other", "1" * 64, 4, SETTINGS.clips), "another model, of other"),
        (IndexSettings("folder", "0" * 64, 4, clips), "clip_seconds is 2.0, not 6.0"),
        (IndexSettings("folder", "0" * 64, 4, SETTINGS.clips, "planes", "2" * 64), "named by planes"),
    ):
        assert words in SETTINGS.difference(other)
    assert SETTINGS.difference(IndexSettings("moved", "0" * 64, 4, SETTINGS.clips)) is None


@pytest.mark.parametrize("content", ["absent", "text", "cut", "foreign"])
def test_what_is_no_index_is_told_in_a_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    if content == "text":
        path.write_text("no Parquet")
    elif content == "cut":
        write_recordings(path, {"a": 3})
        path.write_bytes(path.read_bytes()[:-20])
    elif content == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    wanted = {"absent": "There is no index", "foreign": "but no index"}
    with pytest.raises(SearchError, match=wanted.get(content, "is no index, or is damaged")):
        SearchIndex(path)


def test_the_metadata_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    write_recordings(path, {"a": 3})
    told = json.loads(pq.read_metadata(path).metadata[METADATA_KEY])
    assert told["settings"]["model_sha256"] == "0" * 64 and told["recordings"][0]["clips"] == 3


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    everywhere = torch.ones(5, dtype=torch.bool)
    for video, speech in ((torch.full((5, 4), torch.inf), drawn(5)), (drawn(5), drawn(5) * torch.nan)):
        with pytest.raises(SearchError, match="training must have diverged"):
            index_table(moments_of("a", 5), video, speech, everywhere)
    assert len(index_table(moments_of("a", 5), drawn(5), drawn(5) * torch.nan, ~everywhere)) == 5
