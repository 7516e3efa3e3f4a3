"""Tasks in many processes, of this machine or of Ray: every result once, and killed workers."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_recordings import SIZE, even_times, tone, write_video

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import Preparation, PreparationReport, PrepareError, prepare
from datasets_scripts.preparation_engine import PROCESSES, RAY, Engine, Lost, connected_ray
from datasets_scripts.prepare_clips import clips_with_speech, main
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import clips_features

FEW = ClipParameters(clip_seconds=2.0, frames_per_clip=2, frame_size=SIZE)


def own_process(number: int) -> tuple[int, int]:
    return number, os.getpid()


def killed_the_first_time(note: Path) -> str:
    if not note.exists():
        note.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return note.name


def killed_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def refuse(number: int) -> int:
    raise PrepareError(f"No {number}.")


def test_every_task_has_its_result_from_another_process():
    results = dict(Engine(workers=2).run(own_process, list(range(7))))
    assert {place: number for place, (number, _) in results.items()} == {n: n for n in range(7)}
    assert os.getpid() not in {process_id for _, process_id in results.values()}


def test_one_worker_is_this_process():
    assert list(Engine(workers=1).run(own_process, [3])) == [(0, (3, os.getpid()))]


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_is_done_again(tmp_path):
    notes = [tmp_path / name for name in "abcd"]
    for note in notes[:1] + notes[2:]:
        note.touch()
    assert dict(Engine(workers=2).run(killed_the_first_time, notes)) == dict(enumerate("abcd"))


@pytest.mark.slow
def test_a_task_that_kills_its_worker_is_lost_and_the_others_go_on():
    results = dict(Engine(workers=2).run(killed_at_two, list(range(6))))
    assert results == {place: Lost() if place == 2 else place * place for place in range(6)}


@pytest.mark.slow
def test_what_a_task_raises_ends_the_run():
    with pytest.raises(PrepareError, match=r"No \d"):
        list(Engine(workers=2).run(refuse, [1, 2, 3]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "threads"}, "engine is threads"),
        ({"workers": 0}, "workers is 0"),
        ({"ray_address": "auto"}, "not --engine ray"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Engine(**values)


def test_without_ray_a_sentence_says_how_to_get_it(recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([str(recordings), str(tmp_path / "set"), "--engine", "ray"]) == 2
    assert "pip install ray" in capsys.readouterr().err


# Recordings.


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "in"
    for name in "abcd":
        write_video(folder / f"{name}.mp4", even_times(4.4), sound=tone(4.4))
    (folder / "text.mp4").write_text("no video")
    return folder


def deadly_rows(
    recording: Recording, scan_id: str, parameters: ClipParameters, counts: Counter[str]
) -> Iterator[dict]:
    """Clips, but for one recording that ends its process after the first."""
    for row in clips_with_speech(recording, scan_id, parameters, counts):
        yield row
        if recording.name == "b.mp4":
            os.kill(os.getpid(), signal.SIGKILL)


def prepared(recordings: Path, output: Path, engine: str, make_rows=clips_with_speech) -> PreparationReport:
    (output.parent / "set.key").write_text("5a" * 32)
    preparation = Preparation("large", "clip", clips_features(), FEW, make_rows, "add some")
    return prepare(recordings, output, preparation, workers=2, engine=engine)


def check_deadly(recordings: Path, folder: Path, engine: str) -> None:
    report = prepared(recordings, folder / "set", engine, deadly_rows)
    left_out = {outcome.name: outcome.error for outcome in report.recordings if outcome.left_out}
    assert left_out == {"b.mp4": "WorkerLostError", "text.mp4": "UnreadableError"}
    (reason,) = (each.left_out for each in report.recordings if each.name == "b.mp4")
    assert reason.startswith("b.mp4: the process that read it was killed")
    assert sum(report.scans.values()) == 3
    assert not (folder / "set.partial").exists()


def test_a_recording_that_kills_its_process_is_left_out(recordings, tmp_path):
    check_deadly(recordings, tmp_path, PROCESSES)


# Ray.


# Not importorskip: what Ray reads of the environment when it is imported, the engine sets first.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="could not find Ray")


@pytest.mark.slow
@needs_ray
def test_an_address_where_nobody_answers_is_a_sentence(recordings, tmp_path, monkeypatch, capsys):
    assert main([str(recordings), str(tmp_path / "set"), "--engine", "ray", "--ray-address", "auto"]) == 2
    assert "--ray-address" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ray():
    """One Ray of two processors for the tests below; its workers find this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        with connected_ray(workers=2, address=None) as ray:
            yield ray


@pytest.mark.slow
@needs_ray
def test_ray_gives_the_same_bytes_and_names_no_path(ray, recordings, tmp_path):
    reports, files = [], []
    for engine in (PROCESSES, RAY):
        output = tmp_path / engine / "set"
        output.parent.mkdir()
        reports.append(prepared(recordings, output, engine))
        paths = sorted(path for path in output.rglob("*") if path.is_file())
        files.append({path.relative_to(output): path.read_bytes() for path in paths})
        assert {path.name for path in output.parent.iterdir()} == {
            "set",
            "set.key",
            "set.large.report.html",
            "set.large.report.json",
        }
    assert reports[0] == reports[1]
    assert files[0] == files[1]
    for content in files[1].values():
        assert str(tmp_path).encode() not in content and str(recordings).encode() not in content


@pytest.mark.slow
@needs_ray
def test_ray_tries_a_killed_task_again_and_then_goes_on_without(ray, recordings, tmp_path):
    assert dict(Engine(RAY).run(killed_the_first_time, [tmp_path / "a"])) == {0: "a"}
    check_deadly(recordings, tmp_path, RAY)


@pytest.mark.slow
@needs_ray
def test_what_a_task_of_ray_raises_ends_the_run(ray):
    with pytest.raises(PrepareError, match=r"^No 1\.$"):
        list(Engine(RAY).run(refuse, [1]))


@pytest.mark.slow
@needs_ray
def test_the_command_starts_a_ray_of_its_own(recordings, tmp_path):
    """In a process of its own: a Ray that runs already would be taken."""
    options = "--engine ray --workers 2 --clip-seconds 2 --frames-per-clip 2 --frame-size 32 --sector whole"
    command = [sys.executable, "-m", "datasets_scripts.prepare_clips", recordings, tmp_path / "set"]
    done = subprocess.run(
        [*command, *options.split(), "--speech-detector", "loudness"],
        cwd=Path(__file__).resolve().parents[1],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 5 recordings were left out" in done.stdout
