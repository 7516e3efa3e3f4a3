"""Figures of the results: a table's rows as bars, label-efficiency and relevance curves, the claims."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from train.arguments import merge
from train.claim_results import ClaimResult
from train.experiment_recipe import FROZEN, PLANE_CLIPS, PLANES, SALIENCY, ExperimentRecipe
from train.experiments import RowResult
from train.finetune_arguments import FinetuneArguments
from train.pictures import DOTS_PER_INCH
from train.result_tables import (
    RowScores,
    is_share,
    metric_title,
    metric_unit,
    row_scores,
    table_title,
    with_warning,
)

PICTURED = {PLANES: "f1", PLANE_CLIPS: "f1", SALIENCY: "kld"}
WIDTH = 8.0  # inches
BAR_STEP = 0.28  # inches from one bar to the next
TITLE_LETTERS = 80
TICK_LETTERS = 40
GREY = "0.5"
Line = list[tuple[float, RowScores]]  # a share, 0 to 1, and the row that has it; from the smallest share


@dataclass(frozen=True)
class Panel:
    """What a figure of a table shows.

    Args:
        recipe: of the rows.
        task: that they are of.
        title: above the picture.
        rows: with results.
    """

    recipe: ExperimentRecipe
    task: str
    title: str
    rows: Sequence[RowScores]

    @property
    def metric(self) -> str:
        """The score that is drawn."""
        return PICTURED[self.task.removesuffix(FROZEN)]

    def values(self, row: RowScores) -> np.ndarray:
        """(values,) its scores as they are shown."""
        return np.array(row.values(self.metric)) * (100 if is_share(self.metric) else 1)

    def label_lines(self) -> list[Line]:
        """A line a start and setting, over the share of the labels."""
        return self._lines(lambda row: (self._start(row), row.row.setting), self.label_share)

    def relevance_lines(self) -> list[Line]:
        """A line a setting, over the share of remarks that are about the picture."""
        return self._lines(lambda row: row.row.setting, self.relevant_share)

    def _lines(self, line_of: Callable[[RowScores], Any], share: Callable[[RowScores], float]) -> list[Line]:
        lines: dict[Any, Line] = {}
        for row in self.rows:
            lines.setdefault(line_of(row), []).append((share(row), row))
        return [sorted(line, key=lambda point: point[0]) for line in lines.values()]

    def start_title(self, row: RowScores) -> str:
        """What the row starts from, and in which setting."""
        start, setting = self._start(row).replace("_", " "), row.row.setting
        return start if setting is None else f"{start}, {self.recipe.settings[setting].title}"

    def _start(self, row: RowScores) -> str:
        return self.recipe.rows[row.row.name].start

    def label_share(self, row: RowScores) -> float:
        """Share of the labels, 0 to 1, that the row is fine-tuned on."""
        of_task = self.recipe.finetuning[self.task.removesuffix(FROZEN)]
        fields = merge(of_task, self.recipe.rows[row.row.name].finetuning)
        return fields.get("label_share", FinetuneArguments.label_share)

    def relevant_share(self, row: RowScores) -> float | None:
        """Share of the remarks, 0 to 1, that are about the picture; None where the row does not set it."""
        if row.row.setting is None:
            return None
        return self.recipe.pretrainings[self._start(row)].relevant_speech


def save_figures(
    folder: Path, recipe: ExperimentRecipe, results: Sequence[RowResult], claims: Sequence[ClaimResult]
) -> list[Path]:
    """Writes a figure of every table and task that has a result, and one of the claims.

    Args:
        folder: made if missing.
        recipe: of the results.
        results: as `read_results` gives them.
        claims: as they were tested.

    Returns:
        the PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table, spec in recipe.tables.items():
        for task in spec.tasks:
            rows = row_scores(recipe, results, table, task)
            panel = Panel(recipe, task, table_title(recipe, table, task), rows)
            measured = [row for row in rows if row.values(panel.metric)]
            if measured:
                paths.append(folder / f"table_{table}_{task}.png")
                _save_table(panel, measured, paths[-1])
    if any(claim.difference is not None for claim in claims):
        paths.append(folder / "claims.png")
        save_claims(claims, recipe.quick, paths[-1])
    return paths


