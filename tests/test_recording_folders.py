"""Folders as people and machines leave them: each file is read once, or has a reason why not."""

import json
import os
from pathlib import Path

import pytest
from test_recordings import write_cine
from tiny_recordings import even_times, numbered_picture, tone, write_coded, write_video

from datasets_scripts import recording_errors as errors
from datasets_scripts.prepare_clips import main
from datasets_scripts.recording_folders import RecordingFiles, find_all_files, find_recordings
from datasets_scripts.recordings import open_recording

OPTIONS = "--clip-seconds 2 --frames-per-clip 2 --frame-size 32 --sector whole --text ignore --workers 1"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def by_name(folder: Path) -> dict[str, RecordingFiles]:
    found = find_all_files(folder)
    names = [files.name for files in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))


def reasons(folder: Path) -> dict[str, str]:
    return {name: files.no_recording for name, files in by_name(folder).items()}


def rows_of(folder: Path, output: Path, *options: str) -> dict[str, dict]:
    """The rows of the report of a run of the command, which must end well."""
    assert main([str(folder), str(output), *OPTIONS.split(), "--speech-detector", "loudness", *options]) == 0
    report = json.loads(output.with_name(f"{output.name}.large.report.json").read_text())
    return {each["name"]: each for each in report["recordings"]}


def good(path: Path) -> Path:
    return write_video(path, even_times(2.4), sound=tone(2.4))


# No file vanishes.


def test_every_file_has_a_row_with_what_became_of_it(tmp_path, capsys):
    folder = tmp_path / "in"
    good(folder / "a.mp4")
    write_cine(folder / "IM0001", 60, FrameTime=50)
    write_cine(folder / "1.2.840.55", 60, FrameTime=50)
    write_coded(folder / "scan.vob", "mpeg2video", {number: numbered_picture(number) for number in range(60)})
    (folder / "corrupt.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "report.docx").write_bytes(b"PK\x03\x04")
    touch(folder, "README", "LICENSE.txt", "Readme_first.md", "thumbs.db", "DICOMDIR", ".hidden.mp4")
    rows = rows_of(folder, tmp_path / "set")
    assert {name: row["error"] for name, row in rows.items()} == {
        "1.2.840.55": None,
        "IM0001": None,
        "a.mp4": None,
        "corrupt.jpg": "NotARecordingError",
        "report.docx": "NotARecordingError",
        "scan.vob": None,
    }
    assert rows["corrupt.jpg"]["left_out"].startswith("corrupt.jpg: a single picture holds no clip; ")
    assert "not named as a video is" in rows["report.docx"]["left_out"]
    assert rows["report.docx"]["left_out"] in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["mxf", "m2ts", "mpe", "3g2", "m2v", "VOB", "dv", "h264"])
def test_names_that_ffmpeg_knows_are_videos(tmp_path, suffix):
    touch(tmp_path, f"a.{suffix}")
    assert [files.video for files in find_recordings(tmp_path)] == [tmp_path / f"a.{suffix}"]


@pytest.mark.parametrize("name", ["a.png", "b.JPG", "c.jpeg", "d.tif", "e.tiff", "f.bmp", "g.webp"])
def test_a_single_picture_is_told_from_a_recording(tmp_path, name):
    touch(tmp_path, name)
    assert find_recordings(tmp_path) == []
    assert reasons(tmp_path)[name].startswith("a single picture holds no clip")


def test_a_dicom_file_named_as_a_picture_is_a_recording(tmp_path):
    write_cine(tmp_path / "export.jpg")
    assert [files.name for files in find_recordings(tmp_path)] == ["export.jpg"]


def test_what_lies_beside_a_scan_and_is_not_read_is_told(tmp_path):
    names = "scan.mp4 scan.json other.mp4 voice.wav picture.png notes.docx remarks.csv audio.wav README.md"
    touch(tmp_path / "a", *names.split())
    assert {name: reason.partition(";")[0] for name, reason in reasons(tmp_path).items()} == {
        "a": "",
        "a/notes.docx": "it is not named as a video is, and no DICOM file",
        "a/other.mp4": "it lies beside scan.mp4, which is the scan",
        "a/picture.png": "a single picture holds no clip",
        "a/voice.wav": "sound beside a video is read where it is named audio alone",
    }


