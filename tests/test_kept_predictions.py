"""Kept predictions stand for the runs that wrote them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_claim_results import claim, outcomes, result

from train.claim_results import NOT_KEPT
from train.experiments import RowResult
from train.kept_predictions import keep_predictions, with_predictions

CLAIM = claim("a")


def runs(root: Path, draw: int, rows: tuple[str, ...] = ("ours", "random")) -> list[RowResult]:
    scores = {"ours": 0.8, "random": 0.5, "other": 0.9}
    return [result(root, row, scores[row], draw=draw, seed=seed) for row in rows for seed in (0, 1)]


def taken_from(kept: Path | None, results: list[RowResult]) -> list[RowResult]:
    """The results as kept ones, without a run here."""
    here = [replace(each, metrics=None, unavailable="not run") for each in results]
    return with_predictions(results, here, kept)


def test_a_claim_on_kept_predictions_is_the_claim_on_the_runs(tmp_path: Path) -> None:
    results = runs(tmp_path / "runs", draw=0)
    expected = outcomes(results, CLAIM)
    keep_predictions(results, [CLAIM], tmp_path / "kept")
    shutil.rmtree(tmp_path / "runs")
    assert outcomes(taken_from(tmp_path / "kept", results), CLAIM) == expected
    assert expected[0].difference.seeds == 2


def test_kept_draws_and_new_ones_are_tested_together(tmp_path: Path) -> None:
    first, second = runs(tmp_path / "runs", draw=0), runs(tmp_path / "runs", draw=1)
    keep_predictions(first, [CLAIM], tmp_path / "kept")
    together = [*taken_from(tmp_path / "kept", first), *with_predictions(second, second, None)]
    assert outcomes(together, CLAIM) == outcomes([*first, *second], CLAIM)
    assert outcomes(together, CLAIM)[0].difference.seeds == 4


def test_kept_is_what_a_claim_reads_and_no_more(tmp_path: Path) -> None:
    results = runs(tmp_path / "runs", 0, ("ours", "random", "other"))
    keep_predictions(results, [CLAIM], tmp_path / "kept")
    places = {each.place for each in results if each.row != "other"}
    files = (tmp_path / "kept").rglob("*.parquet")
    assert {str(file.parent.relative_to(tmp_path / "kept")) for file in files} == places
    source = pq.read_table(results[0].folder / "predictions.parquet")
    kept = pq.read_table(tmp_path / "kept" / results[0].place / "predictions.parquet")
    columns = ["split", "scan_id", "time_s", "label", "predicted"]
    assert kept.column_names == columns
    order = [(name, "ascending") for name in columns]
    assert kept.sort_by(order).equals(source.select(columns).sort_by(order))


def test_what_was_measured_here_goes_before_what_was_kept(tmp_path: Path) -> None:
    here = runs(tmp_path / "runs", draw=0)
    keep_predictions(here, [CLAIM], tmp_path / "kept")
    assert with_predictions(here, here, tmp_path / "kept") == here


@pytest.mark.parametrize("kept", [None, "empty"])
def test_a_number_without_predictions_is_in_no_claim(kept: str | None, tmp_path: Path) -> None:
    rows = taken_from(kept and tmp_path / kept, runs(tmp_path / "runs", draw=0))
    assert [row.folder for row in rows] == [None] * 4
    assert outcomes(rows, CLAIM)[0].unavailable == NOT_KEPT
    keep_predictions(rows, [CLAIM], tmp_path / "again")
    assert not (tmp_path / "again").exists()
