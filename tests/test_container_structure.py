"""A piece lost within a file, or at its end, is seen from how the pieces lie."""

from pathlib import Path

import numpy as np
import pytest
from tiny_recordings import numbered_picture, tone, write_coded

from datasets_scripts import recording_errors as errors
from datasets_scripts.container_structure import check_structure

CODINGS = {
    "mkv": ("libx264", "yuv420p", "aac"),
    "webm": ("libvpx", "yuv420p", "libopus"),
    "avi": ("mpeg4", "yuv420p", "mp2"),
    "gif": ("gif", "rgb8", None),
    "ts": ("mpeg2video", "yuv420p", "mp2"),
    "mp4": ("libx264", "yuv420p", "aac"),
    "mpg": ("mpeg2video", "yuv420p", "mp2"),
}
WALKED = ("mkv", "webm", "avi")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    pictures = {number: numbered_picture(number) for number in range(30)}
    return {
        suffix: write_coded(
            folder / f"x.{suffix}",
            codec,
            pictures,
            pixel_format,
            sound=None if sound is None else tone(1.2),
            sound_codec=sound,
        )
        for suffix, (codec, pixel_format, sound) in CODINGS.items()
    }


@pytest.mark.parametrize("suffix", CODINGS)
def test_a_whole_file_has_no_gap(files, suffix):
    check_structure(files[suffix], "x")


@pytest.mark.media
def test_real_files_have_no_gap(media):
    for path in media.rglob("*.mp4"):
        check_structure(path, path.name)


@pytest.mark.parametrize("suffix", WALKED)
def test_a_lost_piece_is_seen_wherever_it_lay(files, tmp_path, suffix):
    whole, generator = files[suffix].read_bytes(), np.random.default_rng(0)
    path = tmp_path / f"x.{suffix}"
    for _ in range(50):
        at, length = int(generator.integers(64, len(whole) - 300)), int(generator.integers(1, 300))
        path.write_bytes(whole[:at] + whole[at + length :])
        with pytest.raises((errors.DamagedError, errors.TruncatedError), match=r"^x: .*copy it again"):
            check_structure(path, "x")


@pytest.mark.parametrize("suffix", WALKED)
def test_a_piece_that_is_overwritten_is_seen(files, tmp_path, suffix):
    whole, path = files[suffix].read_bytes(), tmp_path / f"x.{suffix}"
    longest = 2000  # of the frames and pieces of sound behind the first
    for at in range(len(whole) // 2, len(whole) - longest - 500, 500):
        path.write_bytes(whole[:at] + bytes(longest) + whole[at + longest :])
        with pytest.raises(errors.DamagedError, match=r"^x: .*lost or damaged"):
            check_structure(path, "x")


@pytest.mark.parametrize("suffix", [*WALKED, "gif", "ts"])
def test_a_lost_end_is_seen_however_short(files, tmp_path, suffix):
    whole, path = files[suffix].read_bytes(), tmp_path / f"x.{suffix}"
    for length in (1, 2, 5, 100, len(whole) // 4 * 2 + 1):
        path.write_bytes(whole[:-length])
        with pytest.raises(errors.TruncatedError, match="cut short"):
            check_structure(path, "x")


def test_a_file_written_live_promises_nothing(files, tmp_path):
    """Its segment has no length: eight bytes that mean unknown."""
    data = bytearray(files["mkv"].read_bytes())
    at = data.index(bytes.fromhex("18538067")) + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    path = tmp_path / "x.mkv"
    path.write_bytes(data[:-100])
    check_structure(path, "x")


def test_an_odd_chunk_of_avi_is_padded(tmp_path):
    chunk = b"00dc" + (3).to_bytes(4, "little") + b"abc\0"
    movi = b"LIST" + (4 + 2 * len(chunk)).to_bytes(4, "little") + b"movi" + chunk * 2
    path = tmp_path / "x.avi"
    path.write_bytes(b"RIFF" + (4 + len(movi)).to_bytes(4, "little") + b"AVI " + movi)
    check_structure(path, "x")
    path.write_bytes(path.read_bytes().replace(b"abc\0", b"abc", 1) + b"\0")
    with pytest.raises(errors.DamagedError, match="lost or damaged near byte"):
        check_structure(path, "x")
