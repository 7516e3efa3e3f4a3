"""Rows of any features in shards, and the hash of what is learnt from."""

import subprocess
import sys
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features

from datasets_scripts.schema import (
    clips_features,
    gaze_features,
    plane_clips_features,
    planes_features,
)
from datasets_scripts.shards import config_dir, data_hash, stage_rows, write_shards

PICTURES = [{"bytes": bytes([number]) * 5, "path": None} for number in range(3)]
ROWS = {
    "clips": (
        clips_features(),
        {
            "clip_id": "a_1",
            "scan_id": "a",
            "start_s": 1.0,
            "frames": PICTURES[:2],
            "audio": PICTURES[2],
            "speech_fraction": 0.5,
        },
    ),
    "planes": (planes_features(), {"image": PICTURES[0], "label": 3, "scan_id": "a", "time_s": 0.5}),
    "plane_clips": (
        plane_clips_features(),
        {"frames": PICTURES[:2], "label": 3, "scan_id": "a", "start_s": 0.5},
    ),
    "gaze": (
        gaze_features(),
        {"image": PICTURES[0], "fixations": [[0.1, 0.2], [0.3, 0.4]], "scan_id": "a", "time_s": 0.5},
    ),
}
CHANGED = {
    "clip_id": "b_1",
    "scan_id": "b",
    "start_s": 1.5,
    "frames": [PICTURES[1], PICTURES[0]],
    "audio": None,
    "speech_fraction": 0.25,
    "image": PICTURES[1],
    "label": -1,
    "time_s": None,
    "fixations": [[0.3, 0.4], [0.1, 0.2]],
}
IDENTIFIERS = {"clip_id", "scan_id"}
PEAK = """
import sys
from pathlib import Path
from datasets_scripts import privacy_check, row_facts, schema, shards

def peak():
    # Not that of getrusage, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

folder, staged, features, before = Path(sys.argv[1]), Path(sys.argv[2]), schema.clips_features(), peak()
"""
PEAK_OF = {
    "facts": "row_facts.read_row_facts(staged, features, 6.0)",
    "shards": "shards.write_shards([(staged, 200)], folder, 'again', 0, features)",
    "hash": "shards.data_hash(folder, 'medium')",
    "privacy": "privacy_check.check_privacy(folder, text_on_frames='skip')",
}


def written(folder: Path, features: Features, rows: list[dict], split: str = "train") -> str:
    """The data hash of rows, two of them a scan."""
    staged = []
    for scan in range(0, len(rows), 2):
        folder.mkdir(exist_ok=True)
        path = folder / f"{split}{scan}.arrow"
        staged.append((path, stage_rows(rows[scan : scan + 2], path, features)))
    config_dir(folder, "some").mkdir(parents=True, exist_ok=True)
    write_shards(staged, config_dir(folder, "some"), split, 0, features)
    return data_hash(folder, "some")


@pytest.mark.parametrize("kind", ROWS)
def test_the_hash_is_of_all_that_is_learnt_from(kind, tmp_path):
    features, row = ROWS[kind]
    whole = written(tmp_path / "whole", features, [row])
    assert pq.read_table(next((tmp_path / "whole").rglob("*.parquet"))).to_pylist() == [row]
    for column in row:
        other = written(tmp_path / column, features, [row | {column: CHANGED[column]}])
        assert (other == whole) == (column in IDENTIFIERS), column
    assert written(tmp_path / "twice", features, [row, row]) != whole
    assert written(tmp_path / "test", features, [row], "test") != whole


@pytest.mark.parametrize("kind", ROWS)
def test_neither_the_order_nor_the_shards_change_the_hash(kind, tmp_path):
    features, row = ROWS[kind]
    time = "time_s" if "time_s" in row else "start_s"
    rows = [row | {time: float(number)} for number in range(24)]
    one = written(tmp_path / "one", features, rows)
    assert len(list((tmp_path / "one").rglob("*.parquet"))) == 8
    assert written(tmp_path / "two", features, rows[::-1][:6] + rows[:18]) == one


def test_the_hash_of_clips_stays_what_it_was(tmp_path):
    """Models name the hash of the clips they were trained on."""
    features, row = ROWS["clips"]
    rows = [row, row | {"start_s": 2.0, "audio": None, "speech_fraction": 0.0}]
    written(tmp_path, features, rows)
    assert written(tmp_path, features, rows[:1], "validation") == (
        "2b4ec19450acf49cda6134885c1db67d9b3c6e0caaaa5ac2a4543b59cae53a64"
    )


def test_single_frames_come_in_larger_groups_than_clips(tmp_path):
    for kind, rows_a_group in (("planes", 64), ("plane_clips", 8)):
        features, row = ROWS[kind]
        path = tmp_path / f"{kind}.arrow"
        staged = [(path, stage_rows([row] * 200, path, features))]
        (tmp_path / kind).mkdir()
        assert write_shards(staged, tmp_path / kind, "train", 0, features) == 1
        file = pq.ParquetFile(tmp_path / kind / "train-00000-of-00001.parquet")
        assert file.metadata.row_group(0).num_rows == rows_a_group
        assert file.metadata.num_rows == 200


def test_no_rows_make_no_shards(tmp_path):
    assert write_shards([], tmp_path, "train", 0, planes_features()) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_other_columns_is_refused(tmp_path):
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        stage_rows([ROWS["planes"][1] | {"label": "femur"}], tmp_path / "a.arrow", planes_features())


def test_rows_of_few_long_scans_are_mixed_within_each_shard(tmp_path):
    features, row = ROWS["planes"]
    staged = []
    for scan in "abc":
        path = tmp_path / f"{scan}.arrow"
        rows = [row | {"scan_id": scan, "time_s": float(number)} for number in range(60)]
        staged.append((path, stage_rows(rows, path, features)))
    assert write_shards(staged, tmp_path, "train", 0, features) == 3
    shards = [pq.read_table(path)["scan_id"].to_pylist() for path in sorted(tmp_path.glob("*.parquet"))]
    assert all(len(set(shard[:8])) > 1 for shard in shards)
    assert sorted(chain.from_iterable(shards)) == sorted("abc" * 60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("step", PEAK_OF)
def test_a_few_rows_are_held_at_a_time_whatever_the_length_of_a_recording(step, tmp_path):
    """Pictures of 200 MB in all; in a process of its own, since memory that was used stays its peak."""
    features, row = ROWS["clips"]
    row = row | {"frames": [{"bytes": bytes(2**20), "path": None}]}
    staged, folder = tmp_path / "a.arrow", tmp_path / "set"
    number = stage_rows((row for _ in range(200)), staged, features)
    config_dir(folder, "medium").mkdir(parents=True)
    write_shards([(staged, number)], config_dir(folder, "medium"), "train", 0, features)
    done = subprocess.run(
        [sys.executable, "-c", PEAK + PEAK_OF[step] + "\nprint(peak() - before)", folder, staged],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 2**20
