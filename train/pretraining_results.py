"""What the pretrainings behind the tables learnt, measured on scans that they did not train on."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from train.experiment_plan import Pretraining, planned_runs, select_all
from train.experiment_recipe import ExperimentRecipe
from train.experiments import is_done
from train.metrics_file import read_metrics
from train.model_folder import METRICS_FILE
from train.result_tables import NOT_MEASURED, ResultTable, with_warning

# Columns of the table by the names in metrics.json.
SHOWN = {
    "validation/image_to_video_recall_at_5": "frame to video",
    "validation/speech_to_video_recall_at_5": "speech to video",
    "validation/chance_recall_at_5": "chance",
}


def read_pretrainings(
    recipe: ExperimentRecipe, output: Path, kept: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Every finished pretraining, in the order of the recipe: name with setting, draw, seed, metrics.json.

    Args:
        recipe: of the results.
        output: folder that `train/reproduce.py` wrote.
        kept: pretrainings of earlier runs, as this gives them, for those that the folder lacks.

    Raises:
        MetricsError: a result is not as it was written.
    """
    kept_by_run = {(each["pretraining"], each["draw"], each["seed"]): each for each in kept}
    found = []
    for run in planned_runs(recipe, select_all(recipe)):
        if not isinstance(run, Pretraining):
            continue
        key = (f"{run.setting}_{run.name}", run.draw, run.seed)
        if is_done(output, run):
            named = dict(zip(("pretraining", "draw", "seed"), key, strict=True))
            found.append(named | {"measured": read_metrics(output / run.place / METRICS_FILE)})
        elif key in kept_by_run:
            found.append(kept_by_run[key])
    return found


def pretraining_table(pretrainings: Sequence[dict[str, Any]], quick: bool) -> ResultTable:
    """Recall at 5 among held-out clips, mean (standard deviation) over draws and seeds, a row a pretraining.

    Args:
        pretrainings: of `read_pretrainings`.
        quick: whether the numbers are a smoke test's.
    """
    by_name: dict[str, list[dict[str, float]]] = {}
    for each in pretrainings:
        by_name.setdefault(each["pretraining"], []).append(each["measured"]["metrics"])
    rows = [
        (name, str(len(runs)), *(_cell(runs, metric) for metric in SHOWN)) for name, runs in by_name.items()
    ]
    records = [
        (each["pretraining"], each["draw"], each["seed"], *map(each["measured"]["metrics"].get, SHOWN))
        for each in pretrainings
    ]
    return ResultTable(
        name="pretrainings",
        title=with_warning("What the pretrainings learnt: recall at 5 on held-out scans", quick),
        columns=("pretraining", "runs", *SHOWN.values()),
        rows=tuple(rows),
        notes=("Mean (standard deviation) over the runs, of clips of scans that pretraining did not see.",),
        csv_columns=("pretraining", "draw", "seed", *(title.replace(" ", "_") for title in SHOWN.values())),
        csv_rows=tuple(records),
    )


def _cell(runs: Sequence[dict[str, float]], metric: str) -> str:
    values = [metrics[metric] for metrics in runs if metric in metrics]
    if not values:
        return NOT_MEASURED
    deviation = f" ({stdev(values):.1%})" if len(values) > 1 else ""
    return f"{mean(values):.1%}{deviation}"
