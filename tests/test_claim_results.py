"""Claims: which runs are paired, which way is better, what is corrected together, what is missing."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from experiment_helpers import leave_result, small_experiments

from train import plane_results, saliency_results
from train.claim_results import ClaimError, ClaimResult, claim_results
from train.experiment_plan import Finetuning, Row, with_needs
from train.experiment_recipe import ClaimSpec
from train.experiment_runs import write_splits
from train.experiments import EXPERIMENT_FILE, NOT_AVAILABLE, NOT_RUN, RowResult, read_results
from train.paired_differences import Difference, DifferenceError

CLASSES = ("femur", "lips", "profile")
SCANS = 12


def recipe_of(*claims: ClaimSpec) -> SimpleNamespace:
    """Of a recipe, all that claims need."""
    return SimpleNamespace(claims=claims)


def claim(name: str, task: str = "planes", metric: str = "f1", better: str = "ours") -> ClaimSpec:
    return ClaimSpec(name, task, metric, better, "random")


def write_planes(folder: Path, right: float, seed: int) -> dict[str, float]:
    """Predictions of frames of which about `right` are predicted; their metrics."""
    generator, splits = np.random.default_rng(seed), []
    for number in range(2):
        scan_ids = [f"scan{scan:02d}" for scan in range(number, SCANS - number) for _ in range(6)]
        labels = np.tile(np.arange(6) % 3, len(scan_ids) // 6)
        is_right = generator.random(len(labels)) < right
        predicted = np.where(is_right, labels, (labels + generator.integers(1, 3, len(labels))) % 3)
        times_s = np.tile(np.arange(6.0), len(scan_ids) // 6)
        splits.append(plane_results.SplitPredictions(scan_ids, times_s, labels, np.eye(3)[predicted]))
    folder.mkdir(parents=True, exist_ok=True)
    plane_results.write_predictions(splits, CLASSES, folder / "predictions.parquet")
    return plane_results.over_splits([plane_results.split_scores(split, CLASSES) for split in splits])


def write_saliency(folder: Path, score: float, seed: int) -> dict[str, float]:
    """KLD and NSS of frames, about `score` both."""
    values = np.random.default_rng(seed).normal(score, 0.1, SCANS)
    rows = [
        {"split": 1, "scan_id": f"scan{scan:02d}", "time_s": 1.0, "kld": value, "nss": value}
        for scan, value in enumerate(values)
    ]
    folder.mkdir(parents=True)
    saliency_results.write_predictions(rows, folder / "predictions.parquet")
    return {"test/kld": float(values.mean()), "test/nss": float(values.mean())}


def result(
    root: Path, row: str, score: float, task: str = "planes", draw: int = 0, seed: int = 0, table: str = "1"
) -> RowResult:
    """A run that is there, its score about `score`."""
    folder = root / f"{draw}_{task}_{row}_{seed}"
    write = write_saliency if task == "saliency" else write_planes
    metrics = write(folder, score, 100 * draw + 10 * seed + len(row))
    return RowResult(table, row, row, task, draw, seed, folder, metrics, None)


def missing(root: Path, row: str, reason: str, seed: int = 0) -> RowResult:
    return RowResult("1", row, row, "planes", 0, seed, root / "nowhere", None, reason)


def outcomes(results: Sequence[RowResult], *claims: ClaimSpec) -> list[ClaimResult]:
    return claim_results(recipe_of(*claims), results, resamples=300)


def test_runs_of_the_same_draw_and_seed_are_paired(tmp_path: Path) -> None:
    ours = [result(tmp_path, "ours", 0.9, draw=draw, seed=seed) for draw in (0, 1) for seed in (0, 1, 2)]
    random = [
        result(tmp_path, "random", 0.5, draw=draw, seed=seed) for draw, seed in ((1, 2), (0, 1), (0, 0))
    ]
    (found,) = outcomes([*ours, *random, missing(tmp_path, "random", NOT_RUN, seed=2)], claim("a"))
    scores = {(each.row, each.draw, each.seed): each.metrics["test/f1"] for each in (*ours, *random)}
    pairs = [(0, 0), (0, 1), (1, 2)]
    differences = [scores["ours", *run] - scores["random", *run] for run in pairs]
    assert found.difference.mean == pytest.approx(np.mean(differences), abs=1e-12)
    assert (found.draws, found.seeds) == (2, 3)
    assert (found.difference.seeds, found.difference.scans) == (3, 2 * SCANS)
    assert found.unavailable is None and found.stands
    assert found.holm_p_value == found.difference.p_value


def test_a_run_that_two_tables_show_counts_once(tmp_path: Path) -> None:
    results = [result(tmp_path, row, score) for row, score in (("ours", 0.9), ("random", 0.5))]
    (once,) = outcomes(results, claim("a"))
    (twice,) = outcomes([*results, *(replace(each, table="3") for each in results)], claim("a"))
    assert once == twice and once.difference.seeds == 1


def test_less_kld_and_more_nss_are_better(tmp_path: Path) -> None:
    results = [
        result(tmp_path, row, score, task="saliency", seed=seed)
        for row, score in (("ours", 1.0), ("random", 3.0))
        for seed in (0, 1)
    ]
    kld, nss = outcomes(results, claim("a", "saliency", "kld"), claim("b", "saliency", "nss"))
    assert kld.difference.mean == pytest.approx(2, abs=0.2) and kld.stands
    assert nss.difference.mean == pytest.approx(-kld.difference.mean) and not nss.stands
    assert nss.difference.low == pytest.approx(-kld.difference.high)
    assert nss.holm_p_value < 0.05, "it is the interval that says no"


def test_p_values_are_corrected_over_the_claims_that_were_tested(tmp_path: Path) -> None:
    # By the luck of the seeds, `slightly` is better, though no more often right.
    scores = {"ours": 0.9, "random": 0.5, "slightly": 0.5, "same": 0.5}
    results = [result(tmp_path, row, score) for row, score in scores.items()]
    results.append(missing(tmp_path, "imagenet", NOT_AVAILABLE))
    names = ("same", "imagenet", "ours", "slightly")
    found = {each.name: each for each in outcomes(results, *(claim(name, better=name) for name in names))}
    assert list(found) == list(names)
    raw = {name: found[name].difference.p_value for name in ("ours", "slightly", "same")}
    assert raw["ours"] < raw["slightly"] < 0.05 < raw["same"]
    assert found["ours"].holm_p_value == pytest.approx(3 * raw["ours"])
    assert found["slightly"].holm_p_value == pytest.approx(2 * raw["slightly"])
    assert found["same"].holm_p_value == raw["same"]
    assert found["slightly"].difference.low > 0, "alone, it would stand"
    of_two_seeds = [
        each if each.difference is None else replace(each, difference=replace(each.difference, seeds=2))
        for each in (found[name] for name in names)
    ]
    assert [each.stands for each in of_two_seeds] == [False, False, True, False]
    assert not found["ours"].stands, "one pair of runs says nothing of other seeds"


def test_a_claim_stands_where_interval_and_corrected_p_value_agree() -> None:
    difference = Difference(mean=0.1, low=0.01, high=0.2, p_value=0.01, seeds=3, scans=9)
    stands = ClaimResult("a", "planes", "f1", "ours", "random", 1, 3, difference, 0.049, None)
    assert stands.stands
    assert not replace(stands, holm_p_value=0.05).stands
    assert not replace(stands, difference=replace(difference, low=0.0)).stands
    assert not replace(stands, difference=replace(difference, low=-0.3, high=-0.1)).stands
    assert not replace(stands, difference=None, holm_p_value=None, unavailable=NOT_RUN).stands


def test_a_claim_without_runs_says_why(tmp_path: Path) -> None:
    ours = result(tmp_path, "ours", 0.9)
    for results, reason in (
        ([], NOT_RUN),
        ([ours], NOT_RUN),
        ([ours, missing(tmp_path, "random", NOT_RUN)], NOT_RUN),
        ([ours, missing(tmp_path, "random", NOT_AVAILABLE)], NOT_AVAILABLE),
        ([missing(tmp_path, "ours", NOT_RUN), missing(tmp_path, "random", NOT_AVAILABLE)], NOT_AVAILABLE),
        ([ours, missing(tmp_path, "ours", "x", 1), missing(tmp_path, "random", "y")], "x, y"),
        ([ours, result(tmp_path, "random", 0.5, seed=1)], NOT_RUN),
        ([result(tmp_path, "ours", 0.9, task="planes_frozen")], NOT_RUN),
    ):
        (found,) = outcomes(results, claim("a"))
        assert (found.unavailable, found.difference, found.holm_p_value) == (reason, None, None)
        assert (found.draws, found.seeds, found.stands) == (0, 0, False)


def test_results_of_a_folder_give_claims_as_json(tmp_path: Path) -> None:
    experiments = small_experiments(tmp_path)
    finetunings = [Finetuning(0, "planes", Row("random"), seed) for seed in (0, 1)]
    finetunings.append(Finetuning(0, "planes", Row("medium", "best"), 1))
    write_splits(experiments, finetunings)
    (experiments.output / EXPERIMENT_FILE).write_text(experiments.recipe.to_yaml())
    for run in with_needs(experiments.recipe, finetunings):
        leave_result(experiments, run)
    for run in finetunings:
        write_planes(experiments.output / run.place, 0.9 if run.row.setting else 0.4, seed=run.seed)
    found = claim_results(experiments.recipe, read_results(experiments.output), resamples=200)
    (told,) = json.loads(json.dumps([asdict(each) for each in found]))
    assert (told["name"], told["better"], told["draws"], told["seeds"]) == (
        "medium over random",
        "best_medium",
        1,
        1,
    )
    assert told["difference"]["low"] > 0 and told["holm_p_value"] == pytest.approx(2 / 201)
    assert claim_results(experiments.recipe, read_results(experiments.output), resamples=200) == found


def test_what_cannot_be_tested_is_refused(tmp_path: Path) -> None:
    results = [result(tmp_path, row, 0.5) for row in ("ours", "random")]
    with pytest.raises(ClaimError, match=r"'a' is about 'recall', but can only be about f1, kld, nss\."):
        outcomes(results, claim("a", metric="recall"))
    with pytest.raises(ClaimError, match="more than one claim 'a'"):
        outcomes(results, claim("a"), claim("a", metric="nss"))
    with pytest.raises(DifferenceError, match="no column kld"):
        outcomes(results, claim("a", metric="kld"))
    (results[1].folder / "predictions.parquet").unlink()
    with pytest.raises(DifferenceError, match="Run it again"):
        outcomes(results, claim("a"))
