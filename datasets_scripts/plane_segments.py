"""Which class each moment of a recording belongs to, from the intervals of its `planes.csv`."""

import math
from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import NamedTuple

from datasets_scripts.recordings import PlaneInterval
from datasets_scripts.schema import BACKGROUND, PLANES

OVERLAP, MARGIN = "overlap", "margin"


class Segment(NamedTuple):
    """From `start_s` to `end_s`, which may be infinite, the recording shows `label`, one of `PLANES`."""

    start_s: float
    end_s: float
    label: str


class LabelledTime(NamedTuple):
    """Segments in the order of time, none over another; number of overlaps that belong to none of them."""

    segments: list[Segment]
    overlaps: int


def label_time(intervals: Iterable[PlaneInterval], margin_seconds: float) -> LabelledTime:
    """Cut the time from the first frame on, without end, into segments of one class each.

    - Inside one interval it is that interval's plane; a `background` interval is background as it stands.
    - Where intervals of different classes overlap, it is neither, for nobody can tell which is right.
    - Outside of all intervals it is background, from `margin_seconds` away from every plane's interval: close
      to one the picture may still show the plane.
    """
    intervals = list(intervals)
    edges = {0.0, math.inf}
    for interval in intervals:
        around = (interval.start_s - margin_seconds, interval.end_s + margin_seconds)
        edges |= {max(0.0, edge) for edge in (interval.start_s, interval.end_s, *around)}
    pieces = [
        Segment(start_s, end_s, _class_between(intervals, margin_seconds, start_s, end_s))
        for start_s, end_s in pairwise(sorted(edges))
    ]
    joined = [list(group) for _, group in groupby(pieces, key=lambda piece: piece.label)]
    whole = [Segment(group[0].start_s, group[-1].end_s, group[0].label) for group in joined]
    segments = [segment for segment in whole if segment.label in PLANES]
    return LabelledTime(segments, sum(segment.label == OVERLAP for segment in whole))


def _class_between(
    intervals: list[PlaneInterval], margin_seconds: float, start_s: float, end_s: float
) -> str:
    """One of `PLANES`, OVERLAP or MARGIN, of a time between two neighbouring edges."""
    labels = {each.label for each in intervals if each.start_s <= start_s and end_s <= each.end_s}
    if labels:
        return labels.pop() if len(labels) == 1 else OVERLAP
    is_near = any(
        each.start_s - margin_seconds <= start_s and end_s <= each.end_s + margin_seconds
        for each in intervals
        if each.label != BACKGROUND
    )
    return MARGIN if is_near else BACKGROUND
