"""Maps of where people looked: fixations to counts a pixel and to probability maps, and the centre prior.

A fixation is x, y in 0..1 of the picture, origin top left. The pixel in row r and column c of a map covers
x from c / width to (c + 1) / width and y from r / height to (r + 1) / height.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from train.arguments import require

# What the centre prior keeps for places where nobody looked: else a stray fixation were infinitely unlikely.
UNIFORM_SHARE = 0.01


class FixationError(ValueError):
    """Fixations that no map can be made of; the text says which and what to do."""


@dataclass(frozen=True)
class GaussianArguments:
    """How far attention reaches around a fixation: the standard deviation of a Gaussian.

    Given either as a share of the picture's width or in degrees of visual angle; then the picture's own
    width in degrees is needed too. A picture of w cm seen from d cm is 2 * atan(w / (2 * d)) wide.

    Args:
        sigma_share: standard deviation as a share of the picture's width.
        sigma_degrees: standard deviation in degrees; one degree is usual, about the width of the fovea (Le
            Meur & Baccino, 2013).
        image_width_degrees: width in degrees of the picture as it is stored, black bars included.
    """

    sigma_share: float | None = None
    sigma_degrees: float | None = None
    image_width_degrees: float | None = None

    def __post_init__(self) -> None:
        one_unit = (self.sigma_share is None) != (self.sigma_degrees is None)
        require(self, "sigma_share", one_unit, "given, unless sigma_degrees is given in its place (not both)")
        both = (self.sigma_degrees is None) == (self.image_width_degrees is None)
        require(self, "image_width_degrees", both, "given with sigma_degrees, and only with it")
        for name in ("sigma_share", "sigma_degrees", "image_width_degrees"):
            value = getattr(self, name)
            require(self, name, value is None or 0 < value < float("inf"), "above 0")
        name = "sigma_degrees" if self.sigma_share is None else "sigma_share"
        require(self, name, self.share_of_width() <= 1, "at most the picture's own width")

    def share_of_width(self) -> float:
        """The standard deviation as a share of the picture's width, in whichever unit it was given."""
        if self.sigma_share is not None:
            return self.sigma_share
        return self.sigma_degrees / self.image_width_degrees


def inside_image(fixations: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the fixations (n, 2) lie in the picture; NaN lies nowhere."""
    return ((fixations >= 0) & (fixations <= 1)).all(axis=1)


def fixation_counts(fixations: np.ndarray, height: int, width: int) -> np.ndarray:
    """How many fixations fall on each pixel.

    Args:
        fixations: (n, 2) x, y in 0..1; the right and the bottom edge belong to the last pixel.
        height, width: of the map in pixels.

    Returns:
        float64 (height, width).

    Raises:
        FixationError: a fixation outside the picture, or another shape.
    """
    fixations = _checked(fixations)
    size = np.array([width, height])
    columns, rows = np.minimum((fixations * size).astype(np.int64), size - 1).T
    pixels = np.bincount(rows * width + columns, minlength=height * width)
    return pixels.reshape(height, width).astype(np.float64)


def density_map(fixations: np.ndarray, height: int, width: int, gaussian: GaussianArguments) -> np.ndarray:
    """The probability of looking at each pixel: equally many Gaussians as fixations, at their exact places.

    A pixel gets what its area holds of them, sum_i of (F((c + 1) / w; x_i) - F(c / w; x_i)) times the same
    for rows, where F is the normal distribution around the fixation; no Gaussian is too narrow for the
    pixels. What falls outside the picture is left out, and the whole is normalised to sum to 1.

    Args:
        fixations: (n, 2) x, y in 0..1, at least one.
        height, width: of the map in pixels.
        gaussian: its width; equal in both directions when pixels are square.

    Returns:
        float64 (height, width), non-negative, with the sum 1.

    Raises:
        FixationError: no fixation, one outside the picture, or another shape.
    """
    fixations = _checked(fixations)
    if len(fixations) == 0:
        raise FixationError("A frame without a fixation has no map: its sum would be 0. Leave the frame out.")
    sigma_pixels = gaussian.share_of_width() * width
    columns = _mass_of_pixels(fixations[:, 0] * width, width, sigma_pixels)
    rows = _mass_of_pixels(fixations[:, 1] * height, height, sigma_pixels)
    density = rows.T @ columns
    return density / density.sum()


def center_prior(
    fixations: Sequence[np.ndarray], height: int, width: int, gaussian: GaussianArguments
) -> np.ndarray:
    """Where people look whatever the frame shows: the mean of the frames' maps.

    Args:
        fixations: of each frame of a training split, (n, 2) x, y in 0..1, at least one.
        height, width: of the map in pixels.
        gaussian: as for the maps themselves.

    Returns:
        float64 (height, width), above 0 everywhere (a hundredth is spread evenly), with the sum 1.

    Raises:
        FixationError: no frames, or see `density_map`.
    """
    if not len(fixations):
        raise FixationError("The centre prior is the mean over frames, but there are none.")
    mean = np.zeros((height, width))
    for of_frame in fixations:
        mean += density_map(of_frame, height, width, gaussian) / len(fixations)
    return (1 - UNIFORM_SHARE) * mean + UNIFORM_SHARE / mean.size


def _mass_of_pixels(places: np.ndarray, pixels: int, sigma_pixels: float) -> np.ndarray:
    """(fixations, pixels) what each pixel of an axis holds of the Gaussian around each place."""
    edges = torch.arange(pixels + 1, dtype=torch.float64)
    below = torch.special.ndtr((edges - torch.from_numpy(places)[:, None]) / sigma_pixels)
    return below.diff(dim=1).numpy()


def _checked(fixations: np.ndarray) -> np.ndarray:
    fixations = np.asarray(fixations, dtype=np.float64)
    if fixations.size == 0:
        return fixations.reshape(0, 2)
    if fixations.ndim != 2 or fixations.shape[1] != 2:
        raise FixationError(f"Fixations are of shape {fixations.shape}, but must be (number, 2): x, y.")
    outside = np.flatnonzero(~inside_image(fixations))
    if len(outside):
        x, y = fixations[outside[0]]
        raise FixationError(
            f"{len(outside)} of {len(fixations)} fixations lie outside the picture, the first at x {x:g}, "
            f"y {y:g}. Drop them, or give places in 0..1 of the picture's width and height."
        )
    return fixations
