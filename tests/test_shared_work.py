"""Runs shared by processes: each made once, in an order that can be, noted where it cannot be made."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest
from experiment_helpers import leave_result, small_experiments

from train.experiment_plan import Finetuning, Pretraining, RateSearch, Row, Run, planned_runs, select_all
from train.experiment_runs import write_splits
from train.experiments import Experiments, Note, UnavailableError, is_done, read_note, write_note
from train.loop import DivergedError
from train.shared_work import end_at_notice, is_settled, work_through


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    made = small_experiments(tmp_path)
    write_splits(made, [Finetuning(0, "planes", Row("random"), 0)])
    return made


class Maker:
    """Leaves a result without a run; remembers the order; some it cannot make."""

    def __init__(self, refusals: dict[str, Exception] | None = None) -> None:
        self.made: list[Run] = []
        self.refusals = refusals or {}

    def __call__(self, experiments: Experiments, run: Run, log: TextIO, lock: int) -> None:
        self.made.append(run)
        print("a line for the log")
        for part, error in self.refusals.items():
            if part in run.place:
                raise error
        leave_result(experiments, run)


def table_1(experiments: Experiments) -> list[Run]:
    """Its runs, all of which can be made; another table has one that only simulated recordings have."""
    return planned_runs(experiments.recipe, replace(select_all(experiments.recipe), tables=("1",)))


def test_every_run_is_made_once_after_what_it_needs(
    experiments: Experiments, capsys: pytest.CaptureFixture
) -> None:
    runs, maker = table_1(experiments), Maker()
    work_through(experiments, runs, None, maker)
    assert sorted(maker.made, key=str) == sorted(runs, key=str)
    for place, run in enumerate(maker.made):
        assert set(run.needs(experiments.recipe)) <= set(maker.made[:place])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(runs) and printed[-1].endswith(f"{len(runs)} of {len(runs)} runs.")
    logs = list((experiments.output / "logs").iterdir())
    assert len(logs) == len(runs) and logs[0].read_text() == "a line for the log\n"
    work_through(experiments, runs, None, again := Maker())
    assert not again.made


def test_what_cannot_be_made_is_noted_with_all_that_needs_it(experiments: Experiments) -> None:
    runs = table_1(experiments)
    refusals = {
        "rate_search/planes/imagenet": UnavailableError("weights not available"),
        "pretraining/best_medium/seed_1": DivergedError("The loss is no number."),
    }
    work_through(experiments, runs, None, maker := Maker(refusals))
    reasons = {run: note.reason for run in runs if (note := read_note(experiments.output, run))}
    imagenet = {run for run in runs if not isinstance(run, Pretraining) and run.row.name == "imagenet"}
    of_planes = {run for run in imagenet if run.task == "planes"}
    failed = {Pretraining(0, "best", "medium", 1)}
    failed |= {Finetuning(0, task, Row("medium", "best"), 1) for task in ("planes", "planes_frozen")}
    assert {run for run, reason in reasons.items() if reason == "weights not available"} == of_planes
    assert {run for run, reason in reasons.items() if reason == "failed"} == failed
    story = read_note(experiments.output, Finetuning(0, "planes", Row("medium", "best"), 1)).detail
    assert story == "draw_0/pretraining/best_medium/seed_1: The loss is no number."
    assert all(is_settled(experiments.output, run) for run in runs)
    assert not {run for run in maker.made if isinstance(run, Finetuning)} & (of_planes | failed)


def test_an_error_that_is_no_known_one_is_not_hidden(experiments: Experiments) -> None:
    with pytest.raises(ZeroDivisionError):
        work_through(experiments, table_1(experiments), None, Maker({"pretraining": ZeroDivisionError()}))
    assert not (experiments.output / "notes").exists()


def test_after_its_time_no_run_is_begun(experiments: Experiments) -> None:
    work_through(experiments, table_1(experiments), time.time() - 1, maker := Maker())
    assert not maker.made


def slow_maker(experiments: Experiments, run: Run, log: TextIO, lock: int) -> None:
    with (experiments.output / "made.txt").open("a") as made:
        made.write(f"{os.getpid()} {run.place}\n")
    time.sleep(0.05)
    leave_result(experiments, run)


def test_processes_share_the_runs(experiments: Experiments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.shared_work.POLL_SECONDS", 0.02)
    runs = table_1(experiments)
    experiments.output.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=work_through, args=(experiments, runs, None, slow_maker)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    made = [line.split() for line in (experiments.output / "made.txt").read_text().splitlines()]
    assert sorted(place for _, place in made) == sorted(run.place for run in runs)
    assert len({process for process, _ in made}) > 1 and all(is_done(experiments.output, run) for run in runs)


def test_a_note_of_what_is_needed_settles_what_needs_it(experiments: Experiments) -> None:
    search = RateSearch(0, "planes", Row("random"))
    write_note(experiments.output, search, Note("weights not available", "why"))
    finetuning = Finetuning(0, "planes", Row("random"), 0)
    work_through(experiments, [search, finetuning], None, maker := Maker())
    assert not maker.made and read_note(experiments.output, finetuning).detail == "why"


def test_a_notice_of_the_end_is_an_exception_once_however_often_it_comes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        end_at_notice()
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert ended.value.code == 143
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, before)
