"""What `scan.json` beside a video says of its recording.

To add a key: a field of `ScanNotes` with what holds where the key is absent, and a line in `_READERS`.
Keys of other programs are left alone, but one that is nearly a key of ours is refused as misspelt.
"""

import difflib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets_scripts.recording_errors import SidecarError

Box = tuple[int, int, int, int]
MEASURED: Literal["measured"] = "measured"
# Two words as near as `gaze_ofset_s` and `gaze_offset_s`; `machine_id` and `machine` are further apart.
NEARLY_THE_SAME = 0.85


@dataclass(frozen=True)
class ScanNotes:
    """The keys of `scan.json` that are read.

    Attributes:
        patient_id: whose recording it is.
        site, machine: where and on what it was recorded; splits can hold them out.
        crop: left, top, right, bottom in pixels of the video.
        pixel_spacing_mm: from row to row and from column to column; in the file also one number for both.
        screen: left, top, right, bottom of the video on the screen of the eye tracker, in pixels or
            fractions, as its export counts.
        gaze_offset_s: what is added to the eye tracker's times to get those of the video; None if not said.
        sound_offset_s: positive where the sound starts later than the video says; `measured` compares the
            sound file with the sound track of the video.
    """

    patient_id: str | None = None
    site: str | None = None
    machine: str | None = None
    crop: Box | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    screen: tuple[float, float, float, float] | None = None
    gaze_offset_s: float | None = None
    sound_offset_s: float | Literal["measured"] = 0.0


def read_notes(path: Path, width: int, height: int, name: str) -> ScanNotes:
    """Read `scan.json` of a video of `width` x `height` pixels; an absent or null key keeps its default.

    Raises:
        SidecarError: it is no JSON object, or a value is not what its key wants.
    """
    where = f"{name}: {path.name}"
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{where} is no JSON ({error}); correct it.") from error
    if not isinstance(notes, dict):
        raise SidecarError(f"{where} must hold one JSON object; correct it.")
    _refuse_misspelt(notes, where)
    given = {
        key: _READERS[key](value, f"{where}: {key}") for key, value in notes.items() if _is_read(key, value)
    }
    return _within_picture(ScanNotes(**given), width, height, where)


def _is_read(key: str, value: object) -> bool:
    return key in _READERS and value is not None


def _refuse_misspelt(notes: dict, where: str) -> None:
    for key in notes.keys() - _READERS.keys():
        meant = difflib.get_close_matches(key.lower(), _READERS, 1, NEARLY_THE_SAME)
        if meant:
            raise SidecarError(f"{where}: {key} is no key that is read; write {meant[0]} if that is meant.")


def _within_picture(notes: ScanNotes, width: int, height: int, where: str) -> ScanNotes:
    if notes.crop is not None and (notes.crop[2] > width or notes.crop[3] > height):
        raise SidecarError(
            f"{where}: crop {list(notes.crop)} does not lie within the picture of {width} x {height} pixels."
        )
    return notes


def _text(value: object, where: str) -> str | None:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise SidecarError(f"{where} must be a text, not {value}.")
    return str(value).strip() or None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _seconds(value: object, where: str) -> float:
    if not _is_finite(value):
        raise SidecarError(f"{where} must be a number of seconds, not {value}.")
    return float(value)


def _sound_offset(value: object, where: str) -> float | Literal["measured"]:
    if value != MEASURED and not _is_finite(value):
        raise SidecarError(f'{where} must be a number of seconds or "{MEASURED}", not {value}.')
    return MEASURED if value == MEASURED else float(value)


def _crop(value: object, where: str) -> Box:
    if not (isinstance(value, list) and len(value) == 4 and all(type(edge) is int for edge in value)):
        raise SidecarError(f"{where} must be [left, top, right, bottom] in whole pixels, not {value}.")
    left, top, right, bottom = value
    if not (0 <= left < right and 0 <= top < bottom):
        raise SidecarError(f"{where} {value} does not lie within the picture, or is empty.")
    return left, top, right, bottom


def _screen(value: object, where: str) -> tuple[float, float, float, float]:
    if not (isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value))):
        raise SidecarError(
            f"{where} must be [left, top, right, bottom] in pixels or fractions of the screen, not {value}."
        )
    left, top, right, bottom = map(float, value)
    if not (left < right and top < bottom):
        raise SidecarError(f"{where} {value} is empty; right must exceed left and bottom must exceed top.")
    return left, top, right, bottom


def _spacing(value: object, where: str) -> tuple[float, float]:
    pair = value if isinstance(value, list) else [value, value]
    if not (len(pair) == 2 and all(_is_finite(side) and side > 0 for side in pair)):
        raise SidecarError(f"{where} must be a length in mm or [row, column] of two, not {value}.")
    return float(pair[0]), float(pair[1])


_READERS: dict[str, Callable[[object, str], object]] = {
    "patient_id": _text,
    "site": _text,
    "machine": _text,
    "crop": _crop,
    "pixel_spacing_mm": _spacing,
    "screen": _screen,
    "gaze_offset_s": _seconds,
    "sound_offset_s": _sound_offset,
}
