"""Kept results fill up those of a folder, and never stand over them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from experiment_helpers import small_recipe

from train.claim_results import ClaimResult, with_holm
from train.experiments import ExperimentError
from train.kept_results import as_row_results, read_kept, with_kept_claims, with_kept_rows
from train.paired_differences import Difference


def row(name: str, f1: float | None, seed: int = 0) -> dict:
    measured = None if f1 is None else {"metrics": {"test/f1": f1}}
    told = {"table": "1", "row": name, "title": name, "task": "planes", "draw": 0, "seed": seed}
    return told | {"unavailable": None if measured else "not run", "measured": measured}


def claim(name: str, p_value: float | None, pairs: int = 3) -> ClaimResult:
    difference = None if p_value is None else Difference(0.1, 0.01, 0.2, p_value, pairs, 9)
    unavailable = "not run" if difference is None else None
    return ClaimResult(name, "planes", "f1", "ours", "random", 1, pairs, difference, p_value, unavailable)


def test_only_rows_without_a_number_are_filled() -> None:
    here = [row("a", 0.5), row("a", None, seed=1), row("b", None), row("c", None)]
    kept = [row("a", 0.1), row("a", 0.2, seed=1), row("b", None), row("other", 0.9)]
    assert with_kept_rows(here, kept) == [here[0], kept[1], here[2], here[3]]


def test_a_kept_reason_says_more_than_that_a_row_was_not_run() -> None:
    no_weights, no_tower = ({**row("a", None), "unavailable": why} for why in ("no weights", "no tower"))
    assert with_kept_rows([row("a", None)], [no_weights]) == [no_weights]
    assert with_kept_rows([no_tower], [no_weights]) == [no_tower]
    assert with_kept_rows([no_tower], [row("a", 0.5)]) == [row("a", 0.5)]
    assert with_kept_rows([no_tower], [row("a", None)]) == [no_tower]


def test_rows_go_to_the_tables_as_they_were_measured() -> None:
    measured, missing = as_row_results([row("a", 0.5), row("b", None)])
    assert (measured.row, measured.metrics, measured.unavailable) == ("a", {"test/f1": 0.5}, None)
    assert (missing.metrics, missing.unavailable) == (None, "not run")


def test_a_claim_is_taken_from_where_more_pairs_tested_it() -> None:
    here = [claim("new", 0.01), claim("few", 0.02, pairs=1), claim("kept", None), claim("open", None)]
    kept = [claim("new", 0.5), claim("few", 0.04), claim("kept", 0.03), claim("gone", 0.001)]
    kept.append(replace(claim("open", 0.001), better="another row"))
    merged = with_holm(with_kept_claims(here, kept))
    assert [each.name for each in merged] == ["new", "few", "kept", "open"]
    assert [each.difference and each.difference.p_value for each in merged] == [0.01, 0.04, 0.03, None]
    assert [each.holm_p_value for each in merged] == pytest.approx([0.03, 0.06, 0.06, None])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    recipe, path = small_recipe(tmp_path), tmp_path / "results.json"
    claims = [claim("a", 0.01), claim("b", None)]
    contents = {"recipe": recipe.name, "quick": False, "results": [row("a", 0.5)], "pretrainings": [{"x": 1}]}
    path.write_text(json.dumps(contents | {"claims": [asdict(each) for each in claims]}))
    kept = read_kept(path, recipe)
    assert kept.claims == claims
    assert (kept.results, kept.pretrainings) == (contents["results"], contents["pretrainings"])


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (None, "no file .*with kept results"),
        ("{", "no results as reproduce.py writes them"),
        ('{"recipe": "small", "quick": false, "results": []}', "no results as .*claims"),
        (
            '{"recipe": "other", "quick": false, "results": [], "claims": [], "pretrainings": []}',
            "of the recipe other,",
        ),
        (
            '{"recipe": "small", "quick": true, "results": [], "claims": [], "pretrainings": []}',
            "of the recipe small with --quick,",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str | None, refusal: str) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ExperimentError, match=refusal):
        read_kept(path, small_recipe(tmp_path))
