"""Saliency metrics against loops written from the definitions, pysaliency, and what odd input gets."""

import doctest
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from train.metrics.saliency.saliency import (
    EPSILON,
    MOST_NEGATIVES,
    UndefinedScoreError,
    auc_judd,
    correlation_coefficient,
    information_gain,
    kl_divergence,
    normalized_scanpath_saliency,
    plain_similarity,
    shuffled_auc,
    similarity,
)

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "train" / "metrics" / "saliency"
PAIR_SCORES = (kl_divergence, similarity, plain_similarity, correlation_coefficient)
Table = list[list[float]]
Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Prediction, target, fixations and fixations of other images; few values in a map, so that some tie."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    maps = chance.random((2, height, width)) ** 3 * 10.0 ** draw(st.integers(-3, 3))
    if draw(st.booleans()):
        maps = chance.integers(0, 4, (2, height, width)).astype(float)
    assume(all(values.max() > values.min() for values in maps))
    fixations = chance.choice([0.0, 1.0, 0.5, *chance.random(7)], (draw(st.integers(1, 6)), 2))
    return *maps, fixations, chance.random((draw(st.integers(1, 20)), 2))


def against_a_loop(check: Callable) -> Callable:
    return settings(deadline=None, max_examples=150)(given(cases())(check))


def values_of(table: np.ndarray) -> list[float]:
    return [value for row in table.tolist() for value in row]


def shares(values: list[float]) -> list[float]:
    return [value / math.fsum(values) for value in values]


def stretched(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def pixel_of(x: float, y: float, table: np.ndarray) -> int:
    height, width = table.shape
    return min(int(y * height), height - 1) * width + min(int(x * width), width - 1)


def fixated(fixations: np.ndarray, table: np.ndarray) -> list[int]:
    return sorted({pixel_of(x, y, table) for x, y in fixations.tolist()})


@against_a_loop
def test_kl_divergence_is_that_of_a_loop(case: Case) -> None:
    prediction, target, *_ = case
    p, q = shares(values_of(prediction)), shares(values_of(target))
    expected = math.fsum(b * math.log(EPSILON + b / (a + EPSILON)) for a, b in zip(p, q, strict=True))
    assert kl_divergence(prediction, target) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_similarities_are_those_of_a_loop(case: Case) -> None:
    prediction, target, *_ = case
    p, q = values_of(prediction), values_of(target)
    plain = math.fsum(map(min, shares(p), shares(q)))
    assert plain_similarity(prediction, target) == pytest.approx(plain, abs=1e-9)
    expected = math.fsum(map(min, shares(stretched(p)), shares(stretched(q))))
    assert similarity(prediction, target) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_correlation_is_that_of_a_loop(case: Case) -> None:
    prediction, target, *_ = case
    p, q = values_of(prediction), values_of(target)
    p, q = ([value - math.fsum(x) / len(x) for value in x] for x in (p, q))
    product = math.fsum(a * b for a, b in zip(p, q, strict=True))
    lengths = math.fsum(a * a for a in p) * math.fsum(b * b for b in q)
    assert correlation_coefficient(prediction, target) == pytest.approx(
        product / math.sqrt(lengths), abs=1e-9
    )


@against_a_loop
def test_scanpath_saliency_is_that_of_a_loop(case: Case) -> None:
    prediction, _, fixations, _ = case
    p = values_of(prediction)
    mean = math.fsum(p) / len(p)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in p) / (len(p) - 1))
    pixels = fixated(fixations, prediction)
    expected = math.fsum((p[pixel] - mean) / deviation for pixel in pixels) / len(pixels)
    assert normalized_scanpath_saliency(prediction, fixations) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_auc_judd_is_that_of_a_loop(case: Case) -> None:
    prediction, _, fixations, _ = case
    p, pixels = values_of(prediction), fixated(fixations, prediction)
    assume(len(pixels) < len(p))
    positives = [p[pixel] for pixel in pixels]
    others = [value for pixel, value in enumerate(p) if pixel not in pixels]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(positives), reverse=True):
        false_alarms = sum(value >= threshold for value in others) / len(others)
        curve.append((false_alarms, sum(value >= threshold for value in positives) / len(positives)))
    curve.append((1.0, 1.0))
    expected = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    assert auc_judd(prediction, fixations) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_auc_judd_is_that_of_the_published_steps_where_no_values_tie(case: Case) -> None:
    """Threshold i in descending order: (pixels above it - i) / (pixels - fixated), i / fixated."""
    prediction, _, fixations, _ = case
    p, pixels = values_of(prediction), fixated(fixations, prediction)
    assume(len(pixels) < len(p) and len(set(p)) == len(p))
    true, false = [0.0], [0.0]
    for i, threshold in enumerate(sorted((p[pixel] for pixel in pixels), reverse=True), start=1):
        true.append(i / len(pixels))
        false.append((sum(value >= threshold for value in p) - i) / (len(p) - len(pixels)))
    expected = np.trapezoid([*true, 1.0], [*false, 1.0])
    assert auc_judd(prediction, fixations) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_shuffled_auc_is_that_of_a_loop(case: Case) -> None:
    prediction, _, fixations, others = case
    p, pixels = values_of(prediction), fixated(fixations, prediction)
    negatives = [p[pixel_of(x, y, prediction)] for x, y in others.tolist()]
    won = [(p[pixel] > value) + 0.5 * (p[pixel] == value) for pixel in pixels for value in negatives]
    assert shuffled_auc(prediction, fixations, others) == pytest.approx(math.fsum(won) / len(won), abs=1e-9)


