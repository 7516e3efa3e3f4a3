"""Standard plane detection: accuracy, and precision, recall and F1 of each class and over classes.

Macro scores are means over the classes that have reference frames. A class without any has no recall, and its
precision and F1 would say nothing but zero: it has no scores, is left out of the means, and is listed under
`absent_classes`. Frames wrongly taken for it still count against the classes they belong to.

What is wrong is a ValueError: no frames, more or fewer predictions than references, labels that are no class
(-1, unlabelled, too), repeated class names, confidences outside 0..1. README.md has this as a table.
"""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

CALIBRATION_BINS = 15

DESCRIPTION = """\
Detection of standard planes: accuracy, precision, recall and F1, macro over the classes that occur and of
each class; with confidences, the expected calibration error (Guo et al., 2017).
"""

CITATION = """\
@inproceedings{guo2017calibration,
  title     = {On Calibration of Modern Neural Networks},
  author    = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {International Conference on Machine Learning},
  pages     = {1321--1330},
  year      = {2017}
}
"""

INPUTS = """
Args:
    predictions: predicted class of each frame, an index from 0.
    references: its true class.
    class_names: names of the classes in order of their index; by default the index is the name, and the
        highest label is the last class.
    confidences: of each frame the probability of the predicted class, in 0..1; to `compute` only, in the
        order in which the frames were added.

Returns:
    accuracy; precision, recall, f1: means over the classes that have reference frames; for each of these
        classes precision_<class>, recall_<class>, f1_<class>.
    absent_classes: the names of the classes without reference frames.
    expected_calibration_error: where confidences are given.
"""


def standard_plane_scores(
    predictions: ArrayLike, references: ArrayLike, class_names: Sequence[str] | None = None
) -> dict[str, float | list[str]]:
    """Scores of a classification of frames, as the paper's Table 1 has them.

    Of a class, with true positives tp, false positives fp and false negatives fn: precision tp / (tp + fp), 0
    where nothing is predicted; recall tp / (tp + fn); F1 2 tp / (2 tp + fp + fn). Macro F1 is the mean of the
    classes' F1.

    Args:
        predictions: (frames,) class indices.
        references: (frames,) true class indices.
        class_names: None names classes by index, up to the highest label.

    Returns:
        accuracy, precision, recall, f1, `precision_<class>`, `recall_<class>`, `f1_<class>`, all in 0..1, and
        `absent_classes`, the names of classes without reference frames.

    Raises:
        ValueError: no frames, labels that are no class, or not as many predictions as references.
    """
    predictions, references = _labels("predictions", predictions), _labels("references", references)
    if len(predictions) != len(references):
        raise ValueError(f"There are {len(predictions)} predictions, but {len(references)} references.")
    names = _class_names(class_names, predictions, references)
    of_prediction = np.bincount(predictions, minlength=len(names))
    of_reference = np.bincount(references, minlength=len(names))
    correct = np.bincount(references[predictions == references], minlength=len(names))
    present = np.flatnonzero(of_reference)
    by_class = {
        "precision": correct[present] / np.maximum(of_prediction[present], 1),
        "recall": correct[present] / of_reference[present],
        "f1": 2 * correct[present] / (of_prediction + of_reference)[present],
    }
    scores = {"accuracy": float((predictions == references).mean())}
    scores |= {score: float(values.mean()) for score, values in by_class.items()}
    for score, values in by_class.items():
        scores |= {f"{score}_{names[index]}": float(v) for index, v in zip(present, values, strict=True)}
    absent = [name for name, frames in zip(names, of_reference, strict=True) if not frames]
    return {**scores, "absent_classes": absent}


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """How far a model's confidence is from how often it is right (Guo et al., 2017, equation 3).

    sum over bins of frames in bin / frames * |accuracy in bin - mean confidence in bin|, with bins of equal
    width, ((m - 1) / bins, m / bins]; confidence 0 belongs to the first.

    Args:
        confidences: (frames,) probability of the predicted class, in 0..1.
        correct: (frames,) bool, whether the predicted class is the true one.
        bins: number of bins.

    Returns:
        0 (calibrated) to 1.

    Raises:
        ValueError: no frames, no bins, confidences outside 0..1, or not as many of one as of the other.
    """
    confidences, correct = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=bool)
    if confidences.ndim != 1 or confidences.shape != correct.shape or not confidences.size:
        raise ValueError(
            f"confidences have the shape {confidences.shape} and correct {correct.shape}: give one value of "
            "each for every frame, and one frame at least."
        )
    if bins < 1:
        raise ValueError(f"bins is {bins}, but must be 1 at least.")
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError("confidences hold values outside 0..1: give the predicted class's probability.")
    gaps = np.bincount(confidence_bins(confidences, bins), weights=correct - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / confidences.size)


def confidence_bins(confidences: np.ndarray, bins: int) -> np.ndarray:
    """(frames,) int64, the number from 0 of each confidence's bin, ((m - 1) / bins, m / bins]."""
    return np.searchsorted(np.arange(1, bins) / bins, confidences, side="left")


class StandardPlane(evaluate.Metric):
    """The metric as `evaluate.load` of this folder gives it."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": label, "references": label}),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        class_names: Sequence[str] | None = None,
        confidences: ArrayLike | None = None,
    ) -> dict[str, float | list[str]]:
        scores = standard_plane_scores(predictions, references, class_names)
        if confidences is not None:
            correct = np.asarray(predictions) == np.asarray(references)
            scores["expected_calibration_error"] = expected_calibration_error(confidences, correct)
        return scores


def _labels(name: str, values: ArrayLike) -> np.ndarray:
    """(frames,) int64."""
    labels = np.asarray(values)
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"{name} have the shape {labels.shape}, but must be a class index for each frame.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} are {labels.dtype}, but must be integers: take the argmax first.")
    return labels.astype(np.int64)


def _class_names(class_names: Sequence[str] | None, *labels: np.ndarray) -> list[str]:
    """The classes' names, found to be enough for all labels."""
    lowest, highest = min(map(np.min, labels)), max(map(np.max, labels))
    names = [str(index) for index in range(highest + 1)] if class_names is None else list(class_names)
    if len(set(names)) < len(names):
        raise ValueError(f"class_names holds a name twice: {', '.join(names)}.")
    if lowest < 0 or highest >= len(names):
        raise ValueError(
            f"There are labels from {lowest} to {highest}, but classes from 0 to {len(names) - 1}. Leave "
            "unlabelled frames (-1) out, or name all classes."
        )
    return names
