"""From echo strength to an ultrasound picture, as a convex probe makes it.

The convolution model of B-mode speckle: point scatterers of random phase, weighted by the tissue's echo
strength, through a point spread function that is short in depth and wide across (Bamber and Dickinson, 1980;
Meunier and Bertrand, 1995); the envelope of fully developed speckle is Rayleigh-distributed (Burckhardt,
1978; Wagner et al., 1983). Then attenuation and the shadows of bone along each beam, log compression, and
scan conversion to a sector. Lines are computed in the coordinates of the probe (depth, angle), where the beam
widens with depth by itself.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter

from .simulated_canvas import MAP_SIZE, PIXEL_CM, Anatomy

BEAMS = 104
SAMPLES = 150
# A machine averages pictures over time; this share of a picture is the one before.
PERSISTENCE = 0.35
WHITE_DB = 30.0
# Cycles a sample between the frequencies of two looks, far enough apart for a speckle of its own.
SECOND_LOOK = 0.45
HAZE_DB_PER_CM = 7.0
# A shadow is never quite black: the beam is wider than a bone, and echoes come in from beside it.
MOST_LOST_DB, MOST_GAINED_DB = 28.0, 8.0


@dataclass(frozen=True)
class Style:
    """How one scan looks, whatever it shows: the machine, its settings, the mother.

    Args:
        probe_radius_cm: radius of the convex probe.
        half_angle_degrees: half the opening angle of the sector.
        depth_cm: depth of the picture for a plane of ordinary size.
        axial_cm, lateral_degrees: standard deviations of the point spread function.
        gain_db, dynamic_range_db: what is shown as white, and how far below that is black.
        gamma: exponent of the grey values.
        slope_db_per_cm: what time-gain compensation leaves of the attenuation (0.5 dB/cm/MHz in tissue).
        wall_cm: thickness of the mother's skin and muscle.
        noise_db: electronic noise.
        compounding: share of a second look at another frequency, whose speckle is another, 0 to 0.5.
        edge_loss_db: what the outermost beams lack, where the probe's edge lies badly on the skin.
        haze_db: clutter below the mother's wall, against the wall itself.
    """

    probe_radius_cm: float
    half_angle_degrees: float
    depth_cm: float
    axial_cm: float
    lateral_degrees: float
    gain_db: float
    dynamic_range_db: float
    gamma: float
    slope_db_per_cm: float
    wall_cm: float
    noise_db: float
    compounding: float
    edge_loss_db: float
    haze_db: float


def draw_style(rng: np.random.Generator) -> Style:
    """A machine, a preset and a mother."""
    return Style(
        probe_radius_cm=rng.uniform(4.0, 6.5),
        half_angle_degrees=rng.uniform(26.0, 36.0),
        depth_cm=rng.uniform(7.4, 9.4),
        axial_cm=rng.uniform(0.035, 0.06),
        lateral_degrees=rng.uniform(0.45, 0.85),
        gain_db=rng.normal(-1.0, 2.5),
        dynamic_range_db=rng.uniform(44.0, 60.0),
        gamma=rng.uniform(0.9, 1.3),
        slope_db_per_cm=rng.normal(-0.5, 0.5),
        wall_cm=rng.uniform(0.6, 1.6),
        noise_db=rng.uniform(-36.0, -22.0),
        compounding=rng.uniform(0.1, 0.5),
        edge_loss_db=rng.uniform(0.0, 9.0),
        haze_db=rng.uniform(-28.0, -16.0),
    )


@dataclass(frozen=True)
class Pose:
    """Where the probe holds a plane: shift in cm, turn in radians, zoom, and the heart's beat, -1 to 1."""

    x_cm: float = 0.0
    y_cm: float = 0.0
    turn: float = 0.0
    zoom: float = 1.0
    beat: float = 0.0


