"""Small DICOM cines for the tests, whose pictures are known to the last shade."""

import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from datasets_scripts.recordings import RecordingFiles, open_recording

ROWS, COLUMNS, FRAMES = 24, 40, 3


def colour_picture(number: int = 0) -> np.ndarray:
    """(24, 40, 3) uint8: soft shades, each channel its own way, so that swapped channels or axes are seen."""
    down, right = np.mgrid[0:ROWS, 0:COLUMNS]
    shades = [20 + 5 * right, 200 - 7 * down, 40 + 2 * right + 3 * down]
    return np.clip(np.stack(shades, axis=-1) + 6 * number, 0, 255).astype(np.uint8)


def grey_picture(number: int = 0, bits: int = 8) -> np.ndarray:
    """(24, 40) of `bits` bit, from dark to bright."""
    dtype = np.uint8 if bits == 8 else np.uint16
    values = np.arange(ROWS * COLUMNS) * ((2**bits - 1) / (ROWS * COLUMNS)) * (1 - 0.2 * number)
    return values.astype(dtype).reshape(ROWS, COLUMNS)


COLOURED = [colour_picture(number) for number in range(FRAMES)]
GREY = [grey_picture(number) for number in range(FRAMES)]


def header(syntax: str, colour: str, bits: int = 8, frames: int = FRAMES, **elements: object):
    """A cine without its pixels; `elements` are added or replace what is here."""
    cine = pydicom.Dataset()
    cine.file_meta = pydicom.dataset.FileMetaDataset()
    cine.file_meta.TransferSyntaxUID = uid.UID(syntax)
    cine.SOPClassUID, cine.SOPInstanceUID = uid.UltrasoundMultiFrameImageStorage, "1.2.3"
    cine.PhotometricInterpretation, cine.NumberOfFrames, cine.FrameTime = colour, frames, 40
    cine.SamplesPerPixel = 1 if colour.startswith(("MONO", "PALETTE")) else 3
    if cine.SamplesPerPixel == 3:
        cine.PlanarConfiguration = 0
    cine.Rows, cine.Columns, cine.PixelRepresentation = ROWS, COLUMNS, 0
    cine.BitsAllocated, cine.BitsStored, cine.HighBit = (8 if bits == 8 else 16), bits, bits - 1
    for element, value in elements.items():
        setattr(cine, element, value)
    return cine


def write(path: Path, cine: pydicom.Dataset, pixels: bytes) -> Path:
    cine.PixelData = pixels
    cine["PixelData"].VR = "OB" if cine.BitsAllocated == 8 else "OW"
    cine.save_as(path, enforce_file_format=True)
    return path


def write_coded(path: Path, cine: pydicom.Dataset, coded: list[bytes], **encapsulation: object) -> Path:
    cine.PixelData = encapsulate(coded, **encapsulation)
    cine["PixelData"].VR = "OB"
    cine["PixelData"].is_undefined_length = True
    cine.save_as(path, enforce_file_format=True)
    return path


def pictures_of(path: Path) -> list[np.ndarray]:
    recording = open_recording(RecordingFiles(path.name, path))
    pictures = [frame.read_pixels() for frame in recording.frames()]
    assert all(picture.dtype == np.uint8 for picture in pictures)
    assert all(picture.shape == (recording.height, recording.width, 3) for picture in pictures)
    return pictures


def assert_pictures(path: Path, expected: list[np.ndarray], tolerance: int = 0) -> None:
    found = pictures_of(path)
    assert len(found) == len(expected)
    for picture, wanted in zip(found, expected, strict=True):
        wanted = np.repeat(wanted[:, :, None], 3, axis=2) if wanted.ndim == 2 else wanted
        assert np.abs(picture.astype(int) - wanted).max() <= tolerance


def jpeg(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=98, **options)
    return buffer.getvalue()


def jpeg_2000(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG2000", no_jp2=True, mct=int(picture.ndim == 3))
    return buffer.getvalue()


def grey_cine(path: Path, **elements: object) -> Path:
    return write(
        path, header(uid.ExplicitVRLittleEndian, "MONOCHROME2", **elements), np.stack(GREY).tobytes()
    )
