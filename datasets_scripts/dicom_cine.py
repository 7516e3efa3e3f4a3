"""Frames of a DICOM ultrasound cine with their times; pydicom decodes the pixels, one frame at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import iter_pixels

from datasets_scripts.media_streams import Frame, VideoStart, evenly_spaced
from datasets_scripts.recording_errors import DicomError, EmptyRecordingError, TruncatedError, UnreadableError

COLOURS_READ = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "MONOCHROME2")


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark after its 128 byte preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def cine_start(path: Path, name: str) -> VideoStart:
    """The size of the pictures; a cine starts at zero.

    Raises:
        RecordingError: the file is no DICOM cine that is read here.
    """
    header = _read_header(path, name)
    return VideoStart(0.0, int(header.Columns), int(header.Rows))


def cine_frames(path: Path, name: str) -> Iterator[Frame]:
    """Every frame of the cine in the order of time, the first at zero.

    Raises:
        DicomError: pixels in a form that is not read here.
        TruncatedError: fewer frames can be decoded than the header promises.
    """
    times_s = _frame_times_s(_read_header(path, name), name)
    return _decoded(path, name, times_s, range(len(times_s)))


def sampled_cine_frames(path: Path, name: str, count: int) -> list[Frame]:
    """Frames from all over the cine: `count` to `2 * count - 1`, or all where there are fewer; no others are
    decoded.

    Raises:
        RecordingError: as `cine_frames`.
    """
    times_s = _frame_times_s(_read_header(path, name), name)
    return list(_decoded(path, name, times_s, evenly_spaced(range(len(times_s)), count)))


def _decoded(path: Path, name: str, times_s: list[float], numbers: Sequence[int]) -> Iterator[Frame]:
    arrays = iter_pixels(path, indices=numbers)
    for number in numbers:
        try:
            array = next(arrays)
        except Exception as error:  # the pixels are foreign and so are the decoders
            raise TruncatedError(
                f"{name}: only {number} of {len(times_s)} frames can be decoded; copy the file again."
            ) from error
        time_s = times_s[number]
        following_s = times_s[number + 1] if number + 1 < len(times_s) else time_s
        yield Frame(time_s, following_s - time_s, partial(_as_rgb, array))


def _read_header(path: Path, name: str) -> pydicom.Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        colour, bits = header.PhotometricInterpretation, header.BitsAllocated
    except AttributeError as error:
        raise EmptyRecordingError(f"{name}: the DICOM file holds no pixels; leave it out.") from error
    except Exception as error:
        raise UnreadableError(f"{name}: pydicom cannot read this DICOM file; copy it again.") from error
    if colour not in COLOURS_READ or bits != 8:
        raise DicomError(
            f"{name}: pixels of {bits} bit {colour} are not read; export the cine as 8 bit RGB or as mp4."
        )
    return header


def _frame_times_s(header: pydicom.Dataset, name: str) -> list[float]:
    """Times from FrameTime (ms), FrameTimeVector (ms) or CineRate (frames a second), in this order."""
    number = int(header.get("NumberOfFrames") or 1)
    if number == 1:
        return [0.0]
    if header.get("FrameTime"):
        return [index * float(header.FrameTime) / 1000 for index in range(number)]
    if header.get("FrameTimeVector"):
        return [float(time_ms) / 1000 for time_ms in accumulate(header.FrameTimeVector)][:number]
    if header.get("CineRate"):
        return [index / float(header.CineRate) for index in range(number)]
    raise DicomError(
        f"{name}: neither FrameTime nor CineRate says how fast the cine ran; export it again as mp4."
    )


def _as_rgb(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)
