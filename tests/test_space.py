"""What the app answers, without a browser: scans in; planes, saliency, moments out; nothing left behind."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pydicom
import pytest
import yaml
from huggingface_hub.utils import filter_repo_objects
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from space_helpers import SECONDS, write_models, write_remark, write_scan
from test_import_rules import PARTS, imported_modules
from tiny_cines import grey_cine
from tiny_recordings import tone, write_video

from hub_cards.space import analysis, app, making
from hub_cards.space.analysis import ScanError
from hub_cards.space.making import STEPS, make_models
from hub_cards.space.models import DEFAULT_FOLDERS, ROOT, ModelError, Models, load_models
from hub_cards.space.page import CHOOSE_FIRST, Answers, Session, refused
from hub_cards.space.uploads import remove_old, swept
from train.arguments import parse_arguments
from train.finetune_arguments import (
    FinetunePlanesArguments,
    FinetuneSaliencyArguments,
    parse_finetune_arguments,
)
from train.pretrain import DEMO_RECIPE


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("space_models"))


@pytest.fixture(scope="module")
def models(folders: dict[str, str]) -> Models:
    return load_models(folders)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    return folder


@pytest.fixture
def answers(models: Models, private: Path) -> Answers:
    return Answers(models, private, longest_seconds=60.0)


@pytest.fixture
def session(answers: Answers, tmp_path: Path) -> Iterator[Session]:
    found, _ = answers.uploaded(str(write_scan(tmp_path / "scan.mp4")), None)
    yield found
    found.close()


# Scans.


def test_an_upload_is_analysed_and_its_file_removed(answers: Answers, private: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.mp4")
    session, said = answers.uploaded(str(scan), None)
    assert f"The scan of about {SECONDS} s was read, and its file was removed." in said
    assert not scan.exists() and [session.folder] == list(private.iterdir())
    assert [path.name for path in session.folder.iterdir()] == ["clips.parquet"]
    names = session.analysis.frame_names()
    assert [name.split(", best at ")[0] for name in names[:3]] == ["femur", "abdomen", "lips"]
    assert names[3:] == [f"at {second} s" for second in range(SECONDS + 1)]
    assert session.analysis.frame(names[0]).shape == session.analysis.frame("at 5 s").shape == (64, 64, 3)
    session.close()
    assert not list(private.iterdir())


def test_another_scan_takes_the_place_of_the_first(
    answers: Answers, session: Session, private: Path, tmp_path: Path
) -> None:
    other, _ = answers.uploaded(str(write_scan(tmp_path / "other.mp4", 3)), session)
    assert [other.folder] == list(private.iterdir()) and len(other.analysis.pictures) == 4


def test_a_simulated_scan_goes_the_same_way(
    answers: Answers, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {**vars(analysis.SIMULATED), "scan_seconds": 6.0, "image_size": 32, "hold_seconds": (1.0, 2.0)}
    monkeypatch.setattr(analysis, "SIMULATED", type(analysis.SIMULATED)(**short))
    session, said = answers.simulated(3, None)
    assert "about 6 s was read" in said and [session.folder] == list(private.iterdir())
    again, _ = answers.simulated(3, session)
    other, _ = answers.simulated(4, None)
    assert again.analysis.pictures == session.analysis.pictures != other.analysis.pictures
    for number in (-1, 1.5, 10_000, None):
        session, said = answers.simulated(number, None)
        assert session is None and "whole numbers from 0 to 9999" in said
    assert sorted(private.iterdir()) == sorted([again.folder, other.folder])


def text(path: Path) -> None:
    path.write_text("#EXTM3U\nfile:///etc/hostname\n")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def empty(path: Path) -> None:
    path.touch()


def without_pixels(path: Path) -> None:
    dataset = pydicom.dcmread(grey_cine(path))
    del dataset.PixelData
    dataset.save_as(path)


def too_long(path: Path) -> None:
    write_scan(path, 63)


def sound_alone(path: Path) -> None:
    write_video(path, sound=tone(1.0))


def cut_short(path: Path) -> None:
    whole = write_scan(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (text, "scan.mp4", "scan.mp4 is a text file: choose a video"),
        (zeros, "scan.mp4", "no video that FFmpeg reads"),
        (zeros, "scan.dcm", "scan.dcm"),
        (empty, "scan.mp4", "empty"),
        (without_pixels, "scan.dcm", "holds no pixels"),
        (too_long, "scan.mp4", "is longer than 60 s"),
        (sound_alone, "scan.mp4", "holds no video"),
        (cut_short, "scan.mp4", "scan.mp4"),
    ],
)
def test_what_is_no_scan_is_refused_in_a_sentence(
    make: Callable[[Path], None],
    name: str,
    says: str,
    answers: Answers,
    session: Session,
    private: Path,
    tmp_path: Path,
) -> None:
    upload = tmp_path / name
    make(upload)
    refused_session, said = answers.uploaded(str(upload), session)
    assert refused_session is None and says in said and 'class="said refused"' in said
    assert "Traceback" not in said and str(tmp_path) not in said and "/" not in said.split("<p>")[1][:40]
    assert not upload.exists() and not list(private.iterdir()), "the scan before is forgotten too"


def test_no_file_and_a_file_that_was_taken_are_refused(answers: Answers, tmp_path: Path) -> None:
    assert "Choose a file first." in answers.uploaded(None, None)[1]
    assert "no longer there: choose it again" in answers.uploaded(str(tmp_path / "gone.mp4"), None)[1]


def test_an_error_that_nobody_expected_leaves_no_file(
    answers: Answers, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hub_cards.space.page.analyse", fail)
    scan = write_scan(tmp_path / "scan.mp4")
    with pytest.raises(MemoryError):
        answers.uploaded(str(scan), None)
    assert not scan.exists() and not list(private.iterdir())


def test_what_one_part_cannot_use_is_told_and_the_rest_is_shown(answers: Answers, tmp_path: Path) -> None:
    short, said = answers.uploaded(str(write_scan(tmp_path / "short.mp4", 1)), None)
    assert "Search by speech: short.mp4 is shorter than one clip of 2 s." in said
    assert "<img" in answers.timeline(short)
    assert "shorter than one clip" in answers.found_by_text("femur", short)


def test_a_refusal_names_files_without_their_folders() -> None:
    said = refused(ScanError(f"{Path('/a/b/scan.mp4')}: no <video>"))
    assert "scan.mp4: no &lt;video&gt;" in said and "/a/b" not in said


# What the tabs show.


def test_the_tabs_show_planes_saliency_and_moments(
    answers: Answers, session: Session, private: Path, tmp_path: Path
) -> None:
    planes = answers.timeline(session)
    assert 'alt="The probability of 3 planes from 0 to 6 seconds' in planes
    assert all(f'<th scope="row">{plane}</th><td>' in planes for plane in ("femur", "abdomen", "lips"))
    heat = answers.saliency(session, session.analysis.frame_names()[1])
    assert heat.count("<img") == 2 and "where people are expected to look" in heat
    by_text = answers.found_by_text("the femur", session)
    assert by_text.count("<img") == 5 and "1. " in by_text and "similarity" in by_text
    remark = write_remark(tmp_path / "remark.wav")
    cleared, by_sound = answers.found_by_sound(str(remark), session)
    assert cleared is None and by_sound.count("<img") == 5 and not remark.exists()
    assert [session.folder] == list(private.iterdir())


@pytest.mark.parametrize(
    ("make", "says"),
    [(text, "is a text file"), (zeros, "holds no sound"), (empty, "holds no sound")],
)
def test_what_is_no_remark_is_refused_and_removed(
    make: Callable[[Path], None], says: str, answers: Answers, session: Session, tmp_path: Path
) -> None:
    make(tmp_path / "remark.wav")
    _, said = answers.found_by_sound(str(tmp_path / "remark.wav"), session)
    assert says in said and "refused" in said and not (tmp_path / "remark.wav").exists()


@pytest.mark.parametrize(("remark", "says"), [("?!", "nothing to say"), ("word " * 100, "may have 300")])
def test_a_text_that_cannot_be_spoken_is_refused(
    remark: str, says: str, answers: Answers, session: Session
) -> None:
    assert says in answers.found_by_text(remark, session)


def test_without_a_scan_every_tab_asks_for_one(answers: Answers) -> None:
    tabs = [answers.timeline(None), answers.saliency(None, None), answers.found_by_text("femur", None)]
    assert all(CHOOSE_FIRST in said for said in tabs)


def test_without_models_every_tab_says_how_to_make_one(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_cards.space.models.ROOT", tmp_path)
    answers = Answers(load_models(dict.fromkeys(DEFAULT_FOLDERS)), private, 60.0)
    session, said = answers.uploaded(str(write_scan(tmp_path / "scan.mp4")), None)
    assert "about 6 s was read" in said
    tabs = {
        "planes": answers.timeline(session),
        "saliency": answers.saliency(session, "at 0 s"),
        "model": answers.found_by_text("femur", session),
    }
    for name, folder in DEFAULT_FOLDERS.items():
        assert (
            f"in {folder}. Start the app with --make_models" in tabs[name]
            and f"--{name} FOLDER" in tabs[name]
        )


# Models.


def test_defaults_lie_in_the_checkout_wherever_the_app_is_started(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in DEFAULT_FOLDERS.items():
        shutil.copytree(folders[name], tmp_path / "checkout" / folder)
    monkeypatch.setattr("hub_cards.space.models.ROOT", tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    loaded = load_models(dict.fromkeys(DEFAULT_FOLDERS))
    assert not loaded.missing and None not in (loaded.searcher, loaded.classifier, loaded.saliency)


@pytest.mark.parametrize("name", DEFAULT_FOLDERS)
def test_a_model_of_another_kind_is_a_sentence(
    name: str, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("gradio")
    other = folders["planes" if name == "saliency" else "saliency"]
    for given, says in (
        (other, "holds a DualRepFor"),
        ("", f"--{name} is empty"),
        (tmp_path / "nowhere", "no folder with"),
    ):
        assert app.main([f"--{name}", str(given)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("app.py: ") and says in said


@pytest.mark.parametrize(
    ("flag", "value"),
    [("port", "0"), ("longest_seconds", "0"), ("largest_megabytes", "-1"), ("oldest_seconds", "nan")],
)
def test_options_out_of_range_are_refused(flag: str, value: str, capsys: pytest.CaptureFixture) -> None:
    assert app.main([f"--{flag}", value]) == 2
    assert f"--{flag} is {value}" in capsys.readouterr().err


def test_the_steps_are_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = {" ".join(line.split("  #")[0].split()) for line in readme.splitlines()}
    assert [step.command for step in STEPS if step.command not in commands] == []


def test_the_steps_leave_the_models_where_the_app_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pretrain, *_, planes, saliency = STEPS
    _, *flags = pretrain.command.split("train/pretrain.py")[1].split() or [""]
    assert parse_arguments(flags, DEMO_RECIPE).output_dir == DEFAULT_FOLDERS["model"]
    for name, step, cls in (
        ("planes", planes, FinetunePlanesArguments),
        ("saliency", saliency, FinetuneSaliencyArguments),
    ):
        arguments, _ = parse_finetune_arguments(cls, step.command.split(f"finetune_{name}.py ")[1].split())
        assert arguments.output_dir == DEFAULT_FOLDERS[name] and step.makes.startswith(DEFAULT_FOLDERS[name])
        assert (arguments.model, arguments.dataset) == (DEFAULT_FOLDERS["model"], making.FRAMES)


def test_the_steps_name_scripts_that_are_there() -> None:
    for step in STEPS:
        program, *words = step.words()
        assert program == sys.executable
        if words[1] == "accelerate.commands.accelerate_cli":
            assert words[2] == "launch" and (ROOT / words[3]).is_file()
        assert find_spec(words[1]) is not None


def test_only_what_is_missing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(making, "ROOT", tmp_path)
    run: list[list[str]] = []
    monkeypatch.setattr(
        making.subprocess,
        "run",
        lambda words, cwd: run.append(words) or argparse.Namespace(returncode=int("broken" in os.environ)),
    )
    make_models()
    assert run == [step.words() for step in STEPS]
    (tmp_path / "runs" / "demo" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "model" / "config.json").touch()
    for number in range(134):
        (tmp_path / "runs" / "labelled" / "recordings" / f"scan_{number:05d}").mkdir(parents=True)
    run.clear()
    make_models()
    assert run == [step.words() for step in STEPS[1:]], "one of the recordings is missing"
    monkeypatch.setenv("broken", "1")
    with pytest.raises(ModelError, match=r"simulate_scans .* ended with status 1"):
        make_models()


# Uploads.


def test_old_uploads_are_removed(tmp_path: Path) -> None:
    for name in ("old/a.mp4", "new/b.mp4", "mixed/c.mp4", "mixed/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("old/a.mp4", "mixed/c.mp4", "old"):
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "link").symlink_to(tmp_path / "new")
    remove_old(tmp_path, 100)
    remaining = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert remaining == {"old", "new", "new/b.mp4", "mixed", "mixed/d.mp4", "link"}


def test_uploads_are_swept_again_and_again(tmp_path: Path) -> None:
    before = threading.active_count()
    with swept(tmp_path, oldest_seconds=0.2, every_seconds=0.05):
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "scan.mp4").touch()
            end = time.monotonic() + 20
            while list(tmp_path.iterdir()):
                assert time.monotonic() < end
                time.sleep(0.05)
    assert threading.active_count() == before


# On the Hub.

SPACE = ROOT / "hub_cards" / "space"
# Imported where they are asked for, by what the app does not do.
NEVER_ASKED_FOR = {"faiss", "rapidocr", "ray"}
# Come with datasets.
BROUGHT_ALONG = {"pandas", "pyarrow"}


def requirements() -> list[str]:
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed, groups = project["project"]["dependencies"], project["dependency-groups"]
    assert set(needed) <= set(requirements()) <= {*needed, *groups["dev"], *groups["demo"]}


def imported_by(main: Path) -> set[str]:
    """Names of what a module imports that is not ours, itself or by ours."""
    todo, seen, others = [main], set(), set()
    while todo:
        file = todo.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        for name in imported_modules(file):
            first, *_ = parts = name.split(".")
            others |= set() if first in PARTS else {first}
            for length in range(1, len(parts) + 1 if first in PARTS else 0):
                module = ROOT.joinpath(*parts[:length])
                todo += [module.with_suffix(".py"), module / "__init__.py"]
    return others - set(sys.stdlib_module_names)


def test_the_requirements_hold_all_that_the_app_imports() -> None:
    distributions = packages_distributions()
    needed = imported_by(SPACE / "app.py") - NEVER_ASKED_FOR - BROUGHT_ALONG
    assert {"gradio", "torch", "av"} <= needed
    names = {name_of(distributions[name][0]) for name in needed if name in distributions}
    assert names <= {name_of(line) for line in requirements()}


def front_matter() -> dict:
    return yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_the_front_matter_is_that_of_a_space() -> None:
    facts = front_matter()
    assert (facts["sdk"], facts["license"]) == ("gradio", "apache-2.0")
    assert (ROOT / facts["app_file"]).samefile(SPACE / "app.py") and len(facts["short_description"]) <= 60
    (gradio,) = (line for line in requirements() if line.startswith("gradio"))
    assert Version(facts["sdk_version"]) in Requirement(gradio).specifier
    (python,) = re.findall(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert Version(facts["python_version"]) in SpecifierSet(python)


@pytest.mark.slow
def test_what_the_space_s_readme_uploads_is_enough_to_start(tmp_path: Path) -> None:
    text = (SPACE / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("hf upload ORG/NAME . ."))
    words = shlex.split(line)
    patterns = {
        flag: [after for word, after in pairwise(words) if word == flag]
        for flag in ("--include", "--exclude")
    }
    files = (path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file())
    sent = filter_repo_objects(
        map(str, files), allow_patterns=patterns["--include"], ignore_patterns=patterns["--exclude"]
    )
    for name in sent:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == set(PARTS)
    command = [sys.executable, front_matter()["app_file"], "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "--port is 0" in done.stderr, done.stderr
