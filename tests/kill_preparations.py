"""Kills a preparation at its first, second, ... step on the disk, and compares what the same one gives then.

    python tests/kill_preparations.py RECORDINGS FOLDER FIRST EVERY [--with-old]

RECORDINGS has `set.key` beside it. Prints how often it killed. Each preparation runs in a process of its own,
forked from this one, which starts no threads: to start Python each time would take most of the time.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import PrepareError
from datasets_scripts.prepare_clips import prepare_clips

PARAMETERS = ClipParameters(clip_seconds=2.0, frames_per_clip=2, frame_size=64)
OLD_PARAMETERS = replace(PARAMETERS, frames_per_clip=3, seed=1)
STEPS = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"})

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_child(function: Callable, *arguments: object) -> int:
    """0, or the signal that ended it."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        function(*arguments)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"ended with {status}"
    return status


def kill_at(step: int, folder: Path) -> None:
    """Kill this process when it is about to take its `step`th step in a folder."""
    taken = count(1)

    def watch(event: str, arguments: tuple) -> None:
        if event in STEPS and str(arguments[0]).startswith(str(folder)) and next(taken) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def prepared(recordings: Path, folder: Path, overwrite: bool, step: int | None = None) -> None:
    if step is not None:
        kill_at(step, folder)
    sheet = folder / "sheet.png"
    try:
        prepare_clips(recordings, folder / "set", PARAMETERS, workers=1, sheet=sheet, overwrite=overwrite)
    except PrepareError as error:  # killed when all was done but the end of the process
        assert "already has" in str(error)


def check(recordings: Path, folder: Path, first: int, every: int, with_old: bool) -> int:
    start, whole = folder / "start", folder / "whole"
    start.mkdir()
    shutil.copy(recordings.with_name("set.key"), start)
    if with_old:
        in_a_child(lambda: prepare_clips(recordings, start / "set", OLD_PARAMETERS, workers=1))
    shutil.copytree(start, whole)
    in_a_child(prepared, recordings, whole, with_old)
    wanted = contents(whole)
    allowed = [contents(each / "set" / "data") for each in (start, whole)]
    for kills, step in enumerate(range(first, 10_000, every)):
        trial = folder / f"step_{step}"
        shutil.copytree(start, trial)
        if in_a_child(prepared, recordings, trial, with_old, step) == 0:
            return kills
        assert contents(trial / "set" / "data") in allowed, f"step {step}: shards in parts"
        in_a_child(prepared, recordings, trial, with_old)
        found = contents(trial)
        others = {name for name in {*found, *wanted} if found.get(name) != wanted.get(name)}
        assert not others, f"step {step}: {others}"
        shutil.rmtree(trial)
    raise AssertionError("more steps than were thought of")


if __name__ == "__main__":
    _, recordings, folder, first, every, *options = sys.argv
    print(check(Path(recordings), Path(folder), int(first), int(every), options == ["--with-old"]))
