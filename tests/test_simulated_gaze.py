"""Simulated gaze: fixations, dwells on landmarks, blinks."""

from itertools import pairwise

import numpy as np
import pytest

from datasets_scripts import simulated_gaze
from datasets_scripts.simulated_gaze import (
    BLINK_SECONDS,
    BLINK_SHARE,
    FIXATION_SECONDS,
    SAMPLING_RATE_HZ,
    STRAY_SHARE,
    Gaze,
    simulate_gaze,
)

SAMPLE_SECONDS = 1 / SAMPLING_RATE_HZ
LANDMARKS = np.array([[0.1, 0.15], [0.9, 0.1], [0.15, 0.9]])  # away from where strays fall, 0.3 to 0.7


def still(_: float) -> np.ndarray:
    return LANDMARKS


def simulated(duration_s: float, landmarks_at=still, seed: int = 0) -> Gaze:
    return simulate_gaze(duration_s, landmarks_at, np.random.default_rng(seed))


def fixations(gaze: Gaze) -> list[np.ndarray]:
    """The samples of each fixation, which stay in one place where nothing moves and the eye has no tremor."""
    jumps = np.flatnonzero(np.any(np.diff(gaze.places, axis=0) != 0, axis=1)) + 1
    return np.split(np.arange(len(gaze.times_s)), jumps)


@pytest.fixture(scope="module")
def steady() -> Gaze:
    """Ten minutes of an eye without tremor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_gaze, "TREMOR", 0.0)
        return simulated(600.0)


@pytest.mark.parametrize("duration_s", [0.01, 3.7, 60.0])
def test_samples_lie_on_the_tracker_s_clock_inside_the_scan(duration_s):
    gaze = simulated(duration_s)
    assert gaze.places.shape == (len(gaze.times_s), 2)
    ticks = gaze.times_s * 60
    np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-6)
    assert np.all(np.diff(gaze.times_s) > 0)
    assert np.all((gaze.times_s >= 0) & (gaze.times_s < duration_s))
    assert len(gaze.times_s) > 0.9 * duration_s * SAMPLING_RATE_HZ


def test_fixations_last_as_long_as_they_should(steady):
    seconds = [len(samples) * SAMPLE_SECONDS for samples in fixations(steady)[:-1]]
    assert FIXATION_SECONDS[0] - SAMPLE_SECONDS < min(seconds) < FIXATION_SECONDS[0] + 0.03
    assert FIXATION_SECONDS[1] - 0.03 < max(seconds) < FIXATION_SECONDS[1] + SAMPLE_SECONDS
    assert np.mean(seconds) == pytest.approx(np.mean(FIXATION_SECONDS), abs=0.01)


def test_fixations_dwell_on_every_landmark_alike_but_for_some_strays(steady):
    places = np.array([steady.places[samples[0]] for samples in fixations(steady)])
    distances = np.linalg.norm(places[:, None] - LANDMARKS, axis=2)
    near = distances.min(axis=1) < 0.12
    assert 1 - near.mean() == pytest.approx(STRAY_SHARE, abs=0.025)
    shares = np.bincount(distances[near].argmin(axis=1)) / near.sum()
    np.testing.assert_allclose(shares, 1 / len(LANDMARKS), atol=0.04)
    assert np.all(np.abs(places[~near] - 0.5) < 0.2 + 0.12)


def test_blinks_leave_gaps_between_fixations(steady):
    gaps = np.diff(steady.times_s)
    blinks = gaps[gaps > 1.5 * SAMPLE_SECONDS]
    assert np.allclose(gaps[gaps <= 1.5 * SAMPLE_SECONDS], SAMPLE_SECONDS)
    assert BLINK_SECONDS[0] <= blinks.min() < blinks.max() <= BLINK_SECONDS[1] + 2 * SAMPLE_SECONDS
    assert len(blinks) / len(fixations(steady)) == pytest.approx(BLINK_SHARE, abs=0.015)
    starts = {int(samples[0]) for samples in fixations(steady)}
    assert starts.issuperset((np.flatnonzero(gaps > 1.5 * SAMPLE_SECONDS) + 1).tolist())


def test_the_eye_follows_a_landmark_that_moves(monkeypatch):
    monkeypatch.setattr(simulated_gaze, "TREMOR", 0.0)
    monkeypatch.setattr(simulated_gaze, "STRAY_SHARE", 0.0)

    def moving(time_s: float) -> np.ndarray:
        return np.array([[0.3 + 0.1 * np.sin(3 * time_s), 0.5 + 0.1 * np.cos(2 * time_s)]])

    gaze = simulated(20.0, moving)
    off = gaze.places - np.concatenate([moving(time_s) for time_s in gaze.times_s])
    steps = np.linalg.norm(np.diff(off, axis=0), axis=1)
    assert np.mean(steps < 1e-9) > 0.9  # all but the jumps from one fixation to the next
    assert np.abs(off).max() < 5 * simulated_gaze.MISS


def test_an_eye_trembles():
    gaze = simulated(60.0)
    steps = [np.abs(later - earlier).max() for earlier, later in pairwise(gaze.places)]
    assert np.median(steps) == pytest.approx(1.5 * simulated_gaze.TREMOR, rel=0.4)


@pytest.mark.parametrize("landmarks", [np.zeros((0, 2)), np.array([[-3.0, 2.0]]), np.array([[0.0, 1.0]])])
def test_gaze_stays_on_the_screen(landmarks):
    gaze = simulated(30.0, lambda _: landmarks)
    assert np.all((gaze.places >= 0) & (gaze.places <= 1))


def test_the_generator_settles_the_gaze():
    first, again, other = (simulated(5.0, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.places, again.places)
    np.testing.assert_array_equal(first.times_s, again.times_s)
    assert not np.array_equal(first.places[:100], other.places[:100])
