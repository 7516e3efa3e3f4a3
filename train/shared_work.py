"""Several processes share the runs of one output folder: those of one command, or of several."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import TextIO

from train.claims import claimed
from train.experiment_plan import Run
from train.experiment_runs import RUN_ERRORS, make
from train.experiments import (
    ExperimentError,
    Experiments,
    Note,
    UnavailableError,
    is_done,
    read_note,
    write_note,
)
from train.interruption import EXIT_STATUS

FAILED = "failed"
POLL_SECONDS = 1.0
Make = Callable[[Experiments, Run, TextIO, int], None]


def work_in_processes(
    experiments: Experiments, runs: Sequence[Run], end_time: float | None, processes: int
) -> None:
    """Works through the runs in so many processes, each on its share of the cores.

    Args:
        experiments: what all runs share.
        runs: what is needed before what needs it.
        end_time: seconds since the epoch after which no run is begun; None: there is no end.
        processes: 1 works in this process.

    Raises:
        ExperimentError: a process ended by an error that no run is known to end by.
    """
    end_at_notice()
    if processes == 1:
        work_through(experiments, runs, end_time)
        return
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    # Before the processes load their libraries, which read it once.
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(cores) // processes))
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(experiments, runs, end_time, cores[number::processes]))
        for number in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()
    if any(worker.exitcode for worker in workers):
        raise ExperimentError("A process ended by an error; what it printed stands above.")


def end_at_notice() -> None:
    """Lets SIGTERM end this process by way of an exception, so that what it started ends before it."""

    def end(number: int, frame: FrameType | None) -> None:
        # Clusters and `uv run` may send it twice; a second exception would leave behind what is being ended.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(EXIT_STATUS)

    signal.signal(signal.SIGTERM, end)


def _work(experiments: Experiments, runs: Sequence[Run], end_time: float | None, cores: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent gets it too, and ends this process.
    end_at_notice()
    if cores:
        os.sched_setaffinity(0, cores)
    work_through(experiments, runs, end_time)


def work_through(
    experiments: Experiments, runs: Sequence[Run], end_time: float | None, make_run: Make = make
) -> None:
    """Makes one run after the other that no other process is at, until all are made or noted.

    Args:
        experiments, runs, end_time: see `work_in_processes`.
        make_run: makes one.
    """
    output, parent = experiments.output, os.getppid()
    while open_runs := [run for run in runs if not is_settled(output, run)]:
        # A process whose parent was killed does not go on alone.
        if (end_time is not None and time.time() >= end_time) or os.getppid() != parent:
            return
        if not any(_take_up(experiments, run, runs, make_run) for run in open_runs):
            time.sleep(POLL_SECONDS)


def is_settled(output: Path, run: Run) -> bool:
    """Whether the run is done, or noted as one that cannot be."""
    return read_note(output, run) is not None or is_done(output, run)


def _take_up(experiments: Experiments, run: Run, runs: Sequence[Run], make_run: Make) -> bool:
    """Makes a run, or notes why it cannot be made; False where it must wait, or another process is at it."""
    output = experiments.output
    needs = run.needs(experiments.recipe)
    note = next(filter(None, (read_note(output, needed) for needed in needs)), None)
    if note is not None:
        write_note(output, run, note)
        return True
    if not all(is_done(output, needed) for needed in needs):
        return False
    with claimed(output / "locks" / run.place.replace("/", ".")) as lock:
        if lock is None:
            return False
        if not is_settled(output, run):
            began = time.monotonic()
            outcome = _make_or_note(experiments, run, lock, make_run)
            settled = sum(is_settled(output, each) for each in runs)
            seconds = time.monotonic() - began
            print(f"{run.place}: {outcome}, {seconds:.0f} s. {settled} of {len(runs)} runs.", flush=True)
    return True


def _make_or_note(experiments: Experiments, run: Run, lock: int, make_run: Make) -> str:
    log = experiments.output / "logs" / f"{run.place.replace('/', '.')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("a", encoding="utf-8") as printed, redirect_stdout(printed), redirect_stderr(printed):
            make_run(experiments, run, printed, lock)
    except UnavailableError as error:
        write_note(experiments.output, run, Note(str(error), f"{run.place}: {error}"))
        return str(error)
    except RUN_ERRORS as error:
        write_note(experiments.output, run, Note(FAILED, f"{run.place}: {error}"))
        return f"{FAILED}: {error}"
    return "done"
