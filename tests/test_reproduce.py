"""The command: what its flags choose and refuse, and the whole way in small, killed and taken up again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_helpers import leave_result, small_experiments, write_small_recipe

from datasets_scripts.benchmark_sets import BenchmarkSets
from train.experiment_plan import ClipSetKey, planned_runs, select_all
from train.experiment_recipe import read_experiment_recipe
from train.experiment_runs import write_splits
from train.experiments import EXPERIMENT_FILE, Experiments, Note, read_results, write_note
from train.rate_search import read_search
from train.reproduce import benchmark_data, main

ROOT = Path(__file__).resolve().parents[1]


def command(folder: Path, *flags: str) -> list[str]:
    told = ["--output", str(folder / "out"), "--recipe", str(folder / "small.yaml"), "--processes", "1"]
    return [
        *told,
        "--dataset_clips",
        str(folder / "clips"),
        "--dataset_frames",
        str(folder / "frames"),
        *flags,
    ]


def with_everything_done(folder: Path) -> Experiments:
    """A folder in which no run of Table 1 is left to make."""
    experiments = small_experiments(folder)
    runs = planned_runs(experiments.recipe, replace(select_all(experiments.recipe), tables=("1",)))
    write_splits(experiments, runs)
    for run in runs:
        leave_result(experiments, run)
    return experiments


@pytest.fixture(autouse=True)
def own_notices() -> object:
    """The command takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_is_done_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiments = with_everything_done(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in experiments.output.rglob("metrics.json")}
    assert main(command(tmp_path, "--tables", "1")) == 0
    assert {path: path.stat().st_mtime_ns for path in experiments.output.rglob("metrics.json")} == before
    assert "28 of 28 runs are done" in capsys.readouterr().out
    assert read_experiment_recipe(experiments.output / EXPERIMENT_FILE) == experiments.recipe


def test_all_numbers_are_kept_with_where_they_come_from(tmp_path: Path) -> None:
    experiments = with_everything_done(tmp_path)
    assert main(command(tmp_path, "--tables", "1")) == 0
    contents = json.loads((experiments.output / "results.json").read_text())
    kept = contents["results"]
    assert (contents["recipe"], contents["quick"]) == ("small", False)
    assert len(kept) == len(read_results(experiments.output))
    (one,) = [
        each
        for each in kept
        if (each["table"], each["task"], each["row"], each["seed"]) == ("1", "planes", "best_medium", 1)
    ]
    assert one["measured"]["metrics"] == {"test/f1": 0.5} and one["measured"]["seed"] == 1
    assert {"code_version", "data_hash", "machine", "recipe"} <= set(one["measured"])
    assert {each["pretraining"] for each in contents["pretrainings"]} == {"printed_medium", "best_medium"}
    assert {each["unavailable"] for each in kept if each["table"] == "other" and not each["measured"]} == {
        "not run"
    }


@pytest.mark.parametrize("claims_are_kept", [True, False])
def test_rows_that_are_not_run_here_come_from_kept_results(tmp_path: Path, claims_are_kept: bool) -> None:
    experiments = with_everything_done(tmp_path)
    assert main(command(tmp_path, "--tables", "1")) == 0
    kept, tables = tmp_path / "kept.json", experiments.output / "tables" / "tables.md"
    before = json.loads((experiments.output / "results.json").read_text())
    assert any(each["difference"] for each in before["claims"])
    kept.write_text(json.dumps(before if claims_are_kept else before | {"claims": []}))
    shutil.move(experiments.output / "predictions", tmp_path / "predictions")
    text = tables.read_text()
    shutil.rmtree(experiments.output)
    told = [*command(tmp_path, "--tables", "1", "--rows", "imagenet"), "--minutes", "0", "--kept", str(kept)]
    assert main(told) == 0
    again = json.loads((experiments.output / "results.json").read_text())
    assert again == before
    assert tables.read_text() == text and "best_medium | planes |" in text


def test_kept_results_of_other_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiments = with_everything_done(tmp_path)
    assert main(command(tmp_path, "--tables", "1")) == 0
    before = json.loads((experiments.output / "results.json").read_text())
    one = next(row for row in before["results"] if row["measured"] and row["row"] == "best_medium")
    one["measured"]["data_hash"] = "of other data"
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(before))
    capsys.readouterr()
    assert main([*command(tmp_path, "--tables", "1"), "--kept", str(kept)]) == 2
    refusal = capsys.readouterr().err
    assert f"{kept}: its row best_medium of table {one['table']} was tested on other data" in refusal


def test_tables_and_figures_stand_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiments = with_everything_done(tmp_path)
    assert main(command(tmp_path, "--tables", "1")) == 0
    tables = experiments.output / "tables"
    assert str(tables / "tables.md") in capsys.readouterr().out
    text = (tables / "tables.md").read_text()
    assert "## Table 1, fine-tuned" in text and "medium over random" in text
    texts = json.loads((tables / "tables.json").read_text())
    assert texts["table_1_planes"] in text and texts["claims"] in text
    assert {path.name for path in tables.iterdir()} >= {"table_1_planes.csv", "claims.csv", "provenance.csv"}
    assert (experiments.output / "figures" / "claims.png").is_file()


