"""Scores of standard plane detection against loops, scikit-learn, hand-made tables; odd input."""

import doctest
import math
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.metrics.standard_plane.standard_plane import expected_calibration_error, standard_plane_scores

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "train" / "metrics" / "standard_plane"
NAMES = ["femur", "abdomen", "lips", "profile"]

frames = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)
answers = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda n: n / 20)), st.booleans()),
    min_size=1,
    max_size=30,
)


def scores_of_a_loop(pairs: list[tuple[int, int]]) -> dict:
    scores = {"accuracy": sum(p == r for p, r in pairs) / len(pairs), "absent_classes": []}
    by_class: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for index, name in enumerate(NAMES):
        true_positives = sum(p == r == index for p, r in pairs)
        false_positives = sum(p == index != r for p, r in pairs)
        false_negatives = sum(r == index != p for p, r in pairs)
        if true_positives + false_negatives == 0:
            scores["absent_classes"].append(name)
            continue
        predicted = true_positives + false_positives
        precision = true_positives / predicted if predicted else 0.0
        recall = true_positives / (true_positives + false_negatives)
        f1 = 2 * precision * recall / (precision + recall) if true_positives else 0.0
        for score, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            scores[f"{score}_{name}"] = value
            by_class[score].append(value)
    return scores | {score: math.fsum(values) / len(values) for score, values in by_class.items()}


@settings(deadline=None)
@given(frames)
def test_scores_are_those_of_a_loop(pairs: list[tuple[int, int]]) -> None:
    predictions, references = zip(*pairs, strict=True)
    scores, expected = standard_plane_scores(predictions, references, NAMES), scores_of_a_loop(pairs)
    assert scores.pop("absent_classes") == expected.pop("absent_classes")
    assert scores == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(frames)
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    predictions, references = zip(*pairs, strict=True)
    scores = standard_plane_scores(predictions, references, NAMES)
    present = sorted(set(references))
    of_classes = sklearn_metrics.precision_recall_fscore_support(
        references, predictions, labels=present, zero_division=0
    )
    for score, values in zip(("precision", "recall", "f1"), of_classes[:3], strict=True):
        assert scores[score] == pytest.approx(values.mean(), abs=1e-12)
        assert [scores[f"{score}_{NAMES[index]}"] for index in present] == pytest.approx(values)
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(references, predictions))


