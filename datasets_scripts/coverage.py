"""How long a recording is, and of which of its times planes and gaze tell: for the report."""

from dataclasses import dataclass

import numpy as np

from datasets_scripts.fixations import in_order, is_lost, is_off_picture
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording

SHORTEST_GAP_S = 1.0  # what is shorter, as blinks are, is no gap in the gaze
DECIMALS = 3


@dataclass(frozen=True)
class Coverage:
    """In seconds since the first frame; intervals lie within the recording, in the order of time.

    Args:
        duration_s: from the first frame to the end of the last.
        planes: start, end and label of each interval of `planes.csv`.
        gaze: start and end of each time in which the tracker saw the eye look at the picture.
    """

    duration_s: float
    planes: tuple[tuple[float, float, str], ...] = ()
    gaze: tuple[tuple[float, float], ...] = ()


def coverage_of(recording: Recording) -> Coverage:
    """What the files of a recording cover; one beside the video that cannot be read covers nothing here: the
    preparation that needs it says what is wrong with it."""
    duration_s = recording.duration_s
    try:
        planes = [(each.start_s, each.end_s, each.label) for each in recording.planes() or ()]
    except RecordingError:
        planes = []
    try:
        samples = recording.gaze()
    except RecordingError:
        samples = None
    return Coverage(
        round(duration_s, DECIMALS),
        tuple(
            (*span, label) for start, end, label in sorted(planes) for span in _within(start, end, duration_s)
        ),
        tuple(
            span
            for start, end in ([] if samples is None else gaze_intervals(samples))
            for span in _within(start, end, duration_s)
        ),
    )


def gaze_intervals(samples: np.ndarray) -> list[tuple[float, float]]:
    """Start and end of the times in which the eye was seen to look at the picture.

    Args:
        samples: (samples, 3) of time_s, x, y, as `read_gaze` gives them.
    """
    ordered = in_order(samples) if len(samples) else samples
    times_s = ordered[~is_lost(ordered) & ~is_off_picture(ordered), 0]
    if not len(times_s):
        return []
    gaps = np.flatnonzero(np.diff(times_s) > SHORTEST_GAP_S)
    starts, ends = times_s[np.append(0, gaps + 1)], times_s[np.append(gaps, len(times_s) - 1)]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _within(start_s: float, end_s: float, duration_s: float) -> list[tuple[float, float]]:
    """The part of an interval that lies in the recording, if there is one."""
    first, last = round(max(start_s, 0.0), DECIMALS), round(min(end_s, duration_s), DECIMALS)
    return [(first, last)] if first < last else []
