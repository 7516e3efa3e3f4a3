"""Recordings with `planes.csv` to labelled frames, or labelled clips, in Parquet.

    python -m datasets_scripts.prepare_planes RECORDINGS OUT                     # configuration `planes`
    python -m datasets_scripts.prepare_planes RECORDINGS OUT --clip-seconds 2    # configuration `plane_clips`

One run writes one configuration: frames, or with `--clip-seconds` clips without sound. OUT may hold clips or
gaze already, or get them later: all share its splits and its key. Beside OUT lies the report, which counts
the rows of each class. Recordings without `planes.csv` are left out, and the report says so.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, tee
from pathlib import Path
from typing import NamedTuple, Unpack

from datasets_scripts.clips import FrameEncoder, frames_of_clips
from datasets_scripts.plane_segments import Segment, label_time
from datasets_scripts.preparation import Preparation, PreparationReport, RunOptions, prepare
from datasets_scripts.preparation_command import run_command
from datasets_scripts.recording_errors import MissingSidecarError, NothingKeptError
from datasets_scripts.recordings import PLANES_FILE, PlaneInterval, Recording
from datasets_scripts.row_choice import CLASS_BALANCES, choose_rows
from datasets_scripts.schema import (
    FRAMES,
    IMAGE,
    LABEL,
    PLANE_CLIPS_CONFIG,
    PLANES,
    PLANES_CONFIG,
    SCAN_ID,
    START_S,
    TIME_S,
    plane_clips_features,
    planes_features,
)
from datasets_scripts.set_parameters import SetParameters, require, require_seconds

OVERLAPS, BEYOND_THE_END = "overlaps_of_planes", "intervals_beyond_the_end"
ROUNDING_S = 1e-9


@dataclass(frozen=True)
class PlaneParameters(SetParameters):
    """What decides the content of a set of labelled frames or clips; picture size and split are those of
    every set.

    Args:
        seconds_between_frames: least time from one frame of a plane, or of background, to the next.
        background_margin_seconds: background keeps this distance from every plane's interval.
        class_balance: natural keeps every class as it comes; background keeps no more background of a scan
            than of its most frequent plane; balanced keeps of each class of a scan as much as of its rarest.
        frames_per_scan: most frames (or clips) kept of a scan, shared out among its classes and spread over
            time; None keeps all.
        clip_seconds: write clips of this length in place of frames; None writes frames.
        stride_seconds: from the start of one clip to the start of the next; None means `clip_seconds`.
        frames_per_clip: frames kept of a clip, evenly spaced over it by time.

    Raises:
        ValueError: a value out of its range.
    """

    seconds_between_frames: float = 0.5
    background_margin_seconds: float = 0.5
    class_balance: str = "natural"
    frames_per_scan: int | None = None
    clip_seconds: float | None = None
    stride_seconds: float | None = None
    frames_per_clip: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seconds("seconds_between_frames", self.seconds_between_frames, 0.01)
        require_seconds("background_margin_seconds", self.background_margin_seconds, 0)
        choices = ", ".join(CLASS_BALANCES)
        require(
            self.class_balance in CLASS_BALANCES, "class_balance", self.class_balance, f"one of {choices}"
        )
        most = self.frames_per_scan
        require(most is None or most >= 1, "frames_per_scan", most, "1 or more")
        require(self.frames_per_clip >= 1, "frames_per_clip", self.frames_per_clip, "1 or more")
        if self.clip_seconds is not None:
            require_seconds("clip_seconds", self.clip_seconds, 0.1)
        if self.stride_seconds is not None:
            require_seconds("stride_seconds", self.stride_seconds, 0.01)
            is_of_clips = self.clip_seconds is not None
            require(is_of_clips, "stride_seconds", self.stride_seconds, "left out where clip_seconds is")


def prepare_planes(
    recordings_dir: Path, output_dir: Path, parameters: PlaneParameters, **run: Unpack[RunOptions]
) -> PreparationReport:
    """Write the labelled frames, or clips, of all recordings of a folder as a configuration of a data set.

    Args:
        recordings_dir: a folder a scan, with its `planes.csv`.
        output_dir: the data set; made if absent, extended by a configuration if there.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    are_clips = parameters.clip_seconds is not None
    preparation = Preparation(
        config=PLANE_CLIPS_CONFIG if are_clips else PLANES_CONFIG,
        row="clip" if are_clips else "frame",
        features=plane_clips_features() if are_clips else planes_features(),
        parameters=parameters,
        make_rows=labelled_rows,
        remedy=f"add recordings of it with {PLANES_FILE}, or name a new folder, which gets its own splits",
    )
    return prepare(recordings_dir, output_dir, preparation, **run)


class Candidate(NamedTuple):
    """What may become a row: the segment it lies in, its time or start in seconds, its encoded frames."""

    segment: Segment
    time_s: float
    jpegs: list[bytes]


