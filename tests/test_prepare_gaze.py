"""Frames with fixations from recordings with gaze.csv: where they lie, what is dropped, what is counted."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from tiny_recordings import even_times, write_video

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import StrictError
from datasets_scripts.prepare_clips import prepare_clips
from datasets_scripts.prepare_gaze import (
    GazeParameters,
    find_fixations,
    main,
    places_in_stored_image,
    prepare_gaze,
)
from datasets_scripts.prepare_planes import PlaneParameters, prepare_planes
from datasets_scripts.schema import gaze_features
from datasets_scripts.shards import data_hash, read_info
from datasets_scripts.simulate_scans import SimulationParameters, simulate_scan
from datasets_scripts.splits import read_splits

WIDTH, HEIGHT = 96, 64
SMALL = GazeParameters(frame_size=64)


def rest(place: tuple[float, float], start_s: float, end_s: float) -> np.ndarray:
    """Samples at 60 Hz of an eye that rests."""
    times = np.arange(start_s, end_s - 1e-9, 1 / 60)
    return np.column_stack([times, np.tile(place, (len(times), 1))])


def write_scan(
    folder: Path, samples: np.ndarray | None, pictures: list[np.ndarray] | None = None, **notes
) -> Path:
    pictures = pictures or [np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)] * 120
    write_video(folder / "scan.mp4", even_times(len(pictures) / 30), pictures)
    (folder / "scan.json").write_text(json.dumps({"patient_id": f"patient of {folder.name}", **notes}))
    if samples is not None:
        lines = [f"{time_s:.4f},{x},{y}" for time_s, x, y in samples]
        (folder / "gaze.csv").write_text("\n".join(["time_s,x,y", *lines]) + "\n")
    return folder


def rows_of(output: Path) -> list[dict]:
    rows = [row for split in load_dataset(str(output), "gaze", streaming=True).values() for row in split]
    return sorted(rows, key=lambda row: (row["scan_id"], row["time_s"]))


def prepared_rows(tmp_path: Path, samples: np.ndarray, parameters: GazeParameters = SMALL, **scan):
    """The rows and the report of one scan."""
    write_scan(tmp_path / "in" / "a", samples, **scan)
    report = prepare_gaze(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    return rows_of(tmp_path / "set"), report


# Rows.


def test_a_frame_has_the_fixations_that_overlap_its_window(tmp_path):
    samples = np.concatenate([rest((0.2, 0.5), 0.1, 0.9), rest((0.6, 0.5), 0.95, 1.6)])
    rows, report = prepared_rows(tmp_path, samples)
    assert load_dataset(str(tmp_path / "set"), "gaze")["train"].features == gaze_features()
    assert [row["time_s"] for row in rows] == pytest.approx([0.5, 1.5], abs=0.001)
    # 96 x 64 in a square: y 0.5 stays, 0.2 and 0.6 of the width stay.
    np.testing.assert_allclose(rows[0]["fixations"], [[0.2, 0.5], [0.6, 0.5]], atol=0.01)
    np.testing.assert_allclose(rows[1]["fixations"], [[0.6, 0.5]], atol=0.01)
    assert report.counts["train"] == {
        "samples": len(samples),
        "fixations": 2,
        "frames_without_fixation": 2,
    }
    info = read_info(tmp_path / "set", "gaze")
    assert info["data_hash"] == report.data_hash == data_hash(tmp_path / "set", "gaze")
    assert (info["frames"], info["window_seconds"]) == ({"train": 2, "validation": 0}, 1.0)


@pytest.mark.parametrize("crop", [None, (16, 4, 80, 36), (40, 0, 64, 60), (3, 5, 90, 61)])
@pytest.mark.parametrize("frame_size", [64, 160])
def test_fixations_lie_on_what_was_looked_at(tmp_path, crop, frame_size):
    spots = [(45, 20), (60, 30), (50, 8)]
    samples, pictures = [], []
    for second, (x, y) in enumerate(spots):
        picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture[y - 2 : y + 2, x - 2 : x + 2] = 255
        pictures += [picture] * 30
        samples.append(rest((x / WIDTH, y / HEIGHT), second, second + 1))
    parameters = GazeParameters(frame_size=frame_size, window_seconds=0.5)
    notes = {} if crop is None else {"crop": crop}
    rows, _ = prepared_rows(tmp_path, np.concatenate(samples), parameters, pictures=pictures, **notes)
    assert len(rows) == 3
    for row in rows:
        ((x, y),) = row["fixations"]
        grey = np.array(row["image"].convert("L"), dtype=float)
        grey[grey < 60] = 0
        rows_at, columns_at = np.indices(grey.shape) + 0.5
        centre = np.array([(columns_at * grey).sum(), (rows_at * grey).sum()]) / grey.sum()
        assert np.abs(centre / frame_size - (x, y)).max() < 0.6 / frame_size


def test_fixations_outside_the_crop_are_dropped_and_counted(tmp_path):
    samples = np.concatenate([rest((0.9, 0.5), 0, 0.5), rest((0.5, 0.5), 0.5, 1), rest((0.9, 0.5), 1, 2)])
    rows, report = prepared_rows(tmp_path, samples, crop=[0, 0, 60, 64])
    assert [len(row["fixations"]) for row in rows] == [1]
    assert report.counts["train"]["fixations_outside_the_crop"] == 2
    assert report.counts["train"]["fixations"] == 1


def test_blinks_and_samples_off_the_picture_are_dropped_and_counted(tmp_path):
    samples = rest((0.5, 0.5), 0, 3)
    samples[30:40, 1] = np.nan
    samples[90:93, 2] = -0.2
    rows, report = prepared_rows(tmp_path, samples)
    counts = report.counts["train"]
    assert (counts["samples_lost_to_blinks"], counts["samples_off_the_picture"], counts["fixations"]) == (
        10,
        3,
        3,
    )
    assert all(0 <= value <= 1 for row in rows for place in row["fixations"] for value in place)


def test_what_is_seen_around_a_blink_is_dropped_and_counted(tmp_path):
    samples = rest((0.5, 0.5), 0, 2)
    samples[55:65, 1:] = np.nan
    for margin_s, around, ends in ((0.0, 0, (54, 65)), (0.05, 6, (51, 68))):
        parameters = GazeParameters(frame_size=64, blink_margin_seconds=margin_s)
        fixations = find_fixations(samples, 1.0, parameters)
        np.testing.assert_allclose(fixations[:, :2].ravel()[1:3], np.array(ends) / 60)
        write_scan(tmp_path / "in" / "a", samples)
        report = prepare_gaze(tmp_path / "in", tmp_path / "set", parameters, workers=1, overwrite=True)
        counts = report.counts["train"]
        assert (counts.get("samples_around_blinks", 0), counts["samples_lost_to_blinks"]) == (around, 10)


def test_a_trackers_export_gives_the_fixations_of_our_own_file(tmp_path):
    """Tobii, 250 Hz, whose clock began 100 s before the video, and a picture in the middle of the screen."""
    looks = [(0.2, 0.5), (0.6, 0.25), (0.8, 0.75)]
    own = np.concatenate([rest(place, second, second + 1) for second, place in enumerate(looks)])
    parameters = GazeParameters(frame_size=64, window_seconds=0.5)
    expected, _ = prepared_rows(tmp_path, own, parameters)
    lines = ["Recording timestamp [μs]\tGaze point X [DACS px]\tGaze point Y [DACS px]\tEye movement type"]
    for tick in range(750):
        x, y = looks[tick // 250]
        lines.append(f"{100_000_000 + tick * 4000}\t{300 + 960 * x}\t{100 + 640 * y}\tFixation")
    notes = {"gaze_offset_s": -100.0, "screen": [300, 100, 1260, 740]}
    folder = write_scan(tmp_path / "other" / "a", None, **notes)
    (folder / "gaze.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepare_gaze(tmp_path / "other", tmp_path / "tobii", parameters, workers=1)
    found = rows_of(tmp_path / "tobii")
    assert [row["time_s"] for row in found] == [row["time_s"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row["fixations"], other["fixations"], atol=1e-6)
    for path in filter(Path.is_file, (tmp_path / "tobii").rglob("*")):
        assert b"gaze.tsv" not in path.read_bytes()


@pytest.mark.parametrize(("offset_s", "says"), [(-10.0, r"-9\.750 to -7\.\d+"), (5.5, r"5\.750 to 7\.\d+")])
def test_gaze_that_does_not_overlap_the_video_is_told_with_both_times(tmp_path, offset_s, says):
    write_scan(tmp_path / "in" / "a", rest((0.5, 0.5), 0.25, 2.25), gaze_offset_s=offset_s)
    write_scan(tmp_path / "in" / "b", rest((0.5, 0.5), 0, 2))
    report = prepare_gaze(tmp_path / "in", tmp_path / "set", SMALL, workers=1)
    (outcome,) = [outcome for outcome in report.recordings if outcome.left_out]
    assert outcome.error == "GazeOutsideVideoError"
    assert re.fullmatch(
        rf"a: gaze\.csv covers {says} s and the video 0 to 3\.967 s, so that they do not overlap; .*\.",
        outcome.left_out,
    )


def test_both_rules_and_a_limit_a_scan(tmp_path):
    samples = np.concatenate([rest((0.2 + 0.1 * step, 0.5), step / 2, step / 2 + 0.5) for step in range(6)])
    few = {"frame_size": 64, "seconds_between_frames": 0.25, "frames_per_scan": 3}
    for rule in ("dispersion", "velocity"):
        parameters = GazeParameters(**few, fixation_rule=rule)
        write_scan(tmp_path / "in" / "a", samples)
        report = prepare_gaze(tmp_path / "in", tmp_path / "set", parameters, workers=1, overwrite=True)
        assert report.counts["train"]["fixations"] == 6
        assert report.rows["train"] == 3
        assert np.diff([row["time_s"] for row in rows_of(tmp_path / "set")]).min() > 0.9


def test_distances_are_in_widths_of_the_picture(tmp_path):
    # 0.09 of the height is 0.06 of the width, and within the spread of one fixation.
    samples = np.concatenate([rest((0.5, 0.40), 0, 0.5), rest((0.5, 0.49), 0.5, 1)])
    _, report = prepared_rows(tmp_path, samples)
    assert report.counts["train"]["fixations"] == 1


def test_a_frame_that_is_nearest_to_several_moments_is_taken_once(tmp_path):
    write_scan(tmp_path / "in" / "a", rest((0.5, 0.5), 0, 6))
    write_video(tmp_path / "in" / "a" / "scan.mp4", np.array([0.0, 2.0, 4.0]))
    prepare_gaze(tmp_path / "in", tmp_path / "set", SMALL, workers=1)
    assert [row["time_s"] for row in rows_of(tmp_path / "set")] == [0, 2, 4]


@pytest.mark.parametrize("size", [(96, 64), (30, 90), (64, 64), (7, 300)])
def test_the_corners_of_a_picture_lie_at_those_of_its_place_in_the_square(size):
    corners = places_in_stored_image(np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]), size, 160)
    shares = np.array(size) / max(size)
    np.testing.assert_allclose(corners[1] - corners[0], shares, atol=0.5 / 160)
    np.testing.assert_allclose(corners[2], 0.5, atol=1 / 160)


# The set.


def test_clips_planes_and_gaze_share_a_set_in_any_order(tmp_path):
    parameters = SimulationParameters(scans=3, scan_seconds=6.0, image_size=32, frames_per_second=10)
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        simulate_scan(tmp_path / "in", parameters, number, number)
    steps = [
        lambda output: prepare_clips(tmp_path / "in", output, ClipParameters(2.0, frame_size=32), workers=1),
        lambda output: prepare_planes(tmp_path / "in", output, PlaneParameters(frame_size=32), workers=1),
        lambda output: prepare_planes(
            tmp_path / "in", output, PlaneParameters(frame_size=32, clip_seconds=1.0), workers=1
        ),
        lambda output: prepare_gaze(tmp_path / "in", output, GazeParameters(frame_size=32), workers=1),
    ]
    configs = {"large", "planes", "plane_clips", "gaze"}
    sides, hashes = [], []
    for name, order in (("one", steps), ("two", steps[::-1])):
        reports = [step(tmp_path / name) for step in order]
        hashes.append({report.config: report.data_hash for report in reports})
        for config in configs:
            dataset = load_dataset(str(tmp_path / name), config, streaming=True)
            sides.append((name, [sorted({row["scan_id"] for row in split}) for split in dataset.values()]))
        if name == "one":
            shutil.copy(tmp_path / "one.key", tmp_path / "two.key")
    assert set(hashes[0]) == configs
    assert hashes[0] == hashes[1]
    assert all(side == sides[0][1] for _, side in sides)
    assert (tmp_path / "one" / "splits.json").read_bytes() == (tmp_path / "two" / "splits.json").read_bytes()


def test_the_number_of_workers_changes_no_byte_and_nobody_is_named(tmp_path):
    for name in ("visit_0", "visit_1"):
        write_scan(tmp_path / "in" / name, rest((0.3, 0.4), 0, 3))
    write_scan(tmp_path / "in" / "unseen", None)
    shards = []
    for workers in (1, 2):
        report = prepare_gaze(tmp_path / "in", tmp_path / "set", SMALL, workers=workers, overwrite=True)
        shards.append({path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()})
    assert shards[0] == shards[1]
    assert {outcome.name: outcome.error for outcome in report.recordings if outcome.left_out} == {
        "unseen": "MissingSidecarError"
    }
    for content in shards[0].values():
        assert not any(word in content for word in (b"visit_", b"patient of", b"scan.mp4", b"gaze.csv"))
        assert str(tmp_path).encode() not in content


def test_a_site_is_held_out_with_its_patients_and_named_nowhere_in_the_set(tmp_path, capsys):
    places = [("a", "leeds", "p0"), ("b", "oxford", "p1"), ("c", "leeds", "p1"), ("d", None, "p2")]
    for name, site, patient in places:
        notes = {"site": site, "machine": "GE", "patient_id": patient}
        write_scan(tmp_path / "in" / name, rest((0.3, 0.4), 0, 1), **notes)
    command = [str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1", "--frame-size", "32"]
    command += ["--sector", "whole", "--overwrite"]
    assert main([*command, "--hold-out-site", "oxfrod"]) == 2
    assert "No recording that was kept is of the site 'oxfrod'" in capsys.readouterr().err
    assert main([*command, "--hold-out-machine", "GE"]) == 2
    assert "none is left to train on" in capsys.readouterr().err
    assert main([*command, "--hold-out-site", "oxford"]) == 0
    assert "1 scans, and 1 of its patients from elsewhere" in capsys.readouterr().out
    report = json.loads((tmp_path / "set.gaze.report.json").read_text())
    scan_of = {outcome["name"]: outcome["scan_id"] for outcome in report["recordings"]}
    splits = read_splits(tmp_path / "set")
    assert splits.scans("validation") == {scan_of["b"], scan_of["c"]}
    assert splits.scans("train") == {scan_of["a"], scan_of["d"]}
    for path in filter(Path.is_file, (tmp_path / "set").rglob("*")):
        content = path.read_bytes().lower()
        assert not any(word in content for word in (b"oxford", b"leeds", b"hold_out"))
    # What was held out stays so, unasked; to hold out something else is refused.
    assert main(command) == 0
    assert read_splits(tmp_path / "set") == splits
    assert main([*command, "--hold-out-site", "leeds"]) == 2
    assert "others of these sites" in capsys.readouterr().err


# The command, and what bad input gets.


def test_the_command_writes_reports_and_refuses_to_do_it_twice(tmp_path, capsys):
    write_scan(tmp_path / "in" / "a", rest((0.3, 0.4), 0, 3))
    write_scan(tmp_path / "in" / "b", rest((1.3, 0.4), 0, 3))
    arguments = [str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1", "--frame-size", "32"]
    arguments += ["--sector", "whole"]
    assert main([*arguments, "--fixation-rule", "velocity"]) == 0
    text = capsys.readouterr().out
    assert "gaze: 3 frames of 1 scans to train" in text
    assert "b: none of its frames has a fixation" in text
    assert main(arguments) == 2
    assert "prepare_gaze: " in (error := capsys.readouterr().err)
    assert "--overwrite" in error
    assert main([*arguments, "--overwrite", "--strict"]) == 1


def test_gaze_that_cannot_be_read_is_named(tmp_path):
    write_scan(tmp_path / "in" / "a", rest((0.3, 0.4), 0, 3))
    (tmp_path / "in" / "a" / "gaze.csv").write_text("time_s,x,y\nsoon,0.5,0.5\n")
    with pytest.raises(StrictError, match=r"a: gaze\.csv, line 2: time_s is 'soon'"):
        prepare_gaze(tmp_path / "in", tmp_path / "set", SMALL, workers=1, strict=True)
    (tmp_path / "in" / "a" / "gaze.csv").write_text("time_s,x,y\n")
    with pytest.raises(StrictError, match="none of its frames has a fixation"):
        prepare_gaze(tmp_path / "in", tmp_path / "set", SMALL, workers=1, strict=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds_between_frames", 0.0),
        ("window_seconds", float("nan")),
        ("frames_per_scan", 0),
        ("fixation_rule", "area"),
        ("dispersion_widths", 0.0),
        ("velocity_widths_per_second", -1.0),
        ("minimum_fixation_seconds", 0.0),
        ("longest_gap_seconds", 0.0),
        ("blink_margin_seconds", -0.1),
        ("smoothing_seconds", float("inf")),
        ("merge_widths", -0.1),
    ],
)
def test_parameters_out_of_range_are_named(field, value, tmp_path, capsys):
    with pytest.raises(ValueError, match=f"{field} is"):
        GazeParameters(**{field: value})
    assert main([str(tmp_path), str(tmp_path / "set"), f"--{field.replace('_', '-')}={value}"]) == 2
    assert f"prepare_gaze: {field} is" in capsys.readouterr().err
