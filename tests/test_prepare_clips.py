"""From a folder of recordings to a data set: what is in it, what is left out, and what it never tells."""

import io
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import load_dataset
from PIL import Image
from tiny_recordings import SIZE, click, even_times, number_of, tone, write_video

from datasets_scripts.clips import (
    JPEG_QUALITY,
    ClipParameters,
    FrameEncoder,
    cut_clips,
    encode_flac,
    frames_of_clips,
    resize_to_square,
    speech_fraction,
)
from datasets_scripts.media_streams import Frame
from datasets_scripts.preparation import PrepareError, StrictError
from datasets_scripts.prepare_clips import main, prepare_clips
from datasets_scripts.recordings import RecordingFiles, open_recording
from datasets_scripts.schema import SAMPLING_RATE_HZ, clips_features
from datasets_scripts.shards import data_hash, read_info
from datasets_scripts.splits import read_splits

FEW = ClipParameters(clip_seconds=2.0, frames_per_clip=4, frame_size=SIZE)


def write_scan(folder: Path, name: str, seconds: float = 4.4, patient: str | None = None, **others) -> Path:
    write_video(folder / name / "scan.mp4", even_times(seconds), sound=tone(seconds), **others)
    if patient is not None:
        (folder / name / "scan.json").write_text(json.dumps({"patient_id": patient}))
    return folder / name


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Ten good scans of eight patients, one without sound, and a bad file of each kind."""
    folder = tmp_path_factory.mktemp("recordings")
    patients = ["Ada", "Ada", "Ben", "Cid", "Cid", "Dee", "Eve", "Fay", "Gus"]
    for number, patient in enumerate(patients):
        write_scan(folder, f"visit_{number}", 4.4 + 2 * (number == 0), patient)
    write_video(folder / "mute" / "scan.mp4", even_times(5))
    (folder / "mute" / "scan.json").write_text("{}")
    whole = (folder / "visit_1" / "scan.mp4").read_bytes()
    bad = folder / "bad"
    bad.mkdir()
    (bad / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (bad / "text.mp4").write_text("no video")
    (bad / "empty.mp4").touch()
    write_video(bad / "sound.mp4", sound=tone(3))
    write_video(bad / "short.mp4", even_times(1))
    return folder


LEFT_OUT = {
    "bad/cut.mp4": "TruncatedError",
    "bad/empty.mp4": "EmptyRecordingError",
    "bad/short.mp4": "TooShortError",
    "bad/sound.mp4": "NoVideoError",
    "bad/text.mp4": "UnreadableError",
}


@pytest.fixture(scope="module")
def prepared(recordings, tmp_path_factory) -> tuple[Path, object]:
    output = tmp_path_factory.mktemp("prepared") / "set"
    return output, prepare_clips(recordings, output, FEW, workers=1)


def rows_of(output: Path, config: str = "large", split: str = "train") -> list[dict]:
    return list(load_dataset(str(output), config, split=split, streaming=True))


# The rows.


def test_streamed_rows_are_the_clips(prepared):
    output, report = prepared
    dataset = load_dataset(str(output), "large", streaming=True)
    assert dataset["train"].features == clips_features()
    rows = {row["clip_id"]: row for split in dataset.values() for row in split}
    assert len(rows) == sum(report.rows.values()) == 21
    for clip_id, row in rows.items():
        assert clip_id == f"{row['scan_id']}_{round(row['start_s'] * 1000):07d}"
        assert re.fullmatch("[0-9a-f]{16}", row["scan_id"])
        expected = [round((row["start_s"] + index * 0.5) * 30) % 256 for index in range(4)]
        assert [number_of(np.array(frame)) for frame in row["frames"]] == expected
        assert row["frames"][0].size == (SIZE, SIZE)
        if row["audio"] is not None:
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
            assert (samples.shape, rate) == ((2 * SAMPLING_RATE_HZ,), SAMPLING_RATE_HZ)
    (mute,) = {outcome.scan_id for outcome in report.recordings if outcome.name == "mute"}
    assert {row["scan_id"] for row in rows.values() if row["audio"] is None} == {mute}


def test_frames_are_nearest_in_time_where_the_rate_varies(tmp_path):
    times = np.cumsum(np.random.default_rng(3).uniform(0.02, 0.2, 80))
    path = write_video(tmp_path / "scan.mp4", times + 4)
    times = times - times[0]
    parameters = ClipParameters(clip_seconds=1.5, stride_seconds=0.7, frames_per_clip=12, frame_size=SIZE)
    rows = list(cut_clips(open_recording(RecordingFiles("scan", path)), "scan", parameters))
    assert [row["start_s"] for row in rows] == pytest.approx(np.arange(len(rows)) * 0.7)
    end_s = times[-1] + 1.5 * (times[-1] - times[-2])
    assert len(rows) == 1 + int((end_s - 1.5) / 0.7)
    for row in rows:
        wanted = row["start_s"] + np.arange(12) * 1.5 / 12
        pictures = [np.array(Image.open(io.BytesIO(frame["bytes"]))) for frame in row["frames"]]
        assert [number_of(picture) for picture in pictures] == [
            np.argmin(abs(times - time)) for time in wanted
        ]


@pytest.mark.parametrize("start_s", [0.0, 6.25])
def test_a_click_sounds_in_the_clip_and_at_the_time_of_its_flash(tmp_path, start_s):
    times = even_times(4)
    flash = 90  # 3.0 s: 1.0 s into the second clip
    pictures = [np.full((SIZE, SIZE, 3), 255 * (i == flash), dtype=np.uint8) for i in range(len(times))]
    path = write_video(
        tmp_path / "scan.mp4", times + start_s, pictures, click(4, times[flash]), sound_start_s=start_s
    )
    parameters = ClipParameters(clip_seconds=2.0, frames_per_clip=60, frame_size=SIZE)
    first, second = cut_clips(open_recording(RecordingFiles("scan", path)), "scan", parameters)
    brightness = [np.mean(Image.open(io.BytesIO(frame["bytes"]))) for frame in second["frames"]]
    samples, _ = soundfile.read(io.BytesIO(second["audio"]["bytes"]))
    assert np.argmax(brightness) / 30 == pytest.approx(1.0, abs=0.001)
    assert np.argmax(np.abs(samples)) / SAMPLING_RATE_HZ == pytest.approx(1.0, abs=0.02)
    assert np.abs(soundfile.read(io.BytesIO(first["audio"]["bytes"]))[0]).max() < 0.05


def test_clips_of_given_starts_may_overlap_and_end(tmp_path):
    path = write_video(tmp_path / "scan.mp4", even_times(4))
    recording, encode = open_recording(RecordingFiles("scan", path)), FrameEncoder(None, SIZE)
    clips = list(frames_of_clips(recording, [0.5, 1.0, 3.0, 3.5], 1.0, 2, encode))
    assert [(clip.number, clip.start_s) for clip in clips] == [(0, 0.5), (1, 1.0), (2, 3.0)]
    numbers = [[number_of(np.array(Image.open(io.BytesIO(jpeg)))) for jpeg in clip.jpegs] for clip in clips]
    assert numbers == [[15, 30], [30, 45], [90, 105]]
    assert len(list(frames_of_clips(recording, [0.5], 1.0, 2, encode))) == 1


@pytest.mark.parametrize("seconds", [2.0, 6.0, 5.97])
def test_a_recording_as_long_as_its_clips_loses_none(tmp_path, seconds):
    path = write_video(tmp_path / "scan.mp4", even_times(seconds))
    rows = list(cut_clips(open_recording(RecordingFiles("scan", path)), "scan", FEW))
    assert len(rows) == int(seconds / 2)


def test_the_crop_of_the_notes_is_cut_out(tmp_path):
    picture = np.zeros((48, 96, 3), dtype=np.uint8)
    picture[8:40, 16:48] = 255
    (tmp_path / "scan.json").write_text('{"crop": [16, 8, 48, 40]}')
    path = write_video(tmp_path / "scan.mp4", even_times(2), [picture] * 60)
    recording = open_recording(RecordingFiles("scan", path, notes=tmp_path / "scan.json"))
    (row,) = cut_clips(recording, "scan", FEW)
    assert np.array(Image.open(io.BytesIO(row["frames"][0]["bytes"]))).min() > 230


@pytest.mark.parametrize("size", [(40, 20), (21, 63), (16, 16), (300, 7)])
def test_the_aspect_is_kept_and_the_rest_is_black(size):
    square = np.array(resize_to_square(Image.new("RGB", size, "white"), 32))
    assert square.shape == (32, 32, 3)
    lit = square[:, :, 0] > 127
    assert lit.any(axis=0).sum() == max(1, round(size[0] * 32 / max(size)))
    assert lit.any(axis=1).sum() == max(1, round(size[1] * 32 / max(size)))
    assert lit[15, 15]
    assert set(np.unique(square)) <= {0, 255}


def test_a_frame_wanted_twice_is_encoded_once():
    encode = FrameEncoder(None, 32)
    frames = [Frame(0.0, 0.1, lambda: np.zeros((32, 32, 3), dtype=np.uint8)) for _ in range(2)]
    assert encode(frames[0]) is encode(frames[0])
    assert encode(frames[0]) is not encode(frames[1])


def test_a_frame_without_colour_is_stored_grey_with_the_same_pixels():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8), 3, axis=2)
    coloured = grey.copy()
    coloured[5, 6, 2] ^= 128
    stored, in_colour = (
        Image.open(io.BytesIO(FrameEncoder(None, 32)(Frame(0.0, 0.1, lambda pixels=pixels: pixels))))
        for pixels in (grey, coloured)
    )
    assert (stored.mode, in_colour.mode) == ("L", "RGB")
    as_colour = io.BytesIO()
    Image.fromarray(grey).save(as_colour, "JPEG", quality=JPEG_QUALITY)
    np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), np.asarray(Image.open(as_colour)))


def test_speech_fraction_tells_talking_from_silence_and_hum():
    times = np.arange(4 * SAMPLING_RATE_HZ) / SAMPLING_RATE_HZ
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(times))
    bursts = 0.2 * np.sin(2 * np.pi * 200 * times) * (times % 1 < 0.4)
    assert speech_fraction(np.zeros(len(times))) == 0
    assert speech_fraction(noise) == 0
    assert speech_fraction(noise + 0.2 * np.sin(2 * np.pi * 50 * times)) == 0
    assert speech_fraction(noise + bursts) == pytest.approx(0.4, abs=0.03)


def test_flac_keeps_the_waveform_and_does_not_wrap_round():
    waveform = np.array([0.0, 0.5, -0.5, 1.5, -1.5] * 100, dtype=np.float32)
    samples, _ = soundfile.read(io.BytesIO(encode_flac(waveform)))
    np.testing.assert_allclose(samples, np.clip(waveform, -1, 1), atol=1e-4)


# The set.


def test_patients_are_on_one_side_and_splits_are_kept(prepared):
    output, report = prepared
    splits = read_splits(output)
    sides = {
        split: {row["scan_id"] for row in rows_of(output, split=split)} for split in ("train", "validation")
    }
    assert sides == {split: splits.scans(split) for split in sides}
    assert not sides["train"] & sides["validation"]
    assert (len(splits.train), len(splits.validation)) == (6, 2)
    scans_of = {}
    for outcome in report.recordings:
        scans_of.setdefault(outcome.patient, []).append(outcome.scan_id)
    for side in (splits.train, splits.validation):
        for patient, scans in side.items():
            assert sorted(scans_of[patient]) == scans


def test_shards_mix_scans_and_stream_in_small_groups(prepared):
    output, report = prepared
    shards = sorted((output / "data" / "large").glob("train-*.parquet"))
    assert len(shards) == min(8, report.scans["train"]) == int(shards[0].stem[-5:])
    rows = [pq.read_table(shard, columns=["scan_id"])["scan_id"].to_pylist() for shard in shards]
    assert all(rows)
    order = [scan for shard in rows for scan in shard]
    repeats = sum(a == b for a, b in pairwise(order))
    assert repeats < len(order) // 2
    assert all(pq.ParquetFile(shard).metadata.row_group(0).num_rows <= 8 for shard in shards)


def test_a_scan_too_short_for_a_second_length_is_not_counted_in_it(tmp_path):
    for name, seconds in (("a", 2.0), ("b", 4.0), ("c", 4.0), ("d", 4.0)):
        write_scan(tmp_path / "in", name, seconds)
    half = {"frames_per_clip": 2, "frame_size": 32, "validation_fraction": 0.5}
    first = prepare_clips(tmp_path / "in", tmp_path / "set", ClipParameters(2.0, **half), workers=1)
    second = prepare_clips(tmp_path / "in", tmp_path / "set", ClipParameters(4.0, **half), workers=1)
    assert first.scans == {"train": 2, "validation": 2}
    assert sum(second.scans.values()) == sum(second.rows.values()) == 3
    assert len(list((tmp_path / "set" / "data" / second.config).glob("*.parquet"))) == 3


def test_bad_recordings_are_left_out_by_name_and_the_rest_goes_on(prepared):
    _, report = prepared
    assert {o.name: o.error for o in report.recordings if o.left_out} == LEFT_OUT
    for outcome in report.recordings:
        assert (outcome.rows == 0) == (outcome.name in LEFT_OUT)
        assert outcome.left_out is None or outcome.left_out.startswith(outcome.name)
    assert "5 of 15 recordings were left out" in report.summary()


def test_a_second_length_adds_a_configuration_with_the_same_splits(prepared, recordings, tmp_path):
    output = tmp_path / "set"
    shutil.copytree(prepared[0], output)
    shutil.copy(prepared[0].with_name("set.key"), tmp_path / "set.key")
    before = (output / "splits.json").read_bytes()
    parameters = ClipParameters(clip_seconds=1.5, frames_per_clip=2, frame_size=32, validation_fraction=0.6)
    report = prepare_clips(recordings, output, parameters, workers=1)
    assert report.config == "clips_1.5s"
    assert (output / "splits.json").read_bytes() == before
    for split in ("train", "validation"):
        old, new = (
            {row["scan_id"] for row in rows_of(output, name, split)} for name in ("large", report.config)
        )
        assert old == new
    assert {path.name for path in tmp_path.iterdir()} == {
        "set",
        "set.key",
        "set.clips_1.5s.report.html",
        "set.clips_1.5s.report.json",
    }


def test_the_number_of_workers_and_the_key_change_no_clip(prepared, recordings, tmp_path):
    output, report = prepared
    shutil.copy(output.with_name("set.key"), tmp_path / "set.key")
    again = prepare_clips(recordings, tmp_path / "set", FEW, workers=2)
    assert again == report
    for shard in sorted(output.rglob("*.parquet")):
        assert shard.read_bytes() == (tmp_path / "set" / shard.relative_to(output)).read_bytes()
    other_key = prepare_clips(recordings, tmp_path / "other", FEW, workers=1)
    assert other_key.data_hash == report.data_hash
    assert other_key.recordings != report.recordings


def test_the_data_hash_is_of_the_content(prepared, recordings, tmp_path):
    output, report = prepared
    info = read_info(output, "large")
    assert info["data_hash"] == report.data_hash == data_hash(output, "large")
    assert (info["clips"], info["clip_seconds"], info["frames_per_clip"]) == (report.rows, 2.0, 4)
    other = tmp_path / "set"
    shutil.copytree(output, other)
    shard = next(other.rglob("train-*.parquet"))
    table = pq.read_table(shard)
    pq.write_table(table.take(list(range(len(table)))[::-1]), shard)
    assert data_hash(other, "large") == report.data_hash
    silent = pa.nulls(len(table), table.schema.field("audio").type)
    pq.write_table(table.set_column(table.schema.get_field_index("audio"), "audio", silent), shard)
    assert data_hash(other, "large") != report.data_hash
    pq.write_table(table.slice(1), shard)
    assert data_hash(other, "large") != report.data_hash


def test_nothing_in_the_set_names_a_recording_a_patient_or_a_path(prepared, recordings):
    output, _ = prepared
    words = [
        "visit_",
        "mute",
        "Ada",
        "Gus",
        "scan.mp4",
        str(recordings),
        str(output.parent),
        Path.home().name + "/",
    ]
    files = [path for path in output.rglob("*") if path.is_file()]
    assert {path.name for path in files} > {"README.md", "splits.json", "info.json"}
    for path in files:
        content = path.read_bytes()
        for word in words:
            assert word.encode() not in content, (path, word)
    report = output.with_name("set.large.report.json").read_text()
    assert "visit_0" in report
    assert str(recordings) not in report
    assert str(output.parent) not in report
    key = bytes.fromhex(output.with_name("set.key").read_text())
    assert not any(key in path.read_bytes() or key.hex().encode() in path.read_bytes() for path in files)


def test_too_little_speech_leaves_clips_out(tmp_path):
    bursts = tone(4) * (np.arange(4 * 48_000) % 24_000 < 12_000)
    bursts[2 * 48_000 :] = 0
    write_video(tmp_path / "in" / "talk.mp4", even_times(4), None, bursts)
    write_video(tmp_path / "in" / "mute.mp4", even_times(4))
    parameters = ClipParameters(2.0, frames_per_clip=2, frame_size=32, minimum_speech_fraction=0.2)
    report = prepare_clips(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    outcomes = {outcome.name: outcome for outcome in report.recordings}
    assert (outcomes["talk.mp4"].rows, outcomes["talk.mp4"].counts["clips_below_speech"]) == (1, 1)
    assert "speech share" in outcomes["mute.mp4"].left_out
    (row,) = rows_of(tmp_path / "set")
    assert row["speech_fraction"] == pytest.approx(0.5, abs=0.06)


def test_one_scan_is_all_in_train_and_two_are_split(tmp_path):
    write_scan(tmp_path / "in", "a")
    one = tmp_path / "not" / "yet" / "there"
    report = prepare_clips(tmp_path / "in", one, FEW, workers=1)
    assert report.scans == {"train": 1, "validation": 0}
    assert "no validation split" in report.summary()
    assert list(load_dataset(str(one), "large", streaming=True)) == ["train"]
    write_scan(tmp_path / "in", "b")
    report = prepare_clips(tmp_path / "in", tmp_path / "two", FEW, workers=1)
    assert report.scans == {"train": 1, "validation": 1}


# The command, and what bad input gets.


@pytest.fixture()
def one_scan(tmp_path) -> Path:
    write_scan(tmp_path / "in", "a", 2.0)
    return tmp_path / "in"


def run(*arguments: object) -> int:
    few = ["--clip-seconds", "2", "--frames-per-clip", "2", "--frame-size", "32", "--workers", "1"]
    return main([*map(str, arguments), *few, "--sector", "whole"])


def test_the_command_writes_reports_and_refuses_to_do_it_twice(one_scan, tmp_path, capsys):
    (one_scan / "text.mp4").write_text("no video")
    assert run(one_scan, tmp_path / "set") == 0
    assert "text.mp4" in capsys.readouterr().out
    shard = next((tmp_path / "set").rglob("*.parquet"))
    before = shard.stat().st_mtime_ns
    assert run(one_scan, tmp_path / "set") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert shard.stat().st_mtime_ns == before
    assert run(one_scan, tmp_path / "set", "--overwrite") == 0
    assert shard.stat().st_mtime_ns > before


def test_strict_stops_with_status_1_and_writes_nothing(one_scan, tmp_path, capsys):
    (one_scan / "text.mp4").write_text("no video")
    assert run(one_scan, tmp_path / "set", "--strict") == 1
    assert "text.mp4: " in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / "set.partial").exists()
    with pytest.raises(StrictError):
        prepare_clips(one_scan, tmp_path / "set", FEW, workers=2, strict=True)


def test_a_folder_without_a_usable_recording_has_status_2(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert run(tmp_path / "in", tmp_path / "set") == 2
    assert "holds no recording" in capsys.readouterr().err
    assert run(tmp_path / "absent", tmp_path / "set") == 2
    assert "no folder" in capsys.readouterr().err
    (tmp_path / "in" / "text.mp4").write_text("no video")
    assert run(tmp_path / "in", tmp_path / "set") == 2
    assert "No recording gave a clip" in (error := capsys.readouterr().err)
    assert "text.mp4" in error
    assert not (tmp_path / "set").exists()


def test_folders_within_each_other_and_a_key_in_the_set_are_refused(one_scan, tmp_path, capsys):
    assert run(one_scan, one_scan / "set") == 2
    assert run(one_scan, tmp_path) == 2
    assert "separate folders" in capsys.readouterr().err
    assert run(one_scan, tmp_path / "set", "--key-file", tmp_path / "set" / "key") == 2
    assert "inside the data set" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_lost_key_does_not_mix_patients(one_scan, tmp_path, capsys):
    assert run(one_scan, tmp_path / "set") == 0
    (tmp_path / "set.key").unlink()
    assert run(one_scan, tmp_path / "set", "--overwrite") == 2
    assert "another key" in capsys.readouterr().err


def test_a_split_that_a_longer_clip_leaves_empty_is_refused(tmp_path):
    for name, seconds in (("a", 2.0), ("b", 4.0)):
        write_scan(tmp_path / "in", name, seconds)
    prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    with pytest.raises(PrepareError, match=r"split gave a clip; .* shorter than 4"):
        prepare_clips(tmp_path / "in", tmp_path / "set", ClipParameters(4.0), workers=1)
    assert [path.name for path in (tmp_path / "set" / "data").iterdir()] == ["large"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_seconds", 0),
        ("clip_seconds", float("nan")),
        ("stride_seconds", 0.0),
        ("frames_per_clip", 0),
        ("frame_size", 8),
        ("validation_fraction", 1.0),
        ("validation_fraction", -0.1),
        ("minimum_speech_fraction", 1.0),
        ("seed", -1),
        ("sector", "half"),
    ],
)
def test_parameters_out_of_range_are_named(field, value, tmp_path, capsys):
    with pytest.raises(ValueError, match=f"{field} is"):
        ClipParameters(**{field: value})
    assert main([str(tmp_path), str(tmp_path / "set"), f"--{field.replace('_', '-')}={value}"]) == 2
    assert field in capsys.readouterr().err


@pytest.mark.media
@pytest.mark.parametrize(
    ("folder", "clips", "scans", "with_sound"),
    [("ultrasound_with_speech", 4, 2, True), ("ultrasound_video", 17, 3, False), ("odd_media", 6, 1, True)],
)
def test_real_media_go_through(media, tmp_path, folder, clips, scans, with_sound):
    parameters = ClipParameters(2.0, frames_per_clip=4, frame_size=32)
    report = prepare_clips(media / folder, tmp_path / "set", parameters, workers=1)
    assert (sum(report.rows.values()), sum(report.scans.values())) == (clips, scans)
    rows = rows_of(tmp_path / "set")
    assert all((row["audio"] is not None) == with_sound for row in rows)
    assert all(len(row["frames"]) == 4 for row in rows)
    assert max(np.array(row["frames"][0]).std() for row in rows) > 10
