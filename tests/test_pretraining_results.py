"""What pretrainings learnt, from their metrics.json to a table."""

from pathlib import Path

from experiment_helpers import small_experiments

from train.experiment_plan import Pretraining
from train.metrics_file import write_metrics
from train.pretraining_results import pretraining_table, read_pretrainings


def leave_recall(output: Path, run: Pretraining, **recall: float) -> None:
    folder = output / run.place
    folder.mkdir(parents=True)
    metrics = {f"validation/{name}": value for name, value in recall.items()}
    write_metrics(folder / "metrics.json", metrics, recipe="r", seed=run.seed, data_hash="d")


def test_finished_pretrainings_are_means_over_their_seeds(tmp_path: Path) -> None:
    experiments = small_experiments(tmp_path)
    for seed, speech in ((0, 0.1), (1, 0.3)):
        leave_recall(
            experiments.output,
            Pretraining(0, "best", "medium", seed),
            speech_to_video_recall_at_5=speech,
            image_to_video_recall_at_5=0.9,
            chance_recall_at_5=0.05,
        )
    leave_recall(experiments.output, Pretraining(0, "best", "silent", 1), image_to_video_recall_at_5=0.8)
    pretrainings = read_pretrainings(experiments.recipe, experiments.output)
    assert [(each["pretraining"], each["draw"], each["seed"]) for each in pretrainings] == [
        ("best_medium", 0, 0),
        ("best_medium", 0, 1),
        ("best_silent", 0, 1),
    ]
    assert {"code_version", "data_hash", "machine"} <= set(pretrainings[0]["measured"])
    table = pretraining_table(pretrainings, quick=False)
    assert table.rows == (
        ("best_medium", "2", "90.0% (0.0%)", "20.0% (14.1%)", "5.0% (0.0%)"),
        ("best_silent", "1", "80.0%", "not measured", "not measured"),
    )
    assert table.csv_rows[1] == ("best_medium", 0, 1, 0.9, 0.3, 0.05)
    assert table.csv_rows[2][3:] == (0.8, None, None)


def test_a_smoke_test_says_so() -> None:
    assert pretraining_table([], quick=True).title.startswith("SMOKE TEST")
