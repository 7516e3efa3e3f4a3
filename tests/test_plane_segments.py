"""Which class each moment belongs to: inside, outside with a margin, and where intervals disagree."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.plane_segments import label_time
from datasets_scripts.recordings import PlaneInterval
from datasets_scripts.schema import BACKGROUND


def test_background_keeps_its_distance_and_planes_do_not():
    segments, overlaps = label_time([PlaneInterval(2, 4, "femur"), PlaneInterval(4.5, 6, "lips")], 0.5)
    assert segments == [
        (0, 1.5, BACKGROUND),
        (2, 4, "femur"),
        (4.5, 6, "lips"),
        (6.5, math.inf, BACKGROUND),
    ]
    assert overlaps == 0


def test_without_intervals_all_is_background():
    assert label_time([], 0.5) == ([(0, math.inf, BACKGROUND)], 0)


def test_intervals_of_one_plane_are_joined():
    segments, overlaps = label_time([PlaneInterval(1, 3, "femur"), PlaneInterval(2, 5, "femur")], 0)
    assert segments[1] == (1, 5, "femur")
    assert overlaps == 0


def test_an_overlap_of_two_planes_is_neither_and_is_counted():
    intervals = [PlaneInterval(1, 3, "femur"), PlaneInterval(2, 5, "lips"), PlaneInterval(4.5, 6, "profile")]
    segments, overlaps = label_time(intervals, 0)
    assert segments[1:-1] == [(1, 2, "femur"), (3, 4.5, "lips"), (5, 6, "profile")]
    assert overlaps == 2


def test_labelled_background_needs_no_margin():
    intervals = [PlaneInterval(2, 4, "femur"), PlaneInterval(4, 4.2, BACKGROUND)]
    segments, _ = label_time(intervals, 1.0)
    assert segments == [(0, 1, BACKGROUND), (2, 4, "femur"), (4, 4.2, BACKGROUND), (5, math.inf, BACKGROUND)]
    assert label_time([PlaneInterval(1, 2, BACKGROUND)], 1.0).segments == [(0, math.inf, BACKGROUND)]


def test_an_interval_before_the_first_frame_is_cut_there():
    segments, _ = label_time([PlaneInterval(-2, 1, "femur"), PlaneInterval(-5, -3, "lips")], 0.5)
    assert segments == [(0, 1, "femur"), (1.5, math.inf, BACKGROUND)]


intervals = st.builds(
    lambda start, length, label: PlaneInterval(start, start + length, label),
    st.floats(-5, 30),
    st.floats(0.01, 10),
    st.sampled_from(["femur", "lips", BACKGROUND]),
)


@given(st.lists(intervals, max_size=6), st.floats(0, 2), st.floats(0, 50))
def test_every_moment_is_what_the_definition_says(given_intervals, margin_s, time_s):
    segments, _ = label_time(given_intervals, margin_s)
    assert all(before.end_s <= after.start_s for before, after in pairwise(segments))
    found = [each.label for each in segments if each.start_s < time_s < each.end_s]
    inside = {each.label for each in given_intervals if each.start_s < time_s < each.end_s}
    edges = [edge for each in given_intervals for edge in (each.start_s, each.end_s)]
    edges += [each.start_s - margin_s for each in given_intervals]
    edges += [each.end_s + margin_s for each in given_intervals]
    if not edges or np.abs(np.array(edges) - time_s).min() > 1e-6 < time_s:
        is_near = any(
            each.start_s - margin_s < time_s < each.end_s + margin_s
            for each in given_intervals
            if each.label != BACKGROUND
        )
        expected = inside if len(inside) == 1 else set() if inside or is_near else {BACKGROUND}
        assert found == list(expected) or time_s == 0
