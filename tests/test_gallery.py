"""A gallery gives its rows again and again, kept or read anew."""

import pytest
from clips_helpers import write_small_set

from train import gallery
from train.gallery import StoredGallery
from train.triples import choose_gallery, list_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_set(tmp_path_factory.mktemp("clips"), held_out=9))


def gallery_of(clips: str, number: int) -> StoredGallery:
    keys = list_clips(clips, "medium", "validation")
    return StoredGallery(clips, "medium", "validation", keys, choose_gallery(keys, number))


def by_id(rows: StoredGallery) -> dict[str, dict]:
    return {row["clip_id"]: row for row in rows}


def test_many_clips_are_not_kept_and_are_the_same(clips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = gallery_of(clips, 6)
    monkeypatch.setattr(gallery, "KEPT_CLIPS", 5)
    many = gallery_of(clips, 6)
    assert few.kept is not None and many.kept is None
    assert len(few) == len(many) == 6
    for rows in (few, many):
        ids = [row["clip_id"] for row in rows]
        assert ids == [key.clip_id for key in rows.keys] == [row["clip_id"] for row in rows]
        assert rows.scan_ids == [row["scan_id"] for row in rows]
    assert by_id(few) == by_id(many)


def test_rows_are_read_one_by_one(clips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "KEPT_CLIPS", 0)
    rows, read = gallery_of(clips, 9), []
    open_clips = gallery.open_clips
    monkeypatch.setattr(
        gallery, "open_clips", lambda *place: (read.append(row) or row for row in open_clips(*place))
    )
    next(iter(rows))
    assert len(read) == 1


def test_without_clips_there_is_none(clips: str) -> None:
    assert not gallery_of(clips, 0) and list(gallery_of(clips, 0)) == []
