"""Recordings with gaze to frames with the fixations around them, in Parquet.

    python -m datasets_scripts.prepare_gaze RECORDINGS OUT

Writes the configuration `gaze`. OUT may hold clips or planes already, or get them later: all share its splits
and its key. Beside OUT lies the report, which counts samples, fixations, and what was dropped. Recordings
without gaze, `gaze.csv` or the export of a tracker (`gaze_exports`), are left out, and the report says so.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Unpack

import numpy as np

from datasets_scripts.clips import FrameEncoder, place_in_square
from datasets_scripts.fixations import (
    away_from_blinks,
    count_samples,
    fixations_by_dispersion,
    fixations_by_velocity,
    merged,
    smoothed,
)
from datasets_scripts.preparation import Preparation, PreparationReport, RunOptions, prepare
from datasets_scripts.preparation_command import run_command
from datasets_scripts.recording_errors import MissingSidecarError, NothingKeptError, RecordingError
from datasets_scripts.recordings import GAZE_FILE, Recording
from datasets_scripts.row_choice import evenly_spread
from datasets_scripts.schema import FIXATIONS, GAZE_CONFIG, IMAGE, SCAN_ID, TIME_S, gaze_features
from datasets_scripts.set_parameters import SetParameters, require, require_seconds

DISPERSION, VELOCITY = FIXATION_RULES = ("dispersion", "velocity")


class GazeOutsideVideoError(RecordingError):
    """No sample of the gaze was taken while the video ran."""


@dataclass(frozen=True)
class GazeParameters(SetParameters):
    """What decides the content of a set of frames with fixations; picture size and split are those of every
    set.

    Where the picture is 20 degrees wide to the eye, the defaults of the two rules are 1.4 degrees and 12
    degrees a second.

    Args:
        seconds_between_frames: from one frame to the next.
        window_seconds: a frame's fixations are those that overlap a window of this length around it.
        frames_per_scan: most frames kept of a scan, spread over time; None keeps all.
        fixation_rule: dispersion (I-DT) or velocity (I-VT).
        dispersion_widths: under the dispersion rule, the most that x and y of a fixation may spread, added
            up, in widths of the picture.
        velocity_widths_per_second: under the velocity rule, the fastest that the eye may move in a fixation,
            in widths of the picture a second.
        minimum_fixation_seconds: what is shorter is no fixation.
        longest_gap_seconds: a longer time without sight of the eye is a blink, and ends a fixation; a blink
            lasts 0.1 s or more.
        blink_margin_seconds: what is seen this shortly before or after a blink is left out.
        smoothing_seconds: each place is the mean of the samples in a window of this length, so that a fast
            tracker's noise does not break up fixations.
        merge_widths: fixations no further apart than this, in widths of the picture, and than
            longest_gap_seconds in time, are one.

    Raises:
        ValueError: a value out of its range.
    """

    seconds_between_frames: float = 1.0
    window_seconds: float = 1.0
    frames_per_scan: int | None = None
    fixation_rule: str = DISPERSION
    dispersion_widths: float = 0.07
    velocity_widths_per_second: float = 0.6
    minimum_fixation_seconds: float = 0.1
    longest_gap_seconds: float = 0.075
    blink_margin_seconds: float = 0.1
    smoothing_seconds: float = 0.02
    merge_widths: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seconds_between_frames", "window_seconds"):
            require_seconds(name, getattr(self, name), 0.01)
        for name in ("minimum_fixation_seconds", "longest_gap_seconds"):
            require_seconds(name, getattr(self, name), 0.001)
        for name in ("blink_margin_seconds", "smoothing_seconds"):
            require_seconds(name, getattr(self, name), 0.0)
        require(0 <= self.merge_widths < float("inf"), "merge_widths", self.merge_widths, "0 or more")
        for name in ("dispersion_widths", "velocity_widths_per_second"):
            value = getattr(self, name)
            require(0 < value < float("inf"), name, value, "above 0")
        most = self.frames_per_scan
        require(most is None or most >= 1, "frames_per_scan", most, "1 or more")
        choices = " or ".join(FIXATION_RULES)
        require(self.fixation_rule in FIXATION_RULES, "fixation_rule", self.fixation_rule, choices)


def prepare_gaze(
    recordings_dir: Path, output_dir: Path, parameters: GazeParameters, **run: Unpack[RunOptions]
) -> PreparationReport:
    """Write the frames with fixations of all recordings of a folder as configuration `gaze` of a data set.

    Args:
        recordings_dir: a folder a scan, with its gaze.
        output_dir: the data set; made if absent, extended by a configuration if there.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    preparation = Preparation(
        config=GAZE_CONFIG,
        row="frame",
        features=gaze_features(),
        parameters=parameters,
        make_rows=frames_with_gaze,
        remedy=f"add recordings of it with {GAZE_FILE}, or name a new folder, which gets its own splits",
    )
    return prepare(recordings_dir, output_dir, preparation, **run)


