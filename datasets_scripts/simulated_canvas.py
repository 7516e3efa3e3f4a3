"""What an anatomy is painted with: ellipses, tubes and lines in centimetres, as maps of echo strength.

Levels are decibels against liver-like tissue: fluid returns almost nothing, bone much, and bone also takes
away what lies behind it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

MAP_SIZE = 256
PIXEL_CM = 0.06

FLUID_DB = -38.0
BLOOD_DB = -32.0
BRAIN_DB = -15.0
TISSUE_DB = 0.0
BRIGHT_DB = 9.0
BONE_DB = 17.0
# Attenuation of what is painted as bone, two ways, in dB a centimetre: 20 dB/cm/MHz would leave nothing
# behind a skull, but fetal bone is thin and half-mineralised, and the pictures show what lies within.
BONE_DB_PER_CM = 55.0


@dataclass(frozen=True)
class Anatomy:
    """One plane of one patient, in coordinates of its own: centimetres from the centre of the map.

    Args:
        echo_db: echo strength, (MAP_SIZE, MAP_SIZE), rows downwards.
        attenuation_db_per_cm: what bone takes away on the way, (MAP_SIZE, MAP_SIZE).
        landmarks_cm: (landmarks, 2) x and y of what a sonographer looks at.
        beating_cm: centre x, y and radius of the part that beats; None where nothing does.
    """

    echo_db: np.ndarray
    attenuation_db_per_cm: np.ndarray
    landmarks_cm: np.ndarray
    beating_cm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Patient:
    """What one fetus keeps from plane to plane.

    Args:
        size: factor on all lengths.
        elongation: factor on the long axis of head and trunk.
        mirrored: which side is which.
        fluid: share of what surrounds the fetus that is fluid and not tissue, 0 to 1.
        heart_angle: axis of the heart against the middle of the chest, in radians.
    """

    size: float
    elongation: float
    mirrored: bool
    fluid: float
    heart_angle: float


class Canvas:
    """A map to paint on, in the coordinates of the fetus: turned and mirrored against those of the probe.

    Args:
        patient: whose sizes scale everything painted.
        rng: of this hold of the probe.
        turn_degrees: how far the fetus may lie turned, to either side.
    """

    def __init__(self, patient: Patient, rng: np.random.Generator, turn_degrees: float) -> None:
        self.patient = patient
        self.rng = rng
        axis = (np.arange(MAP_SIZE, dtype=np.float32) - (MAP_SIZE - 1) / 2) * PIXEL_CM
        x, y = np.meshgrid(axis, axis)
        angle = np.deg2rad(rng.uniform(-turn_degrees, turn_degrees))
        scale = patient.size * rng.normal(1.0, 0.04)
        side = -1.0 if patient.mirrored else 1.0
        self._to_map = scale * np.array(
            [[side * np.cos(angle), -np.sin(angle)], [side * np.sin(angle), np.cos(angle)]], dtype=np.float32
        )
        to_fetus = np.linalg.inv(self._to_map)
        self.x = to_fetus[0, 0] * x + to_fetus[0, 1] * y
        self.y = to_fetus[1, 0] * x + to_fetus[1, 1] * y
        self.echo_db = self._surroundings(x, y)
        self.bone = np.zeros_like(self.echo_db)
        self.landmarks: list[tuple[float, float]] = []
        self.heart: tuple[float, float, float] | None = None

    def vary(self, value: float, share: float = 0.1) -> float:
        """`value` as this hold of the probe has it."""
        return value * self.rng.normal(1.0, share)

    def shift(self, x: float, y: float, spread_cm: float = 0.08) -> tuple[float, float]:
        """A place near (x, y)."""
        return x + self.rng.normal(0.0, spread_cm), y + self.rng.normal(0.0, spread_cm)

    def fill(self, inside: np.ndarray, level_db: float) -> None:
        """Sets the level where `inside` is 1, and part of it where it is between 0 and 1."""
        self.echo_db += inside * (level_db - self.echo_db)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], level_db: float, degrees: float = 0.0
    ) -> None:
        """A filled ellipse."""
        distance = self._from_ellipse(centre, radii, degrees)
        self.fill(_soft(-distance), level_db)

    def rim(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        level_db: float,
        width_cm: float,
        degrees: float = 0.0,
        arc_degrees: tuple[float, float] | None = None,
        bone: float = 0.0,
    ) -> None:
        """The edge of an ellipse, or an arc of it; `bone` is how much of it casts a shadow, 0 to 1."""
        edge = _soft(width_cm / 2 - np.abs(self._from_ellipse(centre, radii, degrees)))
        if arc_degrees is not None:
            angle = np.rad2deg(np.arctan2(self.y - centre[1], self.x - centre[0]))
            middle, half = sum(arc_degrees) / 2, (arc_degrees[1] - arc_degrees[0]) / 2
            away = np.abs((angle - middle + 180) % 360 - 180)
            edge = edge * np.clip((half - away) / 6 + 0.5, 0, 1)
        self.fill(edge, level_db)
        self.bone = np.maximum(self.bone, bone * edge)

    def line(
        self,
        points: list[tuple[float, float]],
        level_db: float,
        width_cm: float,
        bone: float = 0.0,
    ) -> None:
        """A line or tube through `points`."""
        distance = np.full_like(self.x, np.inf)
        for (x0, y0), (x1, y1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0, 1)
            distance = np.minimum(distance, np.hypot(self.x - x0 - along * dx, self.y - y0 - along * dy))
        inside = _soft(width_cm / 2 - distance)
        self.fill(inside, level_db)
        self.bone = np.maximum(self.bone, bone * inside)

    def vessel(self, points: list[tuple[float, float]], width_cm: float) -> None:
        """A tube of blood with bright walls."""
        self.line(points, BRIGHT_DB - 2, width_cm + 0.12)
        self.line(points, BLOOD_DB, width_cm)

    def chamber(self, centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> None:
        """A cavity of blood."""
        self.ellipse(centre, radii, BLOOD_DB, degrees)

    def ossified(self, centre: tuple[float, float], radius_cm: float, bone: float = 1.0) -> None:
        """A spot of bone with its shadow."""
        self.line([centre, (centre[0] + 0.01, centre[1])], BONE_DB, 2 * radius_cm, bone=bone)

    def look_at(self, *places: tuple[float, float]) -> None:
        """Landmarks."""
        self.landmarks += places

    def finished(self) -> Anatomy:
        """The painted plane, with tissue's unevenness on it."""
        rough = self.rng.standard_normal(self.echo_db.shape, dtype=np.float32)
        for blur_pixels, depth_db in ((2.5, 1.8), (9.0, 1.8)):
            field = gaussian_filter(rough, blur_pixels)
            self.echo_db += depth_db / field.std() * field
        beating = None
        if self.heart is not None:
            x, y, radius = self.heart
            beating = (*map(float, self._to_map @ (x, y)), radius * self.patient.size)
        return Anatomy(
            echo_db=self.echo_db,
            attenuation_db_per_cm=BONE_DB_PER_CM * self.bone,
            landmarks_cm=np.array(self.landmarks, dtype=np.float32).reshape(-1, 2) @ self._to_map.T,
            beating_cm=beating,
        )

    def _from_ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], degrees: float
    ) -> np.ndarray:
        """About the distance from the edge of an ellipse in centimetres, negative inside."""
        angle = np.deg2rad(degrees)
        dx, dy = self.x - centre[0], self.y - centre[1]
        along = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
        return (np.hypot(along, across) - 1) * min(radii)

    def _surroundings(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Uterine wall, placenta and fluid around the fetus."""
        rng = self.rng
        field = gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), 26.0)
        height = np.argsort(np.argsort(field.ravel())).reshape(x.shape) / field.size
        tissue_db = rng.uniform(-8.0, 2.0)
        echo_db = np.full(x.shape, tissue_db, dtype=np.float32)
        fluid = np.clip((self.patient.fluid - height) * 18 + 0.5, 0, 1)
        echo_db += fluid * (FLUID_DB - echo_db)
        if rng.random() < 0.6:
            tilt, depth_cm = rng.normal(0.0, 0.2), rng.choice([-1.0, 1.0]) * rng.uniform(2.9, 4.2)
            placenta = _soft(
                np.sign(depth_cm) * (y + tilt * x - depth_cm + 0.3 * np.sin(1.1 * x + depth_cm)), 0.15
            )
            echo_db += placenta * (rng.uniform(-1.0, 4.0) - echo_db)
        return echo_db


def _soft(inside_cm: np.ndarray, edge_cm: float = 0.06) -> np.ndarray:
    """0 outside, 1 inside, with an edge of `edge_cm`."""
    return np.clip(inside_cm / edge_cm + 0.5, 0.0, 1.0).astype(np.float32)
