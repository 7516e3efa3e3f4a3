"""The tables of the results: numbers that come back from CSV, rows without results, warnings, provenance."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_helpers import leave_result, small_experiments, small_recipe

from train.claim_results import ClaimResult
from train.experiment_plan import Finetuning, Row, planned_runs, select_all
from train.experiment_recipe import ExperimentRecipe
from train.experiment_runs import write_splits
from train.experiments import EXPERIMENT_FILE, NOT_RUN, RowResult, read_results, results_with_provenance
from train.metrics_file import write_metrics
from train.paired_differences import Difference
from train.result_tables import (
    QUICK_TITLE,
    TABLES_FILE,
    ResultTable,
    claims_table,
    markdown,
    provenance_table,
    result_tables,
    table_title,
    write_tables,
)

MACHINE = {"cpu": "Some | CPU", "cores": 4, "gpu": None, "torch": "2.8.0"}


def result(row: str, seed: int, *f1: float, task: str = "planes", draw: int = 0) -> RowResult:
    """One of Table 1 with an F1 a split; precision and recall are 0.1 and 0.2 more."""
    metrics = {f"split_{n}/f1": value for n, value in enumerate(f1, 1)}
    metrics |= {f"split_{n}/precision": value + 0.1 for n, value in enumerate(f1, 1)}
    metrics |= {f"split_{n}/recall": value + 0.2 for n, value in enumerate(f1, 1)}
    metrics |= {"test/f1": 99.0, "test/f1_std": 99.0, "split_1/f1_femur": 99.0}
    return RowResult("1", row, row.title(), task, draw, seed, Path("x"), metrics, None)


def without_result(row: str, seed: int, reason: str, task: str = "planes") -> RowResult:
    return RowResult("1", row, row.title(), task, 0, seed, Path("x"), None, reason)


def saliency_recipe(folder: Path) -> ExperimentRecipe:
    recipe = small_recipe(folder)
    table = replace(recipe.tables["1"], tasks=("saliency",))
    return replace(recipe, tables={"1": table})


def claim(mean: float | None, **fields: object) -> ClaimResult:
    """Of an interval 0.02 to both sides; None: one that could not be tested."""
    told = {
        "name": "medium over random",
        "task": "planes",
        "metric": "f1",
        "better": "best_medium",
        "worse": "random",
        "draws": 1,
        "seeds": 2,
        "difference": None,
        "holm_p_value": None,
        "unavailable": "weights not available",
    }
    if mean is not None:
        difference = Difference(mean=mean, low=mean - 0.02, high=mean + 0.02, p_value=0.01, seeds=2, scans=9)
        told |= {"difference": difference, "holm_p_value": 0.0321, "unavailable": None}
    return ClaimResult(**(told | fields))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def one_table(recipe: ExperimentRecipe, results: list[RowResult]) -> ResultTable:
    (table,) = result_tables(recipe, results, [])
    return table


def test_mean_and_deviation_are_of_all_splits_and_seeds_together(tmp_path: Path) -> None:
    table = one_table(small_recipe(tmp_path), [result("random", 0, 0.5, 0.6), result("random", 1, 0.7, 0.8)])
    # Squares of -0.15, -0.05, 0.05, 0.15: 0.05 in all, over 4 - 1.
    assert table.columns == ("", "precision (%) ↑", "recall (%) ↑", "F1 (%) ↑")
    assert table.rows == (("Random", "75.0 (12.9)", "85.0 (12.9)", "65.0 (12.9)"),)
    assert "over 2 splits of the scans, 2 seeds and 1 draw of the data" in table.notes[0]
    write_tables(tmp_path / "tables", [table], claims_table([], False), provenance_table([], False))
    (row,) = read_csv(tmp_path / "tables" / "table_1_planes.csv")
    assert float(row["f1_mean"]) == pytest.approx(0.65, abs=1e-12)
    assert float(row["f1_std"]) == pytest.approx((0.05 / 3) ** 0.5, abs=1e-12)
    assert float(row["recall_mean"]) == pytest.approx(0.85, abs=1e-12)
    assert row["runs"] == "2" and row["unavailable"] == "" and row["row"] == "random"


def test_draws_are_further_values(tmp_path: Path) -> None:
    table = one_table(small_recipe(tmp_path), [result("random", 0, 0.4), result("random", 0, 0.6, draw=1)])
    assert table.rows[0][-1] == "50.0 (14.1)"
    assert "1 split of the scans, 1 seed and 2 draws" in table.notes[0]


def test_a_single_value_has_no_deviation(tmp_path: Path) -> None:
    table = one_table(small_recipe(tmp_path), [result("random", 0, 0.5)])
    assert table.rows[0][-1] == "50.0" and table.csv_rows[0][table.csv_columns.index("f1_std")] is None


def test_rows_come_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    results = [result(row, 0, 0.5) for row in ("best_medium", "random", "printed_medium")]
    rows = one_table(small_recipe(tmp_path), results).rows
    assert [row[0] for row in rows] == ["Random", "Printed_Medium", "Best_Medium"]


def test_a_table_a_task(tmp_path: Path) -> None:
    results = [result("random", 0, 0.5), result("random", 0, 0.7, task="planes_frozen")]
    tables = result_tables(small_recipe(tmp_path), results, [])
    assert [(table.name, table.title, table.rows[0][-1]) for table in tables] == [
        ("table_1_planes", "Table 1, fine-tuned", "50.0"),
        ("table_1_planes_frozen", "Table 1, frozen features", "70.0"),
    ]


def test_saliency_has_its_own_scores(tmp_path: Path) -> None:
    scores = {"kld": 1.234, "sim": 0.5, "nss": 2.0, "auc_judd": 0.9}
    metrics = {f"split_1/{name}": value for name, value in scores.items()}
    row = replace(result("random", 0, task="saliency"), metrics=metrics)
    table = one_table(saliency_recipe(tmp_path), [row])
    assert table.columns[1:] == ("KLD ↓", "SIM ↑", "NSS ↑", "CC ↑")
    assert table.rows == (("Random", "1.23", "0.50", "2.00", "not measured"),)
    assert dict(zip(table.csv_columns, table.csv_rows[0], strict=True))["kld_mean"] == 1.234
    assert "macro" not in table.notes[0]


def test_a_row_without_result_says_why_and_has_no_number(tmp_path: Path) -> None:
    results = [
        *(without_result("imagenet", seed, "weights not available") for seed in (0, 1)),
        *(result("random", seed, 0.5, 0.6) for seed in (0, 1)),
    ]
    table = one_table(small_recipe(tmp_path), results)
    assert table.rows[0] == ("Imagenet", "weights not available", "", "")
    assert not re.search(r"\d", "".join(table.rows[0]))
    record = dict(zip(table.csv_columns, table.csv_rows[0], strict=True))
    assert record["unavailable"] == "weights not available" and record["runs"] == 0
    assert all(record[name] is None for name in record if name.endswith(("_mean", "_std")))


def test_a_real_reason_hides_that_other_seeds_were_not_run(tmp_path: Path) -> None:
    results = [without_result("random", 0, NOT_RUN), without_result("random", 1, "no image tower")]
    assert one_table(small_recipe(tmp_path), results).rows[0][1] == "no image tower"
    assert one_table(small_recipe(tmp_path), results[:1]).rows[0][1] == NOT_RUN


def test_without_any_result_nothing_is_said_to_be_measured(tmp_path: Path) -> None:
    assert one_table(small_recipe(tmp_path), [without_result("random", 0, NOT_RUN)]).notes == ()


def test_fewer_runs_than_others_are_counted(tmp_path: Path) -> None:
    results = [
        without_result("imagenet", 0, "weights not available"),
        *(result("random", seed, 0.5) for seed in (0, 1)),
        result("best_medium", 0, 0.5),
        without_result("best_medium", 1, "failed"),
    ]
    table = one_table(small_recipe(tmp_path), results)
    assert table.columns[-1] == "runs" and "fewer runs" in table.notes[0]
    assert [row[-1] for row in table.rows] == ["", "2 of 2", "1 of 2 (others: failed)"]
    assert [row[table.csv_columns.index("runs")] for row in table.csv_rows] == [0, 2, 1]
    assert "fewer runs" not in one_table(small_recipe(tmp_path), results[:3]).notes[0]


def test_claims_say_yes_only_where_they_stand() -> None:
    table = claims_table([claim(0.068), claim(0.01), claim(None)], quick=False)
    assert table.rows == (
        ("medium over random", "+6.8 points of F1", "+4.8 to +8.8", "0.032", "yes", "2", "9"),
        ("medium over random", "+1.0 points of F1", "-1.0 to +3.0", "0.032", "no", "2", "9"),
        ("medium over random", "weights not available", "", "", "not tested", "", ""),
    )
    records = [dict(zip(table.csv_columns, row, strict=True)) for row in table.csv_rows]
    assert [record["stands"] for record in records] == [True, False, False]
    assert (records[0]["difference"], records[0]["scans"], records[0]["p_value"]) == (0.068, 9, 0.01)
    assert records[0]["holm_p_value"] == 0.0321 and records[0]["pairs_of_runs"] == 2
    assert records[2]["difference"] is None and records[2]["unavailable"] == "weights not available"


def test_a_claim_on_one_pair_of_runs_says_why_it_does_not_stand(tmp_path: Path) -> None:
    results = [result("random", 0, 0.5), result("best_medium", 0, 0.6)]
    on_one_pair = claim(0.068, difference=replace(claim(0.068).difference, seeds=1))
    (table,) = result_tables(small_recipe(tmp_path), results, [on_one_pair])
    assert table.notes[-1].endswith("p 0.032. No claim stands on one pair of runs.")
    claims = claims_table([on_one_pair], quick=False)
    assert claims.rows[0][4] == "no" and "on two pairs of runs or more" in claims.notes[0]


def test_a_difference_of_saliency_is_in_its_own_unit() -> None:
    cells = claims_table([claim(0.1, metric="kld", task="saliency", holm_p_value=0.0002)], False).rows[0]
    assert cells[1:4] == ("+0.10 KLD", "+0.08 to +0.12", "< 0.001")


def test_claims_about_the_rows_of_a_table_stand_below_it(tmp_path: Path) -> None:
    results = [result("random", 0, 0.5), result("best_medium", 0, 0.6)]
    claims = [
        claim(0.068),
        claim(0.01, name="weaker"),
        claim(None, name="missing"),
        claim(0.1, name="elsewhere", task="planes_frozen"),
        claim(0.1, name="other rows", worse="printed_medium"),
    ]
    (table,) = result_tables(small_recipe(tmp_path), results, claims)
    assert table.notes[1:] == (
        "medium over random: +6.8 points of F1, 95% interval +4.8 to +8.8, p 0.032. The claim stands.",
        "weaker: +1.0 points of F1, 95% interval -1.0 to +3.0, p 0.032. The claim does not stand.",
        "missing: not tested (weights not available).",
    )


def provenance(row: str, seed: int, **fields: object) -> dict:
    measured = {
        "metrics": {},
        "recipe": row,
        "seed": seed,
        "code_version": "0.1.0",
        "data_hash": "0123456789abcdef",
        "machine": MACHINE,
    }
    return {"row": row, "task": "planes", "draw": 0, "measured": measured | fields}


def test_provenance_joins_what_differs_within_a_row_and_task() -> None:
    table = provenance_table(
        [
            provenance("medium", 1),
            provenance("medium", 0, code_version="0.2.0", data_hash="f" * 64),
            provenance("medium", 0, data_hash="f" * 64),  # the same row in another table
            {"row": "imagenet", "task": "planes", "draw": 0, "measured": None},
            provenance("random", 0, machine=MACHINE | {"gpu": "Some GPU", "cores": 1}),
        ],
        quick=False,
    )
    cpu = "Some | CPU, 4 cores, no GPU, torch 2.8.0"
    gpu = "Some | CPU, 1 core, Some GPU, torch 2.8.0"
    hashes = "0123456789ab; ffffffffffff"
    assert table.rows == (
        ("medium", "planes", "medium", "0", "0; 1", "0.1.0; 0.2.0", hashes, cpu),
        ("random", "planes", "random", "0", "0", "0.1.0", "0123456789ab", gpu),
    )
    assert r"Some \| CPU" in markdown(table)


def test_a_title_says_what_is_trained_on_what(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    titles = [table_title(recipe, "1", task) for task in ("planes", "planes_frozen", "plane_clips_frozen")]
    assert titles == [
        "Table 1, fine-tuned",
        "Table 1, frozen features",
        "Table 1, frozen features, clips and the video tower",
    ]


def test_quick_is_in_the_title_of_every_table(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, is_quick=True)
    results = [result("random", 0, 0.5, task=task) for task in ("planes", "planes_frozen")]
    tables = result_tables(recipe, results, [])
    claims, origins = claims_table([claim(0.1)], True), provenance_table([provenance("random", 0)], True)
    write_tables(tmp_path, tables, claims, origins)
    assert len(tables) == 2
    for table in [*tables, claims, origins]:
        assert table.title.startswith(QUICK_TITLE)
        (row,) = read_csv(tmp_path / f"{table.name}.csv")
        assert row["table"].startswith("SMOKE TEST, numbers mean nothing: ")
    titles = re.findall(r"^## (.*)", (tmp_path / TABLES_FILE).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(titles) == 4 and all(title.startswith(QUICK_TITLE) for title in titles)
    assert not one_table(small_recipe(tmp_path), results[:1]).title.startswith("SMOKE")


def test_every_line_of_a_markdown_table_has_the_cells_of_its_head() -> None:
    table = ResultTable(
        "t", "Title", ("", "a|b", "c"), (("x | y", "back\\slash|", "two\nlines"),), ("A note.",), (), ()
    )
    text = markdown(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [4, 4, 4]
    assert lines[2] == r"| x \| y | back\\slash\| | two lines |"
    assert text == "## Title\n\n" + "\n".join(lines) + "\n\nA note.\n"


def test_csv_keeps_commas_and_quotes(tmp_path: Path) -> None:
    title = 'Ours, "large" ü'
    table = one_table(small_recipe(tmp_path), [replace(result("random", 0, 0.5), title=title)])
    write_tables(tmp_path / "new" / "folder", [table], claims_table([], False), provenance_table([], False))
    (row,) = read_csv(tmp_path / "new" / "folder" / "table_1_planes.csv")
    assert row["title"] == title
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "claims.csv",
        "provenance.csv",
        "table_1_planes.csv",
        "tables.json",
        TABLES_FILE,
    ]
    texts = json.loads((tmp_path / "new" / "folder" / "tables.json").read_text(encoding="utf-8"))
    assert list(texts) == ["table_1_planes", "claims", "provenance"]
    assert texts["table_1_planes"] == markdown(table)


def test_from_the_folder_of_the_runs_to_tables(tmp_path: Path) -> None:
    experiments = small_experiments(tmp_path)
    recipe, output = experiments.recipe, experiments.output
    runs = planned_runs(recipe, replace(select_all(recipe), tables=("1",)))
    runs = [run for run in runs if getattr(run, "task", "planes") == "planes"]
    write_splits(experiments, runs)
    for run in runs:
        if run != Finetuning(0, "planes", Row("random"), 1):
            leave_result(experiments, run)
    (output / EXPERIMENT_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
    scores = {f"split_{n}/{name}": n / 10 for n in (1, 2) for name in ("precision", "recall", "f1")}
    for seed in (0, 1):
        path = output / Finetuning(0, "planes", Row("medium", "best"), seed).place / "metrics.json"
        write_metrics(path, scores, recipe="mine", seed=seed, data_hash="abc", code_version="9.9")
    results = read_results(output)
    tables = result_tables(recipe, results, [])
    origins = provenance_table(results_with_provenance(output, results), quick=False)
    write_tables(tmp_path / "tables", tables, claims_table([], False), origins)
    rows = {row["row"]: row for row in read_csv(tmp_path / "tables" / "table_1_planes.csv")}
    assert float(rows["best_medium"]["f1_mean"]) == pytest.approx(0.15)
    assert float(rows["best_medium"]["f1_std"]) == pytest.approx((0.01 / 3) ** 0.5)
    assert rows["random"]["runs"] == "1"
    frozen = read_csv(tmp_path / "tables" / "table_1_planes_frozen.csv")
    assert {row["unavailable"] for row in frozen} == {NOT_RUN}
    of_medium = [row for row in read_csv(tmp_path / "tables" / "provenance.csv") if row["recipe"] == "mine"]
    (of_medium,) = of_medium
    assert (of_medium["seeds"], of_medium["code_version"], of_medium["data_hash"]) == ("0; 1", "9.9", "abc")
