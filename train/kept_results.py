"""Results of runs whose folders are gone: the results.json that was kept of them fills up those of a folder.

Claims are tested anew on the predictions that were kept beside it; where these are gone as well, a claim
stays as it was tested.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from train.claim_results import ClaimResult
from train.experiment_recipe import FROZEN, ExperimentRecipe
from train.experiments import CONFIGS, NOT_RUN, ExperimentError, RowResult
from train.kept_predictions import PREDICTIONS
from train.paired_differences import Difference
from train.stored_rows import data_hash

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class KeptResults:
    """What a results.json holds.

    Args:
        results: rows as `results_with_provenance` gives them.
        claims: as they were tested.
        pretrainings: as `read_pretrainings` gives them.
        predictions: folder that `keep_predictions` wrote; None: nothing was kept.
    """

    results: Sequence[dict[str, Any]] = ()
    claims: Sequence[ClaimResult] = ()
    pretrainings: Sequence[dict[str, Any]] = ()
    predictions: Path | None = None


def read_kept(path: Path, recipe: ExperimentRecipe) -> KeptResults:
    """The contents of a results.json.

    Raises:
        ExperimentError: no such file, one of another recipe, or not as `train/reproduce.py` writes it.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        claims = [_claim(told) for told in contents["claims"]]
        made_by = contents["recipe"], contents["quick"]
        predictions = path.parent / PREDICTIONS
        kept = KeptResults(contents["results"], claims, contents["pretrainings"], predictions)
    except FileNotFoundError as error:
        raise ExperimentError(f"There is no file {path} with kept results.") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ExperimentError(f"{path} holds no results as reproduce.py writes them ({error!r}).") from error
    if made_by != (recipe.name, recipe.quick):
        raise ExperimentError(
            f"{path} is of the recipe {made_by[0]}{' with --quick' if made_by[1] else ''}, not of the one "
            "that runs here: give the results.json of the same."
        )
    return kept


def _claim(told: Mapping[str, Any]) -> ClaimResult:
    difference = told["difference"] and Difference(**told["difference"])
    return ClaimResult(**{**told, "difference": difference})


def check_kept_data(path: Path, kept: KeptResults, frames: str) -> None:
    """Refuses results that were kept of other labelled frames than those here: no table mixes two sets.

    Args:
        path: of the results.json.
        kept: what it holds.
        frames: one's own labelled frames. Those of the benchmark are known by their recipe instead: made on
            another processor, their bytes may be others.

    Raises:
        ExperimentError: names the first such row.
    """
    here = functools.cache(functools.partial(data_hash, frames))
    for row in kept.results:
        config = CONFIGS[row["task"].removesuffix(FROZEN)]
        if row["measured"] is not None and row["measured"]["data_hash"] != here(config):
            raise ExperimentError(
                f"{path}: its row {row['row']} of table {row['table']} was tested on other data than "
                f"{frames} holds. Leave out --kept, or give the results.json of these data."
            )


def with_kept_rows(results: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows; those without a number from the kept ones, where these have one or know why there is none."""
    known = {_key(row): row for row in kept if row["unavailable"] != NOT_RUN}
    return [row if row["measured"] is not None else _better_known(row, known) for row in results]


def _better_known(row: dict[str, Any], known: Mapping[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    other = known.get(_key(row), row)
    return row if other["measured"] is None and row["unavailable"] != NOT_RUN else other


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("table", "row", "task", "draw", "seed"))


def with_kept_claims(claims: Sequence[ClaimResult], kept: Sequence[ClaimResult]) -> list[ClaimResult]:
    """The claims, each as it was tested on the most pairs of runs, not yet corrected anew."""
    by_text = {_text(claim): claim for claim in kept if claim.difference is not None}

    def better_known(claim: ClaimResult) -> ClaimResult:
        other = by_text.get(_text(claim))
        return claim if other is None or _pairs(claim) >= _pairs(other) else other

    return [replace(better_known(claim), holm_p_value=None) for claim in claims]


def _text(claim: ClaimResult) -> tuple[str, ...]:
    return claim.name, claim.task, claim.metric, claim.better, claim.worse


def _pairs(claim: ClaimResult) -> int:
    return 0 if claim.difference is None else claim.difference.seeds


def as_row_results(results: Sequence[dict[str, Any]]) -> list[RowResult]:
    """What tables and figures take; none has a folder to read predictions from."""
    names = ("table", "row", "title", "task", "draw", "seed", "unavailable")
    return [
        RowResult(
            **{name: row[name] for name in names},
            folder=None,
            metrics=row["measured"] and row["measured"]["metrics"],
        )
        for row in results
    ]
