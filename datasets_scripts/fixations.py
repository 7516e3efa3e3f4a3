"""Fixations from the samples of an eye tracker, by dispersion (I-DT) or by velocity (I-VT).

Both rules are those of Salvucci & Goldberg (2000), "Identifying fixations and saccades in eye-tracking
protocols". Samples are (samples, 3) arrays of time_s, x, y, the places in 0..1 of the picture from its top
left; fixations are (fixations, 4) arrays of start_s, end_s, x, y, the place being the mean of the samples.
Distances are in widths of the picture: y counts by the picture's aspect, its height over its width.

A fixation never goes on over a sample that is lost (NaN: a blink) or off the picture, nor over a gap in
time. Samples may come in any order; of several at one time the first counts.

All limits are times and distances, so that trackers of 30 to 1200 Hz give the same fixations, once
`away_from_blinks` and `smoothed` have made their samples alike, and `merged` has joined what a rule broke up.
"""

import numpy as np

ROUNDING_S = 1e-9
VELOCITY_WINDOW_S = 0.04  # on both sides; at 60 Hz two samples, as in Engbert & Kliegl (2003)


def fixations_by_dispersion(
    samples: np.ndarray,
    dispersion_widths: float,
    minimum_seconds: float,
    longest_gap_seconds: float,
    aspect: float = 1.0,
) -> np.ndarray:
    """I-DT: a fixation is a window that grows while (max x - min x) + (max y - min y) stays within a limit.

    Args:
        dispersion_widths: the limit, in widths of the picture.
        minimum_seconds: a window must last this long, from its first to its last sample, within the limit.
        longest_gap_seconds: samples further apart in time belong to different fixations.
        aspect: height of the picture over its width.
    """
    found = []
    for run in unbroken_runs(samples, longest_gap_seconds):
        places, start = run[:, 1:] * (1.0, aspect), 0
        covered = np.searchsorted(run[:, 0], run[:, 0] + minimum_seconds - ROUNDING_S)
        while start < len(run) and covered[start] < len(run):
            end = covered[start] + 1
            low, high = places[start:end].min(axis=0), places[start:end].max(axis=0)
            if (high - low).sum() > dispersion_widths:
                start += 1
                continue
            while end < len(run):
                low, high = np.minimum(low, places[end]), np.maximum(high, places[end])
                if (high - low).sum() > dispersion_widths:
                    break
                end += 1
            found.append(_fixation(run[start:end]))
            start = end
    return np.array(found).reshape(-1, 4)


def fixations_by_velocity(
    samples: np.ndarray,
    widths_per_second: float,
    minimum_seconds: float,
    longest_gap_seconds: float,
    aspect: float = 1.0,
) -> np.ndarray:
    """I-VT: a fixation is a stretch of samples at which the eye moves no faster than a limit.

    Args:
        widths_per_second: the limit, in widths of the picture a second; see `velocities`.
        minimum_seconds: shorter stretches, from first to last sample, are no fixations.
        longest_gap_seconds: samples further apart in time belong to different fixations.
        aspect: height of the picture over its width.
    """
    found = []
    for run in unbroken_runs(samples, longest_gap_seconds):
        is_slow = velocities(run, aspect) <= widths_per_second
        for stretch, slow in zip(*_stretches(run, is_slow), strict=True):
            if slow[0] and stretch[-1, 0] - stretch[0, 0] >= minimum_seconds - ROUNDING_S:
                found.append(_fixation(stretch))
    return np.array(found).reshape(-1, 4)


def away_from_blinks(samples: np.ndarray, longest_gap_seconds: float, margin_seconds: float) -> np.ndarray:
    """The samples at which the eye is seen and no blink is near, in the order of time.

    A blink is more than `longest_gap_seconds` without sight of the eye, be its samples lost or missing. What
    is seen shortly before and after is left out, since a lid that hides a part of the pupil passes for a
    movement of the eye: EyeLink finds a saccade around every blink, and its Data Viewer leaves out a span for
    it (SR Research, "Blinks" in its support forum); lids move for some 60 ms more than the pupil is lost
    (Nyström et al., 2024, "What is a blink?"). A shorter loss is a slip of the tracker, and ends no fixation.

    Args:
        margin_seconds: on both sides of a blink.
    """
    ordered = in_order(samples)
    seen = ordered[~is_lost(ordered)]
    times = seen[:, 0]
    before_blink = np.flatnonzero(np.diff(times) > longest_gap_seconds + ROUNDING_S)
    starts, ends = times[before_blink], times[before_blink + 1]
    to_next = np.append(starts, np.inf)[np.searchsorted(starts, times)] - times
    since_last = times - np.append(-np.inf, ends)[np.searchsorted(ends, times, side="right")]
    return seen[np.minimum(to_next, since_last) >= margin_seconds - ROUNDING_S]


def smoothed(samples: np.ndarray, window_seconds: float) -> np.ndarray:
    """Each place as the mean of those within half a window before and after.

    The range of noise grows with the number of samples: that of 360 is 1.6 times that of 18, so that a limit
    made for 60 samples a second would break up the fixations of a tracker of 1200. Samples off the picture
    stay as they are, and out of the means.

    Args:
        samples: (samples, 3), in the order of time, none lost.
        window_seconds: up to the time between two samples, nothing changes.
    """
    is_on = ~is_off_picture(samples)
    run = samples[is_on]
    first = np.searchsorted(run[:, 0], run[:, 0] - window_seconds / 2 + ROUNDING_S)
    last = np.searchsorted(run[:, 0], run[:, 0] + window_seconds / 2 - ROUNDING_S)
    result = samples.copy()
    number = np.arange(len(run))
    result[is_on, 1:] = _means(run[:, 1:], np.minimum(first, number), np.maximum(last, number + 1))
    return result


