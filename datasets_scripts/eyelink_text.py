"""Samples from SR Research EyeLink's ASC files, the text that edf2asc makes of a recording.

A sample is a line that begins with its time in ms; x, y and pupil of one eye or of two follow, by the line
SAMPLES before, a dot for what is missing. What lies between an eye's SBLINK and EBLINK is lost: as the lid
falls the tracker still sees a part of the pupil, and gives places for it. Blocks from START to END share one
clock.
(EyeLink Portable Duo user manual, section 4.9, "The ASC file format". At 2000 Hz two lines have one time.)
"""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets_scripts.recording_errors import SidecarError

ENCODING = "latin-1"  # names in messages may be in any code page, and are not read


def is_eyelink(line: str) -> bool:
    """Whether only an ASC file has this line."""
    return re.match(r"\*\* CONVERTED FROM|(SAMPLES|START)\s", line) is not None


def read_eyelink(path: Path, where: str, samples_at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """In parts, (samples,) times in ms of the tracker and (2, samples, 2) x and y of two eyes in pixels.

    An eye that is closed, missing or not recorded is NaN.

    Raises:
        SidecarError: a line is no sample of the eyes that the file says it has.
    """
    eyes, closed, values = "", set(), array("d")
    with path.open(encoding=ENCODING) as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if not words:
                continue
            if words[0] == "SAMPLES":
                eyes = _eyes_of_samples(words, f"{where}, line {number}")
            elif words[0] in ("START", "SBLINK", "EBLINK"):
                closed = _closed_after(closed, words)
            elif words[0][0].isdigit():
                values.extend(_sample(words, eyes, closed, f"{where}, line {number}"))
            if len(values) >= 5 * samples_at_once:
                yield _times_and_eyes(values)
                values = array("d")
    yield _times_and_eyes(values)


def _times_and_eyes(values: array) -> tuple[np.ndarray, np.ndarray]:
    samples = np.array(values, dtype=np.float64).reshape(-1, 5)
    return samples[:, 0], samples[:, 1:].reshape(-1, 2, 2).transpose(1, 0, 2)


def _eyes_of_samples(words: list[str], where: str) -> str:
    if "GAZE" not in words:
        raise SidecarError(f"{where}: its samples are {words[1:2]}, not GAZE; run edf2asc with -sg.")
    return "".join(eye[0] for eye in ("LEFT", "RIGHT") if eye in words)


def _closed_after(closed: set[str], words: list[str]) -> set[str]:
    """The eyes that blink after a line; a block begins with none."""
    if words[0] == "START":
        return set()
    return closed | {*words[1:2]} if words[0] == "SBLINK" else closed - {*words[1:2]}


def _sample(words: list[str], eyes: str, closed: set[str], where: str) -> list[float]:
    """Time in ms and x, y of two eyes, NaN for one that is closed, missing or not recorded."""
    if not eyes:
        raise SidecarError(
            f"{where}: no line SAMPLES says whose eye this is; run edf2asc without -s and -ne."
        )
    sample = [np.nan] * 5
    try:
        sample[0] = float(words[0])
        for place, eye in enumerate(eyes):
            x, y = words[1 + 3 * place : 3 + 3 * place]
            if eye not in closed and "." not in (x, y):
                sample[1 + 2 * place : 3 + 2 * place] = float(x), float(y)
    except ValueError as error:
        raise SidecarError(
            f"{where}: {' '.join(words[:7])!r} is no sample of {len(eyes)} eyes; export it again."
        ) from error
    return sample
