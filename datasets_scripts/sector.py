"""Find the ultrasound sector of a recording, so that all else on the screen can be blanked.

Machines burn names, dates, settings and rulers into the picture. In a moving recording the sector is what
changes from frame to frame and is grainy; what is drawn around it stands still, or is small, or coloured. In
a still one the sector is the largest region that is not background and was not drawn: drawn bars and boxes
hold runs of equal pixels, which speckle never does. The shape is the convex hull of that region, without the
disc of a curved array, whose beams may also bring back corners that are dark.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

from datasets_scripts.recording_errors import RecordingError

LONGEST_SIDE_CELLS = 256  # the search runs on cells of as many pixels as make the longer side this long
LEAST_CHANGE = 6  # grey levels between the darkest and the brightest moment of a pixel that moves
LEAST_MOVING_SHARE = 0.05  # of the picture; a recording that moves less is frozen, and only a clock goes on
LEAST_DRAWN = 16  # grey levels of a bar in a video: tissue this dark may be as even
LEAST_SECTOR_SHARE = 0.03  # of the picture
FRAMES_FOR_GRAIN = 8
COLOURED = 60  # levels between the strongest and the weakest channel of a coloured cell
RIVAL_SHARE = 0.25  # regions this large, against the largest, are judged by their grain
STACK_SHARE = 0.1  # parts this large may lie above or below, behind fluid or shadow
STACK_OVERLAP = 0.7  # of the columns of such parts, as intersection over union
LEAST_ARRAY_CELLS = 8  # across
MOST_OFF_CIRCLE_CELLS = 1.5
MOST_FAN_SHARE = 1.5  # of a region, that the fan of its beams may be
STRAIGHT_SHARE = 0.12  # of a region's rows that end at one column, if its side is a straight one


class _Noise(NamedTuple):
    """Grey levels that compression leaves on the background, and between neighbours in a drawn bar."""

    background: int
    drawn: int


STILL_NOISE, VIDEO_NOISE = _Noise(1, 0), _Noise(LEAST_CHANGE, 1)


class _Disc(NamedTuple):
    """Centre and radius, in cells."""

    x: float
    y: float
    radius: float

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """From the centre, in cells."""
        return np.hypot(x - self.x, y - self.y)


class SectorError(RecordingError):
    """The sector of a recording cannot be kept; the message does not name the file."""


class NoSectorError(SectorError):
    """No ultrasound sector can be told from the rest of the picture."""


class OtherSizeError(SectorError):
    """A frame is of another size than those that the sector was found on."""


@dataclass(frozen=True)
class Sector:
    """Where the ultrasound lies on the screen: `mask`, bool (height, width), True within.

    `crop` is kept, in place of the smallest box around the mask, where it is given.
    """

    mask: np.ndarray
    crop: tuple[int, int, int, int] | None = None

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels, the latter two exclusive: the `crop` of `scan.json`."""
        if self.crop is not None:
            return self.crop
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop_to_sector(frame: np.ndarray, sector: Sector) -> np.ndarray:
    """What of a frame lies in the sector's box, black outside the sector; pixels keep their size.

    Args:
        frame: uint8 (height, width[, 3]), of the size that the sector was found on.

    Raises:
        OtherSizeError: the frame is of another size.
    """
    if frame.shape[:2] != sector.mask.shape:
        (height, width), (frame_height, frame_width) = sector.mask.shape, frame.shape[:2]
        raise OtherSizeError(
            f"A frame has {frame_width} x {frame_height} pixels and the sector was found on "
            f"{width} x {height}; cut the recording where its size changes."
        )
    left, top, right, bottom = sector.box
    inside = sector.mask[top:bottom, left:right]
    if frame.ndim == 3:
        inside = inside[..., None]
    return frame[top:bottom, left:right] * inside


