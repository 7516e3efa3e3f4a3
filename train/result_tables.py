"""The results as tables: Markdown to read, CSV to compute with."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from train.claim_results import SIGNIFICANCE_LEVEL, ClaimResult
from train.experiment_plan import Row, select_all, table_rows
from train.experiment_recipe import FROZEN, PLANE_CLIPS, PLANES, SALIENCY, ExperimentRecipe
from train.experiments import NOT_RUN, RowResult
from train.plane_results import MACRO
from train.saliency_results import COLUMNS

TABLES_FILE = "tables.md"
QUICK_TITLE = "SMOKE TEST, numbers mean nothing: "
# The scores of the paper's Tables 1 and 2, by task without `_frozen`.
SHOWN = {PLANES: MACRO, PLANE_CLIPS: MACRO, SALIENCY: ("kld", "sim", "nss", "cc")}
HASH_LETTERS = 12
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class RowScores:
    """A row of a table on one task, with all its results.

    Args:
        row: its name and setting.
        title: for people.
        results: one a draw and seed.
    """

    row: Row
    title: str
    results: tuple[RowResult, ...]

    @property
    def measured(self) -> list[RowResult]:
        """The draws and seeds that have a result."""
        return [result for result in self.results if result.metrics is not None]

    def values(self, metric: str) -> list[float]:
        """The score of every split of every draw and seed."""
        of_split = re.compile(rf"split_\d+/{metric}")
        return [
            value
            for result in self.measured
            for name, value in result.metrics.items()
            if of_split.fullmatch(name)
        ]

    @property
    def reasons(self) -> str:
        """Why results are missing; that some were not run is said only where there is no other reason."""
        reasons = {result.unavailable: None for result in self.results if result.metrics is None}
        return ", ".join([reason for reason in reasons if reason != NOT_RUN] or reasons)


@dataclass(frozen=True)
class ResultTable:
    """A table as it is read, and as it is computed with.

    Args:
        name: of its CSV file, without ending.
        title: above it.
        columns: what stands above each column.
        rows: text, a cell a column.
        notes: sentences below it.
        csv_columns: names of the columns of the CSV file.
        csv_rows: the same rows with unrounded numbers; None where there is none.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    csv_columns: tuple[str, ...]
    csv_rows: tuple[tuple[Any, ...], ...]


def result_tables(
    recipe: ExperimentRecipe, results: Sequence[RowResult], claims: Sequence[ClaimResult]
) -> list[ResultTable]:
    """A table for each of the recipe's tables and tasks that there are results, or reasons, of.

    Args:
        recipe: of the results.
        results: as `read_results` gives them.
        claims: a table's notes say what became of the claims about its rows.
    """
    tables = []
    for table, spec in recipe.tables.items():
        for task in spec.tasks:
            rows = row_scores(recipe, results, table, task)
            if rows:
                tables.append(_result_table(recipe, table, task, rows, claims))
    return tables


def row_scores(
    recipe: ExperimentRecipe, results: Sequence[RowResult], table: str, task: str
) -> list[RowScores]:
    """The rows of a table on a task, in the recipe's order; those that the results lack are left out."""
    by_row: dict[str, list[RowResult]] = {}
    for result in results:
        if (result.table, result.task) == (table, task):
            by_row.setdefault(result.row, []).append(result)
    return [
        RowScores(row, by_row[row.full_name][0].title, tuple(by_row[row.full_name]))
        for row in table_rows(recipe, select_all(recipe), table)
        if row.full_name in by_row
    ]


def table_title(recipe: ExperimentRecipe, table: str, task: str) -> str:
    """A table's title on a task; it says so where the numbers mean nothing."""
    how = "frozen features" if task.endswith(FROZEN) else "fine-tuned"
    if task.removesuffix(FROZEN) == PLANE_CLIPS:
        how += ", clips and the video tower"
    return with_warning(f"{recipe.tables[table].title}, {how}", recipe.quick)


def with_warning(title: str, quick: bool) -> str:
    """The title, which begins with a warning where the numbers are a smoke test's."""
    return f"{QUICK_TITLE}{title}" if quick else title


def is_share(metric: str) -> bool:
    """Whether a score is shown in percent."""
    return metric not in COLUMNS


def metric_title(metric: str) -> str:
    """What stands above a score's column; the arrow tells which way is better."""
    if not is_share(metric):
        return COLUMNS[metric]
    return f"{metric_words(metric)} (%) ↑"


def metric_unit(metric: str) -> str:
    """What a difference of two scores is in."""
    return f"points of {metric_words(metric)}" if is_share(metric) else metric_words(metric)


def metric_words(metric: str) -> str:
    """A score's name."""
    if not is_share(metric):
        return COLUMNS[metric][:-2]
    return "F1" if metric == "f1" else metric.replace("_", " ")