def labelled_rows(
    recording: Recording, scan_id: str, parameters: PlaneParameters, counts: Counter[str]
) -> Iterator[dict]:
    """The chosen frames or clips of a recording, in the order of time; their classes are counted.

    All that may be chosen is held in memory as JPEG: where the recording ends, and so how much background
    there is, is known only after the one pass over it.

    Raises:
        RecordingError: the recording is damaged, lacks `planes.csv`, or gives no row.
    """
    intervals = recording.planes()
    if intervals is None:
        raise MissingSidecarError(
            f"{recording.name}: there is no {PLANES_FILE}; write one, or leave the recording out."
        )
    segments, overlaps = label_time(intervals, parameters.background_margin_seconds)
    find = candidate_frames if parameters.clip_seconds is None else candidate_clips
    candidates = list(find(recording, segments, intervals, parameters, counts))
    counts[OVERLAPS] = overlaps
    labels = [candidate.segment.label for candidate in candidates]
    chosen = choose_rows(labels, parameters.class_balance, parameters.frames_per_scan)
    if not chosen:
        raise NothingKeptError(
            f"{recording.name}: {PLANES_FILE} and the class balance {parameters.class_balance} leave nothing "
            "of it; check the intervals, or leave the recording out."
        )
    kept = Counter(labels[number] for number in chosen)
    counts.update({label: kept[label] for label in PLANES if kept[label]})
    for number in chosen:
        yield _row(candidates[number], scan_id, parameters)


def _row(candidate: Candidate, scan_id: str, parameters: PlaneParameters) -> dict:
    images = [{"bytes": jpeg, "path": None} for jpeg in candidate.jpegs]
    row = {LABEL: PLANES.index(candidate.segment.label), SCAN_ID: scan_id}
    if parameters.clip_seconds is None:
        return {IMAGE: images[0], TIME_S: candidate.time_s, **row}
    return {FRAMES: images, START_S: candidate.time_s, **row}


def candidate_frames(
    recording: Recording,
    segments: list[Segment],
    intervals: list[PlaneInterval],
    parameters: PlaneParameters,
    counts: Counter[str],
) -> Iterator[Candidate]:
    """The frames at evenly spaced moments of each segment, each by its own time stamp inside of it."""
    moments = (
        (segment, time_s)
        for segment in segments
        for time_s in _moments(segment, parameters.seconds_between_frames)
    )
    wanted, times = tee(moments)
    encode, taken = FrameEncoder(recording.area(parameters.sector), parameters.frame_size), None
    for frame, (segment, _) in zip(recording.frames_at(time_s for _, time_s in times), wanted, strict=False):
        # Where frames lie far apart, one may be nearest to several moments, and to those of a neighbour.
        if frame is not taken and segment.start_s <= frame.time_s <= segment.end_s:
            yield Candidate(segment, frame.time_s, [encode(frame)])
            taken = frame
    counts[BEYOND_THE_END] = _unreached(wanted, intervals)


def candidate_clips(
    recording: Recording,
    segments: list[Segment],
    intervals: list[PlaneInterval],
    parameters: PlaneParameters,
    counts: Counter[str],
) -> Iterator[Candidate]:
    """The clips that lie as a whole in one segment, from its start on."""
    starts = ((segment, start_s) for segment in segments for start_s in _clip_starts(segment, parameters))
    wanted, starts_s = tee(starts)
    encode = FrameEncoder(recording.area(parameters.sector), parameters.frame_size)
    clips = frames_of_clips(
        recording,
        (start_s for _, start_s in starts_s),
        parameters.clip_seconds,
        parameters.frames_per_clip,
        encode,
    )
    for clip, (segment, start_s) in zip(clips, wanted, strict=False):
        yield Candidate(segment, round(start_s, 6), clip.jpegs)
    counts[BEYOND_THE_END] = _unreached(wanted, intervals)


def _moments(segment: Segment, spacing_s: float) -> Iterator[float]:
    """Times inside a segment, at least `spacing_s` apart but at least one, its ends not among them."""
    length_s = segment.end_s - segment.start_s
    if length_s == float("inf"):
        return (segment.start_s + (place + 0.5) * spacing_s for place in count())
    number = max(1, int(length_s / spacing_s + ROUNDING_S))
    return (segment.start_s + (place + 0.5) * length_s / number for place in range(number))


def _clip_starts(segment: Segment, parameters: PlaneParameters) -> Iterator[float]:
    step_s = parameters.stride_seconds or parameters.clip_seconds
    for clip in count():
        start_s = segment.start_s + clip * step_s
        if start_s + parameters.clip_seconds > segment.end_s + ROUNDING_S:
            return
        yield start_s


def _unreached(wanted: Iterable[tuple[Segment, float]], intervals: list[PlaneInterval]) -> int:
    """How many intervals go on after the first time that the recording did not reach."""
    reached_s = next((time_s for _, time_s in wanted), float("inf"))
    return sum(interval.end_s > reached_s for interval in intervals)


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    description = "Write the labelled frames, or with --clip-seconds clips, of recordings as Parquet shards."
    return run_command(prepare_planes, PlaneParameters, description, command_line)


if __name__ == "__main__":
    sys.exit(main())
