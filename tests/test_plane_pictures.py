"""Pictures of standard plane detection: files that open, and the numbers behind them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_scripts.schema import PLANES
from train.metrics.standard_plane.standard_plane import expected_calibration_error
from train.plane_pictures import confusion_counts, reliability_bins, save_confusion_matrix, save_reliability


def check_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("L").getcolors(256)) > 10, "the picture is blank"


@pytest.mark.filterwarnings("error")
def test_a_confusion_matrix_of_all_planes_one_of_them_without_frames(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(1, len(PLANES), 500)
    predicted = np.where(chance.random(500) < 0.7, labels, chance.integers(0, len(PLANES), 500))
    save_confusion_matrix(labels, predicted, PLANES, tmp_path / "confusion_matrix.png")
    check_picture(tmp_path / "confusion_matrix.png")


def test_a_confusion_matrix_of_two_classes(tmp_path: Path) -> None:
    save_confusion_matrix(np.array([0, 1]), np.array([1, 1]), ("femur", "background"), tmp_path / "small.png")
    check_picture(tmp_path / "small.png")


def test_rows_are_true_and_columns_are_taken_for() -> None:
    counts = confusion_counts(np.array([0, 0, 0, 2]), np.array([1, 1, 0, 2]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("confidence", [None, 0.0, 1.0])
def test_a_reliability_diagram_with_empty_bins(tmp_path: Path, confidence: float | None) -> None:
    chance = np.random.default_rng(0)
    confidences = chance.uniform(0.3, 1, 200) if confidence is None else np.full(200, confidence)
    save_reliability(
        confidences, chance.random(200) < confidences, "3.2 (0.4) %", tmp_path / "reliability.png"
    )
    check_picture(tmp_path / "reliability.png")


def test_bins_are_those_of_the_expected_calibration_error() -> None:
    chance = np.random.default_rng(0)
    confidences = np.concatenate([chance.uniform(0.2, 1, 300), [0.0, 0.4, 1.0]])
    correct = chance.random(303) < confidences**2
    accuracy, confidence, shares = reliability_bins(confidences, correct, 10)
    assert shares.sum() == pytest.approx(1) and shares[1] == 0 and np.isnan(accuracy[1])
    gaps = np.abs(accuracy - confidence) * shares
    assert np.nansum(gaps) == pytest.approx(expected_calibration_error(confidences, correct, 10))


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    accuracy, confidence, shares = reliability_bins(
        np.array([0.5, 0.6, 0.9]), np.array([True, False, True]), 2
    )
    assert accuracy.tolist() == [1, 0.5]
    assert confidence.tolist() == [0.5, 0.75] and shares.tolist() == pytest.approx([1 / 3, 2 / 3])
