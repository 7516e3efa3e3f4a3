"""A preparation that is ended at any moment: the same command again gives what an undisturbed one gives."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_recordings import SIZE, even_times, tone, write_video

from datasets_scripts import durable_files, one_recording
from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import PrepareError
from datasets_scripts.prepare_clips import main, prepare_clips
from datasets_scripts.staged_scans import LOCK_FILE, StagedScan, locked_folder

ROOT = Path(__file__).resolve().parents[1]
FEW = ClipParameters(clip_seconds=2.0, frames_per_clip=2, frame_size=SIZE)
OTHER = replace(FEW, frames_per_clip=3, seed=1)
SCANS = 4
COMMAND = [sys.executable, "-m", "datasets_scripts.prepare_clips"]
OPTIONS = "--clip-seconds 2 --frames-per-clip 2 --frame-size 64 --sector whole --speech-detector loudness"

Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Scans with and without sound, one that is left out, and a key for all runs."""
    folder = tmp_path_factory.mktemp("resume")
    for number in range(SCANS):
        sound = tone(2.4) if number % 2 else None
        write_video(folder / "in" / f"visit_{number}" / "scan.mp4", even_times(2.4 + number), sound=sound)
    write_video(folder / "in" / "short.mp4", even_times(1))
    (folder / "set.key").write_text("5a" * 32 + "\n")
    return folder / "in"


def place(folder: Path, recordings: Path) -> Path:
    """A new folder of a data set that is not there yet, and its key beside it."""
    folder.mkdir(exist_ok=True)
    shutil.copy(recordings.with_name("set.key"), folder)
    return folder / "set"


def contents(folder: Path) -> Contents:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed_command(recordings, tmp_path_factory) -> Contents:
    folder = tmp_path_factory.mktemp("command")
    assert main([str(recordings), str(place(folder, recordings)), *OPTIONS.split(), "--workers", "1"]) == 0
    return contents(folder)


@pytest.fixture(scope="module")
def undisturbed(recordings, tmp_path_factory) -> Contents:
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare_clips(recordings, place(folder, recordings), FEW, workers=1)
    return contents(folder)


class Ended(BaseException):
    """As a signal, this is no Exception."""


@pytest.fixture()
def made(monkeypatch) -> list[str]:
    """The names of the recordings that are opened, in their order."""
    names, open_recording = [], one_recording.open_recording

    def noted(files):
        names.append(files.name)
        return open_recording(files)

    monkeypatch.setattr(one_recording, "open_recording", noted)
    return names


def end_after(scans: int, monkeypatch) -> None:
    """Let a preparation end when it stages one recording more than this."""
    stage_rows, calls = one_recording.stage_rows, []

    def ending(*arguments):
        calls.append(arguments)
        if len(calls) > scans:
            raise Ended
        return stage_rows(*arguments)

    monkeypatch.setattr(one_recording, "stage_rows", ending)


def ended_early(recordings: Path, output: Path, scans: int, parameters: ClipParameters = FEW) -> Path:
    """What is left of a preparation that ends after so many scans."""
    with pytest.MonkeyPatch.context() as patch:
        end_after(scans, patch)
        with pytest.raises(Ended):
            prepare_clips(recordings, output, parameters, workers=1)
    assert not output.exists()
    return output.with_name("set.partial")


# What is taken, and what is made again.


