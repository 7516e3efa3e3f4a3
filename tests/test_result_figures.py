"""The figures of the results: which are drawn, and that they show the numbers that they should."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiment_helpers import small_recipe
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from train.claim_results import ClaimResult
from train.experiment_plan import select_all, table_rows
from train.experiment_recipe import ExperimentRecipe
from train.experiments import RowResult
from train.paired_differences import Difference
from train.result_figures import save_figures

RELEVANCE = {
    "pretrainings": {f"relevant_{n}": {"relevant_speech": n / 100} for n in (0, 100)},
    "rows": {f"relevant_{n}": {"title": f"{n}", "start": f"relevant_{n}"} for n in (0, 100)},
}
LABELS = {
    "rows": {
        f"{start}_5_percent": {"title": "Few", "start": start, "finetuning": {"label_share": 0.05}}
        for start in ("imagenet", "random", "medium")
    }
}
SPLITS = (0.4, 0.5, 0.9)  # their mean is 0.6


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that is saved, by its file's name."""
    figures: dict[str, Figure] = {}
    save = Figure.savefig

    def savefig(figure: Figure, path: Path, **options: object) -> None:
        figures[path.name] = figure
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def of_one_table(
    folder: Path, names: list[str], fields: dict | None = None, task: str = "planes"
) -> ExperimentRecipe:
    """A recipe whose one table has these rows, in the settings printed and best."""
    recipe = small_recipe(folder, **(fields or {}))
    table = replace(recipe.tables["1"], tasks=(task,), rows=tuple(names))
    return replace(recipe, tables={"1": table}, finetuning={task: recipe.finetuning["planes"]})


def results_of(recipe: ExperimentRecipe, metric: str = "f1", **scores: tuple[float, ...]) -> list[RowResult]:
    """A result a row of the table, with a score a split; rows that are not told have none."""
    (task,) = recipe.tables["1"].tasks
    results = []
    for row in table_rows(recipe, select_all(recipe), "1"):
        told = scores.get(row.full_name)
        metrics = told and {f"split_{n}/{metric}": score for n, score in enumerate(told, 1)}
        why = None if told else "not run"
        results.append(RowResult("1", row.full_name, row.name, task, 0, 0, Path("x"), metrics, why))
    return results


def claim(name: str, mean: float | None, metric: str = "f1") -> ClaimResult:
    """Of an interval from 0.02 below to 0.06 above; None: one that could not be tested."""
    difference = None
    if mean is not None:
        difference = Difference(mean=mean, low=mean - 0.02, high=mean + 0.06, p_value=0.01, seeds=2, scans=9)
    told = dict(name=name, task="planes", metric=metric, better="best_medium", worse="random")
    told |= dict(draws=1, seeds=2, difference=difference)
    tested = difference is not None
    told |= dict(holm_p_value=0.03 if tested else None, unavailable=None if tested else "not run")
    return ClaimResult(**told)


def dots(axes: Axes) -> list[np.ndarray]:
    return [np.asarray(collection.get_offsets()) for collection in axes.collections if is_dots(collection)]


def is_dots(collection: object) -> bool:
    return type(collection).__name__ == "PathCollection"


def error_ends(axes: Axes) -> list[np.ndarray]:
    """(2, 2) both ends of every error bar."""
    return [
        segment
        for container in axes.containers
        if hasattr(container, "has_xerr")
        for lines in container.lines[2]
        for segment in lines.get_segments()
    ]


