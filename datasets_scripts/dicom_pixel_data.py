"""Whether a DICOM file holds the pixels of as many frames as its header says: no more and no fewer.

Decoders stop at the frames they are asked for and some fill up what is missing, so this is seen from the
lengths in the file alone (DICOM PS3.5, section 8 and annex A.4).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from datasets_scripts.recording_errors import DamagedError, EmptyRecordingError, TruncatedError

ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
# A coded picture starts with JPEG's or JPEG 2000's mark, or with the box of a JP2 file.
PICTURE_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")


def check_pixel_data(path: Path, header: pydicom.Dataset, name: str) -> None:
    """Compare the pixels in the file with `NumberOfFrames` in its header.

    Raises:
        EmptyRecordingError: there are no pixels.
        TruncatedError: there are fewer frames, or the file ends within one.
        DamagedError: there are more.
    """
    expected = int(header.get("NumberOfFrames") or 1)
    if expected < 1:
        raise EmptyRecordingError(f"{name}: the DICOM file holds no frame; leave it out.")
    if header.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        found = _whole_frames(len(pydicom.dcmread(path).get("PixelData") or b""), header)
    else:
        found = _frames_in_file(path, header, name)
    if found == 0:
        raise EmptyRecordingError(f"{name}: the DICOM file holds no pixels; leave it out.")
    if found < expected:
        raise TruncatedError(
            f"{name}: the file is cut short: only {found} of its {expected} frames are there; copy it again."
        )
    if found > expected:
        raise DamagedError(
            f"{name}: the header says {expected} frames and the file holds {found}; copy it again."
        )


def _frames_in_file(path: Path, header: pydicom.Dataset, name: str) -> int:
    with path.open("rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True)  # leaves the file where its pixels start
        length = _pixel_data_length(file, header)
        if length == 0:
            return 0
        if length != UNDEFINED_LENGTH:
            there = path.stat().st_size - file.tell()
            return _whole_frames(min(length, there), header)
        is_rle = header.file_meta.TransferSyntaxUID == RLELossless
        starts = _fragment_starts(file, path.stat().st_size)
        try:
            return sum(is_rle or start.startswith(PICTURE_STARTS) for start in starts)
        except EOFError as error:
            raise TruncatedError(
                f"{name}: the file is cut short within one of its "
                f"{header.get('NumberOfFrames') or 1} frames; copy it again."
            ) from error


def _pixel_data_length(file: BinaryIO, header: pydicom.Dataset) -> int:
    """Of the element PixelData, where the file stands; 0 where there is none."""
    is_implicit, is_little = header.original_encoding
    order = "<" if is_little else ">"
    group, element = struct.unpack(f"{order}HH", file.read(4).ljust(4, b"\0"))
    if group << 16 | element != PIXEL_DATA:
        return 0
    file.seek(0 if is_implicit else 4, 1)  # the type of the value and two bytes without use
    return struct.unpack(f"{order}L", file.read(4).ljust(4, b"\0"))[0]


def _whole_frames(bytes_there: int, header: pydicom.Dataset) -> int:
    samples = header.SamplesPerPixel
    if header.PhotometricInterpretation == "YBR_FULL_422":
        samples = 2  # of every two pixels four samples are kept
    return bytes_there // (header.Rows * header.Columns * samples * header.BitsAllocated // 8)


def _fragment_starts(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first bytes of each fragment after the table of offsets.

    Raises:
        EOFError: the file ends before they do.
    """
    is_table = True
    while True:
        group, element, length = struct.unpack("<HHL", file.read(8).ljust(8, b"\0"))
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            return
        if tag != ITEM or file.tell() + length > size:
            raise EOFError
        following = file.tell() + length
        if not is_table:
            yield file.read(min(length, 8))
        is_table = False
        file.seek(following)