def frames_with_gaze(
    recording: Recording, scan_id: str, parameters: GazeParameters, counts: Counter[str]
) -> Iterator[dict]:
    """The frames of a recording that have fixations, in the order of time; what is dropped is counted.

    All that may be chosen is held in memory as JPEG, since where the recording ends is known only after the
    one pass over it.

    Raises:
        RecordingError: the recording is damaged, has no gaze, or none of its frames has a fixation.
    """
    samples = stored_samples(recording)
    fixations = stored_fixations(recording, samples, parameters, counts)
    encode, last = FrameEncoder(recording.area(parameters.sector), parameters.frame_size), None
    rows = []
    times_s = ((place + 0.5) * parameters.seconds_between_frames for place in count())
    for frame in recording.frames_at(times_s):
        is_new, last = frame is not last, frame
        seen = fixations_around(fixations, frame.time_s, parameters.window_seconds)
        if is_new and len(seen):
            image = {"bytes": encode(frame), "path": None}
            rows.append({IMAGE: image, FIXATIONS: seen.tolist(), SCAN_ID: scan_id, TIME_S: frame.time_s})
        counts["frames_without_fixation"] += is_new and not len(seen)
    if not rows:
        check_overlap(recording, samples)
        raise NothingKeptError(
            f"{recording.name}: none of its frames has a fixation; check that x and y of "
            f"{recording.files.gaze.name} come to lie in 0..1 of the picture, or leave the recording out."
        )
    most = len(rows) if parameters.frames_per_scan is None else parameters.frames_per_scan
    for number in evenly_spread(len(rows), most):
        yield rows[number]


def stored_samples(recording: Recording) -> np.ndarray:
    """The gaze of a recording, (samples, 3).

    Raises:
        MissingSidecarError: there is none.
        RecordingError: it cannot be read.
    """
    samples = recording.gaze()
    if samples is None:
        raise MissingSidecarError(
            f"{recording.name}: there is no {GAZE_FILE}, nor a tracker's export of that name; add one, or "
            "leave the recording out."
        )
    return samples


def check_overlap(recording: Recording, samples: np.ndarray) -> None:
    """Refuse gaze that lies beside the video in time; reads the whole video for its length.

    Raises:
        GazeOutsideVideoError: no sample was taken from its first frame to its last.
    """
    if len(samples) == 0:
        return
    first_s, last_s = samples[:, 0].min(), samples[:, 0].max()
    end_s = max(frame.time_s for frame in recording.frames())
    if first_s > end_s or last_s < 0:
        raise GazeOutsideVideoError(
            f"{recording.name}: {recording.files.gaze.name} covers {first_s:.3f} to {last_s:.3f} s and the "
            f"video 0 to {end_s:.3f} s, so that they do not overlap; correct the times, or gaze_offset_s in "
            "scan.json."
        )


def stored_fixations(
    recording: Recording, samples: np.ndarray, parameters: GazeParameters, counts: Counter[str]
) -> np.ndarray:
    """(fixations, 4) of start_s, end_s, x, y in 0..1 of the stored image; those outside of it are counted."""
    fixations = find_fixations(samples, recording.height / recording.width, parameters)
    size = (recording.width, recording.height)
    left, top, right, bottom = recording.box(parameters.sector)
    places = (fixations[:, 2:] * size - (left, top)) / (right - left, bottom - top)
    is_inside = ((places >= 0) & (places <= 1)).all(axis=1)
    fixations[:, 2:] = places_in_stored_image(places, (right - left, bottom - top), parameters.frame_size)
    counts.update(count_samples(samples, parameters.longest_gap_seconds, parameters.blink_margin_seconds))
    counts["fixations"] = int(is_inside.sum())
    counts["fixations_outside_the_crop"] = int((~is_inside).sum())
    return fixations[is_inside]


def find_fixations(samples: np.ndarray, aspect: float, parameters: GazeParameters) -> np.ndarray:
    """(fixations, 4) of start_s, end_s, x, y, by the rule of the parameters."""
    longest_gap_seconds = parameters.longest_gap_seconds
    samples = away_from_blinks(samples, longest_gap_seconds, parameters.blink_margin_seconds)
    samples = smoothed(samples, parameters.smoothing_seconds)
    if parameters.fixation_rule == DISPERSION:
        find, limit = fixations_by_dispersion, parameters.dispersion_widths
    else:
        find, limit = fixations_by_velocity, parameters.velocity_widths_per_second
    found = find(samples, limit, parameters.minimum_fixation_seconds, longest_gap_seconds, aspect)
    return merged(found, samples, longest_gap_seconds, parameters.merge_widths, aspect)


def fixations_around(fixations: np.ndarray, time_s: float, window_seconds: float) -> np.ndarray:
    """(n, 2) places of the fixations that overlap the window around a time."""
    starts_before_end = fixations[:, 0] <= time_s + window_seconds / 2
    ends_after_start = fixations[:, 1] >= time_s - window_seconds / 2
    return fixations[starts_before_end & ends_after_start, 2:]


def places_in_stored_image(places: np.ndarray, size: tuple[int, int], frame_size: int) -> np.ndarray:
    """(n, 2) places in 0..1 of a picture of (width, height) to 0..1 of the square that it is padded to."""
    left, top, width, height = place_in_square(*size, frame_size)
    return (places * (width, height) + (left, top)) / frame_size


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    description = "Write the frames of recordings with the fixations around them as Parquet shards."
    return run_command(prepare_gaze, GazeParameters, description, command_line)


if __name__ == "__main__":
    sys.exit(main())