@against_a_loop
def test_information_gain_is_that_of_a_loop(case: Case) -> None:
    prediction, baseline, fixations, _ = case
    p, b = shares(values_of(prediction)), shares(values_of(baseline))
    pixels = fixated(fixations, prediction)
    bits = [math.log2(EPSILON + p[pixel]) - math.log2(EPSILON + b[pixel]) for pixel in pixels]
    expected = math.fsum(bits) / len(bits)
    assert information_gain(prediction, fixations, baseline) == pytest.approx(expected, abs=1e-9)


@against_a_loop
def test_what_does_not_change_the_scores(case: Case) -> None:
    prediction, target, fixations, others = case
    affine = 3 * prediction - 0.5 * prediction.max()
    same = pytest.approx
    assert correlation_coefficient(affine, target) == same(correlation_coefficient(prediction, target))
    assert correlation_coefficient(-prediction, target) == same(-correlation_coefficient(prediction, target))
    assert similarity(affine, target) == same(similarity(prediction, target))
    nss = normalized_scanpath_saliency(prediction, fixations)
    assert normalized_scanpath_saliency(affine, fixations) == same(nss, abs=1e-9)
    monotone = np.exp(prediction / prediction.max())
    assert shuffled_auc(monotone, fixations, others) == shuffled_auc(prediction, fixations, others)
    assert information_gain(7 * prediction, fixations, target) == same(
        information_gain(prediction, fixations, target), abs=1e-9
    )
    for symmetric in (similarity, plain_similarity, correlation_coefficient):
        assert symmetric(prediction, target) == same(symmetric(target, prediction))


@against_a_loop
def test_scores_of_a_map_with_itself(case: Case) -> None:
    prediction, *_, others = case
    assert kl_divergence(prediction, 2 * prediction) == pytest.approx(0, abs=1e-9)
    assert similarity(prediction, 2 * prediction) == pytest.approx(1)
    assert plain_similarity(prediction, 2 * prediction) == pytest.approx(1)
    assert correlation_coefficient(prediction, prediction) == pytest.approx(1)
    assert information_gain(prediction, others, 2 * prediction) == pytest.approx(0, abs=1e-9)
    assert shuffled_auc(prediction, others[:1], others[:1]) == 0.5