def _result_table(
    recipe: ExperimentRecipe,
    table: str,
    task: str,
    rows: Sequence[RowScores],
    claims: Sequence[ClaimResult],
) -> ResultTable:
    metrics = SHOWN[task.removesuffix(FROZEN)]
    most = max(len(row.measured) for row in rows)
    runs_differ = any(0 < len(row.measured) < most for row in rows)
    title = table_title(recipe, table, task)
    names = {row.row.full_name for row in rows}
    about = [claim for claim in claims if claim.task == task and {claim.better, claim.worse} <= names]
    return ResultTable(
        name=f"table_{table}_{task}",
        title=title,
        columns=("", *map(metric_title, metrics), *(["runs"] if runs_differ else [])),
        rows=tuple(_text_row(row, metrics, most if runs_differ else None) for row in rows),
        notes=(*_measured_over(rows, metrics), *map(_claim_note, about)),
        csv_columns=(
            *("table", "row", "title"),
            *(f"{metric}_{what}" for metric in metrics for what in ("mean", "std")),
            *("runs", "unavailable"),
        ),
        csv_rows=tuple(_csv_row(title, row, metrics) for row in rows),
    )


def _text_row(row: RowScores, metrics: Sequence[str], most_runs: int | None) -> tuple[str, ...]:
    """A row's cells, the last one with its number of runs where `most_runs`, that of others, is given."""
    runs = len(row.measured)
    if runs:
        cells = [_score_text(metric, row.values(metric)) for metric in metrics]
    else:
        cells = [row.reasons] + [""] * (len(metrics) - 1)
    if most_runs is None:
        return (row.title, *cells)
    missing = f" (others: {row.reasons})" if 0 < runs < most_runs else ""
    return (row.title, *cells, f"{runs} of {most_runs}{missing}" if runs else "")


def _score_text(metric: str, values: Sequence[float]) -> str:
    if not values:
        return NOT_MEASURED
    deviation = f" ({score_text(metric, stdev(values))})" if len(values) > 1 else ""
    return score_text(metric, mean(values)) + deviation


def score_text(metric: str, value: float, sign: str = "") -> str:
    """A score, or a difference of two with `sign` "+", as tables show it."""
    return f"{100 * value:{sign}.1f}" if is_share(metric) else f"{value:{sign}.2f}"


def _csv_row(title: str, row: RowScores, metrics: Sequence[str]) -> tuple[Any, ...]:
    cells: list[float | None] = []
    for metric in metrics:
        values = row.values(metric)
        cells += [mean(values) if values else None, stdev(values) if len(values) > 1 else None]
    runs = len(row.measured)
    return (title, row.row.full_name, row.title, *cells, runs, None if runs else row.reasons)


def _measured_over(rows: Sequence[RowScores], metrics: Sequence[str]) -> tuple[str, ...]:
    measured = [result for row in rows for result in row.measured]
    if not measured:
        return ()
    names = {name for result in measured for name in result.metrics}
    splits = {name.split("/")[0] for name in names if name.startswith("split_")}
    seeds, draws = ({getattr(result, field) for result in measured} for field in ("seed", "draw"))
    over = (
        f"{_count(len(splits), 'split')} of the scans, {_count(len(seeds), 'seed')} and "
        f"{_count(len(draws), 'draw')} of the data"
    )
    what = "macro average over the classes; " if set(metrics) == set(MACRO) else ""
    fewer = " A row with fewer runs says so." if len({len(row.measured) for row in rows} - {0}) > 1 else ""
    return (f"Mean (standard deviation), {what}over {over}, all values together.{fewer}",)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def claims_table(claims: Sequence[ClaimResult], quick: bool) -> ResultTable:
    """What the claimed differences are, and which of the claims stand.

    Args:
        claims: as they were tested.
        quick: whether the numbers are a smoke test's.
    """
    title = with_warning("Claims", quick)
    return ResultTable(
        name="claims",
        title=title,
        columns=("claim", "difference", "95% interval", "p (Holm)", "stands", "pairs of runs", "scans"),
        rows=tuple((claim.name, *_claim_cells(claim), *_claim_counts(claim)) for claim in claims),
        notes=(
            "Differences are paired by test frame, seed and draw, and above zero where the claim is right: "
            "for KLD, of which less is better, they are how much less it is. The intervals are of a "
            "bootstrap that resamples scans and pairs of runs; p is corrected by Holm's method over all "
            f"claims that could be tested. A claim stands where its interval lies above zero and p below "
            f"{SIGNIFICANCE_LEVEL}, on two pairs of runs or more.",
        ),
        csv_columns=(
            *("table", "claim", "task", "metric", "better", "worse", "difference", "low", "high"),
            *("p_value", "holm_p_value", "stands", "draws", "seeds", "pairs_of_runs"),
            *("scans", "unavailable"),
        ),
        csv_rows=tuple((title, *_claim_record(claim)) for claim in claims),
    )


