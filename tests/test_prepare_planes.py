"""Labelled frames and clips from recordings with planes.csv: what is in them, what is left out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from tiny_recordings import SIZE, even_times, number_of, write_video

from datasets_scripts.preparation import PrepareError, StrictError
from datasets_scripts.prepare_planes import PlaneParameters, main, prepare_planes
from datasets_scripts.schema import PLANES, plane_clips_features, planes_features
from datasets_scripts.shards import data_hash, read_info

INTERVALS = {"femur": (1.0, 3.0), "lips": (4.5, 6.0)}
SECONDS = 8.0
SMALL = PlaneParameters(frame_size=SIZE)
CLIPS = PlaneParameters(frame_size=SIZE, clip_seconds=1.0, frames_per_clip=4)


def write_scan(
    folder: Path, rows: list[tuple[float, float, str]] | None, times_s: np.ndarray | None = None
) -> Path:
    """A recording whose pictures carry their number, at 30 a second, and its planes.csv."""
    write_video(folder / "scan.mp4", even_times(SECONDS) if times_s is None else times_s)
    (folder / "scan.json").write_text(json.dumps({"patient_id": f"patient of {folder.name}"}))
    if rows is not None:
        lines = ["start_s,end_s,label", *(f"{start},{end},{label}" for start, end, label in rows)]
        (folder / "planes.csv").write_text("\n".join(lines) + "\n")
    return folder


def rows_of(output: Path, config: str = "planes") -> list[dict]:
    """The rows of both splits, in the order of scans and times."""
    rows = [row for split in load_dataset(str(output), config, streaming=True).values() for row in split]
    return sorted(rows, key=lambda row: (row["scan_id"], row.get("time_s", row.get("start_s"))))


def prepared_rows(tmp_path: Path, intervals: list, parameters: PlaneParameters = SMALL, **scan):
    """The rows and the report of one scan."""
    write_scan(tmp_path / "in" / "a", intervals, **scan)
    report = prepare_planes(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    return rows_of(tmp_path / "set", report.config), report


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    intervals = [(start, end, label) for label, (start, end) in INTERVALS.items()]
    for name in ("visit_0", "visit_1", "visit_2"):
        write_scan(folder / name, intervals)
    write_scan(folder / "unlabelled", None)
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def prepared(recordings, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "set"
    return output, [prepare_planes(recordings, output, each, workers=1) for each in (SMALL, CLIPS)]


# Frames.


def test_frames_are_of_the_class_of_their_time(prepared):
    output, (report, _) = prepared
    dataset = load_dataset(str(output), "planes")
    assert dataset["train"].features == planes_features()
    rows = rows_of(output)
    assert len(rows) == sum(report.rows.values()) == 3 * (4 + 3 + 1 + 1 + 3)
    for row in rows:
        assert number_of(np.array(row["image"])) == round(row["time_s"] * 30)
        assert row["image"].size == (SIZE, SIZE)
        label, time_s = PLANES[row["label"]], row["time_s"]
        if label == "background":
            assert all(time_s <= start - 0.5 or time_s >= end + 0.5 for start, end in INTERVALS.values())
        else:
            start_s, end_s = INTERVALS[label]
            assert start_s < time_s < end_s
    times = [row["time_s"] for row in rows if row["scan_id"] == rows[0]["scan_id"]]
    assert np.diff(times).min() > 0.5 - 1 / 30 - 1e-9


def test_the_report_counts_frames_a_class_a_split(prepared):
    output, (report, _) = prepared
    assert report.config == "planes"
    assert report.scans == {"train": 2, "validation": 1}
    assert report.counts["validation"] == {"femur": 4, "lips": 3, "background": 5}
    assert report.counts["train"] == {"femur": 8, "lips": 6, "background": 10}
    assert "validation: femur 4, lips 3, background 5" in report.summary()
    left_out = {outcome.name: outcome.error for outcome in report.recordings if outcome.left_out}
    assert left_out == {"text.mp4": "UnreadableError", "unlabelled": "MissingSidecarError"}
    info = read_info(output, "planes")
    assert info["data_hash"] == report.data_hash == data_hash(output, "planes")
    assert (info["frames"], info["class_balance"]) == (report.rows, "natural")
    assert json.loads(output.with_name("set.planes.report.json").read_text())["counts"] == report.counts


def test_frames_and_clips_share_their_splits_and_name_nobody(prepared, recordings):
    output, reports = prepared
    for split in ("train", "validation"):
        frames, clips = (
            set(load_dataset(str(output), report.config, split=split)["scan_id"]) for report in reports
        )
        assert frames == clips
    card = (output / "README.md").read_text()
    assert "`planes`" in card
    assert "`plane_clips`" in card
    for path in (path for path in output.rglob("*") if path.is_file()):
        for word in ("visit_", "patient of", "scan.mp4", str(recordings), str(output.parent)):
            assert word.encode() not in path.read_bytes(), (path, word)


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(prepared, recordings, tmp_path):
    output, reports = prepared
    shutil.copy(output.with_name("set.key"), tmp_path / "set.key")
    for parameters, report in zip((CLIPS, SMALL), reversed(reports), strict=True):
        assert prepare_planes(recordings, tmp_path / "set", parameters, workers=2) == report
    shards = sorted(output.rglob("*.parquet"))
    assert len(shards) == 6
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "set" / shard.relative_to(output)).read_bytes()


def test_overlaps_are_neither_plane_and_are_counted(tmp_path):
    fine = PlaneParameters(frame_size=SIZE, seconds_between_frames=0.1)
    rows, report = prepared_rows(tmp_path, [(1, 4, "femur"), (3, 6, "lips")], fine)
    assert report.counts["train"]["overlaps_of_planes"] == 1
    for row in rows:
        label, time_s = PLANES[row["label"]], row["time_s"]
        assert not 3 < time_s < 4
        assert label == ("femur" if 1 <= time_s <= 3 else "lips" if 4 <= time_s <= 6 else "background")


def test_intervals_are_cut_at_the_end_of_the_recording_and_counted(tmp_path):
    rows, report = prepared_rows(tmp_path, [(6, 60, "femur"), (70, 71, "lips"), (1, 2, "profile")])
    counts = report.counts["train"]
    assert (counts["femur"], counts["profile"], counts["intervals_beyond_the_end"]) == (4, 2, 2)
    assert "lips" not in counts
    assert all(row["time_s"] < SECONDS for row in rows)


def test_an_interval_to_the_end_is_not_beyond_it(tmp_path):
    _, report = prepared_rows(tmp_path, [(6, SECONDS, "femur")])
    assert report.counts["train"] == {"femur": 4, "background": 11}


def test_labelled_background_counts_as_background(tmp_path):
    intervals = [(0, 4, "femur"), (4, 5, "background"), (5, SECONDS, "lips")]
    rows, report = prepared_rows(tmp_path, intervals)
    assert report.counts["train"] == {"femur": 8, "lips": 6, "background": 2}
    assert [row["time_s"] for row in rows if PLANES[row["label"]] == "background"] == pytest.approx(
        [4.25, 4.75], abs=0.02
    )


def test_few_frames_a_second_are_taken_once_and_only_from_inside(tmp_path):
    fine = PlaneParameters(frame_size=SIZE, seconds_between_frames=0.1, background_margin_seconds=0.2)
    times_s = np.array([0.0, 1.0, 2.1, 3.0, 4.0, 5.2, 6.0])
    rows, _ = prepared_rows(tmp_path, [(1.5, 2.5, "femur"), (4.2, 5.0, "lips")], fine, times_s=times_s)
    assert [(number_of(np.array(row["image"])), PLANES[row["label"]]) for row in rows] == [
        (0, "background"),
        (1, "background"),
        (2, "femur"),
        (3, "background"),
        (4, "background"),
        (5, "background"),
        (6, "background"),
    ]


def test_a_balance_and_a_limit_a_scan_are_kept_over_time(tmp_path):
    parameters = PlaneParameters(
        frame_size=SIZE, seconds_between_frames=0.1, class_balance="background", frames_per_scan=9
    )
    rows, report = prepared_rows(tmp_path, [(0, 3, "femur")], parameters)
    assert report.counts["train"] == {"femur": 5, "background": 4}
    femur = [row["time_s"] for row in rows if PLANES[row["label"]] == "femur"]
    assert np.diff(femur) == pytest.approx(0.6, abs=0.01)


def test_a_scan_of_which_nothing_is_left_is_named(tmp_path):
    write_scan(tmp_path / "in" / "a", [(0, 3, "femur")])
    write_scan(tmp_path / "in" / "b", [])
    parameters = PlaneParameters(frame_size=SIZE, class_balance="background")
    report = prepare_planes(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    (outcome,) = [outcome for outcome in report.recordings if outcome.left_out]
    assert (outcome.name, outcome.error) == ("b", "NothingKeptError")


def test_the_crop_of_the_notes_is_cut_out(tmp_path):
    picture = np.zeros((48, 96, 3), dtype=np.uint8)
    picture[8:40, 16:48] = 255
    write_scan(tmp_path / "in" / "a", [(0, 1, "femur")])
    write_video(tmp_path / "in" / "a" / "scan.mp4", even_times(1), [picture] * 30)
    (tmp_path / "in" / "a" / "scan.json").write_text('{"crop": [16, 8, 48, 40]}')
    prepare_planes(tmp_path / "in", tmp_path / "set", SMALL, workers=1)
    assert all(np.array(row["image"]).min() > 230 for row in rows_of(tmp_path / "set"))


# Clips.


def test_clips_lie_as_a_whole_in_one_class(prepared):
    output, (_, report) = prepared
    assert report.config == "plane_clips"
    assert load_dataset(str(output), "plane_clips")["train"].features == plane_clips_features()
    rows = rows_of(output, "plane_clips")
    assert report.counts["validation"] == {"femur": 2, "lips": 1, "background": 1}
    of_one_scan = [row for row in rows if row["scan_id"] == rows[0]["scan_id"]]
    assert [(row["start_s"], PLANES[row["label"]]) for row in of_one_scan] == [
        (1.0, "femur"),
        (2.0, "femur"),
        (4.5, "lips"),
        (6.5, "background"),
    ]
    for row in rows:
        wanted = [round((row["start_s"] + frame * 0.25) * 30) for frame in range(4)]
        found = [number_of(np.array(frame)) for frame in row["frames"]]
        assert np.abs(np.subtract(found, wanted)).max() <= 1


def test_a_stride_and_the_end_of_the_recording(tmp_path):
    parameters = PlaneParameters(frame_size=32, clip_seconds=1.0, stride_seconds=0.5, frames_per_clip=2)
    rows, report = prepared_rows(tmp_path, [(6, 60, "femur"), (0, 5.5, "lips")], parameters)
    starts = {label: [row["start_s"] for row in rows if PLANES[row["label"]] == label] for label in PLANES}
    assert starts["femur"] == [6, 6.5, 7]
    assert starts["lips"] == [place / 2 for place in range(10)]
    assert starts["background"] == []
    assert report.counts["train"]["intervals_beyond_the_end"] == 1


def test_lengths_that_only_rounding_makes_shorter_lose_nothing(tmp_path):
    intervals = [(0.8, 1.4, "femur")]
    assert (1.4 - 0.8) / 0.2 < 3
    assert 0.8 + 2 * 0.2 + 0.2 > 1.4
    write_scan(tmp_path / "in" / "a", intervals)
    for parameters in (
        PlaneParameters(frame_size=32, seconds_between_frames=0.2),
        PlaneParameters(frame_size=32, clip_seconds=0.2, frames_per_clip=1),
    ):
        report = prepare_planes(tmp_path / "in", tmp_path / "set", parameters, workers=1)
        assert report.counts["train"]["femur"] == 3


# The command, and what bad input gets.


def test_the_command_writes_frames_then_clips_and_nothing_twice(tmp_path, capsys):
    write_scan(tmp_path / "in" / "a", [(1, 3, "femur")])
    places = [str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1", "--frame-size", "32"]
    places += ["--sector", "whole"]
    assert main(places) == 0
    assert "femur 4" in capsys.readouterr().out
    assert main([*places, "--clip-seconds", "1", "--frames-per-clip", "2"]) == 0
    assert main(places) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*places, "--overwrite", "--frames-per-scan", "2"]) == 0
    assert len(rows_of(tmp_path / "set")) == 2
    assert len(rows_of(tmp_path / "set", "plane_clips")[0]["frames"]) == 2


def test_recordings_without_planes_are_an_error_where_there_are_no_others(tmp_path, capsys):
    write_scan(tmp_path / "in" / "a", None)
    assert main([str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1"]) == 2
    assert "a: there is no planes.csv" in (error := capsys.readouterr().err)
    assert error.splitlines()[-2].endswith("prepare_planes: No recording gave a frame:")
    assert not (tmp_path / "set").exists()


def test_an_unknown_plane_is_named(tmp_path):
    write_scan(tmp_path / "in" / "a", [(1, 3, "femurs")])
    with pytest.raises(StrictError, match=r"a: planes\.csv, line 2: 'femurs' is none of the 14 planes"):
        prepare_planes(tmp_path / "in", tmp_path / "set", SMALL, workers=1, strict=True)


def test_a_split_without_labels_is_refused_with_a_remedy(tmp_path):
    for name in ("a", "b"):
        write_scan(tmp_path / "in" / name, [(1, 3, "femur")])
    prepare_planes(tmp_path / "in", tmp_path / "set", SMALL, workers=1)
    for name in ("a", "b"):
        (tmp_path / "in" / name / "planes.csv").unlink()
        with pytest.raises(PrepareError, match=r"No recording of the (train|validation) split gave a clip; "):
            prepare_planes(tmp_path / "in", tmp_path / "set", CLIPS, workers=1)
        (tmp_path / "in" / name / "planes.csv").write_text("start_s,end_s,label\n")
    assert [path.name for path in (tmp_path / "set" / "data").iterdir()] == ["planes"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame_size", 8),
        ("validation_fraction", 1.0),
        ("seed", -1),
        ("seconds_between_frames", 0.0),
        ("seconds_between_frames", float("inf")),
        ("background_margin_seconds", -0.1),
        ("class_balance", "even"),
        ("frames_per_scan", 0),
        ("frames_per_clip", 0),
        ("clip_seconds", 0.0),
        ("stride_seconds", 1.0),
    ],
)
def test_parameters_out_of_range_are_named(field, value, tmp_path, capsys):
    with pytest.raises(ValueError, match=f"{field} is"):
        PlaneParameters(**{field: value})
    assert main([str(tmp_path), str(tmp_path / "set"), f"--{field.replace('_', '-')}={value}"]) == 2
    assert f"prepare_planes: {field} is" in capsys.readouterr().err
