"""What claims are tested on, kept beside results.json: runs whose folders are gone can still be paired."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from datasets_scripts.schema import SCAN_ID, TIME_S
from train.claim_results import PREDICTIONS_FILE, STATISTICS
from train.experiment_recipe import ClaimSpec
from train.experiments import RowResult
from train.plane_results import SPLIT

PREDICTIONS = "predictions"
FRAME = (SPLIT, SCAN_ID, TIME_S)


def keep_predictions(results: Sequence[RowResult], claims: Sequence[ClaimSpec], folder: Path) -> None:
    """Keeps, of every run that a claim is about, its test frames with what the claim's metric reads.

    Args:
        results: those without a folder are left out.
        claims: the recipe's.
        folder: `PLACE/predictions.parquet` is written in it for each run.
    """
    columns: dict[tuple[str, str], list[str]] = {}
    for claim in claims:
        for row in (claim.better, claim.worse):
            columns.setdefault((claim.task, row), []).extend(STATISTICS[claim.metric].columns)
    for result in results:
        wanted = columns.get((result.task, result.row))
        if wanted is not None and result.folder is not None:
            _keep(result.folder / PREDICTIONS_FILE, folder / result.place / PREDICTIONS_FILE, wanted)


def _keep(source: Path, target: Path, columns: list[str]) -> None:
    table = pq.read_table(source, columns=[*FRAME, *dict.fromkeys(columns)])
    target.parent.mkdir(parents=True, exist_ok=True)
    # In this order, what is alike stands together and takes a third less.
    table = table.sort_by([(name, "ascending") for name in FRAME])
    pq.write_table(table, target, compression="zstd", compression_level=19)


def with_predictions(
    rows: Sequence[RowResult], here: Sequence[RowResult], kept: Path | None
) -> list[RowResult]:
    """The rows, each with the folder that holds its predictions, or None where none does.

    Args:
        rows: with numbers measured here or kept.
        here: the same rows as they were measured here alone.
        kept: folder that `keep_predictions` wrote; None: there is none.
    """
    return [
        replace(row, folder=own.folder if own.metrics is not None else _kept_folder(row, kept))
        for row, own in zip(rows, here, strict=True)
    ]


def _kept_folder(row: RowResult, kept: Path | None) -> Path | None:
    folder = None if kept is None or row.metrics is None else kept / row.place
    return folder if folder is not None and (folder / PREDICTIONS_FILE).is_file() else None