def test_the_list_shows_what_is_done_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiments = small_experiments(tmp_path)
    assert main(command(tmp_path, "--tables", "1", "--list")) == 0
    assert "0 of 28 runs are done" in capsys.readouterr().out and not experiments.output.exists()
    with_everything_done(tmp_path)
    (experiments.output / "draw_0/planes/random/seed_1/metrics.json").unlink()
    assert main(command(tmp_path, "--tables", "1", "--rows", "random", "--list")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in printed if line.startswith("to do")] == [
        "draw_0/planes/random/seed_1"
    ]
    assert printed[-1] == "5 of 6 runs are done."


def test_what_could_not_be_made_is_tried_again_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = with_everything_done(tmp_path)
    runs = planned_runs(experiments.recipe, replace(select_all(experiments.recipe), tables=("1",)))
    lost = next(run for run in runs if run.place.endswith("planes/random/seed_1"))
    (experiments.output / lost.place / "metrics.json").unlink()
    write_note(experiments.output, lost, Note("failed", "an earlier story"))

    def work(experiments: Experiments, runs: list, end_time: float | None, processes: int) -> None:
        assert not list((experiments.output / "notes").iterdir()), "it is tried again"
        write_note(experiments.output, lost, Note("failed", "The loss is no number."))

    monkeypatch.setattr("train.reproduce.work_in_processes", work)
    assert main(command(tmp_path, "--tables", "1")) == 1
    assert "The loss is no number." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "refusal"),
    [
        (["--tables", "4"], r"--tables: .*has no 4, but 1, other"),
        (["--tables", "1", "--rows", "silent"], "has nothing of that: the tables 1 have no such rows"),
        (["--rows", "medum"], r"--rows: .*no medum"),
        (["--settings", "worst"], "--settings"),
        (["--seeds", "7"], "--seeds: .*no 7, but 0, 1"),
        (["--recipe", "nowhere.yaml"], "no recipe nowhere.yaml"),
        (["--quick"], "made without --quick"),
    ],
)
def test_what_cannot_be_run_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: list[str], refusal: str
) -> None:
    with_everything_done(tmp_path)
    assert main(command(tmp_path, "--tables", "1")) == 0
    capsys.readouterr()
    assert main(command(tmp_path, "--tables", "1", *flags)) == 2
    error = capsys.readouterr().err
    assert error.startswith("reproduce.py: ") and "Traceback" not in error
    assert re.search(refusal, error), error


def test_one_of_the_two_own_sets_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small_recipe(tmp_path)
    told = ["--output", str(tmp_path / "out"), "--recipe", str(tmp_path / "small.yaml"), "--tables", "1"]
    assert main([*told, "--dataset_clips", "clips"]) == 2
    assert "Give both" in capsys.readouterr().err


def test_the_benchmark_is_made_for_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make_sets(spec: object, draw: int, output: Path, relevant: float | None, shuffled: bool) -> object:
        asked.append((draw, relevant, shuffled))
        return BenchmarkSets(output / f"clips {draw} {relevant}", output / f"frames {draw}")

    monkeypatch.setattr("datasets_scripts.benchmark_sets.make_sets", make_sets)
    keys = [ClipSetKey(0, relevant_speech=0.5), ClipSetKey(1, shuffled_speech=True)]
    clips, frames = benchmark_data(tmp_path, [0, 1], keys, quick=True)
    assert asked == [(0, None, False), (1, None, False), (0, 0.5, False), (1, None, True)]
    assert frames == {draw: str(tmp_path / f"frames {draw}") for draw in (0, 1)}
    assert set(clips) == {ClipSetKey(0), ClipSetKey(1), *keys}
    assert clips[keys[0]] == str(tmp_path / "clips 0 0.5")


def test_results_of_another_recipe_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    experiments = with_everything_done(tmp_path)
    write_small_recipe(tmp_path, pretraining={"learning_rate": 1e-5})
    assert main(command(tmp_path, "--tables", "1")) == 2
    assert "its learning_rate is 0.003, here it is 1e-05" in capsys.readouterr().err
    assert not (experiments.output / "results.json").exists()


@pytest.mark.slow
def test_the_whole_way_killed_and_taken_up_again(tmp_path: Path) -> None:
    """Pretraining, searches and fine-tuning in processes of their own; half of it after a kill."""
    small_experiments(tmp_path, seeds=[0])
    flags = [*command(tmp_path, "--tables", "1", "other", "--settings", "best"), "--processes", "2"]
    words = [sys.executable, str(ROOT / "train" / "reproduce.py"), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    while "pretraining" not in (line := killed.stdout.readline()):
        assert line, "it ended before a pretraining was done"
    killed.kill()
    killed.wait()
    # Not those of a search's trials, which leave none in the end.
    left = [path for path in (tmp_path / "out").rglob("metrics.json") if "rate_search" not in path.parts]
    metrics = {path: path.stat().st_mtime_ns for path in left}
    assert metrics
    time.sleep(2)  # Its processes find that they are alone.
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == at for path, at in metrics.items())
    results = read_results(tmp_path / "out")
    shown = {(each.task, each.row): each.metrics or each.unavailable for each in results if each.draw == 0}
    assert shown["planes", "best_relevant"] == "only on simulated recordings"
    assert shown["planes", "imagenet"] == shown["planes_frozen", "imagenet"] == "weights not available"
    assert shown["planes", "printed_medium"] == "not run"
    for row in ("random", "best_medium", "best_silent", "best_few"):
        assert 0 <= shown["planes", row]["test/f1"] <= 1
    search = read_search(tmp_path / "out/draw_0/rate_search/planes/best_medium.json")
    assert len(search.trials) == 3 and search.choice in search.trials
    again = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert "done, " not in again.stdout.replace("runs are done", "")