def _save_table(panel: Panel, measured: Sequence[RowScores], path: Path) -> None:
    """As a curve where the rows differ in a share, else as bars; all rows decide, the measured are drawn."""
    drawn = Panel(panel.recipe, panel.task, panel.title, measured)
    if all(panel.relevant_share(row) is not None for row in panel.rows):
        save_relevance_curve(drawn, path)
    elif all(len(line) > 1 for line in panel.label_lines()):
        save_label_curve(drawn, path)
    else:
        save_bars(drawn, path)


def save_bars(panel: Panel, path: Path) -> None:
    """The mean of each row, its settings together; standard deviation, and every split's value as a dot.

    Args:
        panel: what is drawn.
        path: PNG file to write.
    """
    names = list(dict.fromkeys(row.row.name for row in panel.rows))
    figure, axes = _figure(panel.title, 1.5 + BAR_STEP * (len(panel.rows) + 0.6 * len(names)))
    if len(names) == 1:
        _draw_settings(panel, axes)
    else:
        _draw_rows(panel, names, axes)
    axes.set_xlabel(metric_title(panel.metric))
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, axes)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_settings(panel: Panel, axes: Axes) -> None:
    """Bars of a single row, named by their settings."""
    titles = []
    for place, row in enumerate(panel.rows):
        setting = row.row.setting
        own = panel.recipe.rows[row.row.name] if setting is None else panel.recipe.settings[setting]
        titles.append(textwrap.fill(own.title, TICK_LETTERS))
        _draw_bar(axes, panel.values(row), place, GREY if setting is None else "C0", "")
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.3, -0.7)


def _draw_rows(panel: Panel, names: Sequence[str], axes: Axes) -> None:
    """Bars of these rows, each with a colour a setting."""
    shown = {row.row.setting for row in panel.rows}
    settings = [setting for setting in panel.recipe.settings if setting in shown]
    place, middles = 0.0, []
    for name in names:
        own = [row for row in panel.rows if row.row.name == name]
        middles.append(place + (len(own) - 1) / 2)
        for row in own:
            setting = row.row.setting
            color = GREY if setting is None else f"C{settings.index(setting)}"
            label = "" if setting is None else panel.recipe.settings[setting].title
            _draw_bar(axes, panel.values(row), place, color, label)
            place += 1
        place += 0.6
    axes.set_yticks(middles, [textwrap.fill(panel.recipe.rows[name].title, TICK_LETTERS) for name in names])
    axes.set_ylim(place - 0.9, -0.7)


def _draw_bar(axes: Axes, values: np.ndarray, place: float, color: str, label: str) -> None:
    axes.barh(place, values.mean(), 0.85, color=color, alpha=0.45, label=label)
    beside = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(1)
    axes.scatter(values, place + beside, s=7, color=color, linewidths=0, zorder=3)
    if len(values) > 1:
        axes.errorbar(values.mean(), place, xerr=stdev(values), color="black", capsize=3, zorder=4)


def save_label_curve(panel: Panel, path: Path) -> None:
    """The score over the share of the labels, a line an initialisation.

    Args:
        panel: what is drawn.
        path: PNG file to write.
    """
    lines = {panel.start_title(line[0][1]): line for line in panel.label_lines()}
    _save_curves(panel, lines, "share of the labels", path, is_logarithmic=True)


def save_relevance_curve(panel: Panel, path: Path) -> None:
    """The score over the share of remarks about the picture, a line a setting.

    Args:
        panel: what is drawn.
        path: PNG file to write.
    """
    settings = panel.recipe.settings
    lines = {settings[line[0][1].row.setting].title: line for line in panel.relevance_lines()}
    _save_curves(panel, lines, "share of the speech that is about the picture", path, is_logarithmic=False)


