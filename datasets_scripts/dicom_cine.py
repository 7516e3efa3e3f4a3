"""Frames of a DICOM ultrasound cine with their times; pydicom decodes the pixels, one frame at a time.

pydicom itself reads uncompressed, deflated and RLE pixels, and with Pillow 8 bit JPEG and JPEG 2000. For
lossless JPEG, JPEG of 12 bit, JPEG-LS and high-throughput JPEG 2000 it takes the decoders that are installed,
in a process of their own.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from datasets_scripts.dicom_pixel_data import check_pixel_data
from datasets_scripts.isolated_decoding import isolated_pixels
from datasets_scripts.media_streams import MOST_PIXELS, Frame, VideoStart, evenly_spaced
from datasets_scripts.recording_errors import (
    DamagedError,
    DicomError,
    EmptyRecordingError,
    RecordingError,
    UnreadableError,
)

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
FRAME_TIME_VECTOR_TAG = 0x00181065
# Codes of the region calibration module: DICOM PS3.3, C.8.5.5.
TWO_DIMENSIONAL, CENTIMETRES = 1, 3
PILLOW = "pillow"  # pydicom's name of it
LONGEST_FRAME_S = 10.0  # what is slower is no cine, or its header is damaged

ToRgb = Callable[[np.ndarray], np.ndarray]


def is_dicom(path: Path) -> bool:
    """Whether the file is named so, or has DICOM's mark after its 128 byte preamble.

    FFmpeg would find the pictures in a damaged DICOM file, and make up their times.
    """
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def cine_start(path: Path, name: str) -> VideoStart:
    """The size of the pictures and their scale; a cine starts at zero.

    Raises:
        RecordingError: the file is no DICOM cine that is read here, or it does not hold all its frames.
    """
    header = _read_header(path, name)
    with _readable(header, name):
        return VideoStart(0.0, int(header.Columns), int(header.Rows), _pixel_spacing_mm(header))


def cine_frames(path: Path, name: str) -> Iterator[Frame]:
    """Every frame of the cine in the order of time, the first at zero, as RGB of 8 bit.

    Grey values are shown as the file says: by its rescaling, its window or table, and MONOCHROME1 inverted.

    Raises:
        RecordingError: as `cine_start`, or a frame that cannot be decoded.
    """
    header = _read_header(path, name)
    times_s = _frame_times_s(header, name)
    return _decoded(path, name, header, times_s, range(len(times_s)))


def sampled_cine_frames(path: Path, name: str, count: int) -> list[Frame]:
    """Frames from all over the cine: `count` to `2 * count - 1`, or all where there are fewer; no others are
    decoded.

    Raises:
        RecordingError: as `cine_frames`.
    """
    header = _read_header(path, name)
    times_s = _frame_times_s(header, name)
    return list(_decoded(path, name, header, times_s, evenly_spaced(range(len(times_s)), count)))


def _decoded(
    path: Path, name: str, header: pydicom.Dataset, times_s: list[float], numbers: Sequence[int]
) -> Iterator[Frame]:
    to_rgb, arrays = _rgb_conversion(header, name), _arrays(path, header, numbers)
    for number in numbers:
        array = _next_array(arrays, number, header, name)
        time_s = times_s[number]
        following_s = times_s[number + 1] if number + 1 < len(times_s) else time_s
        yield Frame(time_s, following_s - time_s, partial(to_rgb, array))


def _arrays(path: Path, header: pydicom.Dataset, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        # It has to be inflated as a whole; of other files one frame at a time is held.
        return iter_pixels(pydicom.dcmread(path), indices=numbers)
    if header.PhotometricInterpretation == "YBR_FULL_422" and not syntax.is_compressed:
        # After the first of such frames pydicom 3.0 takes the wrong length for the others.
        return (next(iter_pixels(path, indices=[number])) for number in numbers)
    if not syntax.is_encapsulated or syntax == RLELossless:
        return iter_pixels(path, indices=numbers)
    return _coded_arrays(path, syntax, numbers)


def _coded_arrays(path: Path, syntax: UID, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """By Pillow where it decodes the first of them; all other decoders work apart from this process."""
    if PILLOW in get_decoder(syntax).available_plugins:
        try:
            next(iter_pixels(path, indices=numbers[:1], decoding_plugin=PILLOW))
        except Exception:  # foreign, as the pixels are
            return isolated_pixels(path, numbers)
        return iter_pixels(path, indices=numbers, decoding_plugin=PILLOW)
    return isolated_pixels(path, numbers)


def _next_array(arrays: Iterator[np.ndarray], number: int, header: pydicom.Dataset, name: str) -> np.ndarray:
    try:
        with _without_warnings():
            array = next(arrays)
    except Exception as error:  # the pixels are foreign and so are the decoders
        raise DamagedError(
            f"{name}: frame {number + 1} of the cine cannot be decoded; copy the file again"
            f"{_more_decoders(header)}."
        ) from error
    samples = 3 if header.PhotometricInterpretation in COLOURS else 1
    if array.shape != (header.Rows, header.Columns, 3)[: 3 if samples == 3 else 2]:
        raise DamagedError(
            f"{name}: frame {number + 1} has not the size its header says; copy the file again."
        )
    return array


def _more_decoders(header: pydicom.Dataset) -> str:
    syntax = header.file_meta.TransferSyntaxUID
    is_complete = not syntax.is_compressed or not get_decoder(syntax).missing_dependencies
    return "" if is_complete else f", or `pip install python-gdcm`, which decodes more of {syntax.name}"


@contextmanager
def _without_warnings() -> Iterator[None]:
    """pydicom's warnings quote the values of elements, and those may be names of patients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _readable(header: pydicom.Dataset, name: str) -> Iterator[None]:
    """pydicom parses a value where it is asked for, and raises there what it finds."""
    try:
        with _without_warnings():
            yield
    except RecordingError:
        raise
    except Exception as error:
        raise DamagedError(
            f"{name}: an element of the DICOM header is damaged; copy the file again."
        ) from error


