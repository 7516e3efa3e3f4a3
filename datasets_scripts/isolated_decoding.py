"""Decodes the pixels of a DICOM file in a process of its own, which a decoder may end.

GDCM, which alone decodes lossless JPEG, JPEG of 12 bit and JPEG-LS, ends the whole process at some damaged
files: its C++ exceptions are not caught on the way to Python.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.pixels import iter_pixels


class DecoderEndedError(RuntimeError):
    """The process of the decoder ended before it had given every frame."""


def isolated_pixels(path: Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """What `pydicom.pixels.iter_pixels` gives for these frames, one at a time.

    Raises:
        DecoderEndedError: a frame cannot be decoded.
    """
    # Not as `-m`: the program that imports us may have been started in any folder.
    command = [sys.executable, "-P", __file__, str(path), json.dumps(list(numbers))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for number in numbers:
            array = _read_array(child.stdout)
            if array is None:
                raise DecoderEndedError(f"The decoder ended at frame {number + 1}.")
            yield array
    finally:
        child.kill()
        child.stdout.close()
        child.wait()


def _read_array(stream: BinaryIO) -> np.ndarray | None:
    """The next array; None where the stream ends first."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    kind, shape = json.loads(line)
    data = stream.read(np.dtype(kind).itemsize * int(np.prod(shape)))
    is_whole = len(data) == np.dtype(kind).itemsize * int(np.prod(shape))
    return np.frombuffer(data, kind).reshape(shape) if is_whole else None


def _write_array(stream: BinaryIO, array: np.ndarray) -> None:
    stream.write(json.dumps([array.dtype.str, array.shape]).encode() + b"\n")
    stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


if __name__ == "__main__":
    for decoded in iter_pixels(sys.argv[1], indices=json.loads(sys.argv[2])):
        _write_array(sys.stdout.buffer, decoded)
