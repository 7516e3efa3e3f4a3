"""Fixation maps against loops over pixels, and what cannot become one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.arguments import ArgumentsError
from train.fixation_maps import (
    UNIFORM_SHARE,
    FixationError,
    GaussianArguments,
    center_prior,
    density_map,
    fixation_counts,
    inside_image,
)

FIXATIONS = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=st.floats(0, 1))
WIDTHS = st.floats(1e-3, 1)


def normal(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def looped_density(fixations: np.ndarray, height: int, width: int, sigma_share: float) -> np.ndarray:
    """The integral of each Gaussian over each pixel, one by one."""
    sigma = sigma_share * width
    density = np.zeros((height, width))
    for x, y in fixations:
        for row in range(height):
            for column in range(width):
                across = normal((column + 1 - x * width) / sigma) - normal((column - x * width) / sigma)
                down = normal((row + 1 - y * height) / sigma) - normal((row - y * height) / sigma)
                density[row, column] += across * down
    return density / density.sum()


@settings(max_examples=40, deadline=None)
@given(fixations=FIXATIONS, sigma_share=WIDTHS, height=st.integers(1, 9), width=st.integers(1, 9))
def test_density_is_that_of_a_loop(fixations, sigma_share, height, width) -> None:
    density = density_map(fixations, height, width, GaussianArguments(sigma_share=sigma_share))
    assert density.dtype == np.float64 and (density >= 0).all()
    assert density.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(density, looped_density(fixations, height, width, sigma_share), atol=1e-12)


def test_a_narrow_pixel_grid_comes_near_the_gaussian_itself() -> None:
    x, y, sigma, size = 0.43, 0.58, 0.08, 200
    density = density_map(np.array([[x, y]]), size, size, GaussianArguments(sigma_share=sigma))
    centres = (np.arange(size) + 0.5) / size
    squared = (centres[None] - x) ** 2 + (centres[:, None] - y) ** 2
    expected = np.exp(-squared / (2 * sigma**2))
    np.testing.assert_allclose(density, expected / expected.sum(), atol=1e-3 * density.max())


def test_degrees_and_share_of_the_width_are_the_same() -> None:
    fixations = np.array([[0.2, 0.7], [0.9, 0.1]])
    share = density_map(fixations, 12, 12, GaussianArguments(sigma_share=0.05))
    degrees = GaussianArguments(sigma_degrees=1.0, image_width_degrees=20.0)
    assert degrees.share_of_width() == 0.05
    np.testing.assert_array_equal(share, density_map(fixations, 12, 12, degrees))


def test_x_goes_to_the_right_and_y_down() -> None:
    density = density_map(np.array([[0.9, 0.1]]), 8, 10, GaussianArguments(sigma_share=0.01))
    assert np.unravel_index(density.argmax(), density.shape) in {(0, 8), (0, 9)}


def test_a_gaussian_narrower_than_a_pixel_stays_in_its_pixel() -> None:
    density = density_map(np.array([[0.5, 0.5]]), 5, 5, GaussianArguments(sigma_share=1e-6))
    expected = np.zeros((5, 5))
    expected[2, 2] = 1
    np.testing.assert_allclose(density, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(fixations=FIXATIONS, height=st.integers(1, 9), width=st.integers(1, 9))
def test_counts_are_those_of_a_loop(fixations, height, width) -> None:
    expected = np.zeros((height, width))
    for x, y in fixations:
        expected[min(int(y * height), height - 1), min(int(x * width), width - 1)] += 1
    np.testing.assert_array_equal(fixation_counts(fixations, height, width), expected)


def test_no_fixation_counts_nothing() -> None:
    assert (fixation_counts(np.zeros((0, 2)), 3, 4) == np.zeros((3, 4))).all()


def test_the_centre_prior_weighs_frames_not_fixations() -> None:
    gaussian = GaussianArguments(sigma_share=0.1)
    many, one = np.array([[0.2, 0.2]] * 9), np.array([[0.8, 0.7]])
    mean = (density_map(many, 6, 7, gaussian) + density_map(one, 6, 7, gaussian)) / 2
    prior = center_prior([many, one], 6, 7, gaussian)
    np.testing.assert_allclose(prior, (1 - UNIFORM_SHARE) * mean + UNIFORM_SHARE / 42, atol=1e-15)
    assert prior.sum() == pytest.approx(1) and prior.min() > 0


@pytest.mark.parametrize(
    ("fixations", "message"),
    [
        ([[0.2, 0.3], [1.2, 0.4]], "1 of 2 fixations lie outside the picture, the first at x 1.2, y 0.4"),
        ([[0.2, -0.1]], "outside"),
        ([[math.nan, 0.4]], "outside"),
        ([0.2, 0.3], "must be"),
        ([[0.2, 0.3, 0.4]], "must be"),
    ],
)
def test_fixations_that_lie_nowhere_are_refused(fixations: list, message: str) -> None:
    with pytest.raises(FixationError, match=message):
        density_map(np.array(fixations), 4, 4, GaussianArguments(sigma_share=0.1))
    with pytest.raises(FixationError, match=message):
        fixation_counts(np.array(fixations), 4, 4)


def test_no_fixation_has_no_density() -> None:
    with pytest.raises(FixationError, match="without a fixation"):
        density_map(np.zeros((0, 2)), 4, 4, GaussianArguments(sigma_share=0.1))
    with pytest.raises(FixationError, match="there are none"):
        center_prior([], 4, 4, GaussianArguments(sigma_share=0.1))


def test_inside_image() -> None:
    places = np.array([[0, 0], [1, 1], [1.01, 0.5], [0.5, -0.01], [math.nan, 0.5]])
    assert inside_image(places).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "sigma_share"),
        ({"sigma_share": 0.1, "sigma_degrees": 1.0, "image_width_degrees": 20.0}, "sigma_share"),
        ({"sigma_degrees": 1.0}, "image_width_degrees"),
        ({"sigma_share": 0.1, "image_width_degrees": 20.0}, "image_width_degrees"),
        ({"sigma_share": 0.0}, "sigma_share"),
        ({"sigma_share": math.inf}, "sigma_share"),
        ({"sigma_share": 12.0}, "sigma_share"),
        ({"sigma_degrees": 21.0, "image_width_degrees": 20.0}, "sigma_degrees"),
        ({"sigma_degrees": -1.0, "image_width_degrees": 20.0}, "sigma_degrees"),
    ],
)
def test_the_width_of_the_gaussian_is_given_in_one_unit(fields: dict, name: str) -> None:
    with pytest.raises(ArgumentsError, match=f"^{name} is"):
        GaussianArguments(**fields)
