"""Prepared sets as streams: their hash, their splits, and what is said of sets that are not there."""

from pathlib import Path

import pytest
from clips_helpers import make_row, write_clips

from train.stored_rows import StoredRowsError, data_hash, open_rows, split_names


def test_the_data_hash_is_the_one_written_with_the_clips_or_follows_the_files(tmp_path: Path) -> None:
    row = make_row("a", "s", 0.0)
    first = write_clips(tmp_path / "first", [[row]], [[row]])
    second = write_clips(tmp_path / "second", [[row, row]], [[row]])
    assert (
        data_hash(str(first), "medium") == data_hash(str(first), "medium") != data_hash(str(second), "medium")
    )
    (first / "data" / "medium" / "info.json").write_text('{"data_hash": "abc"}')
    assert data_hash(str(first), "medium") == "abc"
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "nowhere"):
        with pytest.raises(StoredRowsError, match=nothing):
            data_hash(str(tmp_path / nothing), "medium")


def test_splits_and_columns_are_named(tmp_path: Path) -> None:
    row = make_row("a", "s", 0.0)
    clips = str(write_clips(tmp_path / "clips", [[row]], [[row]]))
    assert sorted(split_names(clips, "medium")) == ["train", "validation"]
    assert list(next(iter(open_rows(clips, "medium", "train", ("scan_id",), select=True)))) == ["scan_id"]
    with pytest.raises(StoredRowsError, match=r"no column 'label'.*prepare_planes"):
        open_rows(clips, "medium", "train", ("label",))
    with pytest.raises(StoredRowsError, match="planes"):
        split_names(clips, "planes")
    with pytest.raises(StoredRowsError, match="nowhere"):
        split_names(str(tmp_path / "nowhere"), "planes")