def test_values_by_hand() -> None:
    prediction, target = [[1.0, 0.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 0.0]]
    on_the_best, on_the_worst = [[0.2, 0.8]], [[0.8, 0.2]]
    assert plain_similarity(prediction, target) == pytest.approx(1 / 4 + 0 + 1 / 3)
    assert similarity([[2, 1], [3, 2]], target) == pytest.approx(1 / 4 + 0 + 1 / 3)
    third = math.log(4 / 3) / 3 + math.log(2 / 3) / 3
    assert kl_divergence(prediction, target) == pytest.approx(third + math.log(1 / 3 / EPSILON) / 3)
    assert correlation_coefficient(prediction, target) == 0
    assert normalized_scanpath_saliency(prediction, on_the_best) == pytest.approx(1 / math.sqrt(2 / 3))
    assert auc_judd(prediction, on_the_best) == 1
    assert (
        auc_judd(prediction, on_the_worst) == 0.5
    )  # a straight line: the only threshold has both rates at 1
    assert shuffled_auc(prediction, on_the_worst, on_the_best) == 0
    assert shuffled_auc(prediction, on_the_best, [[0.2, 0.2], [0.2, 0.8]]) == 0.75
    assert information_gain(prediction, on_the_best, np.ones((2, 2))) == pytest.approx(1)


def test_a_map_that_says_nothing_gets_what_the_docstring_says() -> None:
    chance = np.random.default_rng(0)
    for number, expected in ((1, 0.75), (9, 0.55)):
        scores = [auc_judd(chance.random((32, 32)), chance.random((number, 2))) for _ in range(500)]
        assert np.mean(scores) == pytest.approx(expected, abs=0.03)


def test_a_pixel_fixated_twice_counts_once_except_in_other_images() -> None:
    prediction = np.arange(12.0).reshape(3, 4) + 1
    once, twice = [[0.1, 0.1], [0.9, 0.9]], [[0.1, 0.1], [0.2, 0.2], [0.9, 0.9]]
    for score in (normalized_scanpath_saliency, auc_judd):
        assert score(prediction, twice) == score(prediction, once)
    baseline = np.ones((3, 4))
    assert information_gain(prediction, twice, baseline) == information_gain(prediction, once, baseline)
    middle = [[0.5, 0.5]]
    assert shuffled_auc(prediction, twice, middle) == shuffled_auc(prediction, once, middle) == 0.5
    assert shuffled_auc(prediction, middle, twice) == pytest.approx(2 / 3)


def test_many_negatives_are_a_seeded_draw_close_to_all_of_them() -> None:
    chance = np.random.default_rng(0)
    prediction, fixations = chance.random((64, 64)), chance.random((20, 2))
    others = chance.beta(2, 2, (5 * MOST_NEGATIVES, 2))
    parts = [shuffled_auc(prediction, fixations, part) for part in np.split(others, 5)]
    drawn = shuffled_auc(prediction, fixations, others, seed=1)
    assert drawn == shuffled_auc(prediction, fixations, others, seed=1)
    assert drawn != shuffled_auc(prediction, fixations, others, seed=2)
    assert drawn == pytest.approx(np.mean(parts), abs=0.01)


def test_huge_and_tiny_maps_keep_their_scores() -> None:
    prediction, target = np.random.default_rng(0).random((2, 8, 8))
    for score in PAIR_SCORES:
        for factor in (1e-200, 1e307):
            assert score(prediction * factor, target) == pytest.approx(score(prediction, target))


PLACES = [[0.5, 0.5], [0.1, 0.9]]
GOOD = np.random.default_rng(0).random((6, 8))
ONE_MAP = {
    "nss": lambda values: normalized_scanpath_saliency(values, PLACES),
    "auc_judd": lambda values: auc_judd(values, PLACES),
    "shuffled_auc": lambda values: shuffled_auc(values, PLACES, PLACES),
    "information_gain": lambda values: information_gain(values, PLACES, GOOD),
    "baseline": lambda values: information_gain(GOOD, PLACES, values),
}
FIXATION_SCORES = {
    "nss": lambda fixations: normalized_scanpath_saliency(GOOD, fixations),
    "auc_judd": lambda fixations: auc_judd(GOOD, fixations),
    "shuffled_auc": lambda fixations: shuffled_auc(GOOD, fixations, PLACES),
    "other_fixations": lambda fixations: shuffled_auc(GOOD, PLACES, fixations),
    "information_gain": lambda fixations: information_gain(GOOD, fixations, GOOD),
}
OF_TWO_MAPS = {
    **{
        f"{score.__name__} prediction": lambda values, score=score: score(values, GOOD)
        for score in PAIR_SCORES
    },
    **{f"{score.__name__} target": lambda values, score=score: score(GOOD, values) for score in PAIR_SCORES},
}
ALL_MAPS = ONE_MAP | OF_TWO_MAPS


