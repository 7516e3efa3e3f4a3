"""Text on the stored frames of a set: some pictures of each scan are read one by one, and their median."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets_scripts.burned_in_text import FEWEST_FOR_MEDIAN, find_text, median_picture


@dataclass(frozen=True)
class StoredPicture:
    """An encoded picture of a set, and where it lies: file, column, row counted from 0, and its scan."""

    file: str
    column: str
    row: int
    scan: str
    encoded: bytes


class TextOnFrames:
    """Reads pictures as they come, shard by shard, and holds no more than a few of each scan.

    Args:
        frames_a_scan: pictures that are read of each scan, one a row; None reads every one.
    """

    def __init__(self, frames_a_scan: int | None) -> None:
        self.most = frames_a_scan
        self._waiting: dict[tuple[str, str], list[StoredPicture]] = {}

    def row(
        self, folder: str, file: str, column: str, row: int, scan: str, value: object
    ) -> Iterator[tuple[StoredPicture, str]]:
        """Takes one value of a shard, and yields the texts that it and those before it show.

        Args:
            folder: of the shard; rows of one scan in several configurations are read apart.
            value: a picture, a list of pictures, or anything else, which is passed over.
        """
        pictures = _encoded_pictures(value)
        if self.most is None:
            for number, encoded in pictures:
                place = column if number is None else f"{column}[{number}]"
                yield from _texts([StoredPicture(file, place, row, scan, encoded)])
            return
        group = self._waiting.setdefault((folder, scan), [])
        if pictures and len(group) < self.most:
            number, encoded = pictures[len(pictures) // 2]
            place = column if number is None else f"{column}[{number}]"
            group.append(StoredPicture(file, place, row, scan, encoded))
            if len(group) == self.most:
                yield from self._read(group)

    def rest(self) -> Iterator[tuple[StoredPicture, str]]:
        """The texts of the scans with fewer rows than are read of a scan."""
        for group in self._waiting.values():
            if len(group) < (self.most or 0):
                yield from self._read(group)

    def _read(self, group: list[StoredPicture]) -> Iterator[tuple[StoredPicture, str]]:
        yield from _texts(group)
        # The places are kept, so that the scan counts as read; the pictures are let go.
        group[:] = [StoredPicture(each.file, each.column, each.row, each.scan, b"") for each in group]


def _encoded_pictures(value: object) -> list[tuple[int | None, bytes]]:
    """Place in the list, or None, and bytes of the pictures in a value; sound is none."""
    if isinstance(value, list):
        return [(number, each[1]) for number, one in enumerate(value) for each in _encoded_pictures(one)]
    raw = value.get("bytes") if isinstance(value, dict) else None
    return [(None, raw)] if isinstance(raw, bytes) and not raw.startswith(b"fLaC") else []


def _texts(group: list[StoredPicture]) -> Iterator[tuple[StoredPicture, str]]:
    """What is read on each picture, and what only their median shows, which is told of the first."""
    decoded = [(each, picture) for each in group if (picture := _decoded(each.encoded)) is not None]
    told: set[str] = set()
    for each, picture in decoded:
        for text in find_text(picture):
            told.add(text.text)
            yield each, text.text
    sizes = {picture.shape for _, picture in decoded}
    if len(decoded) >= FEWEST_FOR_MEDIAN and len(sizes) == 1:
        for text in find_text(median_picture(np.stack([picture for _, picture in decoded]))):
            if text.text not in told:
                yield decoded[0][0], text.text


def _decoded(raw: bytes) -> np.ndarray | None:
    """uint8 (height, width, 3); None where the bytes are no picture, which is told elsewhere."""
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