@dataclass(frozen=True)
class Tissue:
    """An anatomy with its scatterers: complex echoes and attenuation, (MAP_SIZE * MAP_SIZE) each."""

    echoes: np.ndarray
    attenuation_db_per_cm: np.ndarray
    anatomy: Anatomy


def with_scatterers(anatomy: Anatomy, rng: np.random.Generator) -> Tissue:
    """Puts random scatterers into an anatomy; they move with the tissue."""
    parts = rng.standard_normal((2, MAP_SIZE, MAP_SIZE), dtype=np.float32)
    amplitude = _factor(anatomy.echo_db)
    echoes = (amplitude * (parts[0] + 1j * parts[1])).astype(np.complex64)
    return Tissue(echoes.ravel(), anatomy.attenuation_db_per_cm.astype(np.float32).ravel(), anatomy)


class Renderer:
    """Pictures of one scan.

    Args:
        style: how the scan looks.
        image_size: height and width of a picture in pixels.
        rng: of the mother's wall and the electronic noise.
    """

    def __init__(self, style: Style, image_size: int, rng: np.random.Generator) -> None:
        self.style = style
        self.image_size = image_size
        self.rng = rng
        half_angle = np.deg2rad(style.half_angle_degrees)
        angles = np.linspace(-half_angle, half_angle, BEAMS, dtype=np.float32)
        self.depths_cm = np.linspace(0, style.depth_cm, SAMPLES, dtype=np.float32)
        ranges = style.probe_radius_cm + self.depths_cm[:, None]
        self.x_cm = ranges * np.sin(angles)
        self.y_cm = ranges * np.cos(angles) - style.probe_radius_cm
        self.centre_cm = (0.0, style.wall_cm + 0.5 * (style.depth_cm - style.wall_cm))
        sample_cm = style.depth_cm / (SAMPLES - 1)
        beam_degrees = 2 * style.half_angle_degrees / (BEAMS - 1)
        self._axial = _pulse(SAMPLES, style.axial_cm / sample_cm)
        self._second_axial = _pulse(SAMPLES, style.axial_cm / sample_cm, SECOND_LOOK)
        self._lateral = _pulse(BEAMS, style.lateral_degrees / beam_degrees).T
        self._beam_width = self._lateral.real / self._lateral.real.sum(axis=0)
        self._wall_echoes, self._wall_share = self._wall()
        # What the probe's curve and the compensation leave of gain over depth, before any bone.
        beams = np.linspace(-1, 1, BEAMS, dtype=np.float32)
        self._offset_db = (style.gain_db + style.slope_db_per_cm * self.depths_cm)[:, None]
        self._offset_db = self._offset_db - style.edge_loss_db * beams**4
        self._noise = self._noise_fields()
        self._before: np.ndarray | None = None

    def picture(
        self, tissue: Tissue, pose: Pose, other: Tissue | None = None, share: float = 0.0
    ) -> np.ndarray:
        """One frame, in which a part of the frame before lives on: uint8 (image_size, image_size).

        Black outside the sector.

        Args:
            tissue: what is under the probe.
            pose: where the probe holds it.
            other: what the beam, a few millimetres thick, takes in besides on the way to another plane.
            share: of `other`, 0 to 1.
        """
        grey = self._grey(self.envelope_db(tissue, pose, other, share))
        if self._before is not None:
            grey = (1 - PERSISTENCE) * grey + PERSISTENCE * self._before
        self._before = grey
        return self._sector(grey)

    def envelope_db(
        self, tissue: Tissue, pose: Pose, other: Tissue | None = None, share: float = 0.0
    ) -> np.ndarray:
        """The echoes of `picture`, in decibels by depth and angle, (SAMPLES, BEAMS)."""
        places = self._places(tissue, pose)
        echoes, attenuation = tissue.echoes[places], tissue.attenuation_db_per_cm[places]
        if other is not None and share > 0:
            echoes = (1 - share) * echoes + share * other.echoes[places]
            attenuation = (1 - share) * attenuation + share * other.attenuation_db_per_cm[places]
        inside = echoes * (1 - self._wall_share) + self._wall_echoes
        lost_db = np.cumsum(attenuation * (1 - self._wall_share), axis=0) * self.depths_cm[1]
        lost_db = np.clip(lost_db, -MOST_GAINED_DB, MOST_LOST_DB) @ self._beam_width
        amplitude = self._speckle(inside) * _factor(self._offset_db - lost_db)
        noise = self._noise[self.rng.integers(len(self._noise))]
        return 20.0 * np.log10(amplitude + noise + 1e-6)

    def _speckle(self, echoes: np.ndarray) -> np.ndarray:
        """The envelope of the echoes through the point spread function, a second look mixed in."""
        across = echoes @ self._lateral
        share = np.float32(self.style.compounding)
        first = self._axial @ across
        if share == 0:
            return np.abs(first)
        second = self._second_axial @ across
        power = (1 - share) * (first.real**2 + first.imag**2) + share * (second.real**2 + second.imag**2)
        return np.sqrt(power)

    def to_picture(self, places_cm: np.ndarray, pose: Pose) -> np.ndarray:
        """Where (n, 2) places of a tissue appear: x, y in 0..1 from the picture's top left."""
        cosine, sine = pose.zoom * np.cos(pose.turn), pose.zoom * np.sin(pose.turn)
        x = cosine * places_cm[:, 0] - sine * places_cm[:, 1] + self.centre_cm[0] + pose.x_cm
        y = sine * places_cm[:, 0] + cosine * places_cm[:, 1] + self.centre_cm[1] + pose.y_cm
        left, top, side = self._frame_cm
        return np.stack([(x - left) / side, (y - top) / side], axis=1)

    @cached_property
    def _frame_cm(self) -> tuple[float, float, float]:
        """Left, top and side of the square picture around the sector."""
        half_angle = np.deg2rad(self.style.half_angle_degrees)
        far = self.style.probe_radius_cm + self.style.depth_cm
        top = self.style.probe_radius_cm * (np.cos(half_angle) - 1)
        # Machines zoom until the sector fills the screen and lose its lower corners.
        height = self.style.depth_cm - top
        side = min(2 * far * np.sin(half_angle), 1.12 * height)
        middle = top + side / 2 + max(0.0, (height - side) / 2)
        return -side / 2, middle - side / 2, side

    def _places(self, tissue: Tissue, pose: Pose) -> np.ndarray:
        """Indices into the tissue's map of what each sample of each beam meets."""
        x = self.x_cm - (self.centre_cm[0] + pose.x_cm)
        y = self.y_cm - (self.centre_cm[1] + pose.y_cm)
        cosine, sine = np.float32(np.cos(pose.turn) / pose.zoom), np.float32(np.sin(pose.turn) / pose.zoom)
        x, y = cosine * x + sine * y, cosine * y - sine * x
        if tissue.anatomy.beating_cm is not None and pose.beat != 0.0:
            heart_x, heart_y, radius = (np.float32(value) for value in tissue.anatomy.beating_cm)
            dx, dy = x - heart_x, y - heart_y
            stretch = np.float32(0.11 * pose.beat) * np.clip(1.3 - np.hypot(dx, dy) / radius, 0, 1)
            x, y = x + dx * stretch, y + dy * stretch
        half = np.float32((MAP_SIZE - 1) / 2)
        columns = np.clip(x / PIXEL_CM + half, 0, MAP_SIZE - 1).astype(np.int32)
        rows = np.clip(y / PIXEL_CM + half, 0, MAP_SIZE - 1).astype(np.int32)
        return rows * MAP_SIZE + columns

    def _grey(self, envelope_db: np.ndarray) -> np.ndarray:
        grey = (envelope_db - (WHITE_DB - self.style.dynamic_range_db)) / self.style.dynamic_range_db
        return np.clip(grey, 0, 1) ** self.style.gamma

    def _sector(self, grey: np.ndarray) -> np.ndarray:
        indices, weights = self._scan_conversion
        picture = (grey.ravel()[indices] * weights).sum(axis=0)
        return (255 * picture + 0.5).astype(np.uint8).reshape(self.image_size, self.image_size)

    @cached_property
    def _scan_conversion(self) -> tuple[np.ndarray, np.ndarray]:
        """For each pixel the four nearest samples and their weights, (4, pixels); none outside the sector."""
        left, top, side = self._frame_cm
        centres = (np.arange(self.image_size) + 0.5) / self.image_size * side
        x, y = np.meshgrid(left + centres, top + centres)
        ranges = np.hypot(x, y + self.style.probe_radius_cm).ravel()
        angles = np.rad2deg(np.arctan2(x, y + self.style.probe_radius_cm)).ravel()
        row = (ranges - self.style.probe_radius_cm) / self.style.depth_cm * (SAMPLES - 1)
        column = (angles / self.style.half_angle_degrees + 1) / 2 * (BEAMS - 1)
        inside = (row >= 0) & (row <= SAMPLES - 1) & (column >= 0) & (column <= BEAMS - 1)
        row, column = np.where(inside, row, 0.0), np.where(inside, column, 0.0)
        row0 = np.minimum(row.astype(np.int32), SAMPLES - 2)
        column0 = np.minimum(column.astype(np.int32), BEAMS - 2)
        down, right = row - row0, column - column0
        first = row0 * BEAMS + column0
        indices = np.stack([first, first + 1, first + BEAMS, first + BEAMS + 1])
        weights = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
        return indices, (weights * inside).astype(np.float32)

    def _wall(self) -> tuple[np.ndarray, np.ndarray]:
        """Echoes of the mother's layers under the probe, and how far they take the place of the fetus'.

        Some of them come back late, from between skin and probe, and lie as a haze over what is beneath.
        """
        shape = (SAMPLES, BEAMS)
        layers = gaussian_filter(self.rng.standard_normal(shape, dtype=np.float32), (1.3, 20.0))
        layers *= 5.0 / layers.std()
        depths_cm = self.depths_cm[:, None]
        share = np.clip((self.style.wall_cm - depths_cm) / 0.25 + 0.5, 0, 1)
        haze = (1 - share) * _factor(self.style.haze_db - HAZE_DB_PER_CM * (depths_cm - self.style.wall_cm))
        skin_db = 8.0 * np.exp(-depths_cm / 0.2)
        parts = self.rng.standard_normal((2, *shape), dtype=np.float32)
        amplitude = (share + haze) * _factor(layers - 2.0 + skin_db)
        return (amplitude * (parts[0] + 1j * parts[1])).astype(np.complex64), share.astype(np.float32)

    def _noise_fields(self) -> np.ndarray:
        level = _factor(self.style.noise_db)
        return (level * self.rng.rayleigh(1.0, (8, SAMPLES, BEAMS))).astype(np.float32)


def _pulse(size: int, sigma: float, cycles_per_sample: float = 0.0) -> np.ndarray:
    """A Gaussian of `sigma` samples as a (size, size) matrix that keeps the power of white noise.

    Args:
        cycles_per_sample: how far its frequency is from the one that the echoes are demodulated with.
    """
    away = np.arange(size)[:, None] - np.arange(size)
    kernel = np.exp(-0.5 * (away / sigma) ** 2)
    kernel /= np.sqrt((kernel**2).sum(axis=1, keepdims=True))
    return (kernel * np.exp(2j * np.pi * cycles_per_sample * away)).astype(np.complex64)


def _factor(level_db: float | np.ndarray) -> float | np.ndarray:
    """Decibels as a factor on amplitudes."""
    return 10.0 ** (level_db / 20.0)
