"""Gaze as eye trackers export it (`gaze_formats`), brought to the video's clock and into its picture.

A table's format is told by its columns. All but our own needs two notes in `scan.json`:

- `gaze_offset_s` is added to the tracker's seconds and gives those of the video. None is presumed, since
  trackers count from their start, from when they were switched on, or from 1970.
- `screen` is [left, top, right, bottom] of the video's picture in what the export counts in, pixels or
  fractions, from the top left of the screen (or the surface, or the scene camera's picture).
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from datasets_scripts.eyelink_text import ENCODING, is_eyelink, read_eyelink
from datasets_scripts.gaze_formats import EYELINK, FRACTIONS, OWN, PIXELS, TRACKERS, Format, Place, plain
from datasets_scripts.recording_errors import SidecarError
from datasets_scripts.scan_notes import ScanNotes

HEADER_LINES = 100  # Studio and BeGaze write some 40 lines about the recording above the header
ROWS_AT_ONCE = 50_000
STEPS_S = (1 / 5000, 1 / 10)  # between samples of a tracker, with room around 30 to 1200 Hz
MOST_BACK_S = 0.1  # time stamps of two cameras cross by a few ms; a clock that starts anew goes further back
MISSING = ("", "nan", ".", "-", "na")
# One recording a file: two participants' clocks and places mixed would pass for one.
ONE_VALUE = ("recordingname", "participantname", "recordingid")


@dataclass(frozen=True)
class _Table:
    """A table whose format is known: where its header is, and which of its columns are read."""

    path: Path
    where: str
    encoding: str
    separator: str
    header_line: int
    header: tuple[str, ...]
    format: Format

    @property
    def columns(self) -> tuple[str, ...]:
        """The header, its names plain."""
        return tuple(map(plain, self.header))

    @property
    def time(self) -> tuple[str, float | None]:
        return next(
            (column, seconds)
            for pattern, seconds in self.format.seconds
            for column in self.columns
            if re.fullmatch(pattern, column)
        )

    @property
    def used(self) -> set[str]:
        """The columns that are read."""
        known = self.format
        marks = {column for column, _ in (*known.lost, *known.only)} | {*ONE_VALUE, self.time[0]}
        for place in self.places:
            marks |= {place.x, place.y, *place.flags}
        return marks & {*self.columns}

    def shown(self, column: str) -> str:
        """A column as the file has it."""
        return self.header[self.columns.index(column)].strip()

    @property
    def places(self) -> list[Place]:
        """The places of the first view of which the table has one."""
        views = (
            [place for place in view if {place.x, place.y} <= {*self.columns}] for view in self.format.views
        )
        return next(filter(None, views))


def read_gaze(path: Path, name: str, notes: ScanNotes) -> np.ndarray:
    """(samples, 3) float64 of time_s on the video's clock, x, y in 0..1 of its picture from the top left.

    Where the eye is lost (closed, not found, not to be trusted) x and y are NaN; beside the picture they lie
    outside of 0..1. Of two eyes the mean of those that are seen counts. A tracker's samples come in the order
    of time, those of our own file in the file's.

    Args:
        path: the export.
        name: of the recording, for messages.
        notes: of them, `gaze_offset_s` and `screen`.

    Raises:
        SidecarError: the format is unknown, a note is missing or does not fit, or a value is no number.
    """
    where = f"{name}: {path.name}"
    encoding = _encoding(path)
    try:
        with path.open(newline="", encoding=encoding) as file:
            head = list(islice(file, HEADER_LINES))
        if any(map(is_eyelink, head)):
            parts = read_eyelink(path, where, ROWS_AT_ONCE)
            samples = [np.column_stack([times_ms / 1000, _mean_of_seen(eyes)]) for times_ms, eyes in parts]
            return _on_video(np.concatenate(samples), EYELINK, notes, where)
        table = _find_table(path, where, encoding, head)
        samples = _read_table(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SidecarError(f"{where} is no CSV text ({error}); export it again.") from error
    return _on_video(samples, table.format, notes, where)


def _encoding(path: Path) -> str:
    """UTF-8 but for EyeLink's text and for Studio, which writes UTF-16."""
    if path.suffix.lower() == ".asc":
        return ENCODING
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


# Tables.