def find_sector(frames: np.ndarray) -> Sector:
    """The ultrasound sector of a recording, or of a single picture.

    Args:
        frames: uint8 (frames, height, width[, 3]), taken from all over the recording; 16 to 64 are enough.

    Raises:
        NoSectorError: nothing but one grey, or nothing that looks like a sector.
        ValueError: `frames` is of another shape or type.
    """
    if frames.ndim not in (3, 4) or frames.dtype != np.uint8 or min(frames.shape) == 0:
        raise ValueError(
            f"Frames must be uint8 (frames, height, width[, 3]) and some, not {frames.dtype} {frames.shape}."
        )
    height, width = frames.shape[1:3]
    if int(frames.max()) - int(frames.min()) <= LEAST_CHANGE:
        raise NoSectorError(
            "The picture is of one grey from corner to corner, so it shows no ultrasound; leave it out."
        )
    size = -(-max(height, width) // LONGEST_SIDE_CELLS)
    picture, moving = frames[len(frames) // 2], _moving(frames)
    if _mostly(moving, size).mean() < LEAST_MOVING_SHARE:
        moving[:] = False
    # A video is compressed, which leaves noise on what was one grey; a still picture may be as drawn.
    noise = VIDEO_NOISE if moving.any() else STILL_NOISE
    drawn = _drawn(picture, noise) & ~moving
    found = _mostly(moving | _not_background(picture, noise) & ~drawn, size)
    certain = _mostly(moving, size) if moving.any() else found
    some = frames[:: -(-len(frames) // FRAMES_FOR_GRAIN)]
    region = _sector_region(found, certain, np.stack([_cells(frame, size) for frame in some]))
    mask = _outlined(region, (height, width), size)
    return Sector(mask & ~_from_outside(drawn, mask) & ~_from_outside(_coloured_letters(picture), mask))


def _cells(frame: np.ndarray, size: int) -> np.ndarray:
    """Means over squares of `size` pixels: float32 (rows, columns, 3)."""
    image = Image.fromarray(frame).convert("RGB")
    return np.asarray(image.reduce(size) if size > 1 else image, dtype=np.float32)


def _mostly(pixels: np.ndarray, size: int) -> np.ndarray:
    """The cells of which more than half is True, without the thin strokes that text is made of."""
    share = _cells((255 * pixels).astype(np.uint8), size)[..., 0] / 255
    return ndimage.binary_opening(share > 0.5, np.ones((3, 3)))


def _grey(frame: np.ndarray) -> np.ndarray:
    return frame.mean(axis=-1) if frame.ndim == 3 else frame.astype(np.float32)


def _moving(frames: np.ndarray) -> np.ndarray:
    """The pixels that change: bool (height, width)."""
    change = frames.max(axis=0) - frames.min(axis=0)
    return (change.max(axis=-1) if change.ndim == 3 else change) > LEAST_CHANGE


def _not_background(frame: np.ndarray, noise: _Noise) -> np.ndarray:
    """The pixels that are neither background nor coloured: bool (height, width)."""
    grey = _grey(frame)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    found = np.abs(grey - np.median(border)) > noise.background
    return found & ~_coloured(frame) if frame.ndim == 3 else found


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=-1) - pixels.min(axis=-1) > COLOURED


def _drawn(frame: np.ndarray, noise: _Noise) -> np.ndarray:
    """Bars and boxes with what is written in them: bool (height, width).

    They are made of rows of equal pixels; text interrupts these, and closing mends them.
    """
    grey = _grey(frame)
    length = max(8, frame.shape[1] // 40)
    is_even = np.abs(np.diff(grey, axis=1)) <= noise.drawn * (grey[:, 1:] >= LEAST_DRAWN)
    is_even &= (grey[:, 1:] > noise.background) & (grey[:, 1:] < 250)
    is_even = np.pad(is_even, ((0, 0), (1, 0))).view(np.uint8)
    runs = ndimage.grey_opening(is_even, (3, length)) | ndimage.grey_opening(is_even, (length, 8))
    runs[:, :-1] |= runs[:, 1:]  # the first of each run, which was even with the next
    # A box may be cut by the edge of the picture, so what lies beyond counts as drawn.
    closed = ndimage.grey_closing(np.pad(runs, 2 * length, constant_values=1), (length, 2 * length))
    closed = closed[2 * length : -2 * length, 2 * length : -2 * length]
    return ndimage.grey_opening(closed, (length // 2, 8)).astype(bool)


def _coloured_letters(frame: np.ndarray) -> np.ndarray:
    """Lines of thin coloured strokes, as settings are written in: bool (height, width).

    Colour that fills an area, as Doppler's does, is none.
    """
    if frame.ndim != 3:
        return np.zeros(frame.shape, dtype=bool)
    strokes = _coloured(frame)
    if not strokes.any():
        return strokes
    thick = max(8, frame.shape[1] // 80)  # letters may be as thick where colour is stored coarsely
    strokes &= ~ndimage.binary_dilation(
        ndimage.binary_opening(strokes, np.ones((thick, thick))), iterations=thick
    )
    line = ndimage.binary_closing(np.pad(strokes, 4 * thick), np.ones((thick, 3 * thick)))
    line = line[4 * thick : -4 * thick, 4 * thick : -4 * thick]
    return ndimage.binary_dilation(line, iterations=2)


def _sector_region(found: np.ndarray, certain: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Of all regions found, the one that is ultrasound, with its parts behind fluid: bool (rows, columns).

    Args:
        found: the cells that may be ultrasound, bool (rows, columns).
        certain: those that make a region large.
        cells: some of the frames, (frames, rows, columns, 3).
    """
    closed = ndimage.binary_closing(np.pad(found, 3), np.ones((3, 3)))[3:-3, 3:-3]
    labels, count = ndimage.label(closed)
    numbers = np.arange(1, count + 1)
    areas = np.bincount(labels[certain], minlength=count + 1)[1:]
    areas[ndimage.mean(_coloured(cells).mean(axis=0), labels, numbers) > 0.5] = 0
    if areas.max(initial=0) < LEAST_SECTOR_SHARE * found.size:
        raise NoSectorError(
            "Nothing in the picture moves or has the grain of ultrasound over a region large enough; "
            "give `crop` in scan.json, or leave the recording out."
        )
    grain = ndimage.mean(_grain(cells.mean(axis=-1)), labels, numbers)
    is_rival = areas >= RIVAL_SHARE * areas.max()
    best = np.argmax(np.where(is_rival, areas * grain, 0))
    parts = numbers[areas >= STACK_SHARE * areas[best]]
    columns = {part: (labels == part).any(axis=0) for part in parts}
    stacked = [part for part in parts if _overlap(columns[part], columns[numbers[best]]) >= STACK_OVERLAP]
    return np.isin(labels, stacked)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    return (one & other).sum() / (one | other).sum()


def _grain(grey: np.ndarray) -> np.ndarray:
    """How rough the picture is, cell by cell, against its brightness: speckle is, a face or a bar is not."""
    mean = ndimage.uniform_filter(grey, (0, 3, 3))
    variance = ndimage.uniform_filter(grey**2, (0, 3, 3)) - mean**2
    return (np.sqrt(np.maximum(variance, 0)) / (mean + 8)).mean(axis=0)


def _outlined(region: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """The simple shape around a region: its convex hull, or its fan, without the disc of a curved array.

    Args:
        region: bool (rows, columns), of cells.
        shape: of the mask that is returned, in pixels.
        size: of a cell, in pixels.
    """
    vertices = _hull(region)
    found = (_array_disc(region, vertices, is_up) for is_up in (True, False))
    discs = [disc for disc in found if disc is not None]
    if len(discs) == 1:
        vertices = _hull(region | _fan(region, discs[0]))
    image = Image.new("1", shape[::-1])
    ImageDraw.Draw(image).polygon([tuple(vertex) for vertex in vertices * size - 0.5], fill=1)
    mask = np.array(image)
    y, x = ((axis + 0.5) / size for axis in np.ogrid[: shape[0], : shape[1]])
    for disc in discs:
        mask &= disc.distances(x, y) >= disc.radius
    return mask


def _hull(region: np.ndarray) -> np.ndarray:
    """The corners of the convex hull of a region's cells: (corners, 2) x and y, in cells."""
    rows, columns = np.nonzero(region ^ ndimage.binary_erosion(region))
    points = np.stack([columns, rows], axis=1)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    points = points.reshape(-1, 2)
    return points[ConvexHull(points).vertices].astype(float)


def _array_disc(region: np.ndarray, vertices: np.ndarray, is_up: bool) -> _Disc | None:
    """The disc of a curved array at the top (`is_up`) or the bottom of a region, if there is one.

    The hull bridges the array with a chord; the region's outermost cells under the chord lie on a circle.
    """
    chord = _longest_level_edge(vertices, is_up)
    left, right = (round(x) for x in sorted(chord[:, 0]))
    width = right - left
    if width < LEAST_ARRAY_CELLS:
        return None
    rows = np.arange(len(region))[:, None]
    first_rows = np.where(region, rows, len(region)).min(axis=0)
    last_rows = np.where(region, rows + 1, 0).max(axis=0)
    y = (first_rows if is_up else last_rows)[left:right].astype(float)
    disc, fitted = _fit_circle(np.arange(left, right) + 0.5, y)
    misses_ends = np.abs(disc.distances(*chord.T) - disc.radius).max()
    chord_row = chord[:, 1].mean()
    sagitta = disc.radius + (disc.y - chord_row if is_up else chord_row - disc.y)
    is_arc = fitted >= 0.7 and misses_ends < 4 and 0.05 * width < sagitta < 0.5 * width
    return disc if is_arc else None


def _longest_level_edge(vertices: np.ndarray, is_up: bool) -> np.ndarray:
    """Of the edges that face upwards, or downwards, the one that spans most columns: (2, 2) x and y."""
    edges = np.stack([vertices, np.roll(vertices, -1, axis=0)], axis=1)
    is_above = edges[..., 1].mean(axis=1) < vertices[:, 1].mean()
    run, rise = np.abs(edges[:, 1] - edges[:, 0]).T
    return edges[np.argmax(np.where((is_above == is_up) & (rise < 0.35 * run), run, 0))]


def _fit_circle(x: np.ndarray, y: np.ndarray) -> tuple[_Disc, float]:
    """The circle through most of some points, and the share of them that lie on it.

    Least squares (Kasa, 1976), again and again without the fifth that lies farthest off.
    """
    count = len(x)
    for _ in range(4):
        p, q, r = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], axis=1), x**2 + y**2, rcond=None)[0]
        disc = _Disc(float(p / 2), float(q / 2), float(np.sqrt(max(r + (p * p + q * q) / 4, 0))))
        away = np.abs(disc.distances(x, y) - disc.radius)
        near = away <= max(MOST_OFF_CIRCLE_CELLS, np.quantile(away, 0.8))
        x, y = x[near], y[near]
    return disc, float((away <= MOST_OFF_CIRCLE_CELLS).sum() / count)


def _fan(region: np.ndarray, disc: _Disc) -> np.ndarray:
    """All that the beams of a curved array reach between the outermost and the deepest cells of a region.

    It brings back corners that fluid or bad contact leaves dark. A machine may cut a fan by a window: if a
    side of the region is straight, the fan ends at its box. If the beams do not explain the region, nothing
    is added.
    """
    y, x = (axis + 0.5 for axis in np.ogrid[: len(region), : region.shape[1]])
    ranges = disc.distances(x, y)
    looks_up = np.nonzero(region)[0].mean() < disc.y
    angles = np.arctan2(x - disc.x, disc.y - y if looks_up else y - disc.y)
    far = region & (ranges > ranges[region].max() / 2)
    fan = (angles >= angles[far].min()) & (angles <= angles[far].max())
    fan &= (ranges >= disc.radius) & (ranges <= ranges[region].max())
    rows, columns = region.any(axis=1), region.any(axis=0)
    left, right = np.flatnonzero(columns)[[0, -1]]
    sides = region[:, left : left + 2], region[:, right - 1 : right + 1]
    side_rows = [side.any(axis=1).sum() for side in sides]
    if max(side_rows) >= STRAIGHT_SHARE * rows.sum():
        fan &= columns
    fan &= rows[:, None]
    return fan if fan.sum() < MOST_FAN_SHARE * region.sum() else np.zeros_like(region)


def _from_outside(drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The boxes that reach into the mask from beyond it, or up to the edge of the picture."""
    labels, _ = ndimage.label(np.pad(drawn, 1))
    outside = np.pad(~mask, 1, constant_values=True)
    reaching = np.unique(labels[ndimage.binary_dilation(outside)])
    return np.isin(labels, reaching[reaching > 0])[1:-1, 1:-1]