def _claim_cells(claim: ClaimResult) -> tuple[str, str, str, str]:
    difference = claim.difference
    if difference is None:
        return claim.unavailable, "", "", "not tested"
    middle, low, high = (
        score_text(claim.metric, value, "+") for value in (difference.mean, difference.low, difference.high)
    )
    return (
        f"{middle} {metric_unit(claim.metric)}",
        f"{low} to {high}",
        _p_text(claim.holm_p_value),
        "yes" if claim.stands else "no",
    )


def _claim_counts(claim: ClaimResult) -> tuple[str, str]:
    difference = claim.difference
    return ("", "") if difference is None else (str(difference.seeds), str(difference.scans))


def _claim_note(claim: ClaimResult) -> str:
    difference, interval, p_value, stands = _claim_cells(claim)
    if claim.difference is None:
        return f"{claim.name}: {stands} ({difference})."
    verdict = "The claim stands" if claim.stands else "The claim does not stand"
    if claim.is_on_one_pair:
        verdict = "No claim stands on one pair of runs"
    return f"{claim.name}: {difference}, 95% interval {interval}, p {p_value}. {verdict}."


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _claim_record(claim: ClaimResult) -> tuple[Any, ...]:
    difference = claim.difference
    named = (claim.name, claim.task, claim.metric, claim.better, claim.worse)
    if difference is None:
        return (*named, *[None] * 5, False, claim.draws, claim.seeds, 0, None, claim.unavailable)
    numbers = (difference.mean, difference.low, difference.high, difference.p_value, claim.holm_p_value)
    counts = (claim.draws, claim.seeds, difference.seeds, difference.scans)
    return (*named, *numbers, claim.stands, *counts, None)


def provenance_table(results: Sequence[dict[str, Any]], quick: bool) -> ResultTable:
    """What the metrics.json behind each row and task say of themselves; different values joined.

    Args:
        results: as `results_with_provenance` gives them.
        quick: whether the numbers are a smoke test's.
    """
    measured: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        if result["measured"] is not None:
            measured.setdefault((result["task"], result["row"]), []).append(result)
    rows = tuple((row, task, *_provenance(of_row)) for (task, row), of_row in measured.items())
    title = with_warning("Where the numbers come from", quick)
    columns = ("row", "task", "recipe", "draws", "seeds", "code version", "data hash", "machine")
    return ResultTable(
        name="provenance",
        title=title,
        columns=columns,
        rows=rows,
        notes=(f"As the metrics.json of the runs say; {HASH_LETTERS} letters of each data hash.",),
        csv_columns=("table", *(column.replace(" ", "_") for column in columns)),
        csv_rows=tuple((title, *row) for row in rows),
    )


def _provenance(results: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    measured = [result["measured"] for result in results]
    return (
        _joined(each["recipe"] for each in measured),
        _joined(sorted(result["draw"] for result in results)),
        _joined(sorted(each["seed"] for each in measured)),
        _joined(each["code_version"] for each in measured),
        _joined(each["data_hash"][:HASH_LETTERS] for each in measured),
        _joined(_machine(each["machine"]) for each in measured),
    )


def _machine(machine: dict[str, Any]) -> str:
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['cpu']}, {_count(machine['cores'], 'core')}, {gpu}, torch {machine['torch']}"


def _joined(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, values)))


def write_tables(
    folder: Path, tables: Sequence[ResultTable], claims: ResultTable, provenance: ResultTable
) -> None:
    """Writes tables.md with all of them, tables.json with the text of each by its name, and a CSV file each.

    Args:
        folder: made if missing.
        tables: of `result_tables`.
        claims: of `claims_table`.
        provenance: of `provenance_table`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    everything = [*tables, claims, provenance]
    texts = {table.name: markdown(table) for table in everything}
    _write(folder / TABLES_FILE, "\n".join(texts.values()))
    _write(folder / "tables.json", json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
    for table in everything:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(table.csv_columns)
        writer.writerows(table.csv_rows)
        _write(folder / f"{table.name}.csv", text.getvalue())


def markdown(table: ResultTable) -> str:
    """The table with its title and notes, as GitHub reads it."""
    ruler = ["---"] * len(table.columns)
    lines = [_line(table.columns), _line(ruler), *map(_line, table.rows)]
    return "\n\n".join([f"## {table.title}", "\n".join(lines), *table.notes]) + "\n"


def _line(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(escaped) + " |"


def _write(path: Path, text: str) -> None:
    """Aside and renamed, as another process may write or read the same table."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_text(text, encoding="utf-8", newline="")
    os.replace(aside, path)