def test_bars_show_mean_deviation_and_every_split(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipe = of_one_table(tmp_path, ["random", "medium"])
    results = results_of(recipe, random=SPLITS, printed_medium=(0.3,), best_medium=(0.7, 0.8))
    (path,) = save_figures(tmp_path / "figures", recipe, results, [])
    with Image.open(path) as picture:
        assert min(picture.size) > 200 and len(picture.convert("L").getcolors(256)) > 10
    (axes,) = drawn["table_1_planes.png"].axes
    bars = [bar for container in axes.containers if hasattr(container, "patches") for bar in container]
    assert [bar.get_width() for bar in bars] == pytest.approx([60, 30, 75])
    assert [sorted(places[:, 0]) for places in dots(axes)] == [
        pytest.approx([40, 50, 90]),
        pytest.approx([30]),
        pytest.approx([70, 80]),
    ]
    deviation = ((20**2 + 10**2 + 30**2) / 2) ** 0.5
    ends = error_ends(axes)
    assert len(ends) == 2, "a single value has no deviation"
    assert ends[0][:, 0] == pytest.approx([60 - deviation, 60 + deviation])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Random", "Medium"]
    assert axes.get_xlabel() == "F1 (%) ↑"
    middle = (bars[1].get_y() + bars[2].get_y() + bars[2].get_height()) / 2
    assert list(axes.get_yticks()) == pytest.approx([bars[0].get_y() + bars[0].get_height() / 2, middle])
    (legend,) = drawn["table_1_planes.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["as printed", "best"]
    assert bars[1].get_facecolor() != bars[2].get_facecolor()


def test_settings_differ_in_colour_however_many_the_recipe_has(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    """Ten settings of which this table shows none stand between the two."""
    recipe = of_one_table(tmp_path, ["random", "medium"])
    others = {f"other_{number}": recipe.settings["best"] for number in range(9)}
    settings = {"printed": recipe.settings["printed"], **others, "best": recipe.settings["best"]}
    recipe = replace(recipe, settings=settings)
    results = results_of(recipe, random=SPLITS, printed_medium=SPLITS, best_medium=SPLITS)
    save_figures(tmp_path, recipe, results, [])
    (axes,) = drawn["table_1_planes.png"].axes
    bars = [bar for container in axes.containers if hasattr(container, "patches") for bar in container]
    assert len({bar.get_facecolor() for bar in bars}) == len(bars) == 3


def test_bars_of_a_single_row_are_named_by_their_settings(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    """Eleven settings have no colour each."""
    recipe = of_one_table(tmp_path, ["medium"])
    save_figures(tmp_path, recipe, results_of(recipe, printed_medium=(0.3,), best_medium=SPLITS), [])
    figure = drawn["table_1_planes.png"]
    (axes,) = figure.axes
    bars = [bar for container in axes.containers if hasattr(container, "patches") for bar in container]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["as printed", "best"]
    assert [bar.get_width() for bar in bars] == pytest.approx([30, 60]) and figure.legends == []
    places = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert list(axes.get_yticks()) == pytest.approx(places)


def test_saliency_is_drawn_as_it_is(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipe = of_one_table(tmp_path, ["random"], task="saliency")
    save_figures(tmp_path, recipe, results_of(recipe, "kld", random=(1.5, 1.7)), [])
    (axes,) = drawn["table_1_saliency.png"].axes
    assert sorted(dots(axes)[0][:, 0]) == [1.5, 1.7] and axes.get_xlabel() == "KLD ↓"


def test_rows_without_result_are_not_drawn(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipe = of_one_table(tmp_path, ["imagenet", "random", "medium"])
    save_figures(tmp_path, recipe, results_of(recipe, random=SPLITS), [])
    (axes,) = drawn["table_1_planes.png"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Random"]
    assert drawn["table_1_planes.png"].legends == []


def test_without_results_there_is_no_figure(tmp_path: Path) -> None:
    recipe = of_one_table(tmp_path, ["random", "medium"])
    assert save_figures(tmp_path / "figures", recipe, results_of(recipe), [claim("a", None)]) == []
    assert list((tmp_path / "figures").iterdir()) == []


def test_shares_of_the_labels_become_a_curve(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = ["random_5_percent", "random", "medium_5_percent", "medium"]
    recipe = of_one_table(tmp_path, rows, LABELS)
    recipe = replace(recipe, tables={"1": replace(recipe.tables["1"], settings=("best",))})
    scores = {"random": SPLITS, "random_5_percent": (0.1, 0.3), "best_medium_5_percent": (0.5,)}
    save_figures(tmp_path, recipe, results_of(recipe, **scores), [])
    (axes,) = drawn["table_1_planes.png"].axes
    random, medium = [container.lines[0] for container in axes.containers]
    assert list(random.get_ydata()) == pytest.approx([20, 60])
    assert list(random.get_xdata()) == pytest.approx([0.05, 1.0], rel=0.06)
    assert list(medium.get_ydata()) == [50] and medium.get_xdata()[0] == pytest.approx(0.05, rel=0.06)
    assert medium.get_xdata()[0] > random.get_xdata()[0], "error bars would lie on one another"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5%", "100%"]
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "F1 (%) ↑"
    assert sorted(places[0, 1] for places in dots(axes)) == pytest.approx([10, 40, 50])
    assert error_ends(axes)[0][:, 1] == pytest.approx([20 - 200**0.5, 20 + 200**0.5])
    (legend,) = drawn["table_1_planes.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "medium, best"]


def test_starts_without_a_setting_are_lines_of_their_own(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    names = ["imagenet", "imagenet_5_percent", "random", "random_5_percent"]
    recipe = of_one_table(tmp_path, names, LABELS)
    save_figures(tmp_path, recipe, results_of(recipe, **dict.fromkeys(names, SPLITS)), [])
    (axes,) = drawn["table_1_planes.png"].axes
    assert [container.get_label() for container in axes.containers] == ["imagenet", "random"]


def test_a_share_that_the_task_sets_is_that_of_its_rows(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipe = of_one_table(tmp_path, ["random_5_percent", "random"], LABELS)
    recipe = replace(recipe, finetuning={"planes": recipe.finetuning["planes"] | {"label_share": 0.5}})
    save_figures(tmp_path, recipe, results_of(recipe, random=SPLITS, random_5_percent=SPLITS), [])
    (axes,) = drawn["table_1_planes.png"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5%", "50%"]


def test_relevance_is_a_line_a_setting(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipe = of_one_table(tmp_path, ["relevant_0", "relevant_100"], RELEVANCE)
    scores = {f"{setting}_relevant_{n}": (0.2, 0.4) for setting in ("printed", "best") for n in (0, 100)}
    save_figures(tmp_path, recipe, results_of(recipe, **(scores | {"best_relevant_100": SPLITS})), [])
    (axes,) = drawn["table_1_planes.png"].axes
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([30, 30]), pytest.approx([30, 60])]
    assert list(lines[0].get_xdata()) == pytest.approx([0, 1], abs=0.02) and axes.get_xscale() == "linear"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0%", "100%"]
    (legend,) = drawn["table_1_planes.png"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["as printed", "best"]


def test_claims_are_differences_with_intervals_and_a_line_at_zero(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    claims = [
        claim("stands", 0.05),
        claim("untested", None),
        claim("does not", -0.01),
        claim("other", 0.1, "kld"),
    ]
    (path,) = save_figures(tmp_path, small_recipe(tmp_path), [], claims)
    assert path.name == "claims.png"
    points, divergence = drawn["claims.png"].axes
    assert [label.get_text() for label in points.get_yticklabels()] == ["stands", "does not"]
    assert [list(ends[:, 0]) for ends in error_ends(points)] == [
        pytest.approx([3, 11]),
        pytest.approx([-3, 5]),
    ]
    middles = [container.lines[0] for container in points.containers]
    assert [line.get_xdata()[0] for line in middles] == pytest.approx([5, -1])
    assert [line.get_markerfacecolor() for line in middles] == ["C0", "white"]
    assert any(list(line.get_xdata()) == [0, 0] for line in points.lines)
    assert points.get_ylim()[0] > points.get_ylim()[1], "the first claim stands above"
    assert error_ends(divergence)[0][:, 0] == pytest.approx([0.08, 0.16])
    assert (points.get_xlabel(), divergence.get_xlabel()) == ("points of F1", "KLD")


def test_quick_is_in_the_title_of_every_figure(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    recipes = [
        of_one_table(tmp_path, ["random", "medium"]),
        of_one_table(tmp_path, ["random_5_percent", "random"], LABELS),
        of_one_table(tmp_path, ["relevant_0", "relevant_100"], RELEVANCE),
    ]
    for recipe in recipes:
        scores = {row.full_name: SPLITS for row in table_rows(recipe, select_all(recipe), "1")}
        for quick in (False, True):
            told = replace(recipe, quick=quick)
            save_figures(tmp_path, told, results_of(told, **scores), [claim("a", 0.1)])
            titles = [figure.get_suptitle().replace("\n", " ") for figure in drawn.values()]
            assert len(titles) == 2
            assert all(title.startswith("SMOKE TEST, numbers mean nothing: ") == quick for title in titles)
