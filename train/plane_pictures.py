"""Pictures of standard plane detection: what is taken for what, and whether confidence is deserved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from train.metrics.standard_plane.standard_plane import confidence_bins

DOTS_PER_INCH = 110
CELL_INCHES = 0.45
DARK = 0.55


def save_confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], path: Path
) -> None:
    """Of the frames of each class, which share is taken for which; their number stands beside the class.

    Args:
        labels: (frames,) true classes, of all splits.
        predicted: (frames,) what they are taken for.
        class_names: of all classes; one without frames is an empty row.
        path: PNG file to write.
    """
    counts = confusion_counts(labels, predicted, len(class_names))
    frames = counts.sum(axis=1)
    shares = counts / np.maximum(frames, 1)[:, None]
    side = CELL_INCHES * len(class_names)
    figure = Figure(figsize=(side + 3.4, side + 1.8), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the class's frames", shrink=0.7)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > DARK else "black"
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize="small", color=color)
    names = [name.replace("_", " ") for name in class_names]
    places = range(len(names))
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", fontsize="small")
    with_numbers = [f"{name} ({number})" for name, number in zip(names, frames, strict=True)]
    axes.set_yticks(places, with_numbers, fontsize="small")
    axes.set(xlabel="taken for", ylabel="true plane (frames)", title="Test frames of all splits, in percent")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def save_reliability(
    confidences: np.ndarray, correct: np.ndarray, calibration_error: str, path: Path, bins: int = 15
) -> None:
    """How often the model is right at each confidence, beside how often it has it (Guo et al., 2017).

    Args:
        confidences: (frames,) probability of the predicted class, of all splits.
        correct: (frames,) bool, whether the predicted class is the true one.
        calibration_error: expected calibration error as text, for the title.
        path: PNG file to write.
        bins: of equal width.
    """
    accuracy, confidence, shares = reliability_bins(confidences, correct, bins)
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = (np.arange(bins) + 0.5) / bins
    filled = shares > 0
    upper.bar(middles[filled], accuracy[filled], 0.9 / bins, color="C0")
    upper.plot(
        confidence[filled], accuracy[filled], "o", color="black", markersize=3, label="mean confidence"
    )
    upper.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right predictions")
    upper.set_title(f"Expected calibration error {calibration_error}")
    upper.legend(loc="upper left", fontsize="small", frameon=False)
    lower.bar(middles, shares, 0.9 / bins, color="C7")
    lower.set(xlabel="confidence", ylabel="share of frames")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes), how many frames of the row's class are taken for the column's."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def reliability_bins(
    confidences: np.ndarray, correct: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of right predictions, mean confidence and share of the frames in bins ((m - 1) / bins, m / bins].

    All (bins,); the first two are NaN in empty bins.
    """
    bin_of_frame = confidence_bins(confidences, bins)
    frames = np.bincount(bin_of_frame, minlength=bins)
    divisor = np.where(frames, frames, np.nan)
    accuracy = np.bincount(bin_of_frame, weights=correct, minlength=bins) / divisor
    confidence = np.bincount(bin_of_frame, weights=confidences, minlength=bins) / divisor
    return accuracy, confidence, frames / len(confidences)
