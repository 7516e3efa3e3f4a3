"""Decoded sets: pixels as the processors make them, what goes with them, and sets that cannot be used."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, Value
from frame_set_helpers import FRAME_SIZE, frame_rows, frame_set, picture, png, write_set
from PIL import Image

from datasets_scripts.schema import (
    GAZE_CONFIG,
    PLANE_CLIPS_CONFIG,
    PLANES,
    UNLABELLED,
    gaze_features,
    plane_clips_features,
    planes_features,
)
from modeling_dualrep import DualRepImageProcessor, DualRepVideoProcessor
from train.frame_sets import FrameSetError, labels_of_scans, patients_of_scans, read_frames


def jpeg(pixels: np.ndarray) -> dict:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG")
    return {"bytes": encoded.getvalue(), "path": None}


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """Pixels that JPEG keeps some detail of."""
    chance = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(chance).resize((width, height)))


def normalised(frames: np.ndarray, processor: DualRepImageProcessor | DualRepVideoProcessor) -> torch.Tensor:
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std)
    )
    return (torch.from_numpy(frames).movedim(-1, -3) / 255 - mean) / std


@pytest.mark.parametrize("shape", [(40, 40), (30, 40), (50, 20)])
def test_frames_are_the_processor_s_pixel_values(tmp_path: Path, shape: tuple[int, int]) -> None:
    rows = frame_rows(scans=2)
    for seed, row in enumerate(rows):
        row["image"] = jpeg(smooth(*shape, seed))
    read = read_frames(str(write_set(tmp_path / "set", {"train": rows})), "planes", 24)
    assert read.frames.shape == (len(rows), 24, 24, 3) and read.frames.dtype == np.uint8
    processor = DualRepImageProcessor(size={"height": 24, "width": 24})
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalised(read.frames, processor), expected, atol=1e-6, rtol=0)


def test_clips_are_the_video_processor_s(tmp_path: Path) -> None:
    clips = [[smooth(20, 30, 10 * row + frame) for frame in range(6)] for row in range(3)]
    rows = [
        {"frames": [png(frame) for frame in clip], "label": 1, "scan_id": f"s{row}", "start_s": 2.0 * row}
        for row, clip in enumerate(clips)
    ]
    folder = write_set(tmp_path / "set", {"train": rows}, PLANE_CLIPS_CONFIG, plane_clips_features())
    read = read_frames(str(folder), PLANE_CLIPS_CONFIG, 16)
    assert read.frames.shape == (3, 6, 16, 16, 3)
    assert read.times_s.tolist() == [0, 2, 4]
    processor = DualRepVideoProcessor(size={"height": 16, "width": 16}, num_frames=6)
    expected = processor(clips, return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(normalised(read.frames, processor), expected, atol=1e-6, rtol=0)


def test_what_is_known_of_a_row_stays_with_it(tmp_path: Path) -> None:
    rows = {"train": frame_rows(2), "test": frame_rows(1, first_scan=5)}
    rows["train"][3] |= {"time_s": None, "label": UNLABELLED}
    read = read_frames(str(write_set(tmp_path / "set", rows)), "planes", FRAME_SIZE)
    stored = rows["train"] + rows["test"]
    assert read.scan_ids == [row["scan_id"] for row in stored] == read.patients
    assert read.splits == ["train"] * 12 + ["test"] * 6
    assert read.labels.tolist() == [row["label"] for row in stored]
    assert read.class_names == PLANES and read.fixations is None
    assert np.flatnonzero(np.isnan(read.times_s)).tolist() == [3]
    assert read.times_s[4] == rows["train"][4]["time_s"]
    for row in (0, 3, 17):
        seed = 1000 * int(stored[row]["scan_id"][4:]) + row % 2
        assert (read.frames[row] == picture(row // 2 % 3, seed)).all()


def test_a_memory_map_holds_the_same_and_more_rows_than_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(write_set(tmp_path / "set", {"train": frame_rows(3)}))
    at_once = read_frames(folder, "planes", 8).frames
    monkeypatch.setattr("train.frame_sets.ROWS_AT_ONCE", 7)
    mapped = read_frames(folder, "planes", 8, tmp_path / "maps" / "frames.npy").frames
    assert isinstance(mapped, np.memmap) and (mapped == at_once).all()
    assert (np.load(tmp_path / "maps" / "frames.npy") == at_once).all()


def test_fixations_are_points_and_may_be_none(tmp_path: Path) -> None:
    rows = [
        {"image": png(picture(0, seed)), "fixations": points, "scan_id": "s", "time_s": 0.0}
        for seed, points in enumerate(([[0.25, 0.5], [1.0, 0.0]], []))
    ]
    folder = write_set(tmp_path / "set", {"train": rows}, GAZE_CONFIG, gaze_features())
    read = read_frames(str(folder), GAZE_CONFIG, 16)
    assert read.labels is None and read.class_names is None
    assert read.fixations[0].tolist() == [[0.25, 0.5], [1, 0]] and read.fixations[1].shape == (0, 2)


def test_patients_come_from_the_set_s_own_splits(tmp_path: Path) -> None:
    patients = {"train": {"p1": ["scan00", "scan01"]}, "validation": {"p2": ["scan02"]}}
    rows = {"train": frame_rows(2), "validation": frame_rows(1, first_scan=2)}
    read = read_frames(str(write_set(tmp_path / "set", rows, patients=patients)), "planes", 8)
    assert read.patients_of_scans == {"scan00": "p1", "scan01": "p1", "scan02": "p2"}
    assert patients_of_scans(str(tmp_path / "set"), "planes") == read.patients_of_scans
    del patients["validation"]["p2"]
    folder = str(write_set(tmp_path / "other", rows, patients=patients))
    with pytest.raises(FrameSetError, match="does not know 1 scans of the set, scan02 among them"):
        read_frames(folder, "planes", 8)
    with pytest.raises(FrameSetError, match="does not know 1 scans of the set, scan02 among them"):
        patients_of_scans(folder, "planes")


def test_without_splits_of_its_own_every_scan_of_a_set_is_a_patient(tmp_path: Path) -> None:
    folder = str(write_set(tmp_path / "set", {"train": frame_rows(2)}))
    assert patients_of_scans(folder, "planes") == {"scan00": "scan00", "scan01": "scan01"}
    with pytest.raises(FrameSetError, match="'gaze'"):
        patients_of_scans(folder, "gaze")


def test_the_classes_of_each_scan_are_told(tmp_path: Path) -> None:
    rows = frame_rows(2) + frame_rows(1, classes=1, first_scan=2)
    rows[0]["label"] = rows[1]["label"] = UNLABELLED
    folder = str(write_set(tmp_path / "set", {"train": rows[:6], "test": rows[6:]}))
    assert labels_of_scans(folder, "planes") == {"scan00": {1, 2}, "scan01": {0, 1, 2}, "scan02": {0}}
    with pytest.raises(FrameSetError, match="'gaze'"):
        labels_of_scans(folder, "gaze")
    gaze = [{key: row[key] for key in ("image", "scan_id", "time_s")} | {"fixations": []} for row in rows]
    without = str(write_set(tmp_path / "gaze", {"train": gaze}, "gaze", gaze_features()))
    assert labels_of_scans(without, "gaze") == {f"scan0{number}": set() for number in range(3)}


def test_rows_of_scans_leave_out_what_has_no_label() -> None:
    labelled = frame_set([0, UNLABELLED, 2, 1], ["a", "a", "b", "c"])
    assert labelled.rows_of(("a", "c")).tolist() == [0, 3]
    assert labelled.rows_of(()).tolist() == []
    gaze = frame_set([0, 1], ["a", "b"], labels=None, class_names=None)
    assert gaze.rows_of(("b",)).tolist() == [1]


def test_sets_that_cannot_be_used_are_refused_in_sentences(tmp_path: Path) -> None:
    def refusal(rows: list[dict], config: str = "planes", features: Features | None = None) -> str:
        folder = write_set(tmp_path / str(len(list(tmp_path.iterdir()))), {"train": rows}, config, features)
        with pytest.raises(FrameSetError) as caught:
            read_frames(str(folder), config, 8)
        return str(caught.value)

    broken = frame_rows(1)
    broken[2]["image"] = {"bytes": b"no picture", "path": None}
    assert "a picture of scan scan00 cannot be read" in refusal(broken)
    missing = frame_rows(1)
    missing[0]["image"] = None
    assert "a picture of scan scan00 cannot be read (the row has none)" in refusal(missing)
    assert "cannot be read: Class label 14 greater than" in refusal(_with_label(14))
    assert "label beyond the 14 classes, the first -2 in scan scan00" in refusal(_with_label(-2))
    plain = Features({**planes_features(), "label": Value("int64")})
    assert "does not name its classes" in refusal(frame_rows(1), features=plain)
    without = Features({"label": ClassLabel(names=["a"]), "scan_id": Value("string")})
    assert "has no pictures" in refusal([{"label": 0, "scan_id": "s"}], features=without)
    clip = {"label": 0, "scan_id": "s", "start_s": 0.0}
    clips = [{**clip, "frames": [png(picture(0, 0))] * frames} for frames in (3, 2)]
    assert "clips of 2 and of 3 frames" in refusal(clips, "plane_clips", plane_clips_features())
    empty = [{**clip, "frames": []}]
    assert "cannot be read (the row has none)" in refusal(empty, "plane_clips", plane_clips_features())
    assert "cannot be read" in refusal([])


def _with_label(label: int) -> list[dict]:
    rows = frame_rows(1)
    rows[1]["label"] = label
    return rows


def test_a_set_or_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = str(write_set(tmp_path / "set", {"train": frame_rows(1)}))
    with pytest.raises(FrameSetError, match="'gaze'"):
        read_frames(folder, "gaze", 8)
    with pytest.raises(FrameSetError, match="nowhere"):
        read_frames(str(tmp_path / "nowhere"), "planes", 8)
