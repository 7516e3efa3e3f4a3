"""Recipes of experiments as small as they get, and folders as their runs leave them."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from clips_helpers import write_small_set
from frame_set_helpers import TINY_CONFIG, frame_rows, write_set

from train.arguments import merge
from train.experiment_plan import ClipSetKey, Finetuning, RateSearch, Run
from train.experiment_recipe import ExperimentRecipe, read_experiment_recipe
from train.experiments import Experiments, arguments_of, search_made_of
from train.metrics_file import write_metrics
from train.model_folder import write_recipe
from train.rate_search import search_rates
from train.stored_rows import data_hash

SMALL = {
    "seeds": [0, 1],
    "draws": [0],
    "splits": 2,
    "train_share": 0.6,
    "split_seed": 0,
    "pretraining": {
        "model": TINY_CONFIG,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "mixed_precision": "no",
        "augmentation": {"crop_scale": 0.9},
    },
    "settings": {
        "printed": {"title": "as printed"},
        "best": {"title": "best", "over": "printed", "fields": {"model": {"negatives": "mean"}}},
    },
    "pretrainings": {
        "medium": {},
        "silent": {"fields": {"model": {"use_audio": False}}},
        "relevant": {"relevant_speech": 0.5},
    },
    "rows": {
        "imagenet": {"title": "ImageNet", "start": "imagenet"},
        "random": {"title": "Random", "start": "random"},
        "medium": {"title": "Medium", "start": "medium"},
        "silent": {"title": "Silent", "start": "silent"},
        "relevant": {"title": "Relevant", "start": "relevant"},
        "few": {"title": "Few labels", "start": "medium", "finetuning": {"label_share": 0.5}},
    },
    "tables": {
        "1": {
            "title": "Table 1",
            "tasks": ["planes", "planes_frozen"],
            "rows": ["imagenet", "random", "medium"],
            "settings": ["printed", "best"],
        },
        "other": {
            "title": "Others",
            "tasks": ["planes"],
            "rows": ["medium", "silent", "few", "relevant"],
            "settings": ["best"],
        },
    },
    "finetuning": {"planes": {"per_device_train_batch_size": 4, "balance": "none", "augmentation": {}}},
    "searches": {
        "planes": {"learning_rates": [1e-3, 1e-2], "steps": [1, 2]},
        "planes_frozen": {"learning_rates": [1e-2, 1e-1], "steps": [1, 2]},
    },
    "claims": [
        {
            "name": "medium over random",
            "task": "planes",
            "metric": "f1",
            "better": "best_medium",
            "worse": "random",
        }
    ],
    "quick": {"seeds": [0], "settings": {"best": {"fields": {"max_steps": 1}}}},
}


def write_small_recipe(folder: Path, **fields: Any) -> Path:
    """A recipe file of few, short runs; `fields` go over it, section by section."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(merge(SMALL, fields)))
    return path


def small_recipe(folder: Path, is_quick: bool = False, **fields: Any) -> ExperimentRecipe:
    """What `write_small_recipe` writes, as it is read."""
    return read_experiment_recipe(write_small_recipe(folder, **fields), is_quick)


def small_experiments(folder: Path, **fields: Any) -> Experiments:
    """Experiments on small sets of clips and frames, which are written below the folder."""
    clips, frames = folder / "clips", folder / "frames"
    if not clips.exists():
        write_small_set(clips)
        write_set(frames, {"train": frame_rows(9)})
    recipe = small_recipe(folder, **fields)
    return Experiments(recipe, folder / "out", {ClipSetKey(0): str(clips)}, {0: str(frames)})


def leave_result(experiments: Experiments, run: Run, score: float = 0.5) -> None:
    """What a run leaves, without the run."""
    if isinstance(run, RateSearch):
        spec = experiments.recipe.searches[run.task]
        search_rates(
            experiments.output / run.place, search_made_of(experiments, run), spec, lambda rate, steps: rate
        )
        return
    arguments = arguments_of(experiments, run)
    write_recipe(arguments)
    if isinstance(run, Finetuning):
        shutil.copy(arguments.split_file, Path(arguments.output_dir) / "splits.json")
        classes = ["lips", "4CH", "lips", "4CH"]
        predictions = {"split": [1, 1, 2, 2], "scan_id": ["a", "b", "b", "c"], "time_s": [0.0] * 4}
        predictions |= {"label": classes, "predicted": classes}
        pq.write_table(pa.table(predictions), Path(arguments.output_dir) / "predictions.parquet")
    write_metrics(
        Path(arguments.output_dir) / "metrics.json",
        {"test/f1": score} if isinstance(run, Finetuning) else {"train/loss": score},
        recipe=run.row.full_name if isinstance(run, Finetuning) else run.name,
        seed=run.seed,
        data_hash=data_hash(arguments.dataset, arguments.dataset_config),
    )
