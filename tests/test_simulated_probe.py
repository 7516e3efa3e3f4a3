"""The way of the probe over the planes of a scan."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from datasets_scripts.schema import BACKGROUND
from datasets_scripts.simulated_anatomy import draw_patient
from datasets_scripts.simulated_probe import (
    APPROACH_CM,
    CHANGE_SECONDS,
    HEART_BEATS_HZ,
    Hold,
    ProbePath,
    draw_wander,
    holds_of,
)
from datasets_scripts.simulated_visits import Visit

DURATION_S = 14.0
VISITS = [Visit(1.5, 5.0, "femur"), Visit(7.5, 11.0, "heart_four_chamber")]


@pytest.fixture(scope="module")
def holds() -> list[Hold]:
    patient = draw_patient(np.random.default_rng(0))
    return holds_of(VISITS, DURATION_S, patient, np.random.default_rng(1))


@pytest.fixture(scope="module")
def path(holds) -> ProbePath:
    return ProbePath(holds, np.random.default_rng(2))


def inside(visit: Visit) -> np.ndarray:
    return np.linspace(visit.start_s, visit.end_s - 1e-6, 25)


def away_from_hand(path: ProbePath, time_s: float) -> np.ndarray:
    """How far the probe is from the plane, but for the unsteady hand."""
    pose = path.at(time_s)[1]
    return np.array([pose.x_cm, pose.y_cm, pose.turn]) - path.wander.at(time_s)


def test_something_is_under_the_probe_all_the_time(holds):
    assert (holds[0].start_s, holds[-1].end_s) == (0.0, DURATION_S)
    assert all(earlier.end_s == later.start_s for earlier, later in pairwise(holds))
    assert [hold.label for hold in holds] == [
        label for visit in VISITS for label in (BACKGROUND, visit.label)
    ] + [BACKGROUND]
    assert [Visit(hold.start_s, hold.end_s, hold.label) for hold in holds[1::2]] == VISITS


@pytest.mark.parametrize(
    ("visits", "labels"),
    [
        ([], [BACKGROUND]),
        ([Visit(0.0, 2.0, "lips")], ["lips", BACKGROUND]),
        ([Visit(1.0, 3.0, "lips")], [BACKGROUND, "lips"]),
    ],
)
def test_scans_that_begin_or_end_with_a_plane_or_hold_none(visits, labels):
    holds = holds_of(visits, 3.0, draw_patient(np.random.default_rng(0)), np.random.default_rng(1))
    assert [hold.label for hold in holds] == labels
    assert (holds[0].start_s, holds[-1].end_s) == (0.0, 3.0)
    path = ProbePath(holds, np.random.default_rng(2))
    for time_s in (0.0, 1.7, 3.0):
        hold, _, _, share = path.at(time_s)
        assert hold.start_s <= time_s <= hold.end_s
        assert 0 <= share <= 1


def test_a_plane_is_itself_for_as_long_as_it_is_held(path):
    for visit in VISITS:
        for time_s in inside(visit):
            hold, pose, _, share = path.at(time_s)
            assert (hold.label, share) == (visit.label, 0.0)
            assert pose.zoom == hold.zoom
            np.testing.assert_allclose(away_from_hand(path, time_s), 0, atol=1e-12)


def test_background_goes_over_into_the_plane_without_a_jump(path):
    for visit in VISITS:
        for border_s, side in ((visit.start_s, -1), (visit.end_s, 1)):
            there = path.at(border_s + side * 1e-6)
            plane = path.at(border_s - side * 1e-6)
            assert (there[0].label, there[2].label) == (BACKGROUND, visit.label)
            assert there[3] == pytest.approx(1.0, abs=1e-6)
            np.testing.assert_allclose(
                [there[1].x_cm, there[1].y_cm, there[1].turn, there[1].zoom, there[1].beat],
                [plane[1].x_cm, plane[1].y_cm, plane[1].turn, plane[1].zoom, plane[1].beat],
                atol=1e-4,
            )
            shares = [
                path.at(border_s + side * away_s)[3] for away_s in np.linspace(1e-6, CHANGE_SECONDS, 20)
            ]
            assert shares == sorted(shares, reverse=True)
            assert path.at(border_s + side * CHANGE_SECONDS * 1.001)[3] == 0


def test_the_probe_nears_a_plane_and_leaves_it(path):
    for visit in VISITS:
        for border_s, side in ((visit.start_s, -1), (visit.end_s, 1)):
            distances = [
                np.linalg.norm(away_from_hand(path, border_s + side * away_s)[:2])
                for away_s in np.linspace(0.01, 0.3, 12)
            ]
            assert distances == sorted(distances)
            assert distances[0] < 0.01 * APPROACH_CM


def test_the_probe_moves_without_a_jump_from_plane_to_plane(path):
    places = np.array([away_from_hand(path, time_s) for time_s in np.arange(0, DURATION_S, 0.01)])
    assert np.abs(places[:, :2]).max() > 0.3 * APPROACH_CM
    assert np.abs(np.diff(places, axis=0)).max() < 0.06  # cm or radians in a hundredth of a second


def test_the_hand_is_unsteady_by_millimetres():
    times_s = np.linspace(0, 60, 600)
    offsets = np.array(
        [[draw_wander(np.random.default_rng(seed)).at(t) for t in times_s] for seed in range(20)]
    )
    spread = offsets.std(axis=(0, 1))
    assert np.all(spread[:2] > 0.05) and np.all(spread[:2] < 0.3)
    assert np.deg2rad(1) < spread[2] < np.deg2rad(6)
    assert np.abs(np.diff(offsets, axis=1)).max() < 0.3  # cm in a tenth of a second


def test_the_heart_beats_at_a_fetal_rate(holds):
    for seed in range(5):
        path = ProbePath(holds, np.random.default_rng(seed))
        times_s = np.arange(0, DURATION_S, 1 / 120)
        beats = np.array([path.at(time_s)[1].beat for time_s in times_s])
        rises = np.count_nonzero((beats[:-1] < 0) & (beats[1:] >= 0))
        assert HEART_BEATS_HZ[0] * DURATION_S - 1 <= rises <= HEART_BEATS_HZ[1] * DURATION_S + 1
        assert (beats.min(), beats.max()) == pytest.approx((-1, 1), abs=0.01)


def test_two_holds_of_one_plane_differ_and_the_zoom_of_a_plane_is_kept_about(holds):
    again = holds_of(
        [Visit(1.5, 5.0, "femur")], 6.0, draw_patient(np.random.default_rng(0)), np.random.default_rng(7)
    )
    one, other = holds[1], again[1]
    assert np.abs(one.tissue.anatomy.echo_db - other.tissue.anatomy.echo_db).mean() > 1.0
    assert one.zoom != other.zoom
    assert other.zoom == pytest.approx(1.0, abs=0.25)


def test_a_path_over_a_changed_hold_keeps_hand_and_heart(holds):
    other = ProbePath([replace(hold, zoom=2.0) for hold in holds], np.random.default_rng(2))
    path = ProbePath(holds, np.random.default_rng(2))
    assert other.heart_rate_hz == path.heart_rate_hz
    np.testing.assert_array_equal(other.wander.at(3.0), path.wander.at(3.0))
    assert other.at(3.0)[1].zoom == 2.0