def merged(
    fixations: np.ndarray,
    samples: np.ndarray,
    longest_gap_seconds: float,
    widths_between: float,
    aspect: float = 1.0,
) -> np.ndarray:
    """Fixations, with each that follows another soon and nearby joined to it.

    A rule breaks up a fixation where the end of the movement before has used up its limit, or where noise
    goes beyond it; joining is a step of Tobii's filter (Olsen, 2012, "The Tobii I-VT fixation filter"). Where
    a sample off the picture lies between two fixations they stay apart.

    Args:
        fixations: in the order of time.
        samples: those that the fixations were found in, in the order of time.
        longest_gap_seconds: the most time between the two.
        widths_between: the most between their places, in widths of the picture.
        aspect: height of the picture over its width.
    """
    off_s = samples[is_off_picture(samples), 0]
    joined: list[np.ndarray] = []
    for fixation in fixations:
        last = joined[-1] if joined else None
        if last is not None and fixation[0] - last[1] <= longest_gap_seconds + ROUNDING_S:
            way = (fixation[2:] - last[2:]) * (1.0, aspect)
            looked_away = np.searchsorted(off_s, last[1]) < np.searchsorted(off_s, fixation[0])
            if np.hypot(*way) <= widths_between and not looked_away:
                first, end = np.searchsorted(samples[:, 0], [last[0], fixation[1] + ROUNDING_S])
                joined[-1] = np.array(_fixation(samples[first:end]))
                continue
        joined.append(fixation)
    return np.array(joined).reshape(-1, 4)


def velocities(run: np.ndarray, aspect: float) -> np.ndarray:
    """Speed of the eye at each sample, (samples,), in widths of the picture a second.

    The mean place of the samples up to 40 ms after a sample, less that of those up to 40 ms before it, over
    the time between the two means. The means take out most of the tremor and of the tracker's noise.

    Args:
        run: (samples, 3), ascending in time and without gaps.
        aspect: height of the picture over its width.
    """
    if len(run) < 2:
        return np.zeros(len(run))
    points = (run - run[0]) * (1.0, 1.0, aspect)
    times, number = points[:, 0], np.arange(len(run))
    first = np.searchsorted(times, times - VELOCITY_WINDOW_S - ROUNDING_S)
    last = np.searchsorted(times, times + VELOCITY_WINDOW_S + ROUNDING_S)
    # At least one sample on each side, however slow the tracker; at the ends of the run the sample itself.
    first = np.minimum(first, np.maximum(number - 1, 0))
    last = np.maximum(last, np.minimum(number + 2, len(run)))
    before = _means(points, first, np.maximum(number, first + 1))
    after = _means(points, np.minimum(number + 1, last - 1), last)
    way = after - before
    return np.hypot(way[:, 1], way[:, 2]) / way[:, 0]


def _means(points: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    sums = np.concatenate([np.zeros((1, points.shape[1])), np.cumsum(points, axis=0)])
    return (sums[end] - sums[first]) / (end - first)[:, None]


def unbroken_runs(samples: np.ndarray, longest_gap_seconds: float) -> list[np.ndarray]:
    """The samples in the order of time, cut where one is lost or off the picture and at every gap."""
    samples = in_order(samples)
    is_usable = ~(is_lost(samples) | is_off_picture(samples))
    after_gap = np.diff(samples[:, 0], prepend=np.inf) > longest_gap_seconds + ROUNDING_S
    broken = np.cumsum(after_gap | ~is_usable)
    runs, usable = _stretches(samples[is_usable], broken[is_usable])
    return runs if len(usable[0]) else []


def count_samples(
    samples: np.ndarray, longest_gap_seconds: float, blink_margin_seconds: float = 0.0
) -> dict[str, int]:
    """How many samples there are, how many are left out and why, and how many gaps in time there are."""
    ordered = in_order(samples)
    kept = away_from_blinks(ordered, longest_gap_seconds, blink_margin_seconds)
    return {
        "samples": len(samples),
        "samples_of_a_time_before": len(samples) - len(ordered),
        "samples_lost_to_blinks": int(is_lost(ordered).sum()),
        "samples_around_blinks": int((~is_lost(ordered)).sum()) - len(kept),
        "samples_off_the_picture": int(is_off_picture(ordered).sum()),
        "gaps_in_time": int((np.diff(ordered[:, 0]) > longest_gap_seconds + ROUNDING_S).sum()),
    }


def in_order(samples: np.ndarray) -> np.ndarray:
    """The samples in the order of time, the first of each time alone."""
    if (np.diff(samples[:, 0]) > 0).all():
        return samples
    _, first = np.unique(samples[:, 0], return_index=True)
    return samples[first]


def is_lost(samples: np.ndarray) -> np.ndarray:
    """(samples,) bool: the tracker did not see the eye, so that x or y is NaN."""
    return np.isnan(samples[:, 1:]).any(axis=1)


def is_off_picture(samples: np.ndarray) -> np.ndarray:
    """(samples,) bool: the eye was seen, and looked beside the picture."""
    places = samples[:, 1:]
    return ((places < 0) | (places > 1)).any(axis=1) & ~is_lost(samples)


def _stretches(rows: np.ndarray, marks: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """`rows` and `marks`, cut wherever the mark changes."""
    cuts = np.flatnonzero(marks[1:] != marks[:-1]) + 1
    return np.split(rows, cuts), np.split(marks, cuts)


def _fixation(samples: np.ndarray) -> tuple[float, float, float, float]:
    x, y = samples[:, 1:].mean(axis=0)
    return samples[0, 0], samples[-1, 0], x, y
