"""Fixations from gaze: the rules against known fixations, loops from the definitions, and symmetries."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_scripts import simulated_gaze
from datasets_scripts.fixations import (
    away_from_blinks,
    count_samples,
    fixations_by_dispersion,
    fixations_by_velocity,
    in_order,
    merged,
    smoothed,
    unbroken_runs,
    velocities,
)
from datasets_scripts.prepare_gaze import FIXATION_RULES, GazeParameters, find_fixations

RATE_HZ = 60
RULES = [(fixations_by_dispersion, 0.07), (fixations_by_velocity, 0.6)]
LANDMARKS = np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8], [0.3, 0.6], [0.7, 0.6]])


def looks(*places_and_seconds: tuple[float, float, float], rate_hz: float = RATE_HZ) -> np.ndarray:
    """Samples of an eye that rests at each (x, y) for so many seconds and jumps between two samples."""
    places = [np.tile((x, y), (round(seconds * rate_hz), 1)) for x, y, seconds in places_and_seconds]
    places = np.concatenate(places)
    return np.column_stack([np.arange(len(places)) / rate_hz, places])


def drawn_gaze(seed: int) -> np.ndarray:
    """Ten seconds of simulated gaze, with blinks."""
    gaze = simulated_gaze.simulate_gaze(10.0, lambda _: LANDMARKS, np.random.default_rng(seed))
    return np.column_stack([gaze.times_s, gaze.places])


# Against what is known.


@pytest.mark.parametrize("rule", FIXATION_RULES)
@pytest.mark.parametrize("speed", [0.0, 0.05])
def test_the_defaults_find_the_fixations_of_the_simulator(rule, speed, monkeypatch):
    def landmarks_at(time_s: float) -> np.ndarray:
        return LANDMARKS + speed * np.array([math.sin(time_s), math.cos(time_s)])

    gaze, calm = (
        simulated_gaze.simulate_gaze(60.0, landmarks_at, np.random.default_rng(4))
        for tremor in (simulated_gaze.TREMOR, 0.0)
        if monkeypatch.setattr(simulated_gaze, "TREMOR", tremor) is None
    )
    # Without its tremor the eye rests on what it looks at, so that its jumps and blinks can be told.
    jumps = np.abs(np.diff(calm.places, axis=0)).max(axis=1) > 0.02
    cuts = np.flatnonzero(jumps | (np.diff(calm.times_s) > 0.075)) + 1
    truth = [part for part in np.split(np.column_stack([calm.times_s, calm.places]), cuts) if len(part) > 7]
    found = find_fixations(
        np.column_stack([gaze.times_s, gaze.places]), 1.0, GazeParameters(fixation_rule=rule)
    )
    assert len(found) == pytest.approx(len(truth), rel=0.06)
    hits = 0
    for part in truth:
        middle_s, place = part[:, 0].mean(), part[:, 1:].mean(axis=0)
        at = found[(found[:, 0] <= middle_s) & (middle_s <= found[:, 1])]
        hits += len(at) == 1 and np.hypot(*(at[0, 2:] - place)) < 0.02
    assert hits >= 0.97 * len(truth)


@pytest.mark.parametrize(("rule", "limit"), RULES)
def test_two_places_are_two_fixations(rule, limit):
    found = rule(looks((0.2, 0.3, 0.5), (0.7, 0.6, 0.3)), limit, 0.1, 0.075)
    np.testing.assert_allclose(found[:, 2:], [[0.2, 0.3], [0.7, 0.6]], atol=1e-9)
    # The velocity rule loses up to three samples at the jump.
    np.testing.assert_allclose(found[:, :2], [[0, 29 / 60], [30 / 60, 47 / 60]], atol=3.01 / 60)


def test_dispersion_takes_each_window_to_its_end():
    found = fixations_by_dispersion(looks((0.2, 0.3, 0.5), (0.7, 0.6, 0.3)), 0.07, 0.1, 0.075)
    np.testing.assert_allclose(found[:, :2], [[0, 29 / 60], [30 / 60, 47 / 60]], atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.01, 0.3), st.floats(0.5, 2.0))
@settings(max_examples=25, deadline=None)
def test_dispersion_is_the_loop_of_the_paper(seed, limit, aspect):
    samples = drawn_gaze(seed)[:120]
    expected = []
    for run in unbroken_runs(samples, 0.075):
        points = [tuple(point) for point in run]
        while points:
            window = [p for p in points if p[0] - points[0][0] < 0.1 - 1e-9]
            window = points[: len(window) + 1]
            if window[-1][0] - window[0][0] < 0.1 - 1e-9:
                break
            if spread(window, aspect) > limit:
                points = points[1:]
                continue
            while len(window) < len(points) and spread(points[: len(window) + 1], aspect) <= limit:
                window = points[: len(window) + 1]
            middle = [sum(p[axis] for p in window) / len(window) for axis in (1, 2)]
            expected.append([window[0][0], window[-1][0], *middle])
            points = points[len(window) :]
    found = fixations_by_dispersion(samples, limit, 0.1, 0.075, aspect)
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 4), atol=1e-9)


def spread(points: list[tuple[float, ...]], aspect: float) -> float:
    x, y = [p[1] for p in points], [p[2] for p in points]
    return max(x) - min(x) + (max(y) - min(y)) * aspect


@given(st.integers(0, 10**6), st.floats(5, 1000), st.floats(0.5, 2.0))
@settings(max_examples=25, deadline=None)
def test_velocities_are_the_loop_of_their_definition(seed, rate_hz, aspect):
    chance = np.random.default_rng(seed)
    run = np.column_stack([np.cumsum(chance.uniform(0.5, 1.5, 40)) / rate_hz, chance.uniform(size=(40, 2))])
    expected = []
    for i, (time_s, _, _) in enumerate(run):
        before = [p for p in run[:i] if p[0] >= time_s - 0.04] or [run[max(i - 1, 0)]]
        after = [p for p in run[i + 1 :] if p[0] <= time_s + 0.04] or [run[min(i + 1, 39)]]
        (t0, x0, y0), (t1, x1, y1) = np.mean(before, axis=0), np.mean(after, axis=0)
        expected.append(math.hypot(x1 - x0, (y1 - y0) * aspect) / (t1 - t0))
    np.testing.assert_allclose(velocities(run, aspect), expected, rtol=1e-9)


def test_a_steady_movement_has_its_velocity():
    times = np.arange(30) / RATE_HZ
    run = np.column_stack([times, 0.3 * times, 0.4 * times])
    np.testing.assert_allclose(velocities(run, 1.0), 0.5)
    np.testing.assert_allclose(velocities(run, 0.5), math.hypot(0.3, 0.2))


# Trackers of 30 to 1200 Hz.


SACCADE_S, BLINK_S = 0.03, 0.15


def known_looks(chance: np.random.Generator, number: int = 25) -> np.ndarray:
    """(fixations, 4) of start_s, end_s, x, y: 0.4 to 0.7 s each, at least 0.15 widths from the last."""
    found = [[0.0, 0.5, 0.5, 0.5]]
    while len(found) < number:
        place = chance.uniform(0.1, 0.9, 2)
        if np.hypot(*(place - found[-1][2:])) > 0.15:
            start_s = found[-1][1] + (BLINK_S if len(found) % 6 == 0 else SACCADE_S)
            found.append([start_s, start_s + chance.uniform(0.4, 0.7), *place])
    return np.array(found)


def sampled(truth: np.ndarray, rate_hz: float, chance: np.random.Generator) -> np.ndarray:
    """What a tracker of a rate gives of looks: jitter in time, noise, saccades, blinks, lost samples.

    Around a blink the place falls by a tenth of the picture as the lid does, and the blink is lost.
    """
    times = np.arange(int(truth[-1, 1] * rate_hz)) / rate_hz
    number = np.searchsorted(truth[:, 0], times, side="right") - 1
    here, after = truth[number], truth[np.minimum(number + 1, len(truth) - 1)]
    way = np.clip((times - here[:, 1]) / SACCADE_S, 0, 1)[:, None]
    places = here[:, 2:] + way * (after[:, 2:] - here[:, 2:]) + chance.normal(0, 0.004, (len(times), 2))
    for blink in range(5, len(truth) - 1, 6):
        start_s, end_s = truth[blink, 1], truth[blink + 1, 0]
        lid = np.minimum(np.abs(times - start_s), np.abs(times - end_s))
        places[:, 1] += 0.1 * (1 - np.minimum(lid / 0.06, 1))
        places[(times >= start_s) & (times < end_s)] = np.nan
    # One in fifty is lost, never two in a row: at 30 Hz that would be a blink.
    places[50 * np.arange(len(times) // 50) + chance.integers(0, 49, len(times) // 50)] = np.nan
    return np.column_stack([times + chance.uniform(-0.1, 0.1, len(times)) / rate_hz, places])


@pytest.mark.parametrize("rule", FIXATION_RULES)
@pytest.mark.parametrize("rate_hz", [30, 60, 120, 250, 500, 1000, 1200])
@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_a_tracker_of_any_rate_gives_the_same_fixations(rule, rate_hz, seed):
    chance = np.random.default_rng(seed)
    truth = known_looks(chance)
    samples = chance.permutation(sampled(truth, rate_hz, chance))
    found = find_fixations(samples, 1.0, GazeParameters(fixation_rule=rule))
    margin_s = GazeParameters().blink_margin_seconds
    assert len(found) == len(truth)
    np.testing.assert_allclose(found[:, 2:], truth[:, 2:], atol=0.012)
    cut = np.zeros((len(truth), 2))
    cut[5:-1:6, 1], cut[6::6, 0] = -margin_s, margin_s
    # Velocities are means over 40 ms; what noise splits off at an end, too short for a fixation, is lost.
    rule_s = 0.045 if rule == "velocity" else 0.1
    np.testing.assert_allclose(found[:, :2], truth[:, :2] + cut, atol=rule_s + 3 / rate_hz)
    assert np.median(np.abs(found[:, :2] - truth[:, :2] - cut)) < 0.04 + 0.5 / rate_hz


@pytest.mark.parametrize(("rate_hz", "pieces"), [(60, 1), (1200, 2)])
def test_without_means_the_noise_of_a_fast_tracker_breaks_fixations_up(rate_hz, pieces):
    samples = looks((0.4, 0.5, 1.0), rate_hz=rate_hz)
    samples[:, 1:] += np.random.default_rng(0).normal(0, 0.006, samples[:, 1:].shape)
    assert len(fixations_by_dispersion(samples, 0.07, 0.1, 0.075)) >= pieces
    assert len(fixations_by_dispersion(smoothed(samples, 0.02), 0.07, 0.1, 0.075)) == 1
    assert len(find_fixations(samples, 1.0, GazeParameters(merge_widths=0.0))) == 1


def test_fixations_that_follow_soon_and_nearby_are_one():
    samples = looks((0.4, 0.5, 0.3), (0.42, 0.5, 0.3), (0.6, 0.5, 0.3), (0.6, 0.54, 0.3))
    apart = np.array([[0, 17, 0.4, 0.5], [18, 35, 0.42, 0.5], [36, 53, 0.6, 0.5], [54, 71, 0.6, 0.54]])
    apart = apart / (60, 60, 1, 1)
    joined = merged(apart, samples, 0.075, 0.025)
    np.testing.assert_allclose(joined[:, :2] * 60, [[0, 35], [36, 53], [54, 71]])
    np.testing.assert_allclose(joined[0, 2:], [0.41, 0.5])
    # By the aspect, in time, and not across a look beside the picture.
    assert len(merged(apart, samples, 0.075, 0.025, aspect=0.5)) == 2
    assert len(merged(apart, samples, 0.015, 0.025)) == 4
    samples[17, 0] += 0.001
    samples[17, 1] = 1.2
    apart[0, 1] -= 1 / 60
    assert len(merged(apart, samples, 0.075, 0.025)) == 4
    assert merged(apart[:0], samples, 0.075, 0.025).shape == (0, 4)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.1]), st.sampled_from([0.05, 0.075]))
@settings(max_examples=30, deadline=None)
def test_what_is_away_from_blinks_is_the_loop_of_its_definition(seed, margin_s, gap_s):
    chance = np.random.default_rng(seed)
    samples = drawn_gaze(seed)[:200]
    samples[chance.random(len(samples)) < 0.3, 1:] = np.nan
    seen = [sample for sample in samples.tolist() if not math.isnan(sample[1])]
    blinks = [(a[0], b[0]) for a, b in pairwise(seen) if b[0] - a[0] > gap_s + 1e-9]
    expected = [
        sample
        for sample in seen
        if not any(start - margin_s + 1e-9 < sample[0] < end + margin_s - 1e-9 for start, end in blinks)
        or margin_s == 0
    ]
    found = away_from_blinks(chance.permutation(samples), gap_s, margin_s)
    np.testing.assert_array_equal(found, np.array(expected).reshape(-1, 3))
    counted = count_samples(samples, gap_s, margin_s)
    assert counted["samples_around_blinks"] == len(seen) - len(expected)


def test_a_short_loss_ends_no_fixation_and_a_blink_does():
    samples = looks((0.4, 0.5, 1.0))
    samples[30, 1:] = np.nan
    assert len(find_fixations(samples, 1.0, GazeParameters())) == 1
    samples[30:40, 1:] = np.nan
    found = find_fixations(samples, 1.0, GazeParameters())
    np.testing.assert_allclose(found[:, :2], [[0, 23 / 60], [46 / 60, 59 / 60]])


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.01, 0.05, 0.2]))
@settings(max_examples=25, deadline=None)
def test_smoothed_is_the_loop_of_its_definition(seed, window_s):
    samples = in_order(drawn_gaze(seed)[:120])
    chance = np.random.default_rng(seed)
    samples[:, 0] += chance.uniform(-0.004, 0.004, len(samples))
    samples[chance.random(len(samples)) < 0.05, 2] = 1.2
    expected = samples.copy()
    for row, (time_s, _, y) in enumerate(samples):
        if y <= 1:
            near = [s for s in samples if abs(s[0] - time_s) < window_s / 2 and s[2] <= 1] or [samples[row]]
            expected[row, 1:] = np.mean(near, axis=0)[1:]
    np.testing.assert_allclose(smoothed(samples, window_s), expected, atol=1e-9)
    assert smoothed(samples[:0], window_s).shape == (0, 3)


# What ends a fixation.


@pytest.mark.parametrize(("rule", "limit"), RULES)
@pytest.mark.parametrize("place", [(np.nan, np.nan), (0.4, np.nan), (1.0001, 0.5), (0.5, -0.0001)])
def test_a_lost_sample_or_one_off_the_picture_ends_a_fixation(rule, limit, place):
    samples = looks((0.4, 0.5, 1.0))
    samples[30, 1:] = place
    found = rule(samples, limit, 0.1, 0.075)
    np.testing.assert_allclose(found, [[0, 29 / 60, 0.4, 0.5], [31 / 60, 59 / 60, 0.4, 0.5]])
    counted = count_samples(samples, 0.075)
    is_blink = math.isnan(sum(place))
    assert (counted["samples_lost_to_blinks"], counted["samples_off_the_picture"]) == (is_blink, not is_blink)


@pytest.mark.parametrize(("rule", "limit"), RULES)
@pytest.mark.parametrize(("gap_s", "fixations"), [(0.07, 1), (0.075, 1), (0.08, 2)])
def test_a_gap_longer_than_the_limit_ends_a_fixation(rule, limit, gap_s, fixations):
    samples = looks((0.4, 0.5, 1.0))
    samples[30:, 0] += gap_s - 1 / RATE_HZ
    assert len(rule(samples, limit, 0.1, 0.075)) == fixations
    assert count_samples(samples, 0.075)["gaps_in_time"] == fixations - 1


@pytest.mark.parametrize(("rule", "limit"), RULES)
@pytest.mark.parametrize(("number", "fixations"), [(6, 0), (7, 1)])
def test_a_fixation_lasts_from_its_first_to_its_last_sample(rule, limit, number, fixations):
    samples = looks((0.4, 0.5, number / RATE_HZ))
    for start in range(50):
        later = np.column_stack([(start + np.arange(number)) / RATE_HZ, samples[:, 1:]])
        assert len(rule(later, limit, 0.1, 0.075)) == fixations


@pytest.mark.parametrize(("rule", "limit"), RULES)
def test_distances_count_by_the_aspect_of_the_picture(rule, limit):
    steps = looks((0.5, 0.40, 0.5), (0.5, 0.46, 0.5))
    assert [len(rule(steps, limit / 2, 0.1, 0.075, aspect)) for aspect in (1.0, 0.2)] == [2, 1]


@pytest.mark.parametrize(("rule", "limit"), RULES)
def test_no_samples_are_no_fixations(rule, limit):
    for samples in (np.zeros((0, 3)), np.array([[0.0, 0.5, 0.5]]), np.full((3, 3), [[0.0], [1.0], [2.0]])):
        assert rule(samples, limit, 0.1, 0.075).shape == (0, 4)
    lost = looks((np.nan, np.nan, 1.0))
    assert rule(lost, limit, 0.1, 0.075).shape == (0, 4)
    assert count_samples(lost, 0.075)["samples_lost_to_blinks"] == len(lost)
    assert set(count_samples(np.zeros((0, 3)), 0.075).values()) == {0}


# Symmetries.


@given(st.integers(0, 10**6), st.sampled_from(RULES), st.floats(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_shift_in_time_shifts_the_fixations(seed, rule, shift_s):
    find, limit = rule
    samples = drawn_gaze(seed)
    expected = find(samples, limit, 0.1, 0.075)
    expected[:, :2] += shift_s
    samples[:, 0] += shift_s
    np.testing.assert_allclose(find(samples, limit, 0.1, 0.075), expected, atol=1e-8)


@given(st.integers(0, 10**6), st.sampled_from(RULES))
@settings(max_examples=25, deadline=None)
def test_a_mirrored_or_turned_picture_mirrors_or_turns_the_fixations(seed, rule):
    find, limit = rule
    samples = drawn_gaze(seed)
    found = find(samples, limit, 0.1, 0.075)
    mirrored = find(samples * (1, -1, 1) + (0, 1, 0), limit, 0.1, 0.075)
    np.testing.assert_allclose(mirrored, found * (1, 1, -1, 1) + (0, 0, 1, 0), atol=1e-8)
    turned = find(samples[:, [0, 2, 1]], limit, 0.1, 0.075)
    np.testing.assert_allclose(turned, found[:, [0, 1, 3, 2]], atol=1e-8)


@given(st.integers(0, 10**6), st.sampled_from(RULES))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_samples_and_repeated_ones_do_not_matter(seed, rule):
    find, limit = rule
    samples = drawn_gaze(seed)
    expected = find(samples, limit, 0.1, 0.075)
    chance = np.random.default_rng(seed)
    repeated = np.concatenate([samples, samples[chance.integers(0, len(samples), 20)]])
    np.testing.assert_array_equal(find(chance.permutation(repeated), limit, 0.1, 0.075), expected)
    counted = count_samples(repeated, 0.075)
    assert counted["samples"] == len(samples) + 20
    assert counted["samples_of_a_time_before"] == 20


@given(st.integers(0, 10**6), st.sampled_from(RULES))
@settings(max_examples=25, deadline=None)
def test_fixations_follow_each_other_and_lie_among_the_samples(seed, rule):
    find, limit = rule
    samples = drawn_gaze(seed)
    found = find(samples, limit, 0.1, 0.075)
    assert (found[:, 1] - found[:, 0] >= 0.1 - 1e-9).all()
    assert (found[1:, 0] > found[:-1, 1]).all()
    assert np.isin(found[:, :2], samples[:, 0]).all()
    for start_s, end_s, x, y in found:
        inside = samples[(samples[:, 0] >= start_s) & (samples[:, 0] <= end_s)]
        np.testing.assert_allclose(inside[:, 1:].mean(axis=0), [x, y])
