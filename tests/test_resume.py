"""A run that is killed at any moment and resumed ends as the undisturbed run does, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from clips_helpers import write_small_set
from pretrain_processes import (
    PATIENCE_SECONDS,
    PretrainProcesses,
    assert_same,
    free_port,
    no_process_left,  # noqa: F401
    results,
    write_recipe,
)

import train.pretrain
from train.checkpoint import find_damage, saved_steps

RESUMED = ("--resume_from_checkpoint", "last_or_new")
# 24 clips in batches of 6.
BATCHES_PER_EPOCH = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    """The results of whole runs, without loader workers; each is run once."""
    found: dict[str, dict] = {}

    def of(ranks: int = 1, **fields: object) -> dict:
        key = repr((ranks, fields))
        if key not in found:
            output_dir = tmp_path_factory.mktemp("undisturbed") / "run"
            PretrainProcesses(write_recipe(clips, output_dir, **fields), ranks=ranks).succeed()
            found[key] = results(output_dir)
        return found[key]

    return of


def being_written(output_dir: Path) -> bool:
    return any((output_dir / "checkpoints").glob(".*.partial"))


def in_second_epoch(output_dir: Path) -> bool:
    steps = saved_steps(output_dir / "checkpoints")
    return bool(steps) and steps[-1] > BATCHES_PER_EPOCH


def within_first_epoch(output_dir: Path) -> bool:
    return 2 in saved_steps(output_dir / "checkpoints")


@pytest.mark.parametrize(
    ("moment", "workers", "buffer"),
    [(being_written, 0, 1000), (in_second_epoch, 0, 5), (within_first_epoch, 3, 1000)],
)
def test_a_killed_run_ends_as_the_undisturbed_one(
    clips: Path,
    tmp_path: Path,
    undisturbed: Callable[..., dict],
    moment: Callable[[Path], bool],
    workers: int,
    buffer: int,
) -> None:
    """With loader workers, too, it is held to the run without: the order of the data does not depend on
    them.
    """
    order = {"shuffle_buffer_clips": buffer}
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir, dataloader_num_workers=workers, **order)
    PretrainProcesses(recipe, *RESUMED).kill_when(lambda: moment(output_dir))
    checkpoints = output_dir / "checkpoints"
    assert all(find_damage(checkpoints / str(step)) is None for step in saved_steps(checkpoints))
    (checkpoints / ".99.partial").mkdir(parents=True, exist_ok=True)
    PretrainProcesses(recipe, *RESUMED).succeed()
    assert not being_written(output_dir), "what a killed run left half written is gone"
    assert_same(results(output_dir), undisturbed(**order))


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_a_deterministic_run_ends_as_the_undisturbed_one(
    clips: Path, tmp_path: Path, undisturbed: Callable[..., dict], compiled: bool
) -> None:
    fields = {"deterministic": True, "mixed_precision": "bf16", "compile_towers": compiled}
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir, **fields)
    PretrainProcesses(recipe, *RESUMED).kill_when(lambda: within_first_epoch(output_dir))
    PretrainProcesses(recipe, *RESUMED).succeed()
    assert_same(results(output_dir), undisturbed(**fields))


def loader_workers(process_id: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    ]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_run_that_got_sigterm_leaves_its_last_step(
    clips: Path, tmp_path: Path, undisturbed: Callable[..., dict], workers: int
) -> None:
    """Between two log lines and two checkpoints, and as clusters do: the loader's workers get it first."""
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir, dataloader_num_workers=workers)
    run = PretrainProcesses(recipe, *RESUMED)
    run.stop_when(lambda: within_first_epoch(output_dir))
    children = loader_workers(run.processes[0].pid)
    assert len(children) >= workers
    for worker in children[:workers]:
        os.kill(worker, signal.SIGTERM)
    run.signal(signal.SIGTERM)
    run.signal(signal.SIGCONT)
    assert run.exit_statuses() == [143]
    step = saved_steps(output_dir / "checkpoints")[-1]
    assert f"after step {step}; it is kept in" in run.log.read_text()
    PretrainProcesses(recipe, *RESUMED).succeed()
    assert_same(results(output_dir), undisturbed())


