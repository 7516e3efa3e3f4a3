"""What a folder of bad recordings gets: a row in the report each, and the others go on."""

import io
import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import soundfile
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from tiny_recordings import SIZE, even_times, tone, write_video

from datasets_scripts import one_recording, recordings
from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import PreparationReport, PrepareError
from datasets_scripts.prepare_clips import main, prepare_clips
from datasets_scripts.prepare_gaze import GazeParameters, prepare_gaze

FEW = ClipParameters(clip_seconds=2.0, frames_per_clip=2, frame_size=SIZE)
OF_FRAMES = "--clip-seconds 2 --frames-per-clip 2 --frame-size 32 --sector whole"
OPTIONS = [*OF_FRAMES.split(), "--speech-detector", "loudness", "--workers", "1"]


def good(path: Path, seconds: float = 2.4) -> Path:
    return write_video(path, even_times(seconds), sound=tone(seconds))


def cut_short(path: Path) -> None:
    whole = good(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def without_pixels(path: Path) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
    )
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta, dataset.PatientID = meta, "X1"
    dataset.save_as(path, enforce_file_format=True)


def without_packets(path: Path) -> None:
    """A container that names its streams and holds not one picture, as after a recording of no time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = SIZE
        container.start_encoding()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.mp4": (cut_short, "TruncatedError"),
    "empty.mkv": (Path.touch, "EmptyRecordingError"),
    "sound.mp4": (lambda path: write_video(path, sound=tone(3)), "NoVideoError"),
    "sound.wav": (lambda path: soundfile.write(path, tone(3), 48_000), "NoVideoError"),
    "zero.avi": (without_packets, "EmptyRecordingError"),
    "zero.mkv": (without_packets, "UnreadableError"),
    "zero.mp4": (without_packets, "NoVideoError"),
    "one_frame.mp4": (lambda path: write_video(path, np.array([0.0])), "TooShortError"),
    "text.mp4": (lambda path: path.write_text("no video"), "UnreadableError"),
    "picture.mp4": (lambda path: Image.new("RGB", (64, 64)).save(path, "PNG"), "TooShortError"),
    "no_pixels.dcm": (without_pixels, "EmptyRecordingError"),
    "text.dcm": (lambda path: path.write_text("no pictures"), "UnreadableError"),
    "folder.mp4": (Path.mkdir, "NoVideoError"),
}


def outcomes(report: PreparationReport) -> dict[str, str | None]:
    return {outcome.name: outcome.error for outcome in report.recordings}


def rows_of(output: Path) -> list[dict]:
    return [row for path in sorted(output.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_each_has_its_row_and_the_rest_goes_on(tmp_path, capsys):
    folder = tmp_path / "in"
    for name in ("a.mp4", "b.avi"):
        good(folder / name)
    (folder / "b.avi").rename(folder / "is_avi.mp4")
    for name, (write, _) in BAD.items():
        write(folder / name)
    assert main([str(folder), str(tmp_path / "set"), *OPTIONS]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "set.large.report.json").read_text())
    found = {each["name"]: each["error"] for each in report["recordings"]}
    assert found == {"a.mp4": None, "is_avi.mp4": None} | {name: error for name, (_, error) in BAD.items()}
    assert f"{len(BAD)} of {len(found)} recordings were left out" in printed
    for each in report["recordings"]:
        if each["error"]:
            assert each["left_out"].startswith(f"{each['name']}: ") and each["left_out"] in printed
    assert len(rows_of(tmp_path / "set")) == 2


@pytest.mark.parametrize("what", ["nan", "infinite", "clipped"])
def test_bad_sound_never_reaches_the_rows(tmp_path, what):
    good(tmp_path / "in" / "a" / "scan.mp4")
    scan = tmp_path / "in" / "b"
    write_video(scan / "scan.mp4", even_times(4.4))
    sound = tone(4.4) * (40 if what == "clipped" else 1)
    sound[60_000:120_000] = {"nan": np.nan, "infinite": np.inf, "clipped": 1}[what]
    soundfile.write(scan / "audio.wav", sound, 48_000, subtype="FLOAT")
    report = prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert [outcome.name for outcome in report.recordings] == ["a/scan.mp4", "b"]
    for row in rows_of(tmp_path / "set"):
        assert 0 <= row["speech_fraction"] <= 1
        samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert np.isfinite(samples).all() and np.abs(samples).max() <= 1


def test_gaze_beside_the_video_has_a_row(tmp_path):
    for name, start_s in (("a", 0.0), ("b", 500.0)):
        good(tmp_path / "in" / name / "scan.mp4")
        lines = [f"{start_s + number / 60:.4f},0.5,0.5" for number in range(140)]
        (tmp_path / "in" / name / "gaze.csv").write_text("\n".join(["time_s,x,y", *lines]) + "\n")
    report = prepare_gaze(tmp_path / "in", tmp_path / "set", GazeParameters(frame_size=SIZE), workers=1)
    assert outcomes(report) == {"a": None, "b": "GazeOutsideVideoError"}


# Names.


def test_names_that_differ_in_any_way_are_scans_of_their_own(tmp_path):
    """No two files have one path, and the hash is of the path: so no two scans have one name."""
    names = ["scan.mp4", "SCAN.MP4", "scan.avi", "scan.mkv", "x/scan.mp4", "caf\u00e9.mp4", "cafe\u0301.mp4"]
    for name in names:
        good(tmp_path / "in" / name)
    report = prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == dict.fromkeys(names)
    assert len({row["scan_id"] for row in rows_of(tmp_path / "set")}) == len(names)


def test_two_videos_named_scan_of_one_scan_have_a_row(tmp_path):
    good(tmp_path / "in" / "a.mp4")
    for name in ("scan.mp4", "scan.avi"):
        good(tmp_path / "in" / "b" / name)
    (tmp_path / "in" / "b" / "scan.json").write_text("{}")
    report = prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == {"a.mp4": None, "b": "NoVideoError"}


def test_a_name_that_is_no_text_has_a_row(tmp_path):
    good(tmp_path / "in" / "a.mp4")
    os.link(tmp_path / "in" / "a.mp4", os.fsencode(tmp_path / "in") + b"/caf\xe9.mp4")
    report = prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == {"a.mp4": None, "caf\ufffd.mp4": "UnreadableNameError"}
    assert "caf\ufffd.mp4" in (tmp_path / "set.large.report.json").read_text(encoding="utf-8")


# What is nobody's fault.


@pytest.fixture()
def three(tmp_path) -> Path:
    for name in "abc":
        good(tmp_path / "in" / f"{name}.mp4")
    return tmp_path / "in"


@pytest.mark.parametrize(
    "error", [KeyError("x"), MemoryError(), RecursionError("deep"), OSError(5, "I/O error")]
)
def test_an_unexpected_error_has_a_row_without_paths(three, tmp_path, monkeypatch, error):
    cut = one_recording.open_recording

    def failing(files):
        if files.name == "b.mp4":
            raise error
        return cut(files)

    monkeypatch.setattr(one_recording, "open_recording", failing)
    report = prepare_clips(three, tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == {"a.mp4": None, "b.mp4": type(error).__name__, "c.mp4": None}
    assert report.recordings[1].left_out.startswith("b.mp4: ")
    assert type(error).__name__ in report.recordings[1].left_out


def test_paths_in_an_unexpected_error_are_cut_to_their_names(three, tmp_path, monkeypatch):
    def failing(files):
        raise ValueError(f"cannot read '{files.video}': no sense")

    monkeypatch.setattr(one_recording, "open_recording", failing)
    with pytest.raises(PrepareError) as caught:
        prepare_clips(three, tmp_path / "set", FEW, workers=1)
    assert "'b.mp4': no sense" in str(caught.value)
    assert str(three) not in str(caught.value).partition("\n")[2]


def test_what_may_pass_is_tried_again(three, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(one_recording, "open_recording", lambda files: {}[files.name])
        with pytest.raises(PrepareError, match="KeyError"):
            prepare_clips(three, tmp_path / "set", FEW, workers=1)
    assert set(outcomes(prepare_clips(three, tmp_path / "set", FEW, workers=1)).values()) == {None}


def test_a_file_that_may_not_be_read_has_a_row(three, tmp_path, monkeypatch):
    """By the words of the system: the superuser, as whom tests may run, reads every file."""

    def refused(path):
        if path.name == "b.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(recordings, "is_dicom", refused)
    report = prepare_clips(three, tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == {"a.mp4": None, "b.mp4": "UnreadableError", "c.mp4": None}
    assert "Permission denied" in report.recordings[1].left_out


# A full disk.


@pytest.fixture()
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets the size that no file may exceed, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_recording_for_which_there_is_no_room_has_a_row(tmp_path, small_files):
    for name in "ab":
        good(tmp_path / "in" / f"{name}.mp4")
    good(tmp_path / "in" / "long.mp4", 20)
    small_files(200_000)
    report = prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert outcomes(report) == {"a.mp4": None, "b.mp4": None, "long.mp4": "NoSpaceError"}
    assert len(rows_of(tmp_path / "set")) == 2
    assert not (tmp_path / "set.partial").exists()


@pytest.fixture()
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 400 kB; skipped where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_ends_with_a_sentence_and_more_room_lets_it_go_on(tmp_path, small_disk, capsys):
    for number in range(8):
        good(tmp_path / "in" / f"{number}.mp4", 4.4)
    command = [str(tmp_path / "in"), str(small_disk / "set"), *OPTIONS]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "is full" in error and "set.partial" in error
    assert not (small_disk / "set").exists()
    assert any((small_disk / "set.partial").glob("*.json"))
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    assert main(command) == 0
    assert not (small_disk / "set.partial").exists()
    assert len(rows_of(small_disk / "set")) == 16


def test_a_full_disk_leaves_what_is_to_be_replaced_as_it_was(three, small_disk, capsys):
    command = [str(three), str(small_disk / "set"), *OPTIONS]
    assert main(command) == 0
    before = contents(small_disk / "set")
    for name in "defghijk":
        good(three / f"{name}.mp4", 4.4)
    assert main([*command, "--overwrite", "--seed", "3"]) == 2
    assert "full" in capsys.readouterr().err
    assert contents(small_disk / "set") == before