def test_what_was_made_is_not_made_again(recordings, tmp_path, undisturbed, made):
    output = place(tmp_path, recordings)
    ended_early(recordings, output, 3)
    before = list(made)
    made.clear()
    prepare_clips(recordings, output, FEW, workers=1)
    assert not set(made) & set(before[:-1])
    assert {*before[:-1], *made} == {"short.mp4", *(f"visit_{number}/scan.mp4" for number in range(SCANS))}
    assert contents(tmp_path) == undisturbed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "cut short": (".arrow", lambda path: os.truncate(path, path.stat().st_size - 1)),
    "changed": (".arrow", flip),
    "gone": (".arrow", Path.unlink),
    "note gone": (".json", Path.unlink),
    "note cut short": (".json", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "note of nothing": (".json", lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_is_made_again(recordings, tmp_path, undisturbed, made, damage):
    output = place(tmp_path, recordings)
    partial = ended_early(recordings, output, 3)
    suffix, spoil = DAMAGE[damage]
    scans = [path.with_suffix(suffix) for path in partial.glob("*.arrow")]
    assert len(scans) == 2
    spoil(scans[0])
    made.clear()
    prepare_clips(recordings, output, FEW, workers=1)
    assert len(made) == 3
    assert contents(tmp_path) == undisturbed


def test_a_recording_that_changed_is_made_again(tmp_path, made):
    for name in "abc":
        write_video(tmp_path / "in" / name / "scan.mp4", even_times(2.4))
        (tmp_path / "in" / name / "scan.json").write_text("{}")
    ended_early(tmp_path / "in", tmp_path / "set", 2)
    made.clear()
    (tmp_path / "in" / "a" / "scan.json").write_text('{"patient_id": "Ada"}')
    prepare_clips(tmp_path / "in", tmp_path / "set", FEW, workers=1)
    assert made == ["a", "c"]


def test_another_command_takes_nothing_of_it(recordings, tmp_path, undisturbed, made):
    output = place(tmp_path, recordings)
    ended_early(recordings, output, 2, OTHER)
    made.clear()
    prepare_clips(recordings, output, FEW, workers=1)
    assert len(made) == SCANS + 1
    assert contents(tmp_path) == undisturbed


def test_another_key_takes_nothing_of_it(recordings, tmp_path, made):
    output = place(tmp_path, recordings)
    ended_early(recordings, output, 2)
    (tmp_path / "set.key").write_text("a5" * 32)
    made.clear()
    prepare_clips(recordings, output, FEW, workers=1)
    assert len(made) == SCANS + 1


def test_the_code_is_part_of_the_fingerprint(recordings, tmp_path, made, monkeypatch):
    output = place(tmp_path, recordings)
    ended_early(recordings, output, 2)
    made.clear()
    monkeypatch.setattr("datasets_scripts.preparation.code_version", lambda: "another")
    prepare_clips(recordings, output, FEW, workers=1)
    assert len(made) == SCANS + 1


def test_strict_keeps_what_was_made(tmp_path, made):
    write_video(tmp_path / "in" / "a.mp4", even_times(2.4))
    (tmp_path / "in" / "b.mp4").write_text("no video")
    for _ in range(2):
        assert (
            main([str(tmp_path / "in"), str(tmp_path / "set"), *OPTIONS.split(), "--strict", "--workers=1"])
            == 1
        )
    assert made == ["a.mp4", "b.mp4", "b.mp4"]
    assert {path.suffix for path in (tmp_path / "set.partial").iterdir()} == {".arrow", ".json"}


# Two at once.


def test_a_second_command_at_one_set_is_told_to_wait(recordings, tmp_path, capsys):
    with locked_folder(tmp_path / "set.partial"):
        assert main([str(recordings), str(tmp_path / "set"), *OPTIONS.split(), "--workers", "1"]) == 2
    assert "Another preparation is at work on set" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def in_a_child(function: Callable[[], object]) -> int:
    """The id of a process that runs the function and ends with 0, or with 1 if it raises."""
    child = os.fork()
    if child:
        return child
    try:
        function()
        os._exit(0)
    finally:
        os._exit(1)


def test_the_lock_ends_with_its_owner(tmp_path):
    def hold() -> None:
        with locked_folder(tmp_path / "set.partial"):
            time.sleep(60)

    child = in_a_child(hold)
    while not (tmp_path / "set.partial" / LOCK_FILE).exists():
        time.sleep(0.01)
    time.sleep(0.1)
    with pytest.raises(PrepareError, match="Another"), locked_folder(tmp_path / "set.partial"):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked_folder(tmp_path / "set.partial"):
        pass
    assert not (tmp_path / "set.partial").exists()


def test_only_one_of_many_gets_the_lock(tmp_path):
    """Each takes the folder away at its end, under the feet of the others."""
    counter = tmp_path / "counter"

    def add() -> None:
        done = 0
        while done < 40:
            try:
                with locked_folder(tmp_path / "set.partial"):
                    number = int(counter.read_text() or 0) if counter.exists() else 0
                    counter.write_text(str(number + 1))
                    done += 1
            except PrepareError:
                continue

    children = [in_a_child(add) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert counter.read_text() == "120"


# Killed at a step that changes the disk.


def killed_at_steps(folder: Path, recordings: Path, first: int, every: int, *options: str) -> int:
    """How often `kill_preparations` killed, and found what it wanted."""
    numbers = [str(first), str(every)]
    command = [sys.executable, "tests/kill_preparations.py", recordings, folder, *numbers, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--with-old"]])
def test_killed_at_some_steps_it_goes_on(tmp_path, recordings, options):
    assert killed_at_steps(tmp_path, recordings, random.randint(1, 60), 60, *options) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--with-old"]])
def test_killed_at_any_step_it_goes_on(tmp_path, recordings, options):
    assert killed_at_steps(tmp_path, recordings, 1, 1, *options) > 100


def test_without_an_exchange_of_names_a_second_call_does_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(durable_files, "_exchanged", lambda *names: False)
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    durable_files.put_folder(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "new"
    assert (tmp_path / "new" / "file").read_text() == "target"
    shutil.rmtree(tmp_path / "target")
    durable_files.put_folder(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "target"


def test_a_finished_set_of_another_command_comes_first(tmp_path, recordings, undisturbed):
    output = place(tmp_path, recordings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets_scripts.finished_set._move", lambda *names: (_ for _ in ()).throw(Ended))
        with pytest.raises(Ended):
            prepare_clips(recordings, output, FEW, workers=1)
    longer = replace(FEW, clip_seconds=2.2)
    prepare_clips(recordings, output, longer, workers=1)
    assert {path.name for path in (output / "data").iterdir()} == {"large", "clips_2.2s"}
    for name, content in undisturbed.items():
        assert name == "set/README.md" or (tmp_path / name).read_bytes() == content


# Real commands, killed at random moments.


def started(recordings: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [*COMMAND, recordings, output, *OPTIONS.split(), "--workers", "2", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def descendants(process_id: int) -> list[int]:
    try:
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [each for child in map(int, children) for each in (child, *descendants(child))]


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_random_kills(tmp_path: Path, recordings: Path, wanted: Contents, kills: int) -> None:
    """Kill the command so many times at random moments of its life, then let it end."""
    output = place(tmp_path / "random", recordings)
    partial, lifetime_s = output.with_name("set.partial"), 3.0
    for number in range(kills):
        process, begin = started(recordings, output, *(["--overwrite"] * (number > 0))), time.monotonic()
        while not partial.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, lifetime_s))
        workers = descendants(process.pid)
        process.kill()
        output_text, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, output_text
            lifetime_s = min(lifetime_s, time.monotonic() - begin)
        until = time.monotonic() + 10
        while any(map(is_running, workers)):
            assert time.monotonic() < until, "a worker outlives the command"
            time.sleep(0.01)
        for shard in output.rglob("*.parquet"):
            pq.read_table(shard)
    process = started(recordings, output, "--overwrite")
    output_text, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output_text
    assert contents(output.parent) == wanted


@pytest.mark.slow
def test_a_command_killed_three_times_goes_on(tmp_path, recordings, undisturbed_command):
    check_random_kills(tmp_path, recordings, undisturbed_command, 3)


@pytest.mark.slow
def test_a_command_killed_twenty_times_goes_on(tmp_path, recordings, undisturbed_command):
    check_random_kills(tmp_path, recordings, undisturbed_command, 20)


def test_a_staged_scan_without_files_is_none(tmp_path):
    assert StagedScan(tmp_path, "0" * 32).read() is None
