"""Scores of saliency maps from frames to the table of all splits."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from train.fixation_maps import GaussianArguments, center_prior, density_map
from train.metrics.saliency.saliency import image_scores
from train.saliency_results import (
    COLUMNS,
    FrameScores,
    ScoreError,
    SeenFrames,
    over_splits,
    results_table,
    score_frames,
    write_predictions,
)

SIZE = 16
GAUSSIAN = GaussianArguments(sigma_share=0.1)


def seen_frames(scans: int = 3, frames: int = 4) -> SeenFrames:
    """Frames of some scans with one to three fixations each, around a place of the scan."""
    chance = np.random.default_rng(0)
    scan_ids = [f"scan{scan}" for scan in range(scans) for _ in range(frames)]
    places = {scan: chance.uniform(0.2, 0.8, 2) for scan in sorted(set(scan_ids))}
    fixations = [
        np.clip(places[scan] + chance.normal(0, 0.05, (chance.integers(1, 4), 2)), 0, 1) for scan in scan_ids
    ]
    times_s = [float(number) for number in range(len(scan_ids))]
    return SeenFrames(scan_ids, times_s, fixations, GAUSSIAN, center_prior(fixations, SIZE, SIZE, GAUSSIAN))


def gaze_maps(seen: SeenFrames) -> list[np.ndarray]:
    return [density_map(fixations, SIZE, SIZE, GAUSSIAN) for fixations in seen.fixations]


def test_the_map_of_the_fixations_themselves_scores_best() -> None:
    seen = seen_frames()
    scores = score_frames(gaze_maps(seen), seen).means()
    assert list(scores) == list(COLUMNS)
    assert scores["kld"] == pytest.approx(0, abs=1e-9)
    assert [scores[name] for name in ("sim", "sim_plain", "cc")] == pytest.approx([1, 1, 1])
    assert scores["nss"] > 1 and scores["information_gain"] > 0.5
    assert scores["auc_judd"] > 0.9 and scores["shuffled_auc"] > 0.8
    prior = score_frames([seen.center_prior] * len(seen.scan_ids), seen).means()
    assert prior["information_gain"] == 0
    assert prior["kld"] > scores["kld"] and prior["nss"] < scores["nss"]


def test_each_frame_is_scored_against_its_own_fixations_and_those_of_other_scans() -> None:
    seen = seen_frames(scans=2, frames=3)
    maps = [np.random.default_rng(index).random((SIZE, SIZE)).astype(np.float32) for index in range(6)]
    scores = score_frames(iter(maps), seen).frames
    for index, density in enumerate(maps):
        others = np.concatenate(seen.fixations[3:] if index < 3 else seen.fixations[:3])
        target = density_map(seen.fixations[index], SIZE, SIZE, GAUSSIAN)
        expected, _ = image_scores(
            density.astype(np.float64), target, seen.fixations[index], others, seen.center_prior
        )
        assert scores[index] == expected


def test_without_another_scan_there_is_no_shuffled_auc() -> None:
    seen = seen_frames(scans=1)
    scores = score_frames(gaze_maps(seen), seen)
    assert set(COLUMNS) - set(scores.means()) == {"shuffled_auc"}
    assert scores.left_out == {"shuffled AUC: no fixations on other images": 4}


def test_a_frame_without_a_score_is_counted_and_left_out_of_its_mean() -> None:
    seen = seen_frames()
    maps = gaze_maps(seen)
    maps[2] = np.full((SIZE, SIZE), 1 / SIZE**2)
    scores = score_frames(maps, seen)
    assert "cc" not in scores.frames[2] and scores.means()["cc"] == pytest.approx(1)
    assert scores.left_out["CC: the prediction is constant"] == 1
    assert scores.means()["kld"] == pytest.approx(scores.frames[2]["kld"] / len(maps))


def test_a_map_that_is_not_finite_is_an_error() -> None:
    seen = seen_frames()
    with pytest.raises(ScoreError, match=r"at 0 s of scan scan0 is not finite"):
        score_frames([np.full((SIZE, SIZE), math.nan)], seen)


def test_means_of_no_frames_are_none() -> None:
    assert FrameScores([], Counter()).means() == {}


def test_mean_and_sample_deviation_over_splits() -> None:
    splits = [{"kld": 1.0, "nss": 2.0}, {"kld": 3.0, "nss": 2.0}]
    assert over_splits("test", splits) == {
        "test/kld": 2.0,
        "test/kld_std": pytest.approx(math.sqrt(2)),
        "test/nss": 2.0,
        "test/nss_std": 0.0,
    }
    assert over_splits("test", splits[:1]) == {"test/kld": 1.0, "test/nss": 2.0}
    with_a_gap = over_splits("test", [splits[0], {"kld": 3.0}])
    assert with_a_gap["test/nss"] == 2.0 and "test/nss_std" not in with_a_gap


def test_the_table_has_a_row_a_group() -> None:
    metrics = {
        "test/kld": 1.234,
        "test/kld_std": 0.056,
        "test/nss": 2.0,
        "center_prior/kld": 3.0,
        "center_prior/nss": 0.5,
    }
    groups = {"test": "this model", "center_prior": "centre prior", "random": "random initialisation"}
    header, *lines = results_table(metrics, groups).splitlines()
    assert header.split() == ["KLD", "↓", "NSS", "↑"]
    assert lines[0].startswith("this model") and lines[0].split()[2:] == ["1.23", "(0.06)", "2.00"]
    assert lines[1].split() == ["centre", "prior", "3.00", "0.50"]
    assert len(lines) == 2


def test_predictions_keep_every_frame(tmp_path: Path) -> None:
    scores = dict.fromkeys(COLUMNS, 0.5)
    whole = {"split": 1, "scan_id": "a", "time_s": 0.5, **scores}
    without = {name: value for name, value in whole.items() if name != "shuffled_auc"} | {"split": 2}
    without["time_s"] = math.nan
    write_predictions([whole, without], tmp_path / "predictions.parquet")
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["split", "scan_id", "time_s", *COLUMNS]
    assert table.to_pylist() == [whole, without | {"shuffled_auc": None, "time_s": None}]
