"""Find the recordings in a folder and read one: frames with their times, sound, gaze, planes, notes.

A recording is a folder with a video (`scan.mp4`, any container FFmpeg reads, or a DICOM cine), its sound (a
track of the video, or `audio.wav` beside it) and, where there is any, `gaze.csv`, `planes.csv`, `scan.json`.
In a folder without these companions each video is a recording of its own.

All times are in seconds since the first frame of the video, by the file's own time stamps.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets_scripts.container_structure import check_structure
from datasets_scripts.dicom_cine import cine_frames, cine_start, is_dicom, sampled_cine_frames
from datasets_scripts.gaze_exports import read_gaze
from datasets_scripts.media_streams import (
    Frame,
    SoundWindows,
    has_sound,
    promised_end_s,
    sampled_video_frames,
    sound_chunks,
    video_frames,
    video_start,
)
from datasets_scripts.recording_errors import (
    EmptyRecordingError,
    NotARecordingError,
    NoVideoError,
    SidecarError,
    UnreadableError,
)
from datasets_scripts.recording_folders import (
    GAZE_FILE,
    GAZE_FILES,
    NOTES_FILE,
    PLANES_FILE,
    VIDEO_SUFFIXES,
    RecordingFiles,
    find_recordings,
)
from datasets_scripts.scan_notes import MEASURED, Box, ScanNotes, read_notes
from datasets_scripts.schema import PLANES, SAMPLING_RATE_HZ
from datasets_scripts.sector import NoSectorError, Sector, find_sector
from datasets_scripts.set_parameters import WHOLE
from datasets_scripts.sound_offset import MEASURING_RATE_HZ, measured_offset_s

# Finding recordings belongs to reading them: other parts know this module alone.
__all__ = [
    "GAZE_FILE",
    "GAZE_FILES",
    "NOTES_FILE",
    "PLANES_FILE",
    "VIDEO_SUFFIXES",
    "Area",
    "Box",
    "PlaneInterval",
    "Recording",
    "RecordingFiles",
    "find_recordings",
    "open_recording",
]
FRAMES_TO_SEARCH, FEWEST_TO_SEARCH = 16, 8
MOST_SAMPLED_BYTES = 110_000_000  # of the pictures that are searched, as RGB; a worker has a gigabyte

Area = Sector | Box | None
"""What is kept of a picture: the sector, a box as it is, or all."""


@dataclass(frozen=True)
class PlaneInterval:
    """From `start_s` to `end_s` the plane `label`, one of `PLANES`, is on the screen."""

    start_s: float
    end_s: float
    label: str


class Recording:
    """One recording, opened by `open_recording`.

    Attributes:
        name: path below the folder of recordings, for messages and the report.
        width, height: of its pictures, in pixels.
        notes: what `scan.json` says.
        pixel_spacing_mm: from row to row and from column to column, by `scan.json` or else by the file; None
            where neither says.
        has_sound: whether there is a sound track or a sound file.
    """

    def __init__(self, files: RecordingFiles):
        self.files, self.name = files, files.name
        self._blanked: tuple[Box, ...] = ()
        self._sample: list[Frame] | None = None
        self._seen_to_s, self._is_seen_to_the_end = 0.0, False
        self._is_dicom = is_dicom(files.video)
        start = (cine_start if self._is_dicom else video_start)(files.video, self.name)
        self._origin_s = start.time_s
        self.width, self.height = start.width, start.height
        self.notes = (
            read_notes(files.notes, start.width, start.height, self.name) if files.notes else ScanNotes()
        )
        self.pixel_spacing_mm = self.notes.pixel_spacing_mm or start.pixel_spacing_mm
        if files.sound is not None:
            check_structure(files.sound, self.name)
        self._sound_in_video = (
            files.sound is None and not self._is_dicom and has_sound(files.video, self.name)
        )
        self.has_sound = files.sound is not None or self._sound_in_video

    def frames(self) -> Iterator[Frame]:
        """Every frame in the order of time, the first at zero, in one pass.

        Raises:
            RecordingError: the file is cut short or damaged; raised where the reading comes to it.
        """
        self._sample = None  # sector and text are looked for before
        if self._is_dicom:
            frames = cine_frames(self.files.video, self.name)
        else:
            of_file = video_frames(self.files.video, self.name)
            frames = (replace(frame, time_s=frame.time_s - self._origin_s) for frame in of_file)
        for frame in frames:
            self._seen_to_s = max(self._seen_to_s, frame.time_s + frame.duration_s)
            yield frame
        self._is_seen_to_the_end = True

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last: as it was read, or else as the file promises.

        Raises:
            RecordingError: the file cannot be opened, or, where it promises nothing, cannot be read.
        """
        if not self._is_seen_to_the_end and not self._is_dicom:
            promised_s = promised_end_s(self.files.video, self.name) - self._origin_s
            if promised_s > 0:
                return max(promised_s, self._seen_to_s)
        if not self._is_seen_to_the_end:
            for _ in self.frames():
                pass
        return self._seen_to_s

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

        They are decoded once and held, as they were decoded, until all frames are read.

        Raises:
            RecordingError: the file is cut short or damaged, or its pictures change their size.
        """
        if self._sample is None:
            self._sample = self._new_sample()
        first = self._sample[0].read_pixels()
        pictures = np.empty((len(self._sample), *first.shape), dtype=np.uint8)
        for place, frame in enumerate(self._sample):  # one by one: of full size they are many megabytes
            pictures[place] = frame.read_pixels()
        return pictures

    def _new_sample(self) -> list[Frame]:
        """16 to 31 frames, or all where there are fewer; of large pictures no more than fit in memory."""
        most = max(FEWEST_TO_SEARCH, MOST_SAMPLED_BYTES // (3 * self.width * self.height))
        sample = sampled_cine_frames if self._is_dicom else sampled_video_frames
        frames = sample(self.files.video, self.name, min(FRAMES_TO_SEARCH, most))
        if len(frames) <= most:
            return frames
        return [frames[number] for number in np.linspace(0, len(frames) - 1, most).round().astype(int)]

    def area(self, sector: str) -> Area:
        """What is kept of its pictures, under one of `SECTOR_CHOICES`.

        Raises:
            NoSectorError: it is to be found and there is none, nor a crop.
            RecordingError: as `sampled_frames`.
        """
        area = self.notes.crop if sector == WHOLE else self._found_area
        if not self._blanked:
            return area
        left, top, right, bottom = box = area.box if isinstance(area, Sector) else area or self._whole
        mask = np.zeros((self.height, self.width), dtype=bool)
        mask[top:bottom, left:right] = area.mask[top:bottom, left:right] if isinstance(area, Sector) else True
        for x, y, end, below in self._blanked:
            mask[y:below, x:end] = False
        return Sector(mask, box)

    def blank(self, boxes: Iterable[Box]) -> None:
        """From now on, boxes of the picture are no part of what is kept."""
        self._blanked = tuple(boxes)

    def box(self, sector: str) -> Box:
        """Left, top, right, bottom in pixels of `area`."""
        area = self.area(sector)
        return area.box if isinstance(area, Sector) else area or self._whole

    @property
    def _whole(self) -> Box:
        return 0, 0, self.width, self.height

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
        """Windows of the sound, mono at 32 kHz, on the clock of the frames; None if there is no sound.

        A file beside the video goes before the sound track of the video.

        Raises:
            RecordingError: the offset in `scan.json` is to be measured and cannot be.
        """
        if not self.has_sound:
            return None
        return SoundWindows(self.sound_chunks(), SAMPLING_RATE_HZ)

    def sound_chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The sound of a recording that has one, piece by piece.

        Yields the number of a piece's first sample on the clock of the frames, and its float32 samples, mono
        at 32 kHz. Raises as `sound` does.
        """
        return self._sound_chunks(SAMPLING_RATE_HZ, self.sound_offset_s)

    @cached_property
    def sound_offset_s(self) -> float:
        """How much later the sound starts than its file says, by `scan.json` or measured.

        Raises:
            SidecarError: it is to be measured, and there are not two sounds to measure it by.
        """
        if self.notes.sound_offset_s != MEASURED:
            return self.notes.sound_offset_s
        if self.files.sound is None or self._is_dicom or not has_sound(self.files.video, self.name):
            raise SidecarError(
                f"{self.name}: {NOTES_FILE}: sound_offset_s can be measured only where a sound file lies "
                "beside a video that has a sound track too; write it in seconds."
            )
        track = sound_chunks(self.files.video, self.name, self._origin_s, MEASURING_RATE_HZ)
        return measured_offset_s(track, self._sound_chunks(MEASURING_RATE_HZ, 0.0), self.name)

    def _sound_chunks(self, sampling_rate_hz: int, offset_s: float) -> Iterator[tuple[int, np.ndarray]]:
        if self.files.sound is not None:
            return sound_chunks(self.files.sound, self.name, None, sampling_rate_hz, offset_s)
        return sound_chunks(self.files.video, self.name, self._origin_s, sampling_rate_hz, offset_s)

    def gaze(self) -> np.ndarray | None:
        """(samples, 3) float64 of time_s, x, y, the latter in 0..1 from the top left; None without a file.

        Where x or y is empty or `nan`, as trackers write blinks, it is NaN.
        """
        return None if self.files.gaze is None else read_gaze(self.files.gaze, self.name, self.notes)

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
    if files.no_recording:
        raise NotARecordingError(f"{files.name}: {files.no_recording}.")
    if files.unreadable:
        raise UnreadableError(
            f"{files.name}: it cannot be looked into ({files.unreadable}); check that you may read it."
        )
    if files.video is None:
        raise NoVideoError(
            f"{files.name}: the folder holds no video, or several of which none is named scan; "
            "keep one video a folder, named scan.mp4."
        )
    if files.ambiguous:
        raise SidecarError(
            f"{files.name}: of {' and '.join(file.name for file in files.ambiguous)} only one may lie beside "
            "the video; take the others out of the folder."
        )
    try:
        if files.video.stat().st_size == 0:
            raise EmptyRecordingError(f"{files.name}: the file is empty; copy it again from the machine.")
        return Recording(files)
    except OSError as error:
        raise UnreadableError(
            f"{files.name}: the file cannot be opened ({error.strerror}); check that you may read it."
        ) from error


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


def _plane_interval(row: dict[str, str], name: str) -> PlaneInterval:
    if row["label"] not in PLANES:
        raise SidecarError(
            f"{name}: {row['']}: {row['label']!r} is none of the {len(PLANES)} planes; correct it."
        )
    start_s, end_s = _number(row, "start_s", name), _number(row, "end_s", name)
    if not start_s < end_s:
        raise SidecarError(f"{name}: {row['']}: the interval {start_s} to {end_s} s is empty; correct it.")
    return PlaneInterval(start_s, end_s, row["label"])