def _read_header(path: Path, name: str) -> pydicom.Dataset:
    try:
        with _without_warnings():
            header = pydicom.dcmread(path, stop_before_pixels=True)
    except OSError:
        raise
    except Exception as error:
        raise UnreadableError(f"{name}: pydicom cannot read this DICOM file; copy it again.") from error
    with _readable(header, name):
        _check_form(header, name)
        check_pixel_data(path, header, name)
    return header


def _check_form(header: pydicom.Dataset, name: str) -> None:
    colour, bits = header.get("PhotometricInterpretation"), header.get("BitsAllocated")
    if not (colour and bits and header.get("Rows") and header.get("Columns")):
        raise EmptyRecordingError(f"{name}: the DICOM file holds no pixels; leave it out.")
    is_read = (colour in (*GREY, PALETTE, "RGB") and bits in (8, 16)) or (colour in COLOURS and bits == 8)
    if not is_read or header.BitsStored > bits or header.HighBit != header.BitsStored - 1:
        raise DicomError(
            f"{name}: pixels of {bits} bit {colour} are not read; export the cine as 8 bit RGB or as mp4."
        )
    if header.Rows * header.Columns > MOST_PIXELS:
        raise DamagedError(
            f"{name}: pictures of {header.Columns} x {header.Rows} pixels; copy the file again."
        )
    syntax = header.file_meta.TransferSyntaxUID
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise DicomError(
            f"{name}: pixels coded as {syntax.name} are not read; export the cine as mp4."
        ) from error
    if not is_available:
        raise DicomError(f"{name}: pixels coded as {syntax.name} need a decoder: `pip install python-gdcm`.")


def _frame_times_s(header: pydicom.Dataset, name: str) -> list[float]:
    """Times from FrameTime or FrameTimeVector (ms), CineRate or RecommendedDisplayFrameRate (a second).

    They are taken in this order, the vector first where FrameIncrementPointer names it.
    """
    number = int(header.get("NumberOfFrames") or 1)
    if number == 1:
        return [0.0]
    with _readable(header, name):
        steps_s = _steps_s(header, number)
    if steps_s is None:
        raise DicomError(
            f"{name}: neither FrameTime nor CineRate says how fast the cine ran; export it again as mp4."
        )
    if len(steps_s) != number - 1 or not ((steps_s > 0) & (steps_s <= LONGEST_FRAME_S)).all():
        raise DicomError(
            f"{name}: its frame times do not fit a cine of {number} frames; export it again as mp4."
        )
    return np.concatenate([[0.0], np.cumsum(steps_s)]).tolist()


