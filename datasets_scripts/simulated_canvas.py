"""What an anatomy is painted with: ellipses, tubes and lines in centimetres, as maps of echo strength.

Levels are decibels against liver-like tissue: fluid returns almost nothing, bone much, and bone also takes
away what lies behind it, while behind fluid everything is brighter.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

MAP_SIZE = 256
PIXEL_CM = 0.053

FLUID_DB = -38.0
BLOOD_DB = -32.0
BRAIN_DB = -15.0
TISSUE_DB = 0.0
BRIGHT_DB = 9.0
BONE_DB = 17.0
# Attenuation of what is painted as bone, two ways, in dB a centimetre: 20 dB/cm/MHz would leave nothing
# behind a skull, but fetal bone is thin and half-mineralised, and the pictures show what lies within.
BONE_DB_PER_CM = 80.0
# Time-gain compensation is set for soft tissue. Fluid takes away less, so what lies behind it is bright.
FLUID_DB_PER_CM = -2.0
# A smooth surface returns a beam that meets it squarely, and of one that runs along it next to nothing.
MIRROR_DB, MISSED_DB = 8.0, 15.0
SOFT_DB = -25.0  # below which a surface is none of tissue
PROBE_CM = (0.0, -8.0)  # where the beams come from, for a plane held upright


@dataclass(frozen=True)
class Anatomy:
    """One plane of one patient, in coordinates of its own: centimetres from the centre of the map.

    Args:
        echo_db: echo strength, (MAP_SIZE, MAP_SIZE), rows downwards.
        attenuation_db_per_cm: what is taken away on the way, against soft tissue, (MAP_SIZE, MAP_SIZE).
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
        self._map_x, self._map_y = x, y
        self.echo_db = self._surroundings()
        self.bone = np.zeros_like(self.echo_db)
        self.landmarks: list[tuple[float, float]] = []
        self.heart: tuple[float, float, float] | None = None

    def vary(self, value: float, share: float = 0.1) -> float:
        """`value` as this hold of the probe has it."""
        return value * self.rng.normal(1.0, share)

    def shift(self, x: float, y: float, spread_cm: float = 0.08) -> tuple[float, float]:
        """A place near (x, y)."""
        return x + self.rng.normal(0.0, spread_cm), y + self.rng.normal(0.0, spread_cm)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], level_db: float, degrees: float = 0.0
    ) -> None:
        """A filled ellipse."""
        window = self._window([centre], max(radii))
        self._fill(window, _soft(-self._from_ellipse(window, centre, radii, degrees)), level_db)

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
        window = self._window([centre], max(radii) * (1 + width_cm / min(radii)))
        edge = _soft(width_cm / 2 - np.abs(self._from_ellipse(window, centre, radii, degrees)))
        if arc_degrees is not None:
            angle = np.rad2deg(np.arctan2(self.y[window] - centre[1], self.x[window] - centre[0]))
            middle, half = sum(arc_degrees) / 2, (arc_degrees[1] - arc_degrees[0]) / 2
            away = np.abs((angle - middle + 180) % 360 - 180)
            edge = edge * np.clip((half - away) / 6 + 0.5, 0, 1)
        self._fill(window, edge, level_db, bone)

    def line(
        self,
        points: list[tuple[float, float]],
        level_db: float,
        width_cm: float,
        bone: float = 0.0,
    ) -> None:
        """A line or tube through `points`."""
        window = self._window(points, width_cm / 2)
        x, y = self.x[window], self.y[window]
        distance = np.full_like(x, np.inf)
        for (x0, y0), (x1, y1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
            along = np.clip(along, 0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
        self._fill(window, _soft(width_cm / 2 - distance), level_db, bone)

    def vessel(self, points: list[tuple[float, float]], width_cm: float) -> None:
        """A tube of blood with bright walls."""
        self.line(points, BRIGHT_DB - 2, width_cm + 0.12)
        self.line(points, BLOOD_DB, width_cm)

    def chamber(self, centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> None:
        """A cavity of blood."""
        self.ellipse(centre, radii, BLOOD_DB, degrees)

    def ossified(
        self, centre: tuple[float, float], radius_cm: float, bone: float = 1.0, level_db: float = BONE_DB
    ) -> None:
        """A spot of bone with its shadow."""
        self.line([centre, (centre[0] + 0.01, centre[1])], level_db, 2 * radius_cm, bone=bone)

    def look_at(self, *places: tuple[float, float]) -> None:
        """Landmarks."""
        self.landmarks += places

    def finished(self) -> Anatomy:
        """The painted plane, with tissue's unevenness and the gleam of its surfaces on it."""
        fluid = np.clip((SOFT_DB - self.echo_db) / 6 + 0.5, 0, 1)
        self._gleam()
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
            attenuation_db_per_cm=BONE_DB_PER_CM * self.bone + FLUID_DB_PER_CM * fluid,
            landmarks_cm=np.array(self.landmarks, dtype=np.float32).reshape(-1, 2) @ self._to_map.T,
            beating_cm=beating,
        )

    def _gleam(self) -> None:
        """Brightens surfaces that the beam meets squarely, and dims those that it runs along.

        Which way a surface faces comes from the structure tensor of the echo strength; a spot faces all ways
        and stays as it is.
        """
        down, right = np.gradient(gaussian_filter(np.maximum(self.echo_db, SOFT_DB), 1.0))
        beam_x, beam_y = self._map_x - PROBE_CM[0], self._map_y - PROBE_CM[1]
        length = np.hypot(beam_x, beam_y)
        met = gaussian_filter(((right * beam_x + down * beam_y) / length) ** 2, 1.5)
        passed = gaussian_filter(((right * beam_y - down * beam_x) / length) ** 2, 1.5)
        facing = (met - passed) / (met + passed + 1e-3)
        surface = np.clip((met + passed) / 6.0 - 0.1, 0, 1) * np.clip((self.echo_db + 6.0) / 8.0, 0, 1)
        self.echo_db += surface * np.where(facing > 0, MIRROR_DB * facing**2, MISSED_DB * facing)

    def _window(self, points: list[tuple[float, float]], reach_cm: float) -> tuple[slice, slice]:
        """The part of the map around `points`, so that small things are painted fast."""
        scale = np.sqrt(abs(np.linalg.det(self._to_map)))
        places = np.asarray(points, dtype=np.float32) @ self._to_map.T / PIXEL_CM + (MAP_SIZE - 1) / 2
        reach = scale * (reach_cm + 0.1) / PIXEL_CM + 1
        low = np.clip(places.min(axis=0) - reach, 0, MAP_SIZE).astype(int)
        high = np.clip(places.max(axis=0) + reach + 1, 0, MAP_SIZE).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def _fill(
        self, window: tuple[slice, slice], inside: np.ndarray, level_db: float, bone: float = 0.0
    ) -> None:
        """Sets the level where `inside` is 1, and part of it where it is between 0 and 1."""
        self.echo_db[window] += inside * (level_db - self.echo_db[window])
        self.bone[window] = np.maximum(self.bone[window], bone * inside)

    def _from_ellipse(
        self,
        window: tuple[slice, slice],
        centre: tuple[float, float],
        radii: tuple[float, float],
        degrees: float,
    ) -> np.ndarray:
        """About the distance from the edge of an ellipse in centimetres, negative inside."""
        angle = np.deg2rad(degrees)
        dx, dy = self.x[window] - centre[0], self.y[window] - centre[1]
        along = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / radii[1]
        return (np.hypot(along, across) - 1) * min(radii)

    def _surroundings(self) -> np.ndarray:
        """Uterine wall, placenta and fluid around the fetus."""
        rng, x, y = self.rng, self._map_x, self._map_y
        layers = gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), (2.0, 16.0))
        tilt = rng.normal(0.0, 0.25)
        echo_db = rng.uniform(-7.0, 0.0) + 3.0 / layers.std() * layers
        field = gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), 30.0)
        height = ndtr((field - field.mean()) / field.std())
        fluid = np.clip((self.patient.fluid - height) * 18 + 0.5, 0, 1)
        echo_db += fluid * (FLUID_DB - echo_db)
        if rng.random() < 0.6:
            depth_cm = rng.choice([-1.0, 1.0]) * rng.uniform(2.6, 3.9)
            placenta = _soft(
                np.sign(depth_cm) * (y + tilt * x - depth_cm + 0.3 * np.sin(1.1 * x + depth_cm)), 0.15
            )
            echo_db += placenta * (rng.uniform(-2.0, 3.0) - echo_db)
        return echo_db.astype(np.float32)


def _soft(inside_cm: np.ndarray, edge_cm: float = 0.06) -> np.ndarray:
    """0 outside, 1 inside, with an edge of `edge_cm`."""
    return np.clip(inside_cm / edge_cm + 0.5, 0.0, 1.0).astype(np.float32)