def _find_table(path: Path, where: str, encoding: str, head: list[str]) -> _Table:
    for number, line in enumerate(head):
        for separator in ("\t", ",", ";"):
            header = tuple(next(csv.reader([line], delimiter=separator), ()))
            for known in (OWN, *TRACKERS):
                if known.fits(tuple(map(plain, header))):
                    return _Table(path, where, encoding, separator, number, header, known)
    found = [column.strip() for column in re.split("[\t,;]", head[0].strip())] if head else []
    missing = [column for column in ("time_s", "x", "y") if column not in found]
    if not head or "time_s" in found:
        raise SidecarError(f"{where} lacks the column {', '.join(missing)}; add it.")
    known = "; ".join(f"{known.name} ({known.shown})" for known in (OWN, *TRACKERS, EYELINK))
    shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    raise SidecarError(
        f"{where}: its columns ({shown}) are of no export that is known; export one of: {known}."
    )


def _read_table(table: _Table) -> np.ndarray:
    """(samples, 3) of the time in seconds of the tracker, x, y, in the order of the file."""
    values: dict[str, set[str]] = {column: set() for column in ONE_VALUE if column in table.columns}
    parts = [np.zeros((0, 3))]
    for rows in _chunks(table):
        for column, seen in values.items():
            seen.update(rows[column].dropna().unique())
            if len(seen - {""}) > 1:
                shown = table.shown(column)
                raise SidecarError(
                    f"{table.where} holds several by its {shown}; export one recording a file."
                )
        rows = _rows_of_the_eye(rows, table)
        if len(rows):
            parts.append(np.column_stack([_times(rows, table), _mean_place(rows, table)]))
    samples = np.concatenate(parts)
    samples[:, 0] *= table.time[1] or _unit_by_steps(samples[:, 0], table.where)
    return samples


def _chunks(table: _Table) -> Iterator[pd.DataFrame]:
    """The columns that are read, as texts, None where a line ends early; the index numbers the lines."""
    columns = sorted(table.used)
    places = [table.columns.index(column) for column in columns]
    with table.path.open(newline="", encoding=table.encoding) as file:
        lines = csv.reader(islice(file, table.header_line, None), delimiter=table.separator)
        next(lines)
        rows = ([table.header_line + lines.line_num, *_pick(line, places)] for line in lines if any(line))
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            yield pd.DataFrame(chunk, columns=["", *columns], dtype=object).set_index("")


def _pick(line: list[str], places: list[int]) -> list[str | None]:
    return [line[place] if place < len(line) else None for place in places]


def _rows_of_the_eye(rows: pd.DataFrame, table: _Table) -> pd.DataFrame:
    for column, text in table.format.only:
        if column in rows:
            rows = rows[_words(rows[column]) == text]
    return rows


def _words(texts: pd.Series) -> pd.Series:
    return texts.fillna("").str.strip().str.lower()


def _times(rows: pd.DataFrame, table: _Table) -> np.ndarray:
    texts, times = rows[table.time[0]], _numbers(rows, table.time[0], table)
    for is_bad, what in ((_words(texts) == "", "a number"), (~np.isfinite(times), "a time")):
        _refuse(texts, is_bad, what, table)
    return times


def _mean_place(rows: pd.DataFrame, table: _Table) -> np.ndarray:
    """(rows, 2): the mean over the eyes that are seen, NaN where none is."""
    if not table.format.has_own_clock:
        return _place(rows, table.places[0], table)
    eyes = np.stack([_place(rows, place, table) for place in table.places])
    mean = _mean_of_seen(eyes)
    for column, texts in table.format.lost:
        if column in rows:
            words = _words(rows[column])
            mean[~words.isin((*MISSING, "0")) if texts is None else words.isin(texts)] = np.nan
    return mean


def _mean_of_seen(eyes: np.ndarray) -> np.ndarray:
    """(eyes, samples, 2) to (samples, 2): the mean over the eyes that have x and y, NaN where none has."""
    seen = ~np.isnan(eyes).any(axis=2, keepdims=True)
    number = seen.sum(axis=0)
    return np.where(number > 0, np.where(seen, eyes, 0.0).sum(axis=0) / np.maximum(number, 1), np.nan)


def _place(rows: pd.DataFrame, place: Place, table: _Table) -> np.ndarray:
    """(rows, 2): one eye's x and y, NaN where it is lost."""
    found = np.column_stack([_numbers(rows, place.x, table), _numbers(rows, place.y, table)])
    flags = [_is_trusted(rows, flag, table) for flag in place.flags if flag in rows]
    if flags:
        found[~np.any(flags, axis=0)] = np.nan
    if table.format.zero_is_lost:
        found[(found == 0).all(axis=1)] = np.nan
    return found


def _is_trusted(rows: pd.DataFrame, flag: str, table: _Table) -> np.ndarray:
    trusted = table.format.trusted
    if isinstance(trusted, float):
        return _numbers(rows, flag, table) >= trusted
    return _words(rows[flag]).isin(trusted).to_numpy()