@pytest.mark.parametrize("name", ALL_MAPS)
def test_maps_that_are_none_are_refused(name: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        values = GOOD.copy()
        values[2, 3] = value
        with pytest.raises(ValueError, match="holds NaN or infinite values"):
            ALL_MAPS[name](values)
    for values in (GOOD[0], GOOD[None], np.zeros((0, 8))):
        with pytest.raises(ValueError, match=r"has the shape .* must be \(height, width\)"):
            ALL_MAPS[name](values)
    with pytest.raises(ValueError, match="rows of the same length"):
        ALL_MAPS[name]([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("name", [*OF_TWO_MAPS, "baseline", "information_gain"])
def test_maps_of_different_size_are_refused_even_with_as_many_pixels(name: str) -> None:
    for values in (GOOD.T, GOOD[:3], GOOD[:, :1]):
        with pytest.raises(ValueError, match="nothing is resized"):
            ALL_MAPS[name](values)


@pytest.mark.parametrize("name", ALL_MAPS)
def test_negative_values_are_refused_where_probabilities_are_needed(name: str) -> None:
    needed = ("kl_divergence", "plain_similarity", "information_gain", "baseline")
    if name.startswith(needed):
        values = GOOD.copy()
        values[2, 3] = -0.5
        with pytest.raises(ValueError, match=r"negative value -0\.5.*exponential"):
            ALL_MAPS[name](values)
    else:
        assert ALL_MAPS[name](GOOD - 1) == pytest.approx(ALL_MAPS[name](GOOD))


@pytest.mark.parametrize("name", ALL_MAPS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 48])
def test_constant_maps_have_no_score_that_needs_variation(name: str, value: float) -> None:
    constant = np.full((6, 8), value)
    if name.startswith(("similarity", "correlation", "nss")):
        with pytest.raises(UndefinedScoreError, match="is constant"):
            ALL_MAPS[name](constant)
    elif "auc" in name:
        assert ALL_MAPS[name](constant) == 0.5
    elif value == 0:
        with pytest.raises(UndefinedScoreError, match="sums to zero"):
            ALL_MAPS[name](constant)
    else:
        assert ALL_MAPS[name](constant) == pytest.approx(ALL_MAPS[name](np.ones((6, 8))))


@pytest.mark.parametrize("name", FIXATION_SCORES)
def test_fixations_outside_the_map_or_of_another_shape_are_refused(name: str) -> None:
    for place in ([-0.01, 0.5], [0.5, 1.01], [math.nan, 0.5], [0.5, math.inf]):
        with pytest.raises(ValueError, match="1 of 2 fixations lie outside the map, the first at x"):
            FIXATION_SCORES[name]([[0.5, 0.5], place])
    with pytest.raises(ValueError, match=r"shape \(1, 3\).*\(number, 2\)"):
        FIXATION_SCORES[name]([[0.1, 0.2, 0.3]])


@pytest.mark.parametrize("name", FIXATION_SCORES)
@pytest.mark.parametrize("none", [[], np.zeros((0, 2))])
def test_no_fixations_have_no_score(name: str, none: list | np.ndarray) -> None:
    reason = "no fixations on other images" if name == "other_fixations" else "no fixations$"
    with pytest.raises(UndefinedScoreError, match=reason):
        FIXATION_SCORES[name](none)


def test_edges_belong_to_the_last_pixels() -> None:
    prediction = np.zeros((3, 5))
    prediction[2, 4] = 1
    assert auc_judd(prediction, [[1.0, 1.0]]) == 1
    assert auc_judd(prediction, [[0.8, 2 / 3]]) == 1
    assert auc_judd(prediction, [[0.79, 1.0]]) == 0.5


def test_where_every_pixel_is_fixated_there_is_no_auc_judd() -> None:
    with pytest.raises(UndefinedScoreError, match="every pixel is fixated"):
        auc_judd([[1.0, 2.0]], [[0.1, 0.5], [0.9, 0.5]])


# The metric as evaluate loads it.


@pytest.fixture
def metric(tmp_path: Path) -> evaluate.Metric:
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path), keep_in_memory=True)