@settings(deadline=None)
@given(answers, st.integers(1, 20))
def test_calibration_error_is_that_of_a_loop(pairs: list[tuple[float, bool]], bins: int) -> None:
    error = 0.0
    for m in range(1, bins + 1):
        inside = [pair for pair in pairs if (m - 1) / bins < pair[0] <= m / bins or (m == 1 and pair[0] == 0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = math.fsum(confidence for confidence, _ in inside) / len(inside)
            error += len(inside) / len(pairs) * abs(accuracy - confidence)
    confidences, correct = zip(*pairs, strict=True)
    assert expected_calibration_error(confidences, correct, bins) == pytest.approx(error, abs=1e-9)


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0
    assert expected_calibration_error([1.0, 1.0], [False, True]) == 0.5
    assert expected_calibration_error([0.0, 0.0], [True, False]) == 0.5
    # Over- and underconfidence make up for each other in one bin, but not in two.
    assert expected_calibration_error([0.2, 0.8], [True, False], bins=1) == 0
    assert expected_calibration_error([0.2, 0.8], [True, False], bins=2) == pytest.approx(0.8)
    # The upper edge belongs to the bin below it.
    assert expected_calibration_error([0.5, 0.4], [True, False], bins=2) == pytest.approx(0.05)


def test_macro_scores_leave_out_classes_without_reference_frames() -> None:
    scores = standard_plane_scores([0, 0, 2, 2], [0, 0, 0, 1], NAMES)
    assert scores == {
        "accuracy": 0.5,
        "precision": 0.5,
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(0.4),
        "precision_femur": 1.0,
        "precision_abdomen": 0.0,
        "recall_femur": pytest.approx(2 / 3),
        "recall_abdomen": 0.0,
        "f1_femur": pytest.approx(0.8),
        "f1_abdomen": 0.0,
        "absent_classes": ["lips", "profile"],
    }


def test_without_names_the_index_is_the_name() -> None:
    scores = standard_plane_scores(np.array([0, 3]), np.array([0, 1], dtype=np.int32))
    assert scores["absent_classes"] == ["2", "3"]
    assert scores["recall_0"] == 1 and scores["recall_1"] == 0 and "recall_2" not in scores


@pytest.mark.parametrize(
    ("predictions", "references", "names", "sentence"),
    [
        ([0, 1], [0, -1], NAMES, r"labels from -1 to 1, but classes from 0 to 3\. Leave unlabelled frames"),
        ([-1, 1], [0, 1], None, "labels from -1 to 1"),
        ([0, 4], [0, 1], NAMES, "labels from 0 to 4, but classes from 0 to 3"),
        ([0, 1], [4, 1], NAMES, "labels from 0 to 4"),
        ([0], [0, 1], NAMES, "1 predictions, but 2 references"),
        ([], [], NAMES, r"predictions have the shape \(0,\)"),
        ([[0.1, 0.9]], [1], NAMES, r"predictions have the shape \(1, 2\)"),
        ([0.1], [1], NAMES, "predictions are float64, but must be integers"),
        ([0], [0], ["femur", "femur"], "a name twice: femur, femur"),
    ],
)
def test_labels_that_are_none_are_refused(
    predictions: list, references: list, names: list[str] | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        standard_plane_scores(predictions, references, names)


@pytest.mark.parametrize(
    ("confidences", "correct", "bins", "sentence"),
    [
        ([0.5, 1.1], [True, True], 15, r"outside 0\.\.1"),
        ([-0.1], [True], 15, r"outside 0\.\.1"),
        ([math.nan], [True], 15, r"outside 0\.\.1"),
        ([0.5], [True, False], 15, "one value of each for every frame"),
        ([], [], 15, "one frame at least"),
        ([0.5], [True], 0, "bins is 0"),
    ],
)
def test_confidences_that_are_none_are_refused(
    confidences: list[float], correct: list[bool], bins: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        expected_calibration_error(confidences, correct, bins)


@pytest.fixture
def metric(tmp_path: Path) -> evaluate.Metric:
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path), keep_in_memory=True)


def test_the_metric_gives_the_scores_of_the_functions(metric: evaluate.Metric) -> None:
    predictions, references, confidences = [0, 1, 1, 3], [0, 1, 2, 3], [0.9, 0.7, 0.6, 0.3]
    expected = standard_plane_scores(predictions, references, NAMES)
    assert metric.compute(predictions=predictions, references=references, class_names=NAMES) == expected
    metric.add(prediction=0, reference=0)
    metric.add_batch(predictions=np.array([1, 1, 3]), references=np.array([1, 2, 3]))
    error = expected_calibration_error(confidences, [True, True, False, True])
    expected |= {"expected_calibration_error": error}
    assert metric.compute(class_names=NAMES, confidences=confidences) == expected
    unnamed = metric.compute(predictions=predictions, references=references)
    assert unnamed["f1"] == expected["f1"] and unnamed["f1_3"] == expected["f1_profile"]


def test_the_metric_refuses_wrong_labels_and_stays_usable(metric: evaluate.Metric) -> None:
    with pytest.raises(ValueError, match="Leave unlabelled frames"):
        metric.compute(predictions=[0, 1], references=[0, -1], class_names=NAMES)
    assert metric.compute(predictions=[0], references=[0])["f1"] == 1
    assert "guo2017" in metric.citation


def test_the_metric_loads_offline_from_another_directory(tmp_path: Path) -> None:
    code = (
        "import evaluate, sys\n"
        "metric = evaluate.load(sys.argv[1])\n"
        "print(metric.compute(predictions=[0, 1], references=[0, 0])['accuracy'], 'train' in sys.modules)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code, str(FOLDER)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.5", "False"]


def test_the_example_of_the_readme_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = doctest.testfile(str(FOLDER / "README.md"), module_relative=False)
    assert outcome.attempted > 3 and not outcome.failed
