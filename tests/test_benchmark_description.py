"""What a set of the benchmark holds, counted by hand for a few remarks, clips and frames."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips_helpers import make_row
from PIL import Image

from datasets_scripts.benchmark_description import (
    BESIDE,
    NOTHING,
    PART,
    WHOLE,
    describe,
    describe_clips,
    describe_frames,
    describe_recordings,
    read_remarks,
    speech_of,
    whole_remarks,
)
from datasets_scripts.schema import (
    FIXATIONS,
    IMAGE,
    LABEL,
    PLANES,
    SCAN_ID,
    SPEECH_FRACTION,
    TIME_S,
    clips_features,
    gaze_features,
    planes_features,
)
from datasets_scripts.shards import write_info
from datasets_scripts.simulate_scans import SimulationParameters, write_recording
from datasets_scripts.simulated_speech import SAMPLING_RATE_HZ, Narration, Remark

SECONDS = 10
ABOUT = Remark(1.0, 3.0, "plane", "femur", "This is the thigh bone.")
WRONG = Remark(4.0, 5.0, "wrong", "lips", "The lips are next.")
CHAT = Remark(6.0, 8.5, "chat", "", "It rained again, it never stops.")
SAID = [ABOUT, WRONG, CHAT]


def write_scan(folder: Path, remarks: list[Remark], planes: list[str]) -> Path:
    """A recording of grey pictures with its notes, remarks and planes; returns its folder."""
    folder.mkdir(parents=True)
    parameters = SimulationParameters(scan_seconds=SECONDS, image_size=32, frames_per_second=2)
    silence = Narration(np.zeros(SECONDS * SAMPLING_RATE_HZ, np.float32), SAMPLING_RATE_HZ, [])
    pictures = (np.full((32, 32), 100, np.uint8) for _ in range(2 * SECONDS))
    write_recording(folder / "scan.mp4", pictures, parameters, silence)
    lines = [f'{each.start_s},{each.end_s},{each.kind},{each.label},"{each.text}"' for each in remarks]
    (folder / "remarks.csv").write_text("\n".join(["start_s,end_s,kind,label,text", *lines]))
    lines = [f"{2 * number + 0.5},{2 * number + 1.5},{plane}" for number, plane in enumerate(planes)]
    (folder / "planes.csv").write_text("\n".join(["start_s,end_s,label", *lines]))
    (folder / "scan.json").write_text(json.dumps({"simulation": {"scan_seconds": SECONDS}}))
    return folder


def write_rows(dataset: Path, config: str, split: str, shards: list[list[dict]], schema: pa.Schema) -> None:
    data = dataset / "data" / config
    data.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        file = data / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


@pytest.fixture
def clip_set(tmp_path) -> Path:
    """Two scans to train, one of them without a word, in clips of 3 s; nothing to validate."""
    folder = tmp_path / "pretraining"
    write_scan(folder / "recordings" / "pretraining" / "scan_00000", SAID, ["femur", "lips", "femur"])
    write_scan(folder / "recordings" / "pretraining" / "scan_00001", [], ["kidneys"])
    write_scan(folder / "recordings" / "validation" / "scan_00002", [CHAT], [])
    fractions = {("a", 0.5): 0.7, ("a", 2.0): 0.5, ("a", 5.5): 0.8, ("b", 0.0): 0.04}
    rows = [
        make_row(f"{scan}_{start_s}", scan, start_s, stored=1) | {SPEECH_FRACTION: fraction}
        for (scan, start_s), fraction in fractions.items()
    ]
    write_rows(folder / "clips", "medium", "train", [rows[:3], rows[3:]], clips_features().arrow_schema)
    write_info(folder / "clips", "medium", {"clip_seconds": 3.0})
    names = {"a": "pretraining/scan_00000", "b": "pretraining/scan_00001"}
    report = {"recordings": [{"scan_id": scan, "name": name} for scan, name in names.items()]}
    (folder / "clips.medium.report.json").write_text(json.dumps(report))
    return folder


@pytest.mark.parametrize(
    ("start_s", "end_s", "holds"),
    [
        (0.0, 3.0, WHOLE),
        (1.0, 6.0, WHOLE),
        (0.0, 9.0, WHOLE),
        (1.1, 6.0, PART),
        (0.0, 2.9, PART),
        (1.5, 2.5, PART),
        (3.0, 6.0, BESIDE),
        (7.0, 8.0, BESIDE),
        (0.0, 1.0, NOTHING),
        (3.0, 4.0, NOTHING),
        (8.5, 10.0, NOTHING),
    ],
)
def test_the_best_that_a_clip_holds(start_s, end_s, holds):
    assert speech_of(SAID, start_s, end_s) == holds


def test_whole_remarks_lie_within_the_clip():
    assert whole_remarks(SAID, 1.0, 5.0) == [ABOUT, WRONG]
    assert whole_remarks(SAID, 1.01, 8.4) == [WRONG]


def test_remarks_are_read_as_they_were_written(clip_set):
    assert read_remarks(clip_set / "recordings" / "pretraining" / "scan_00000") == SAID


def test_recordings_are_described_by_kind_of_remark(clip_set):
    scans = sorted((clip_set / "recordings" / "pretraining").iterdir())
    described = describe_recordings(scans)
    assert (described["scans"], described["seconds"]) == (2, 20)
    assert described["visits"] == {"femur": 2, "kidneys": 1, "lips": 1}
    assert described["different_wordings"] == 3
    assert described["remarks"] == {
        "plane": {"number": 1, "share_of_the_time": 0.1, "mean_seconds": 2.0, "mean_words": 5.0},
        "wrong": {"number": 1, "share_of_the_time": 0.05, "mean_seconds": 1.0, "mean_words": 4.0},
        "chat": {"number": 1, "share_of_the_time": 0.125, "mean_seconds": 2.5, "mean_words": 6.0},
    }


def test_clips_are_described_by_what_they_hold(clip_set):
    described = describe_clips(clip_set, "medium")
    assert set(described) == {"train"}
    assert (described["train"]["clips"], described["train"]["scans"]) == (4, 2)
    speech = described["train"]["speech_fraction"]
    assert speech == {"mean": 0.51, "quartiles": [0.385, 0.6, 0.725], "silent": 0.25}
    shares = {WHOLE: 0.25, PART: 0.25, BESIDE: 0.25, NOTHING: 0.25}
    assert described["train"]["share_of_clips"] == shares
    assert described["train"]["mean_words_of_whole_remarks"] == (5 + 4 + 6) / 4


def test_clips_without_their_recordings_are_described_by_their_sound_alone(clip_set):
    (clip_set / "clips.medium.report.json").unlink()
    assert set(describe_clips(clip_set, "medium")["train"]) == {"clips", "scans", "speech_fraction"}


def test_frames_are_described_by_class_and_fixations(tmp_path):
    picture = {"bytes": b"", "path": None}
    labels = {"train": ["lips", "lips", "background"], "validation": ["femur"]}
    for split, of_split in labels.items():
        rows = [
            {IMAGE: picture, LABEL: PLANES.index(label), SCAN_ID: split, TIME_S: 0.0} for label in of_split
        ]
        write_rows(tmp_path, "planes", split, [rows], planes_features().arrow_schema)
    rows = [
        {IMAGE: picture, FIXATIONS: [[0.5, 0.5]] * number, SCAN_ID: str(number), TIME_S: 0.0}
        for number in (3, 4)
    ]
    write_rows(tmp_path, "gaze", "train", [rows], gaze_features().arrow_schema)
    described = describe_frames(tmp_path)
    planes = described["planes"]
    assert planes["train"]["classes"] == dict.fromkeys(PLANES, 0) | {"lips": 2, "background": 1}
    assert planes["validation"] == {
        "scans": 1,
        "rows": 1,
        "classes": dict.fromkeys(PLANES, 0) | {"femur": 1},
    }
    assert described["gaze"] == {"train": {"scans": 2, "rows": 2, "mean_fixations": 3.5}}


def test_the_description_is_kept_with_a_sheet_of_frames(clip_set):
    text = describe(clip_set)
    kept = (clip_set / "description.json").read_text()
    assert text == f"{clip_set}\n{kept.rstrip()}"
    described = json.loads(kept)
    assert set(described) == {"recordings", "clips"}
    assert {part: each["scans"] for part, each in described["recordings"].items()} == {
        "pretraining": 2,
        "validation": 1,
    }
    assert described["clips"] == {"medium": describe_clips(clip_set, "medium")}
    with Image.open(clip_set / "sheet.png") as sheet:
        assert np.asarray(sheet).max() > 90


def test_a_set_of_frames_with_recordings_beside_it_is_one_part(tmp_path):
    folder = tmp_path / "labelled"
    write_scan(folder / "recordings" / "scan_00000", SAID, ["femur"])
    described = json.loads(describe(folder).split("\n", 1)[1])
    assert list(described) == ["recordings"]
    assert described["recordings"]["labelled"]["scans"] == 1
