"""Where the sonographer looks: fixations on the landmarks of a plane, jumps between them, blinks.

Fixations last 0.2 to 0.5 s and blinks 0.1 to 0.3 s, as eye-tracking of natural viewing finds (Rayner, 1998).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SAMPLING_RATE_HZ = 60
FIXATION_SECONDS = (0.2, 0.5)
BLINK_SECONDS = (0.1, 0.3)
BLINK_SHARE = 0.04  # of the jumps, those in which the eye closes
TREMOR = 0.006  # of the picture's width
MISS = 0.025
STRAY_SHARE = 0.08  # of the fixations, those that fall elsewhere


@dataclass(frozen=True)
class Gaze:
    """Samples of an eye tracker: times in seconds, places (samples, 2) as x, y in 0..1 from the top left.

    Times at which the eye is closed are left out.
    """

    times_s: np.ndarray
    places: np.ndarray


def simulate_gaze(
    duration_s: float, landmarks_at: Callable[[float], np.ndarray], rng: np.random.Generator
) -> Gaze:
    """Looks at a scan.

    Args:
        duration_s: length of the scan.
        landmarks_at: time to what is worth looking at, (landmarks, 2) as x, y in 0..1; without any, it looks
            anywhere.
        rng: settles where and for how long.
    """
    times: list[np.ndarray] = []
    places: list[np.ndarray] = []
    start_s = 0.0
    while start_s < duration_s:
        end_s = start_s + rng.uniform(*FIXATION_SECONDS)
        samples = np.arange(
            np.ceil(start_s * SAMPLING_RATE_HZ), np.ceil(min(end_s, duration_s) * SAMPLING_RATE_HZ)
        )
        which, miss, stray = rng.random(), rng.normal(0, MISS, 2), rng.random() < STRAY_SHARE
        somewhere = rng.uniform(0.3, 0.7, 2)
        times.append(samples / SAMPLING_RATE_HZ)
        followed = [_target(landmarks_at(time_s), which, stray, somewhere) for time_s in times[-1]]
        tremor = rng.normal(0, TREMOR, (len(samples), 2))
        places.append(np.array(followed).reshape(-1, 2) + miss + tremor)
        start_s = end_s
        if rng.random() < BLINK_SHARE:
            start_s += rng.uniform(*BLINK_SECONDS)
    return Gaze(np.concatenate(times), np.clip(np.concatenate(places), 0.0, 1.0))


def _target(landmarks: np.ndarray, which: float, stray: bool, somewhere: np.ndarray) -> np.ndarray:
    if stray or len(landmarks) == 0:
        return somewhere
    return landmarks[int(which * len(landmarks))]
