"""How the probe moves: it nears a plane, holds it with an unsteady hand, and leaves for the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .schema import BACKGROUND
from .simulated_anatomy import ZOOM, draw_anatomy
from .simulated_canvas import Patient
from .simulated_ultrasound import Pose, Tissue, with_scatterers
from .simulated_visits import Visit

CHANGE_SECONDS = 0.5  # in which one plane goes over into the next
HAND_CM, HAND_RADIANS = 0.10, 0.035
APPROACH_CM, APPROACH_RADIANS = 1.0, 0.4
HEART_BEATS_HZ = (2.2, 2.6)  # 132 to 156 beats a minute


@dataclass(frozen=True)
class Hold:
    """A plane, or what lies between two, for as long as it is under the probe.

    Args:
        start_s, end_s, label: as of a visit.
        tissue: what lies there.
        zoom: of the picture.
        leaving: how far off this plane the probe is before and after it is held: x, y in cm, turn in radians.
    """

    start_s: float
    end_s: float
    label: str
    tissue: Tissue
    zoom: float
    leaving: np.ndarray


@dataclass(frozen=True)
class Wander:
    """The unsteadiness of hand and fetus: slow oscillations of x, y and turn."""

    rates_hz: np.ndarray
    phases: np.ndarray
    sizes: np.ndarray

    def at(self, time_s: float) -> np.ndarray:
        """x and y in cm, turn in radians."""
        return (self.sizes * np.sin(2 * np.pi * self.rates_hz * time_s + self.phases)).sum(axis=1)


def draw_wander(rng: np.random.Generator) -> Wander:
    """One sonographer's hand."""
    shape = (3, 3)
    sizes = rng.rayleigh(0.7, shape) * np.array([[HAND_CM], [HAND_CM], [HAND_RADIANS]])
    return Wander(rng.uniform(0.15, 0.9, shape), rng.uniform(0, 2 * np.pi, shape), sizes)


def holds_of(
    visits: Sequence[Visit], duration_s: float, patient: Patient, rng: np.random.Generator
) -> list[Hold]:
    """Everything under the probe from 0 to `duration_s`: the visits, and background between them."""
    holds: list[Hold] = []
    time_s = 0.0
    for visit in [*visits, Visit(duration_s, duration_s, BACKGROUND)]:
        if visit.start_s > time_s:
            holds.append(_hold(Visit(time_s, visit.start_s, BACKGROUND), patient, rng))
        if visit.end_s > visit.start_s:
            holds.append(_hold(visit, patient, rng))
        time_s = visit.end_s
    return holds


def _hold(visit: Visit, patient: Patient, rng: np.random.Generator) -> Hold:
    tissue = with_scatterers(draw_anatomy(visit.label, patient, rng), rng)
    leaving = rng.normal(0, 1, 3) * (APPROACH_CM, APPROACH_CM, APPROACH_RADIANS)
    zoom = ZOOM[visit.label] * rng.normal(1, 0.05)
    return Hold(visit.start_s, visit.end_s, visit.label, tissue, zoom, leaving)


class ProbePath:
    """Where the probe is at any time of a scan.

    Args:
        holds: what is under the probe, without gaps.
        rng: of the hand and the heart rate.
    """

    def __init__(self, holds: Sequence[Hold], rng: np.random.Generator) -> None:
        self.holds = holds
        self.wander = draw_wander(rng)
        self.heart_rate_hz = rng.uniform(*HEART_BEATS_HZ)
        self._starts = np.array([hold.start_s for hold in holds])

    def at(self, time_s: float) -> tuple[Hold, Pose, Hold, float]:
        """The hold, the pose, and the neighbouring hold with the share that the beam takes in of it.

        Near the border of a plane with background the two mix, on the side of the background alone, so that a
        plane is itself for as long as it is held.
        """
        index = max(0, int(np.searchsorted(self._starts, time_s, side="right")) - 1)
        hold = self.holds[index]
        other, away_s = self._nearest(index, time_s)
        share = 0.0
        if hold.label == BACKGROUND and other is not hold:
            share = 1 - _smooth(away_s / CHANGE_SECONDS)
        zoom = (1 - share) * hold.zoom + share * other.zoom
        offset = self.wander.at(time_s) + self._approach(index, time_s)
        beat = float(np.sin(2 * np.pi * self.heart_rate_hz * time_s))
        return hold, Pose(float(offset[0]), float(offset[1]), float(offset[2]), zoom, beat), other, share

    def _nearest(self, index: int, time_s: float) -> tuple[Hold, float]:
        """The neighbour whose border is nearest, and how far that is."""
        hold = self.holds[index]
        before_s, after_s = time_s - hold.start_s, hold.end_s - time_s
        if index > 0 and (before_s <= after_s or index == len(self.holds) - 1):
            return self.holds[index - 1], before_s
        if index + 1 < len(self.holds):
            return self.holds[index + 1], after_s
        return hold, np.inf

    def _approach(self, index: int, time_s: float) -> np.ndarray:
        """The way gone from the plane that was left, going over into the way still to go to the next."""
        hold = self.holds[index]
        if hold.label != BACKGROUND:
            return np.zeros(3)
        done = _smooth((time_s - hold.start_s) / (hold.end_s - hold.start_s))
        left = self.holds[index - 1].leaving if index > 0 else np.zeros(3)
        sought = self.holds[index + 1].leaving if index + 1 < len(self.holds) else np.zeros(3)
        gone = _smooth((time_s - hold.start_s) / (2 * CHANGE_SECONDS))
        to_go = _smooth((hold.end_s - time_s) / (2 * CHANGE_SECONDS))
        return (1 - done) * gone * left + done * to_go * sought


def _smooth(share: float) -> float:
    """0 to 1 without a jerk."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)