def test_two_processes_killed_end_as_the_undisturbed_ones(
    clips: Path, tmp_path: Path, undisturbed: Callable[..., dict]
) -> None:
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir, checkpointing_steps=4)
    PretrainProcesses(recipe, *RESUMED, ranks=2).kill_when(
        lambda: 4 in saved_steps(output_dir / "checkpoints")
    )
    PretrainProcesses(recipe, *RESUMED, ranks=2).succeed()
    assert_same(results(output_dir), undisturbed(ranks=2))


def test_sigterm_to_one_process_ends_both_after_the_same_step(
    clips: Path, tmp_path: Path, undisturbed: Callable[..., dict]
) -> None:
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir)
    run = PretrainProcesses(recipe, *RESUMED, ranks=2)
    run.stop_when(lambda: within_first_epoch(output_dir))
    run.signal(signal.SIGTERM, rank=1)
    run.signal(signal.SIGCONT)
    assert run.exit_statuses() == [143, 143]
    step = saved_steps(output_dir / "checkpoints")[-1]
    assert run.log.read_text().count(f"after step {step}; it is kept in") == 2
    PretrainProcesses(recipe, *RESUMED, ranks=2).succeed()
    assert_same(results(output_dir), undisturbed(ranks=2))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_twenty_random_moments(clips: Path, tmp_path: Path, ranks: int) -> None:
    """Runs are killed twenty times on their way, at moments of their lives that are drawn anew.

    How far a life comes depends on the machine: a run that ends before its next moment is compared, and the
    kills go on with a new one.
    """
    fields = {"max_steps": 200, "shuffle_buffer_clips": 7, "dataloader_num_workers": 3}
    whole = tmp_path / "whole"
    began = time.monotonic()
    PretrainProcesses(write_recipe(clips, whole, **fields), ranks=ranks).succeed()
    longest_life_seconds = (time.monotonic() - began) / 10
    kills = run_number = 0
    while kills < 20:
        killed = tmp_path / f"killed_{run_number}"
        recipe, run_number = write_recipe(clips, killed, **fields), run_number + 1
        kills += _kill_until_it_ends(recipe, ranks, longest_life_seconds, most_kills=20 - kills)
        assert_same(results(killed), results(whole))


def _kill_until_it_ends(recipe: Path, ranks: int, longest_life_seconds: float, most_kills: int) -> int:
    """Run a recipe to its end through at most so many kills; returns how many there were."""
    for kill in range(most_kills):
        run = PretrainProcesses(recipe, *RESUMED, ranks=ranks)
        time.sleep(random.uniform(0, longest_life_seconds))
        with suppress(ProcessLookupError):  # it had ended
            run.signal(signal.SIGKILL)
        statuses = run.exit_statuses()
        if statuses == [0] * ranks:
            return kill
        # One rank may have ended just before the others were killed.
        assert set(statuses) <= {0, -signal.SIGKILL}, run.log.read_text()
    PretrainProcesses(recipe, *RESUMED, ranks=ranks).succeed()
    return most_kills


LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc_per_node", "2", "--master_port"],
    "accelerate": ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_that_got_sigterm_waits_for_the_checkpoint(
    clips: Path, tmp_path: Path, undisturbed: Callable[..., dict], launcher: str
) -> None:
    """It passes the signal on to its processes and to their loaders' workers, and then ends with them."""
    output_dir = tmp_path / "run"
    recipe = write_recipe(clips, output_dir, dataloader_num_workers=3)
    program, *options = LAUNCHERS[launcher]
    script = Path(train.pretrain.__file__)
    command = [Path(sys.executable).parent / program, *options, str(free_port()), script, recipe, *RESUMED]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while process.poll() is None and not within_first_epoch(output_dir):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(PATIENCE_SECONDS) == 1
    assert time.monotonic() - began < 30
    text = (tmp_path / "log").read_text()
    step = saved_steps(output_dir / "checkpoints")[-1]
    assert text.count(f"after step {step}; it is kept in") == 2, text
    PretrainProcesses(recipe, *RESUMED, ranks=2).succeed()
    assert_same(results(output_dir), undisturbed(ranks=2))
