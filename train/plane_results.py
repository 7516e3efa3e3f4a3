"""Scores of standard plane detection over the splits: the table, metrics, predictions in Parquet."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_scripts.schema import LABEL, SCAN_ID, TIME_S
from train.metrics.standard_plane.standard_plane import expected_calibration_error, standard_plane_scores

MACRO = ("precision", "recall", "f1")
CALIBRATION = "expected_calibration_error"
SPLIT, PREDICTED, PROBABILITY = "split", "predicted", "probability"
# What stands behind a score's name in metrics.json: its deviation, and the ends of its interval.
ENDINGS = ("std", "low", "high")
COLUMN_WIDTH = 16


class PlaneResultsError(ValueError):
    """Predictions or classes that no table can be made of."""


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """What a model says of the test frames of one split.

    Args:
        scan_ids: (frames,) the scan of each frame.
        times_s: (frames,) its time in the scan, or the start of its clip; NaN where unknown.
        labels: (frames,) int64, its true class.
        probabilities: (frames, classes).

    Raises:
        PlaneResultsError: probabilities that are no numbers.
    """

    scan_ids: Sequence[str]
    times_s: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        if not np.isfinite(self.probabilities).all():
            raise PlaneResultsError(
                "The model gives probabilities that are no numbers: its training has diverged. Lower "
                "learning_rate."
            )

    @property
    def predicted(self) -> np.ndarray:
        """(frames,) int64, the likeliest class."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        """(frames,) probability of the likeliest class, float64."""
        # Single-precision probabilities may add up to a little more than 1.
        return np.minimum(self.probabilities.max(axis=1).astype(np.float64), 1.0)


def split_scores(test: SplitPredictions, class_names: Sequence[str]) -> dict[str, float]:
    """The scores of one split by their names in metrics.json.

    `absent_classes` is the number of classes without test frames; they are left out of the macro means.
    """
    scores = standard_plane_scores(test.predicted, test.labels, class_names)
    absent = scores.pop("absent_classes")
    scores[CALIBRATION] = expected_calibration_error(test.confidences, test.predicted == test.labels)
    scores |= {"frames": float(len(test.labels)), "absent_classes": float(len(absent))}
    return {metric_name(name): value for name, value in scores.items()}


def over_splits(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """All scores as metrics.json holds them.

    `test/<name>` is the mean over the splits that have the score, `test/<name>_std` their sample standard
    deviation, absent for a single value; `split_<number>/<name>` are the scores of each split, from 1. A
    class that some splits have no test frame of has its mean over the others.
    """
    metrics = {}
    for name in dict.fromkeys(name for of_split in scores for name in of_split):
        values = [of_split[name] for of_split in scores if name in of_split]
        metrics[f"test/{name}"] = mean(values)
        if len(values) > 1:
            metrics[f"test/{name}_std"] = stdev(values)
    for number, of_split in enumerate(scores, start=1):
        metrics |= {f"split_{number}/{name}": value for name, value in of_split.items()}
    return metrics


def metric_name(name: str) -> str:
    """A score's or class's name in the letters that metrics.json takes."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def check_class_names(class_names: Sequence[str]) -> None:
    """Checks that there are two classes or more, whose scores have different names in metrics.json.

    Raises:
        PlaneResultsError: there are not, or a class is named like what stands behind a score's name.
    """
    if len(class_names) < 2:
        raise PlaneResultsError(f"The set has {len(class_names)} class: there is nothing to tell apart.")
    in_metrics = {metric_name(name) for name in class_names}
    if len(in_metrics) < len(class_names) or "" in in_metrics:
        raise PlaneResultsError(
            f"The classes {', '.join(class_names)} do not differ in their letters a to z and digits alone: "
            "rename them."
        )
    for ending in ENDINGS:
        taken = in_metrics & ({ending} | {f"{name}_{ending}" for name in in_metrics})
        if taken:
            raise PlaneResultsError(f"The class {min(taken)} has the name of a score's {ending}: rename it.")


def results_table(metrics: dict[str, float], class_names: Sequence[str]) -> str:
    """Precision, recall and F1 as the paper's Table 1 has them: mean (standard deviation) in percent.

    The macro averages come first, then each class, then accuracy and expected calibration error. Classes that
    no test frame shows are named below.
    """
    lines = [" " * 30 + "".join(f"{title:>{COLUMN_WIDTH}}" for title in ("precision", "recall", "F1"))]
    rows = {"macro average": ""} | {name: f"_{metric_name(name)}" for name in class_names}
    absent = []
    for title, ending in rows.items():
        if f"test/f1{ending}" not in metrics:
            absent.append(title)
            continue
        cells = [_cell(metrics, f"test/{score}{ending}") for score in MACRO]
        lines.append(f"{_words(title):30}" + "".join(f"{cell:>{COLUMN_WIDTH}}" for cell in cells))
    lines.append(f"{'accuracy':30}{_cell(metrics, 'test/accuracy'):>{COLUMN_WIDTH}}")
    lines.append(f"{'expected calibration error':30}{_cell(metrics, f'test/{CALIBRATION}'):>{COLUMN_WIDTH}}")
    if absent:
        lines.append(f"Absent, without a test frame: {', '.join(map(_words, absent))}.")
    if metrics["test/absent_classes"] > len(absent):
        lines.append("Some splits have no test frame of a class: its scores are means over the others.")
    return "\n".join(lines)


def calibration_text(metrics: dict[str, float]) -> str:
    """The expected calibration error as the table has it, in percent."""
    return f"{_cell(metrics, f'test/{CALIBRATION}')} %"


def write_predictions(splits: Sequence[SplitPredictions], class_names: Sequence[str], path: Path) -> None:
    """Writes a row a test frame and split as Parquet.

    Its columns are `split` (from 1), `scan_id`, `time_s`, `label` and `predicted`, both names of classes, and
    `probability_<class>` for every class.
    """
    names = pa.array(class_names)
    tables = []
    for number, test in enumerate(splits, start=1):
        columns = {
            SPLIT: pa.array([number] * len(test.labels), pa.int32()),
            SCAN_ID: pa.array(list(test.scan_ids), pa.string()),
            TIME_S: pa.array(test.times_s, pa.float64(), from_pandas=True),
            LABEL: names.take(pa.array(test.labels)),
            PREDICTED: names.take(pa.array(test.predicted)),
        }
        columns |= {
            f"{PROBABILITY}_{name}": pa.array(test.probabilities[:, index], pa.float32())
            for index, name in enumerate(class_names)
        }
        tables.append(pa.table(columns))
    pq.write_table(pa.concat_tables(tables), path)


def _cell(metrics: dict[str, float], name: str) -> str:
    deviation = f" ({100 * metrics[f'{name}_std']:.1f})" if f"{name}_std" in metrics else ""
    return f"{100 * metrics[name]:.1f}{deviation}"


def _words(name: str) -> str:
    return name.replace("_", " ")