def _save_curves(panel: Panel, lines: dict[str, Line], xlabel: str, path: Path, is_logarithmic: bool) -> None:
    figure, axes = _figure(panel.title, 4.8)
    for number, (title, line) in enumerate(lines.items()):
        # A little beside one another, so that their error bars can be told apart.
        aside = number - (len(lines) - 1) / 2
        shares = np.array([share for share, _ in line])
        places = shares * 1.05**aside if is_logarithmic else shares + 0.012 * aside
        _draw_curve(axes, places, [panel.values(row) for _, row in line], f"C{number % 10}", title)
    if is_logarithmic:
        axes.set_xscale("log")
    ticks = sorted({share for line in lines.values() for share, _ in line})
    axes.set_xticks(ticks, [f"{100 * share:.3g}%" for share in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=xlabel, ylabel=metric_title(panel.metric))
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_curve(axes: Axes, places: np.ndarray, values: Sequence[np.ndarray], color: str, label: str) -> None:
    means = [of_row.mean() for of_row in values]
    deviations = [stdev(of_row) if len(of_row) > 1 else 0.0 for of_row in values]
    axes.errorbar(places, means, yerr=deviations, color=color, marker="o", capsize=3, label=label)
    for place, of_row in zip(places, values, strict=True):
        axes.scatter([place] * len(of_row), of_row, s=7, color=color, alpha=0.5, linewidths=0)


def save_claims(claims: Sequence[ClaimResult], quick: bool, path: Path) -> None:
    """Every tested improvement with its interval, a panel a score; those that stand are filled.

    Args:
        claims: as they were tested; those that could not be are left out.
        quick: whether the numbers are a smoke test's.
        path: PNG file to write.
    """
    by_metric: dict[str, list[ClaimResult]] = {}
    for claim in claims:
        if claim.difference is not None:
            by_metric.setdefault(claim.metric, []).append(claim)
    counts = [len(of_metric) for of_metric in by_metric.values()]
    title = with_warning("Claims: improvement and 95% interval; filled where the claim stands", quick)
    figure = Figure(figsize=(WIDTH, 0.6 + 0.34 * sum(counts) + 0.75 * len(counts)), layout="constrained")
    figure.suptitle(textwrap.fill(title, TITLE_LETTERS), fontsize="large")
    panels = figure.subplots(len(counts), squeeze=False, height_ratios=[count + 1 for count in counts])[:, 0]
    for axes, (metric, of_metric) in zip(panels, by_metric.items(), strict=True):
        _draw_claims(axes, metric, of_metric)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_claims(axes: Axes, metric: str, claims: Sequence[ClaimResult]) -> None:
    factor = 100 if is_share(metric) else 1
    for place, claim in enumerate(claims):
        difference = claim.difference
        ends = [[difference.mean - difference.low], [difference.high - difference.mean]]
        axes.errorbar(
            factor * difference.mean,
            place,
            xerr=factor * np.array(ends),
            color="C0" if claim.stands else GREY,
            marker="o",
            markerfacecolor=None if claim.stands else "white",
            capsize=3,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(claims)), [textwrap.fill(claim.name, TICK_LETTERS) for claim in claims])
    axes.set_ylim(len(claims) - 0.4, -0.6)
    axes.set_xlabel(metric_unit(metric))
    axes.grid(axis="x", alpha=0.3)


def _figure(title: str, height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height_inches), layout="constrained")
    figure.suptitle(textwrap.fill(title, TITLE_LETTERS), fontsize="large")
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, each name once, if there is any."""
    handles = {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        columns = min(2, len(handles))
        figure.legend(
            handles.values(),
            handles,
            loc="outside lower center",
            ncols=columns,
            fontsize="small",
            frameon=False,
        )
