"""Which plane a clip shows: the one that fills most of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.recordings import PlaneInterval
from datasets_scripts.schema import BACKGROUND
from train.clip_planes import longest_plane

INTERVALS = [PlaneInterval(1.0, 5.0, "femur"), PlaneInterval(6.0, 9.0, "abdomen")]


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.0, 6.0, "femur"),
        (4.0, 10.0, "abdomen"),
        (1.0, 5.0, "femur"),
        (9.0, 15.0, BACKGROUND),
        (4.5, 6.5, BACKGROUND),
        (20.0, 26.0, BACKGROUND),
    ],
)
def test_the_plane_that_fills_most_of_the_clip(start_s: float, end_s: float, expected: str) -> None:
    assert longest_plane(INTERVALS, start_s, end_s) == expected


def test_two_visits_to_a_plane_add_up() -> None:
    visits = [PlaneInterval(0, 2, "femur"), PlaneInterval(2, 5, "lips"), PlaneInterval(5, 7, "femur")]
    assert longest_plane(visits, 0.0, 7.0) == "femur"


@given(st.floats(0, 20), st.floats(0.5, 10))
def test_no_interval_is_background(start_s: float, seconds: float) -> None:
    assert longest_plane([], start_s, start_s + seconds) == BACKGROUND