def _steps_s(header: pydicom.Dataset, number: int) -> np.ndarray | None:
    """Seconds from each frame to the next; None where nothing tells."""
    by_vector = np.atleast_1d(np.array(header.get("FrameTimeVector") or [], dtype=float)) / 1000
    # The vector's first value, of the first frame, is zero; some machines leave it out.
    by_vector = by_vector[1:] if len(by_vector) == number else by_vector
    pointer = header.get("FrameIncrementPointer")
    points_to_vector = FRAME_TIME_VECTOR_TAG in (pointer if isinstance(pointer, list) else [pointer])
    if len(by_vector) and (points_to_vector or not header.get("FrameTime")):
        return by_vector
    rate = header.get("CineRate") or header.get("RecommendedDisplayFrameRate")
    step_s = float(header.get("FrameTime") or 0) / 1000 or (1 / float(rate) if rate else 0.0)
    return np.full(number - 1, step_s) if math.isfinite(step_s) and step_s > 0 else None


def _pixel_spacing_mm(header: pydicom.Dataset) -> tuple[float, float] | None:
    """From row to row and from column to column, in the largest two-dimensional ultrasound region."""
    regions = [
        region
        for region in header.get("SequenceOfUltrasoundRegions") or []
        if region.get("RegionSpatialFormat") == TWO_DIMENSIONAL
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == CENTIMETRES
        and region.get("PhysicalDeltaX")
        and region.get("PhysicalDeltaY")
    ]
    if regions:
        largest = max(regions, key=_region_pixels)
        return abs(float(largest.PhysicalDeltaY)) * 10, abs(float(largest.PhysicalDeltaX)) * 10
    spacing = header.get("PixelSpacing")
    return None if spacing is None else (float(spacing[0]), float(spacing[1]))


def _region_pixels(region: pydicom.Dataset) -> int:
    return (region.RegionLocationMaxX1 - region.RegionLocationMinX0) * (
        region.RegionLocationMaxY1 - region.RegionLocationMinY0
    )


def _rgb_conversion(header: pydicom.Dataset, name: str) -> ToRgb:
    """From what pydicom decodes, colours being RGB already, to (rows, columns, 3) uint8."""
    with _readable(header, name):
        if header.PhotometricInterpretation in COLOURS:
            return partial(_shifted, shift=header.BitsStored - 8)
        is_palette = header.PhotometricInterpretation == PALETTE
        return partial(_looked_up, (_palette_table if is_palette else _grey_table)(header))


def _shifted(array: np.ndarray, shift: int) -> np.ndarray:
    return array if shift <= 0 else (array >> shift).astype(np.uint8)


def _looked_up(table: np.ndarray, array: np.ndarray) -> np.ndarray:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    # The bits above those stored hold copies of the sign, or an overlay in old files.
    return table[native.view(f"u{array.itemsize}") & (len(table) - 1)]


def _stored_values(header: pydicom.Dataset) -> np.ndarray:
    """Every value a pixel may have, at the place of its bits read as an unsigned number."""
    values = np.arange(2**header.BitsStored)
    if header.PixelRepresentation:
        values[len(values) // 2 :] -= len(values)
    return values.astype(np.int32)


def _palette_table(header: pydicom.Dataset) -> np.ndarray:
    colours = apply_color_lut(_stored_values(header), header)[:, :3]
    # Entries of 16 bit hold the colour in their upper byte, but some machines write it into the lower.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _grey_table(header: pydicom.Dataset) -> np.ndarray:
    """8 bit RGB of every stored value, by rescaling and window (DICOM PS3.3, C.11)."""
    stored = _stored_values(header)
    rescaled = apply_modality_lut(stored, header)
    shown = apply_voi_lut(rescaled, header)
    if header.get("VOILUTSequence") or header.get("ModalityLUTSequence"):
        sequence = header.get("VOILUTSequence") or header.ModalityLUTSequence
        darkest, brightest = 0, 2 ** sequence[0].LUTDescriptor[2] - 1
    else:
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        darkest, brightest = (float(edge) * slope + intercept for edge in (stored.min(), stored.max()))
    grey = np.clip((shown - darkest) * (255 / (brightest - darkest)), 0, 255)
    is_inverted = (header.PhotometricInterpretation == "MONOCHROME1") != (
        header.get("PresentationLUTShape") == "INVERSE" and header.PhotometricInterpretation == "MONOCHROME2"
    )
    grey = (255 - grey if is_inverted else grey).round().astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)
