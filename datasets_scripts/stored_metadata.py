"""What stored pictures, FLAC files and NumPy arrays say beside their pixels, samples and numbers."""

import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

NUMPY_MAGIC = b"\x93NUMPY"


def metadata_texts(raw: bytes) -> list[str] | None:
    """What the metadata of a picture, a FLAC file or a NumPy file of numbers say; None of anything else, and
    of what is damaged.
    """
    if raw.startswith(b"fLaC"):
        return [text for block in _flac_blocks(raw) for text in _decoded(block)]
    if raw.startswith(NUMPY_MAGIC):
        return _numpy_texts(raw)
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(raw)) as image:
            warnings.simplefilter("ignore")
            return list(texts_in(_picture_metadata(image, raw)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _picture_metadata(image: Image.Image, raw: bytes) -> list:
    values: list = []
    if image.format == "JPEG":
        values += [segment for _, segment in image.applist]
        values.append(raw.rpartition(b"\xff\xd9")[2])  # What was appended after the end.
        if len(values) == 2 and image.applist[0][0] == "APP0":  # A plain header, as most frames have.
            return values
    elif image.format == "PNG":
        values.append(image.text)  # It reads on to the end, for text may follow the pixels.
    exif = image.getexif()
    return [*values, image.info, dict(exif), *(exif.get_ifd(number) for number in (0x8769, 0x8825))]


def _numpy_texts(raw: bytes) -> list[str] | None:
    """The header and what follows the numbers of a NumPy file; None where it holds anything but numbers."""
    file = io.BytesIO(raw)
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if array.dtype.kind not in "iuf":
        return None
    header = raw[len(NUMPY_MAGIC) : file.tell() - array.nbytes]
    return [*_decoded(header), *_decoded(raw[file.tell() :])]


def _flac_blocks(raw: bytes) -> Iterator[bytes]:
    """The metadata blocks of a FLAC file (RFC 9639, section 8) but for the stream's format."""
    place, is_last = 4, False
    while not is_last and place + 4 <= len(raw):
        is_last, kind = bool(raw[place] & 0x80), raw[place] & 0x7F
        length = int.from_bytes(raw[place + 1 : place + 4])
        if kind != 0:
            # The encoder's date is no date of birth.
            yield re.sub(rb"libFLAC \S+ \d{8}", b"", raw[place + 4 : place + 4 + length])
        place += 4 + length


def texts_in(value: object) -> Iterator[str]:
    """Every text within a value of metadata, keys too; of bytes what they say in the usual encodings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield from _decoded(value)
    elif isinstance(value, dict):
        yield from texts_in([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_in(each)


def _decoded(raw: bytes) -> Iterator[str]:
    """What the bytes say in any of the encodings that cameras and tag editors write."""
    try:
        yield raw.decode("utf-8")
    except UnicodeDecodeError:
        yield raw.decode("utf-8", "replace")
        yield raw.decode("latin-1")
    if b"\0" in raw:
        for encoding in ("utf-16-le", "utf-16-be"):
            yield from (raw[start:].decode(encoding, "replace") for start in (0, 1))
