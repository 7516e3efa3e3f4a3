"""Scores of standard plane detection from predictions to the table of all splits."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.metrics.standard_plane.standard_plane import expected_calibration_error, standard_plane_scores
from train.metrics_file import METRIC_NAME
from train.plane_results import (
    PlaneResultsError,
    SplitPredictions,
    calibration_text,
    check_class_names,
    over_splits,
    results_table,
    split_scores,
    write_predictions,
)

NAMES = ("brain_tv", "femur", "background")


def predictions(labels: list[int], predicted: list[int], confidence: float = 0.8) -> SplitPredictions:
    """Frames of two scans; the rest of the probability is shared by the other classes."""
    probabilities = np.full((len(labels), len(NAMES)), (1 - confidence) / 2, dtype=np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    scans = [f"scan{index % 2}" for index in range(len(labels))]
    return SplitPredictions(scans, np.arange(len(labels)) / 2, np.array(labels), probabilities)


ALL_CLASSES = predictions([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0])
WITHOUT_FEMUR = predictions([0, 0, 2, 2], [0, 0, 2, 1], confidence=0.6)


def test_scores_of_a_split_are_those_of_the_metric() -> None:
    scores = split_scores(ALL_CLASSES, NAMES)
    expected = standard_plane_scores([0, 1, 1, 2, 2, 0], [0, 0, 1, 2, 2, 2], NAMES)
    assert expected.pop("absent_classes") == []
    assert {name: scores[name] for name in expected} == expected
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["precision_femur"] == pytest.approx(1 / 2) and scores["recall_femur"] == 1
    assert scores["expected_calibration_error"] == pytest.approx(abs(4 / 6 - 0.8))
    assert scores["frames"] == 6 and scores["absent_classes"] == 0


def test_a_class_without_test_frames_has_no_scores_and_is_counted() -> None:
    scores = split_scores(WITHOUT_FEMUR, NAMES)
    assert not any(name.endswith("femur") for name in scores)
    assert scores["absent_classes"] == 1
    assert scores["recall"] == pytest.approx((1 + 1 / 2) / 2)


def test_mean_and_sample_deviation_are_over_the_splits_that_have_the_class() -> None:
    splits = [split_scores(test, NAMES) for test in (ALL_CLASSES, WITHOUT_FEMUR, ALL_CLASSES)]
    metrics = over_splits(splits)
    assert metrics["test/recall_femur"] == 1 and metrics["test/recall_femur_std"] == 0
    recalls = [1 / 2, 1, 1 / 2]
    assert metrics["test/recall_brain_tv"] == pytest.approx(np.mean(recalls))
    assert metrics["test/recall_brain_tv_std"] == pytest.approx(np.std(recalls, ddof=1))
    assert metrics["test/absent_classes"] == pytest.approx(1 / 3)
    assert metrics["split_1/recall_femur"] == 1 and "split_2/recall_femur" not in metrics
    assert metrics["split_2/f1"] == splits[1]["f1"]


def test_a_single_split_or_a_single_value_has_no_deviation() -> None:
    assert not any(name.endswith("_std") for name in over_splits([split_scores(ALL_CLASSES, NAMES)]))
    metrics = over_splits([split_scores(test, NAMES) for test in (ALL_CLASSES, WITHOUT_FEMUR)])
    assert "test/f1_std" in metrics and "test/f1_femur_std" not in metrics


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_predicted_metrics_are_finite_and_the_table_is_whole(
    splits: list[list[tuple[int, int]]],
) -> None:
    tested = [predictions(*map(list, zip(*split, strict=True))) for split in splits]
    metrics = over_splits([split_scores(test, NAMES) for test in tested])
    assert all(math.isfinite(value) and METRIC_NAME.fullmatch(name) for name, value in metrics.items())
    table = results_table(metrics, NAMES)
    assert "nan" not in table and all(name.replace("_", " ") in table for name in NAMES)


def test_the_table_is_in_percent_with_a_row_a_class() -> None:
    metrics = over_splits([split_scores(test, NAMES) for test in (ALL_CLASSES, WITHOUT_FEMUR)])
    header, macro, brain, femur, background, accuracy, calibration, note = results_table(
        metrics, NAMES
    ).splitlines()
    assert header.split() == ["precision", "recall", "F1"]
    assert macro.startswith("macro average") and brain.startswith("brain tv ")
    # Of brain tv: precision 1/2 and 1, recall 1/2 and 1, F1 the same.
    assert brain.split()[2:] == ["75.0", "(35.4)"] * 3
    assert femur.split() == ["femur", "50.0", "100.0", "66.7"]
    assert background.startswith("background")
    # 4 of 6 and 3 of 4 frames; confidences 0.8 and 0.6.
    assert accuracy.split() == ["accuracy", "70.8", "(5.9)"]
    assert calibration.split()[-2:] == ["14.2", "(1.2)"]
    assert calibration_text(metrics) == "14.2 (1.2) %"
    assert note == "Some splits have no test frame of a class: its scores are means over the others."


def test_the_table_names_classes_that_no_split_tests() -> None:
    metrics = over_splits([split_scores(WITHOUT_FEMUR, NAMES)] * 2)
    lines = results_table(metrics, NAMES).splitlines()
    assert lines[-1] == "Absent, without a test frame: femur."
    assert not any(line.startswith("femur") for line in lines)


def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    probabilities = ALL_CLASSES.probabilities.copy()
    probabilities[3, 1] = math.nan
    with pytest.raises(
        PlaneResultsError, match=r"no numbers: its training has diverged\. Lower learning_rate"
    ):
        replace(ALL_CLASSES, probabilities=probabilities)


def test_confidences_rounded_above_one_count_as_one() -> None:
    probabilities = np.array([[1 + 1e-7, 0, 0]], dtype=np.float32)
    sure = SplitPredictions(["a"], np.zeros(1), np.array([0]), probabilities)
    assert sure.confidences.tolist() == [1.0]
    assert expected_calibration_error(sure.confidences, sure.predicted == sure.labels) == 0


def test_classes_that_metrics_cannot_tell_apart_are_refused() -> None:
    check_class_names(NAMES)
    check_class_names(("Brain (TV)", "brain TC"))
    with pytest.raises(PlaneResultsError, match="1 class: there is nothing to tell apart"):
        check_class_names(("femur",))
    for names in (("brain TV", "brain-tv"), ("femur", "心")):
        with pytest.raises(PlaneResultsError, match=f"classes {', '.join(names)} do not differ"):
            check_class_names(names)
    for names in (("femur", "Low"), ("femur", "femur std")):
        with pytest.raises(PlaneResultsError, match="has the name of a score's"):
            check_class_names(names)


def test_names_of_any_letters_become_names_of_metrics() -> None:
    names = ("Brain (TV)", "femur", "background")
    metrics = over_splits([split_scores(ALL_CLASSES, names)])
    assert metrics["test/recall_brain_tv"] == pytest.approx(1 / 2)
    assert "Brain (TV)" in results_table(metrics, names)


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    unknown_time = replace(WITHOUT_FEMUR, times_s=np.array([math.nan, 1.0, 2.0, 3.0]))
    path = tmp_path / "predictions.parquet"
    write_predictions([ALL_CLASSES, unknown_time], NAMES, path)
    table = pq.read_table(path)
    probability_columns = [f"probability_{name}" for name in NAMES]
    assert table.column_names == ["split", "scan_id", "time_s", "label", "predicted", *probability_columns]
    columns = table.to_pydict()
    assert columns["split"] == [1] * 6 + [2] * 4
    assert columns["scan_id"][:3] == ["scan0", "scan1", "scan0"]
    assert columns["time_s"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, None, 1.0, 2.0, 3.0]
    assert columns["label"][:4] == ["brain_tv", "brain_tv", "femur", "background"]
    assert columns["predicted"][-2:] == ["background", "femur"]
    probabilities = np.stack([table[name].to_numpy() for name in probability_columns], axis=1)
    expected = np.concatenate([ALL_CLASSES.probabilities, WITHOUT_FEMUR.probabilities])
    assert (probabilities == expected).all()