def random_images(number: int) -> dict:
    chance = np.random.default_rng(0)
    predictions, references = chance.random((2, number, 6, 8))
    fixations = [chance.random((n + 1, 2)).tolist() for n in range(number)]
    return {"predictions": predictions, "references": references, "fixations": fixations}


def test_the_metric_gives_the_means_of_the_functions(metric: evaluate.Metric) -> None:
    images = random_images(4)
    result = metric.compute(**images, baseline=GOOD)
    p, q, fixations = images.values()
    rows = range(4)
    others = [[place for j in rows if j != i for place in fixations[j]] for i in rows]
    expected = {
        "kld": [kl_divergence(p[i], q[i]) for i in rows],
        "sim": [similarity(p[i], q[i]) for i in rows],
        "sim_plain": [plain_similarity(p[i], q[i]) for i in rows],
        "cc": [correlation_coefficient(p[i], q[i]) for i in rows],
        "nss": [normalized_scanpath_saliency(p[i], fixations[i]) for i in rows],
        "auc_judd": [auc_judd(p[i], fixations[i]) for i in rows],
        "shuffled_auc": [shuffled_auc(p[i], fixations[i], others[i]) for i in rows],
        "information_gain": [information_gain(p[i], fixations[i], GOOD) for i in rows],
    }
    assert result.pop("left_out") == {}
    assert result == pytest.approx({name: np.mean(values) for name, values in expected.items()}, abs=1e-12)
    given = metric.compute(**images, baseline=GOOD, other_fixations=others)
    assert given == {**result, "left_out": {}}


def test_without_fixations_there_are_only_scores_of_maps(metric: evaluate.Metric) -> None:
    images = random_images(2)
    images.pop("fixations")
    assert set(metric.compute(**images)) == {"kld", "sim", "sim_plain", "cc", "left_out"}
    for extra in ({"baseline": GOOD}, {"other_fixations": [PLACES, PLACES]}):
        with pytest.raises(ValueError, match="only with fixations"):
            metric.compute(**images, **extra)


def test_maps_may_be_added_one_by_one_and_differ_in_size(metric: evaluate.Metric) -> None:
    p, q, fixations = random_images(4).values()
    at_once = metric.compute(predictions=p, references=q, fixations=fixations)
    metric.add(prediction=p[0], reference=q[0])
    metric.add_batch(predictions=p[1:3], references=q[1:3])
    metric.add(prediction=p[3], reference=q[3])
    assert metric.compute(fixations=fixations) == at_once
    sizes = metric.compute(predictions=[p[0], p[1][:3]], references=[q[0], q[1][:3]])
    assert sizes["kld"] == (kl_divergence(p[0], q[0]) + kl_divergence(p[1][:3], q[1][:3])) / 2


def test_images_without_a_score_are_left_out_of_its_mean_and_counted(metric: evaluate.Metric) -> None:
    p, q, fixations = random_images(5).values()
    p[1], p[2], q[3] = 0.5, 0, 0.5
    fixations[0], fixations[4] = [], None
    result = metric.compute(predictions=p, references=q, fixations=fixations, baseline=GOOD)
    no_fixations = {"no fixations": 2}
    constant = {"the prediction is constant": 2, "the target is constant": 1}
    assert result.pop("left_out") == {
        "kld": {"the prediction sums to zero": 1},
        "sim": constant,
        "sim_plain": {"the prediction sums to zero": 1},
        "cc": constant,
        "nss": {"no fixations": 2, "the prediction is constant": 2},
        "auc_judd": no_fixations,
        "shuffled_auc": no_fixations,
        "information_gain": {"the prediction sums to zero": 1, "no fixations": 2},
    }
    assert result["nss"] == normalized_scanpath_saliency(p[3], fixations[3])
    assert result["kld"] == pytest.approx(np.mean([kl_divergence(p[i], q[i]) for i in (0, 1, 3, 4)]))
    assert all(math.isfinite(value) for value in result.values())


def test_a_score_that_no_image_has_is_absent(metric: evaluate.Metric) -> None:
    result = metric.compute(predictions=[GOOD], references=[GOOD], fixations=[PLACES])
    assert "shuffled_auc" not in result
    assert result["left_out"] == {"shuffled_auc": {"no fixations on other images": 1}}


