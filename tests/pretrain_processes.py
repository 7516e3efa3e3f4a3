"""Runs of train/pretrain.py in processes of their own, which a test may kill at a moment that it chooses.

They are forked from a server that has imported everything once: starting one takes no time.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clips_helpers import TINY_MODEL
from safetensors.torch import load_file

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["train.pretrain", "pretrain_processes"])
PATIENCE_SECONDS = 90


def write_recipe(clips: Path, output_dir: Path, **fields: Any) -> Path:
    """A recipe of a few quick steps, several epochs, with dropout, augmentation and a schedule; its path."""
    recipe = {
        "dataset": str(clips),
        "output_dir": str(output_dir),
        "max_steps": 12,
        "per_device_train_batch_size": 6,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "logging_steps": 3,
        "evaluation_clips": 8,
        "checkpointing_steps": 2,
        "report_to": "none",
        "model": TINY_MODEL,
    }
    path = output_dir.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe | fields))
    return path


STARTED: list["PretrainProcesses"] = []


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Ends what a failed test has left running; imported by every test file that starts runs."""
    yield
    for process in (process for run in STARTED for process in run.processes):
        if process.is_alive():
            process.kill()
            process.join()
    STARTED.clear()


class PretrainProcesses:
    """The processes of one run.

    Args:
        recipe: YAML file.
        flags: over it.
        ranks: processes that train together.
        environment: variables that all of them get.
    """

    def __init__(
        self, recipe: Path, *flags: str, ranks: int = 1, environment: dict[str, str] | None = None
    ) -> None:
        STARTED.append(self)
        self.log = recipe.with_suffix(".log")
        self.processes = []
        port = free_port()
        for rank in range(ranks):
            of_rank = dict(environment or {})
            if ranks > 1:
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
                of_rank |= {name: str(value) for name, value in numbers.items()}
                of_rank["MASTER_ADDR"] = "127.0.0.1"
            arguments = ([str(recipe), *flags], of_rank, str(self.log))
            self.processes.append(CONTEXT.Process(target=_pretrain, args=arguments))
        for process in self.processes:
            process.start()

    def signal(self, number: int, rank: int | None = None) -> None:
        """Sends a signal to one of the processes, or to all."""
        for process in self.processes if rank is None else [self.processes[rank]]:
            os.kill(process.pid, number)

    def exit_statuses(self) -> list[int]:
        """Waits for the end of all."""
        for process in self.processes:
            process.join(PATIENCE_SECONDS)
            if process.is_alive():
                self.signal(signal.SIGKILL, self.processes.index(process))
                raise AssertionError(f"a process did not end; {self.log.read_text()}")
        return [process.exitcode for process in self.processes]

    def succeed(self) -> None:
        """Waits for the end, which must be a good one."""
        statuses = self.exit_statuses()
        assert not any(statuses), self.log.read_text()

    def kill_when(self, is_moment: Callable[[], bool]) -> None:
        """Kills all processes by SIGKILL while `is_moment()` holds."""
        self.stop_when(is_moment)
        self.signal(signal.SIGKILL)
        assert self.exit_statuses() == [-signal.SIGKILL] * len(self.processes)

    def stop_when(self, is_moment: Callable[[], bool]) -> None:
        """Halts all processes while `is_moment()` holds; SIGCONT lets them go on."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert time.monotonic() < until, f"the moment never came; {self.log.read_text()}"
            assert all(process.is_alive() for process in self.processes), self.log.read_text()
            if is_moment():
                self.signal(signal.SIGSTOP)
                time.sleep(0.002)
                if is_moment():
                    return
                self.signal(signal.SIGCONT)
            time.sleep(0.001)


def _pretrain(command_line: list[str], environment: dict[str, str], log: str) -> None:
    """What a process does; both its outputs go to the file."""
    import train.cpu_cores
    from train.pretrain import main

    train.cpu_cores.available_cores = lambda: 1
    # As where a run is started from the command line; or its loader would start a server of its own.
    multiprocessing.set_start_method("fork", force=True)
    os.environ |= environment
    with open(log, "a") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    sys.argv = ["pretrain.py", *command_line]
    sys.exit(main())


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def results(output_dir: Path) -> dict[str, Any]:
    """All that a finished run found: weights, and history and state of its last checkpoint."""
    weights = load_file(output_dir / "model.safetensors")
    last = output_dir / "checkpoints" / "last"
    progress = torch.load(last / "custom_checkpoint_1.pkl", weights_only=False)
    optimizer = torch.load(last / "optimizer.bin", weights_only=True)["state"]
    metrics = json.loads((output_dir / "metrics.json").read_text())["metrics"]
    return {"weights": weights, "optimizer": optimizer, "history": progress["history"], "metrics": metrics}


def assert_same(first: Any, second: Any) -> None:
    """Holds nested results to one another, bit for bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second
