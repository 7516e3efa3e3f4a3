"""Intervals of scores: the bootstrap over scans is a loop that scores copied frames anew; names."""

from collections.abc import Callable

import numpy as np
import pytest

from train import plane_results, saliency_results
from train.metrics_file import METRIC_NAME
from train.paired_differences import Frames, MeanOverFrames, multiplicities, run_intervals
from train.plane_results import SplitPredictions
from train.saliency_results import FrameScores
from train.score_intervals import frame_score_intervals, plane_intervals, recall_intervals

CLASSES = ("femur", "lips", "Brain (TV)")
RESAMPLES, SEED = 120, 5


def splits_of(generator: np.random.Generator) -> list[SplitPredictions]:
    """Two splits with frames of scans that they share; one class is in a single scan."""
    splits = []
    for scans in ([0, 1, 2, 3], [2, 3, 4]):
        scan_of = np.repeat(scans, 5)
        labels = np.where(scan_of == 4, 2, generator.integers(0, 2, len(scan_of)))
        probabilities = generator.dirichlet(np.ones(3), len(scan_of))
        probabilities[np.arange(len(labels)), labels] += 0.6
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        scan_ids = [f"scan{number}" for number in scan_of]
        splits.append(SplitPredictions(scan_ids, np.arange(len(labels)) / 2, labels, probabilities))
    return splits


def by_a_loop(scans: list[str], score: Callable[[dict[str, int]], dict[str, float]]) -> dict[str, float]:
    """Both ends of every score, `score` taking how often each scan is drawn."""
    drawn = multiplicities(len(scans), len(scans), RESAMPLES, np.random.default_rng(SEED))
    resampled: dict[str, list[float]] = {}
    for number in range(RESAMPLES):
        times = dict(zip(scans, drawn[:, number].tolist(), strict=True))
        for name, value in score(times).items():
            resampled.setdefault(name, []).append(value)
    return {
        f"{name}_{end}": float(np.quantile(values, level))
        for name, values in resampled.items()
        for end, level in (("low", 0.025), ("high", 0.975))
    }


def test_intervals_of_planes_are_those_of_scoring_copied_frames() -> None:
    tested = splits_of(np.random.default_rng(0))

    def score(times: dict[str, int]) -> dict[str, float]:
        of_splits = []
        for split in tested:
            rows = np.repeat(np.arange(len(split.labels)), [times[scan] for scan in split.scan_ids])
            if len(rows):
                scan_ids = [split.scan_ids[row] for row in rows]
                copied = SplitPredictions(
                    scan_ids, split.times_s[rows], split.labels[rows], split.probabilities[rows]
                )
                of_splits.append(plane_results.split_scores(copied, CLASSES))
        metrics = plane_results.over_splits(of_splits)
        left_out = ("_std", "/frames", "/absent_classes")
        return {n: v for n, v in metrics.items() if n.startswith("test/") and not n.endswith(left_out)}

    expected = by_a_loop([f"scan{number}" for number in range(5)], score)
    found = plane_intervals(tested, CLASSES, RESAMPLES, SEED)
    assert found == pytest.approx(expected, abs=1e-9)
    # Three scores, macro and a class, accuracy and calibration, each with two ends.
    assert len(found) == 2 * (3 * 4 + 2) and "test/f1_brain_tv_low" in found
    assert all(METRIC_NAME.fullmatch(name) for name in found)


def test_a_score_lies_within_its_interval() -> None:
    tested = splits_of(np.random.default_rng(1))
    found = plane_intervals(tested, CLASSES)
    metrics = plane_results.over_splits([plane_results.split_scores(split, CLASSES) for split in tested])
    for name in ("accuracy", "precision", "recall", "f1"):
        low, high = (found[f"test/{name}_{end}"] for end in ("low", "high"))
        assert low < metrics[f"test/{name}"] < high


def test_intervals_of_maps_are_those_of_scoring_copied_frames() -> None:
    generator = np.random.default_rng(2)
    scan_ids = [["a", "a", "b", "c"], ["b", "c", "c"]]
    scores = [
        [{"kld": float(kld), "nss": float(kld) - 2} for kld in generator.normal(1, 1, len(of_split))]
        for of_split in scan_ids
    ]
    del scores[0][1]["nss"], scores[1][0]["nss"]

    def score(times: dict[str, int]) -> dict[str, float]:
        copied = [
            [row for scan, row in zip(scans, rows, strict=True) for _ in range(times[scan])]
            for scans, rows in zip(scan_ids, scores, strict=True)
        ]
        metrics = saliency_results.over_splits("test", [FrameScores(rows, None).means() for rows in copied])
        return {name: value for name, value in metrics.items() if not name.endswith("_std")}

    found = frame_score_intervals("test", scan_ids, scores, ["kld", "nss", "cc"], RESAMPLES, SEED)
    assert found == pytest.approx(by_a_loop(["a", "b", "c"], score), abs=1e-9)
    assert set(found) == {f"test/{name}_{end}" for name in ("kld", "nss") for end in ("low", "high")}


def test_intervals_of_recall_are_those_of_copied_queries() -> None:
    generator = np.random.default_rng(3)
    ranks, scan_ids = generator.integers(1, 12, 20), [f"scan{number // 3}" for number in range(20)]

    def score(times: dict[str, int]) -> dict[str, float]:
        copied = np.repeat(ranks, [times[scan] for scan in scan_ids])
        return {str(k): float(np.mean(copied <= k)) for k in (1, 5)}

    found = recall_intervals(ranks, scan_ids, (1, 5), RESAMPLES, SEED)
    named = {
        f"{k}_{end}": ends[place] for k, ends in found.items() for place, end in enumerate(("low", "high"))
    }
    assert named == pytest.approx(by_a_loop(sorted(set(scan_ids)), score))


def test_a_scan_is_drawn_whole() -> None:
    """Copies of frames within their scan add nothing to what is known."""
    ranks, scan_ids = np.array([1, 9, 1, 9, 1]), ["a", "b", "c", "d", "e"]
    assert recall_intervals(ranks, scan_ids) == recall_intervals(np.repeat(ranks, 7), np.repeat(scan_ids, 7))


def test_one_scan_has_no_interval() -> None:
    assert recall_intervals(np.array([1, 2]), ["a", "a"]) == {}
    assert frame_score_intervals("test", [["a"]], [[{"kld": 1.0}]], ["kld"]) == {}
    split = splits_of(np.random.default_rng(0))[0]
    alone = SplitPredictions(["a"] * len(split.labels), split.times_s, split.labels, split.probabilities)
    assert plane_intervals([alone], CLASSES) == {}


def test_the_same_seed_gives_the_same_intervals_however_many_are_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"right": np.random.default_rng(4).random(30)}
    scan_ids = np.array([f"scan{number // 4}" for number in range(30)])
    frames = Frames(np.ones(30, int), scan_ids, np.zeros(30), values)
    statistics = {"right": MeanOverFrames("right")}
    found = run_intervals(frames, statistics, resamples=250)
    monkeypatch.setattr("train.paired_differences.RESAMPLES_AT_A_TIME", 7)
    assert run_intervals(frames, statistics, resamples=250)["right"] == pytest.approx(found["right"])
    assert run_intervals(frames, statistics, resamples=250, seed=1)["right"] != pytest.approx(found["right"])