def test_errors_of_the_metric_name_the_image_and_leave_it_usable(metric: evaluate.Metric) -> None:
    p, q, fixations = random_images(3).values()
    wrong = p.copy()
    wrong[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="Image 1: The prediction holds NaN"):
        metric.compute(predictions=wrong, references=q)
    with pytest.raises(ValueError, match=r"Image 2: The prediction has 6 x 8 pixels.*the target 3 x 8"):
        metric.compute(predictions=p, references=[q[0], q[1], q[2][:3]])
    with pytest.raises(ValueError, match="fixations of image 1: 1 of 1 fixations lie outside"):
        metric.compute(predictions=p, references=q, fixations=[PLACES, [[2, 0]], PLACES])
    with pytest.raises(ValueError, match="other_fixations are given for 1 images, but there are 3 maps"):
        metric.compute(predictions=p, references=q, fixations=fixations, other_fixations=[PLACES])
    assert metric.compute(predictions=p, references=q)["kld"] > 0


@pytest.mark.slow
def test_the_metric_loads_offline_from_another_directory(tmp_path: Path) -> None:
    code = (
        "import evaluate, sys\n"
        "metric = evaluate.load(sys.argv[1])\n"
        "print(metric.compute(predictions=[[[1, 2]]], references=[[[1, 2]]])['cc'], 'train' in sys.modules)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code, str(FOLDER)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    correlation, needs_the_package = done.stdout.split()
    assert float(correlation) == pytest.approx(1) and needs_the_package == "False"


def test_the_description_names_its_sources(metric: evaluate.Metric) -> None:
    for source in ("bylinskii2019", "judd2012", "borji2013", "kummerer2015"):
        assert source in metric.citation
    assert metric.info.reference_urls and "float64" in metric.description


def test_the_example_of_the_readme_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = doctest.testfile(str(FOLDER / "README.md"), module_relative=False)
    assert outcome.attempted > 3 and not outcome.failed


# pysaliency, where its definitions are the same.


def distinct_places(table: np.ndarray, number: int, chance: random.Random) -> tuple[np.ndarray, list, list]:
    """Fixations on different pixels, since pysaliency counts a pixel as often as it is fixated."""
    height, width = table.shape
    rows, columns = zip(
        *(divmod(pixel, width) for pixel in chance.sample(range(table.size), number)), strict=True
    )
    places = [
        [(column + 0.5) / width, (row + 0.5) / height] for row, column in zip(rows, columns, strict=True)
    ]
    return np.array(places), list(rows), list(columns)


def test_scores_are_those_of_pysaliency(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pysaliency")
    from pysaliency.metrics import CC, NSS, SIM, MIT_KLDiv
    from pysaliency.roc import general_roc, general_rocs_per_positive

    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # its old name, which NumPy 2.4 dropped
    chance, order = np.random.default_rng(0), random.Random(0)
    for _ in range(20):
        p, q = chance.random((2, 24, 32))
        places, rows, columns = distinct_places(p, 30, order)
        others, other_rows, other_columns = distinct_places(p, 50, order)
        assert kl_divergence(p, q) == pytest.approx(MIT_KLDiv(p, q), abs=1e-9)
        assert plain_similarity(p, q) == pytest.approx(SIM(p, q), abs=1e-9)
        assert similarity(p, q) == pytest.approx(SIM(p - p.min(), q - q.min()), abs=1e-9)
        assert correlation_coefficient(p, q) == pytest.approx(CC(p, q), abs=1e-9)
        population = NSS(p, columns, rows).mean() * math.sqrt((p.size - 1) / p.size)
        assert normalized_scanpath_saliency(p, places) == pytest.approx(population, abs=1e-9)
        unseen = np.delete(p, np.ravel_multi_index((rows, columns), p.shape))
        assert auc_judd(p, places) == pytest.approx(
            general_roc(p[rows, columns], unseen, judd=1)[0], abs=1e-9
        )
        each = general_rocs_per_positive(p[rows, columns], p[other_rows, other_columns])
        assert shuffled_auc(p, places, others) == pytest.approx(each.mean(), abs=1e-9)