def _numbers(rows: pd.DataFrame, column: str, table: _Table) -> np.ndarray:
    """The numbers of a column, NaN where one of the words for a missing one stands."""
    texts = rows[column]
    # Where a tab or a semicolon separates, a comma is a decimal point of half of Europe.
    points = texts if table.separator == "," else texts.str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(points, errors="coerce").to_numpy(dtype=np.float64)
    is_bad = np.isnan(numbers) & (~_words(texts).isin(MISSING) | texts.isna())
    _refuse(texts, is_bad, "a number", table)
    return numbers


def _refuse(texts: pd.Series, is_bad: np.ndarray | pd.Series, what: str, table: _Table) -> None:
    if not np.any(is_bad):
        return
    first = int(np.argmax(is_bad))
    text = None if pd.isna(texts.iloc[first]) else texts.iloc[first]
    raise SidecarError(
        f"{table.where}, line {texts.index[first]}: {table.shown(texts.name)} is {text!r}, not {what}; "
        "correct it."
    )


def _unit_by_steps(times: np.ndarray, where: str) -> float:
    """Seconds in a unit of times whose column names none: ms or microseconds, as gives a tracker's rate."""
    step = _middle_step(times)
    for seconds in (1e-3, 1e-6):
        if STEPS_S[0] <= step * seconds <= STEPS_S[1]:
            return seconds
    raise SidecarError(
        f"{where}: its time stamps are {step:g} apart, no tracker's rate in ms nor in microseconds; "
        "export the time with its unit."
    )


# To the video.


def _on_video(samples: np.ndarray, known: Format, notes: ScanNotes, where: str) -> np.ndarray:
    """Samples of a tracker's clock and screen, in the order of time, on those of the video."""
    if not known.has_own_clock:
        return _own_on_video(samples, notes, where)
    if len(samples) == 0:
        raise SidecarError(f"{where} holds no sample of an eye; export it again.")
    _check_clock(samples[:, 0], where)
    if notes.gaze_offset_s is None:
        first_s = samples[:, 0].min()
        raise SidecarError(
            f"{where} is on the clock of the tracker ({known.name}), where it begins at {first_s:.3f} s; put "
            "gaze_offset_s into scan.json, the seconds to add to come to the time of the video: "
            f"{-first_s:.3f} if both began together."
        )
    left, top, right, bottom = _screen(known, notes, where)
    if known.y_is_up:
        samples[:, 2] = 1 - samples[:, 2]
    samples += (notes.gaze_offset_s, -left, -top)
    samples /= (1.0, right - left, bottom - top)
    is_in_order = (samples[1:, 0] >= samples[:-1, 0]).all()
    return samples if is_in_order else samples[np.argsort(samples[:, 0], kind="stable")]


def _own_on_video(samples: np.ndarray, notes: ScanNotes, where: str) -> np.ndarray:
    if notes.screen is not None:
        raise SidecarError(
            f"{where} has x and y in 0..1 of the picture, and scan.json has a screen, which is for trackers' "
            "exports; take it out."
        )
    return samples + np.array([notes.gaze_offset_s or 0.0, 0.0, 0.0])


def _screen(known: Format, notes: ScanNotes, where: str) -> tuple[float, ...]:
    if notes.screen is None:
        whole = "; [0, 0, 1, 1] if it filled it" if known.unit == FRACTIONS else ""
        raise SidecarError(
            f"{where} ({known.name}) gives places in {known.unit} of the screen; put screen into scan.json, "
            f"[left, top, right, bottom] of the video's picture on it in {known.unit}{whole}."
        )
    if (max(notes.screen) > 2) != (known.unit == PIXELS):
        raise SidecarError(
            f"{where} ({known.name}) gives places in {known.unit}, and screen in scan.json, "
            f"{list(notes.screen)}, is not in {known.unit}; correct it."
        )
    return tuple(notes.screen)


def _check_clock(times_s: np.ndarray, where: str) -> None:
    back = np.diff(times_s)
    if len(back) and back.min() < -MOST_BACK_S:
        place = int(back.argmin())
        raise SidecarError(
            f"{where}: its clock goes back from {times_s[place]:.3f} to {times_s[place + 1]:.3f} s, as where "
            "two recordings follow each other; export one a file."
        )
    step_s = _middle_step(times_s)
    if not STEPS_S[0] <= step_s <= STEPS_S[1]:
        raise SidecarError(
            f"{where}: its samples are {step_s:g} s apart, which is no tracker's rate; export all samples, "
            "not fixations, and look at the unit of the time."
        )


def _middle_step(times: np.ndarray) -> float:
    """The median time from one sample to the next, of those that differ; NaN without any."""
    steps = np.abs(np.diff(times))
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else float("nan")
