"""95% intervals of what a run was measured to be, by a bootstrap that resamples the scans it was tested on.

Frames, and clips, of one scan are alike: a scan is drawn with all of them, in all splits. What other scans to
train on, or another seed, would give is not in these intervals. Their ends stand in metrics.json as
`<name>_low` and `<name>_high`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasets_scripts.schema import LABEL
from train.metrics.standard_plane.standard_plane import CALIBRATION_BINS, confidence_bins
from train.paired_differences import Frames, MeanOverFrames, Statistic, run_intervals
from train.plane_results import CALIBRATION, MACRO, PREDICTED, SplitPredictions, metric_name
from train.retrieval import RECALL_AT

LOW, HIGH = "low", "high"
CONFIDENCE, IS_RIGHT = "confidence", "is_right"


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall or F1, as train/metrics/standard_plane defines them: of some classes the mean.

    Args:
        score: which of the three.
        classes: numbers of the classes; those without a labelled frame are left out of the mean.
    """

    score: str
    classes: tuple[int, ...]
    columns = (LABEL, PREDICTED)

    def summands(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(frames, 3 classes): for each class whether the frame is found, taken for it, of it."""
        is_of, is_taken = (values[name][:, None] == np.array(self.classes) for name in self.columns)
        return np.concatenate([is_of & is_taken, is_taken, is_of], axis=1).astype(np.float64)

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """The mean over the classes with labelled frames; NaN where there is none."""
        found, predicted, labelled = np.split(sums, 3, axis=1)
        doubled, parts = {
            "precision": (found, predicted),
            "recall": (found, labelled),
            "f1": (2 * found, predicted + labelled),
        }[self.score]
        is_present = labelled > 0
        by_class = np.where(is_present, doubled / np.maximum(parts, 1), 0.0)
        present = is_present.sum(axis=1)
        return np.where(present > 0, by_class.sum(axis=1) / np.maximum(present, 1), np.nan)


class CalibrationError:
    """The expected calibration error, as train/metrics/standard_plane defines it."""

    columns = (CONFIDENCE, IS_RIGHT)

    def summands(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(frames, bins + 1): in the frame's bin how far it is from its confidence; and 1."""
        gaps = np.zeros((len(values[IS_RIGHT]), CALIBRATION_BINS + 1))
        bins = confidence_bins(values[CONFIDENCE], CALIBRATION_BINS)
        gaps[np.arange(len(gaps)), bins] = values[IS_RIGHT] - values[CONFIDENCE]
        gaps[:, -1] = 1.0
        return gaps

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """The bins' distances over the number of frames."""
        frames = sums[:, -1]
        distances = np.abs(sums[:, :-1]).sum(axis=1)
        return np.where(frames > 0, distances / np.maximum(frames, 1), np.nan)


def plane_intervals(
    tested: Sequence[SplitPredictions], class_names: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """The intervals of the macro scores, those of each class, accuracy and calibration.

    Args:
        tested: the test frames of each split.
        class_names: of the set.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `test/<name>_low` and `test/<name>_high`; none with fewer than two scans.
    """
    classes = tuple(range(len(class_names)))
    statistics: dict[str, Statistic] = {score: ClassScores(score, classes) for score in MACRO}
    statistics |= {
        f"{score}_{metric_name(name)}": ClassScores(score, (number,))
        for score in MACRO
        for number, name in enumerate(class_names)
    }
    statistics |= {"accuracy": MeanOverFrames(IS_RIGHT), CALIBRATION: CalibrationError()}
    labels, predicted, confidences = (
        np.concatenate([getattr(test, name) for test in tested])
        for name in ("labels", "predicted", "confidences")
    )
    values = {
        LABEL: labels,
        PREDICTED: predicted,
        CONFIDENCE: confidences,
        IS_RIGHT: (labels == predicted).astype(np.float64),
    }
    frames = _frames([test.scan_ids for test in tested], values)
    return _named("test", run_intervals(frames, statistics, resamples, seed))


def frame_score_intervals(
    group: str,
    scan_ids: Sequence[Sequence[str]],
    scores: Sequence[Sequence[Mapping[str, float]]],
    names: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """The intervals of means over frames, as those of saliency maps are.

    Args:
        group: what is scored, the first part of the names.
        scan_ids: of each split the scans of its frames.
        scores: of each split the scores of its frames, by name; one without a value is absent.
        names: the scores.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `<group>/<name>_low` and `<group>/<name>_high`; none of a score that no frame has, and none with
        fewer than two scans.
    """
    rows = [row for of_split in scores for row in of_split]
    values = {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names}
    statistics = {name: MeanOverFrames(name) for name in names}
    return _named(group, run_intervals(_frames(scan_ids, values), statistics, resamples, seed))


def recall_intervals(
    ranks: np.ndarray,
    scan_ids: Sequence[str],
    at: Sequence[int] = RECALL_AT,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[int, tuple[float, float]]:
    """The intervals of recall at each k, over other scans to ask from; what is searched stays the same.

    Args:
        ranks: (queries,) at which place, from 1, each finds its own.
        scan_ids: (queries,) the scan of each.
        at: the values of k.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        by k both ends; none with fewer than two scans.
    """
    values = {str(k): (ranks <= k).astype(np.float64) for k in at}
    statistics = {name: MeanOverFrames(name) for name in values}
    found = run_intervals(_frames([scan_ids], values), statistics, resamples, seed)
    return {int(name): interval for name, interval in found.items()}


def _frames(scan_ids: Sequence[Sequence[str]], values: Mapping[str, np.ndarray]) -> Frames:
    """The frames of all splits, numbered from 1; their times are not needed."""
    scans = np.array([scan_id for of_split in scan_ids for scan_id in of_split], dtype=str)
    splits = np.repeat(np.arange(1, len(scan_ids) + 1), [len(of_split) for of_split in scan_ids])
    return Frames(splits, scans, np.full(len(scans), np.nan), values)


def _named(group: str, intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {
        f"{group}/{name}_{end}": value
        for name, interval in intervals.items()
        for end, value in zip((LOW, HIGH), interval, strict=True)
    }
