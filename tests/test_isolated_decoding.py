"""Decoding in another process: the same pixels, and an end of the decoder that is told."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.pixels import iter_pixels
from tiny_cines import header, jpeg, write_coded
from tiny_recordings import SIZE, numbered_picture

from datasets_scripts import isolated_decoding
from datasets_scripts.isolated_decoding import DecoderEndedError, isolated_pixels
from datasets_scripts.recording_errors import DamagedError
from datasets_scripts.recordings import RecordingFiles, open_recording

FRAMES = 4


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    content = header(uid.JPEGBaseline8Bit, "MONOCHROME2", frames=FRAMES, Rows=SIZE, Columns=SIZE)
    coded = [jpeg(numbered_picture(number)[..., 0]) for number in range(FRAMES)]
    return write_coded(tmp_path / "scan.dcm", content, coded)


def test_the_pixels_are_those_of_this_process(cine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cine.parent)
    here = list(iter_pixels(cine, indices=[3, 1]))
    there = list(isolated_pixels(cine, [3, 1]))
    assert [array.dtype for array in there] == [array.dtype for array in here]
    np.testing.assert_array_equal(there, here)


def test_a_decoder_that_ends_its_process_is_told(
    cine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ends_at_the_second.py"
    program.write_text(
        f"import os, sys\nsys.path.insert(0, {str(Path(isolated_decoding.__file__).parent)!r})\n"
        "import isolated_decoding\nfrom pydicom.pixels import iter_pixels\n"
        "isolated_decoding._write_array(sys.stdout.buffer, next(iter_pixels(sys.argv[1])))\n"
        'sys.stdout.buffer.write(b"[\\"|u1\\", [64, 64]]\\nhalf")\nsys.stdout.flush()\nos.abort()\n'
    )
    monkeypatch.setattr(isolated_decoding, "__file__", str(program))
    arrays = isolated_pixels(cine, [0, 1])
    assert next(arrays).shape == (SIZE, SIZE)
    with pytest.raises(DecoderEndedError, match="frame 2"):
        next(arrays)


def test_a_damaged_cine_ends_no_process_but_the_decoder_s(tmp_path: Path) -> None:
    """Of such a picture GDCM throws what nobody catches."""
    content = header(uid.JPEGBaseline8Bit, "MONOCHROME2", frames=1, Rows=SIZE, Columns=SIZE)
    picture = jpeg(numbered_picture(5)[..., 0])
    tables, scan = picture.index(b"\xff\xc4"), picture.index(b"\xff\xda")  # Huffman's
    damaged = picture[:tables] + bytes(scan - tables) + picture[scan:]
    path = write_coded(tmp_path / "scan.dcm", content, [damaged])
    child = os.fork()
    if not child:
        with suppress(DamagedError):  # Pillow may read it by the tables that JPEG files commonly have
            list(open_recording(RecordingFiles(path.name, path)).frames())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
