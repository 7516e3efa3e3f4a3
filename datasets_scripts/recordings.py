"""Find the recordings in a folder and read one: frames with their times, sound, gaze, planes, notes.

A recording is a folder with a video (`scan.mp4`, any container FFmpeg reads, or a DICOM cine), its sound (a
track of the video, or `audio.wav` beside it) and, where there is any, `gaze.csv`, `planes.csv`, `scan.json`.
In a folder without these companions each video is a recording of its own.

All times are in seconds since the first frame of the video, by the file's own time stamps.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets_scripts.dicom_cine import cine_frames, cine_start, is_dicom, sampled_cine_frames
from datasets_scripts.media_streams import (
    Frame,
    SoundWindows,
    has_sound,
    sampled_video_frames,
    sound_chunks,
    video_frames,
    video_start,
)
from datasets_scripts.recording_errors import (
    DamagedError,
    EmptyRecordingError,
    NoVideoError,
    SidecarError,
    UnreadableError,
)
from datasets_scripts.schema import PLANES, SAMPLING_RATE_HZ
from datasets_scripts.sector import NoSectorError, Sector, find_sector
from datasets_scripts.set_parameters import WHOLE

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf"}
    | {".flv", ".ogv", ".3gp", ".gif", ".dcm", ".dicom"}
)
SOUND_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".opus", ".ogg", ".m4a", ".aac", ".wma"})

GAZE_FILE, PLANES_FILE, NOTES_FILE = "gaze.csv", "planes.csv", "scan.json"
FRAMES_TO_SEARCH = 16

Box = tuple[int, int, int, int]
Area = Sector | Box | None
"""What is kept of a picture: the sector, a box as it is, or all."""


@dataclass(frozen=True)
class RecordingFiles:
    """The files of one recording; `name` is its path below the folder of recordings.

    `video` is None where a folder holds none, or several of which none is named `scan`.
    """

    name: str
    video: Path | None
    sound: Path | None = None
    gaze: Path | None = None
    planes: Path | None = None
    notes: Path | None = None


@dataclass(frozen=True)
class ScanNotes:
    """What `scan.json` says that the preparation needs: `crop` is (left, top, right, bottom) in pixels."""

    patient_id: str | None = None
    crop: Box | None = None


@dataclass(frozen=True)
class PlaneInterval:
    """From `start_s` to `end_s` the plane `label`, one of `PLANES`, is on the screen."""

    start_s: float
    end_s: float
    label: str


def find_recordings(folder: Path) -> list[RecordingFiles]:
    """All recordings below a folder, in the order of their names; those that cannot be read are among them.

    Raises:
        NotADirectoryError: `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; name the folder that holds the recordings.")
    return list(_find_below(folder, folder))


def _find_below(folder: Path, root: Path) -> Iterator[RecordingFiles]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if not entry.is_dir()]
    if any(map(_is_companion, files)):
        yield _scan_folder(folder, files, root)
    elif not entries and folder != root:
        yield RecordingFiles(_name(folder, root), video=None)
    else:
        for file in files:
            if file.suffix.lower() in VIDEO_SUFFIXES | SOUND_SUFFIXES:
                yield RecordingFiles(_name(file, root), video=file)
    for entry in entries:
        if entry.is_dir():
            yield from _find_below(entry, root)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else "."


def _is_sound_beside(file: Path) -> bool:
    return file.stem == "audio" and file.suffix.lower() in SOUND_SUFFIXES


def _is_companion(file: Path) -> bool:
    return file.name in (GAZE_FILE, PLANES_FILE, NOTES_FILE) or _is_sound_beside(file)


def _scan_folder(folder: Path, files: list[Path], root: Path) -> RecordingFiles:
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    named_scan = [file for file in videos if file.stem == "scan"]
    chosen = named_scan if len(named_scan) == 1 else videos
    by_name = {file.name: file for file in files}
    return RecordingFiles(
        name=_name(folder, root),
        video=chosen[0] if len(chosen) == 1 else None,
        sound=next(filter(_is_sound_beside, files), None),
        gaze=by_name.get(GAZE_FILE),
        planes=by_name.get(PLANES_FILE),
        notes=by_name.get(NOTES_FILE),
    )


class Recording:
    """One recording, opened by `open_recording`.

    Attributes:
        name: path below the folder of recordings, for messages and the report.
        width, height: of its pictures, in pixels.
        notes: what `scan.json` says.
        has_sound: whether there is a sound track or a sound file.
    """

    def __init__(self, files: RecordingFiles):
        self.files, self.name = files, files.name
        self._is_dicom = is_dicom(files.video)
        start = (cine_start if self._is_dicom else video_start)(files.video, self.name)
        self._origin_s = start.time_s
        self.width, self.height = start.width, start.height
        self.notes = _read_notes(files.notes, start.width, start.height, self.name)
        self._sound_in_video = (
            files.sound is None and not self._is_dicom and has_sound(files.video, self.name)
        )
        self.has_sound = files.sound is not None or self._sound_in_video

    def frames(self) -> Iterator[Frame]:
        """Every frame in the order of time, the first at zero, in one pass.

        Raises:
            RecordingError: the file is cut short or damaged; raised where the reading comes to it.
        """
        if self._is_dicom:
            yield from cine_frames(self.files.video, self.name)
            return
        for frame in video_frames(self.files.video, self.name):
            yield replace(frame, time_s=frame.time_s - self._origin_s)

    def frames_at(self, times_s: Iterable[float]) -> Iterator[Frame]:
        """For each of the ascending times the frame nearest to it, in one pass, until the recording ends.

        A time is within the recording if it lies no more than half a frame after the end of the last frame,
        so an endless iterator of times is as good as a list.
        """
        times = iter(times_s)
        wanted_s, last, last_interval_s = next(times, math.inf), None, 0.0
        for frame in self.frames():
            if last is not None:
                last_interval_s = frame.time_s - last.time_s
                while wanted_s <= last.time_s + last_interval_s / 2:
                    yield last
                    wanted_s = next(times, math.inf)
            last = frame
        last_interval_s = max(last.duration_s, last_interval_s)
        while wanted_s <= last.time_s + 1.5 * last_interval_s:
            yield last
            wanted_s = next(times, math.inf)

    def sampled_frames(self) -> np.ndarray:
        """Some frames from all over the recording: uint8 (frames, height, width, 3), at most 31.

        Raises:
            RecordingError: the file is cut short or damaged, or its pictures change their size.
        """
        sample = sampled_cine_frames if self._is_dicom else sampled_video_frames
        pictures = [frame.read_pixels() for frame in sample(self.files.video, self.name, FRAMES_TO_SEARCH)]
        if {picture.shape for picture in pictures} != {(self.height, self.width, 3)}:
            raise DamagedError(
                f"{self.name}: its pictures change their size; cut the recording where they do."
            )
        return np.stack(pictures)

    def area(self, sector: str) -> Area:
        """What is kept of its pictures, under one of `SECTOR_CHOICES`.

        Raises:
            NoSectorError: it is to be found and there is none, nor a crop.
            RecordingError: as `sampled_frames`.
        """
        return self.notes.crop if sector == WHOLE else self._found_area

    def box(self, sector: str) -> Box:
        """Left, top, right, bottom in pixels of `area`."""
        area = self.area(sector)
        return area.box if isinstance(area, Sector) else area or (0, 0, self.width, self.height)

    @cached_property
    def _found_area(self) -> Sector | Box:
        frames, crop = self.sampled_frames(), self.notes.crop
        left, top, right, bottom = crop or (0, 0, self.width, self.height)
        mask = np.zeros((self.height, self.width), dtype=bool)
        try:
            mask[top:bottom, left:right] = find_sector(frames[:, top:bottom, left:right]).mask
        except NoSectorError as error:
            if crop is not None:
                return crop
            raise NoSectorError(
                f"{error} `--sector whole` would keep the whole frames of every recording, and all that is "
                "written on them."
            ) from error
        return Sector(mask, crop)

    def sound(self) -> SoundWindows | None:
        """Windows of the sound, mono at 32 kHz, on the clock of the frames; None if there is no sound."""
        if self.files.sound is not None:
            chunks = sound_chunks(self.files.sound, self.name, 0.0, SAMPLING_RATE_HZ)
        elif self._sound_in_video:
            chunks = sound_chunks(self.files.video, self.name, self._origin_s, SAMPLING_RATE_HZ)
        else:
            return None
        return SoundWindows(chunks, SAMPLING_RATE_HZ)

    def gaze(self) -> np.ndarray | None:
        """(samples, 3) float64 of time_s, x, y, the latter in 0..1 from the top left; None without a file.

        Where x or y is empty or `nan`, as trackers write blinks, it is NaN.
        """
        if self.files.gaze is None:
            return None
        rows = _read_csv(self.files.gaze, ("time_s", "x", "y"), self.name)
        samples = [_gaze_sample(row, self.name) for row in rows]
        return np.array(samples, dtype=np.float64).reshape(-1, 3)

    def planes(self) -> list[PlaneInterval] | None:
        """The intervals of `planes.csv` in its order; None without the file."""
        if self.files.planes is None:
            return None
        rows = _read_csv(self.files.planes, ("start_s", "end_s", "label"), self.name)
        return [_plane_interval(row, self.name) for row in rows]


def open_recording(files: RecordingFiles) -> Recording:
    """Open a recording and read its first frame.

    Raises:
        RecordingError: one of its classes for each way in which it cannot be used; the message is a sentence.
    """
    if files.video is None:
        raise NoVideoError(
            f"{files.name}: the folder holds no video, or several of which none is named scan; "
            "keep one video a folder, named scan.mp4."
        )
    try:
        if files.video.stat().st_size == 0:
            raise EmptyRecordingError(f"{files.name}: the file is empty; copy it again from the machine.")
        return Recording(files)
    except OSError as error:
        raise UnreadableError(
            f"{files.name}: the file cannot be opened ({error.strerror}); check that you may read it."
        ) from error


def _read_notes(path: Path | None, width: int, height: int, name: str) -> ScanNotes:
    if path is None:
        return ScanNotes()
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SidecarError(f"{name}: {path.name} is no JSON ({error}); correct it.") from error
    if not isinstance(notes, dict):
        raise SidecarError(f"{name}: {path.name} must hold one JSON object; correct it.")
    patient = notes.get("patient_id")
    patient = None if patient is None else str(patient).strip() or None
    return ScanNotes(patient, _crop(notes.get("crop"), width, height, f"{name}: {path.name}"))


def _crop(crop: object, width: int, height: int, where: str) -> Box | None:
    if crop is None:
        return None
    if not (isinstance(crop, list) and len(crop) == 4 and all(isinstance(edge, int) for edge in crop)):
        raise SidecarError(f"{where}: crop must be [left, top, right, bottom] in whole pixels, not {crop}.")
    left, top, right, bottom = crop
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise SidecarError(
            f"{where}: crop {crop} does not lie within the picture of {width} x {height} pixels."
        )
    return left, top, right, bottom


def _read_csv(path: Path, columns: tuple[str, ...], name: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise SidecarError(
                    f"{name}: {path.name} lacks the column {', '.join(sorted(missing))}; add it."
                )
            return [{**row, "": f"{path.name}, line {reader.line_num}"} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SidecarError(f"{name}: {path.name} is no CSV text ({error}); export it again.") from error


def _number(row: dict[str, str], column: str, name: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError) as error:
        raise SidecarError(
            f"{name}: {row['']}: {column} is {row[column]!r}, not a number; correct it."
        ) from error


def _gaze_sample(row: dict[str, str], name: str) -> tuple[float, float, float]:
    time_s = _number(row, "time_s", name)
    if not math.isfinite(time_s):
        raise SidecarError(f"{name}: {row['']}: time_s is {row['time_s']!r}, not a time; correct it.")
    x, y = (math.nan if row[axis] == "" else _number(row, axis, name) for axis in ("x", "y"))
    return time_s, x, y


def _plane_interval(row: dict[str, str], name: str) -> PlaneInterval:
    if row["label"] not in PLANES:
        raise SidecarError(
            f"{name}: {row['']}: {row['label']!r} is none of the {len(PLANES)} planes; correct it."
        )
    start_s, end_s = _number(row, "start_s", name), _number(row, "end_s", name)
    if not start_s < end_s:
        raise SidecarError(f"{name}: {row['']}: the interval {start_s} to {end_s} s is empty; correct it.")
    return PlaneInterval(start_s, end_s, row["label"])