def test_a_dicom_file_without_a_suffix_is_the_video_of_its_folder(tmp_path):
    touch(tmp_path / "a", "scan.json")
    write_cine(tmp_path / "a" / "IM0001")
    (files,) = find_recordings(tmp_path)
    assert (files.name, files.video) == ("a", tmp_path / "a" / "IM0001")


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b")
    assert all("a pipe, a socket or a device" in reason for reason in reasons(tmp_path).values())
    assert len(reasons(tmp_path)) == 2


def test_a_file_that_cannot_be_looked_into_is_told_when_it_is_opened(tmp_path):
    (tmp_path / "IM0001").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, files in by_name(tmp_path).items():
        with pytest.raises(errors.UnreadableError, match=f"{name}: the file cannot be opened"):
            open_recording(files)


def test_a_run_of_nothing_but_pictures_says_why_nothing_was_kept(tmp_path, capsys):
    touch(tmp_path / "in", "a.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "set"), *OPTIONS.split()]) == 2
    assert "a.png: a single picture holds no clip" in capsys.readouterr().err


# Folders that cannot be read.


def test_a_folder_that_cannot_be_read_has_a_row_and_the_rest_goes_on(tmp_path, monkeypatch):
    """By the words of the system: the superuser, as whom tests may run, reads every folder."""
    good(tmp_path / "in" / "a" / "a.mp4")
    good(tmp_path / "in" / "locked" / "b.mp4")
    good(tmp_path / "in" / "z.mp4")
    iterdir = Path.iterdir

    def refused(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    rows = rows_of(tmp_path / "in", tmp_path / "set")
    assert {name: row["error"] for name, row in rows.items()} == {
        "z.mp4": None,
        "a/a.mp4": None,
        "locked": "UnreadableError",
    }
    assert rows["locked"]["left_out"] == (
        "locked: it cannot be looked into (Permission denied); check that you may read it."
    )


# Links.


def test_a_link_to_its_own_parent_is_not_followed(tmp_path):
    touch(tmp_path / "a" / "b", "scan.mp4")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "all").symlink_to(tmp_path)
    assert reasons(tmp_path) == {
        "a/all": "it is a link to the folder of all, whose scans are read there",
        "a/b/scan.mp4": "",
        "a/b/up": "it is a link to a, whose scans are read there",
    }


def test_the_folder_itself_goes_before_links_to_it(tmp_path):
    """So a link that is made later does not rename a scan, nor move it to the other split."""
    touch(tmp_path / "z", "scan.mp4", "scan.json")
    before = find_recordings(tmp_path)
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "first.mp4").symlink_to("z/scan.mp4")
    assert find_recordings(tmp_path) == before
    assert set(reasons(tmp_path)) == {"a", "first.mp4", "z"}


def test_what_lies_elsewhere_is_read_by_the_first_of_its_links(tmp_path):
    touch(tmp_path / "store" / "deep", "x.mp4", "y.mp4")
    folder = touch(tmp_path / "in")
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).symlink_to(tmp_path / "store")
    (folder / "three").symlink_to(tmp_path / "store" / "deep")
    (folder / "x.mp4").symlink_to(tmp_path / "store" / "deep" / "x.mp4")
    found = reasons(folder)
    assert [name for name, reason in found.items() if not reason] == ["x.mp4", "one/deep/y.mp4"]
    assert set(found) == {"x.mp4", "one/deep/x.mp4", "one/deep/y.mp4", "three", "two"}


def test_two_scans_of_one_video_are_one(tmp_path):
    touch(tmp_path / "a", "scan.mp4", "scan.json")
    touch(tmp_path / "b", "scan.json")
    (tmp_path / "b" / "scan.mp4").symlink_to("../a/scan.mp4")
    assert reasons(tmp_path) == {
        "a": "",
        "b": "its video is a link to a/scan.mp4, which is read under that name",
    }
    with pytest.raises(errors.NotARecordingError, match="b: its video is a link to a/scan"):
        open_recording(by_name(tmp_path)["b"])
