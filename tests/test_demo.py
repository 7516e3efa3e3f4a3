"""The demo's data, small: made once, used again, and a control that differs in the words alone."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips_helpers import TINY_MODEL

from datasets_scripts.schema import PLANES
from train import demo
from train.arguments import ArgumentsError, PretrainArguments, build, merge
from train.triples import choose_gallery, decode_audio, list_clips, read_rows

FIELDS = {
    "max_steps": 2,
    "dataset_config": "large",
    "simulation": {
        "scans": 2,
        "scan_seconds": 9.0,
        "image_size": 32,
        "frames_per_second": 15,
        "repeat_share": 0.0,
        "speech": {"relevant_share": 1.0, "wrong_share": 0.0, "chat_share": 0.0},
    },
    "clips": {"clip_seconds": 2.0, "frame_size": 16, "validation_fraction": 0.5},
    "model": TINY_MODEL,
}


def arguments(folder: Path, **fields: object) -> PretrainArguments:
    folders = {"data_dir": str(folder), "output_dir": str(folder / "model")}
    return build(PretrainArguments, merge(FIELDS | folders, fields), "test")


@pytest.fixture(scope="module", autouse=True)
def one_process() -> None:
    """Few small scans are made sooner than processes start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "simulate_scans", partial(demo.simulate_scans, workers=1))
        patch.setattr(demo, "prepare_clips", partial(demo.prepare_clips, workers=1))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.make_clips(arguments(folder))
    return folder


def gallery(folder: Path) -> list[dict]:
    clips = str(folder / "clips")
    keys = choose_gallery(list_clips(clips, "large", "validation"), 3)
    return read_rows(clips, "large", "validation", [key.clip_id for key in keys])


def test_what_was_made_alike_is_used_again_and_else_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def simulate(folder: Path, _: object) -> None:
        folder.mkdir(parents=True)
        made.append("recordings")

    def prepare(_: Path, folder: Path, __: object) -> object:
        assert not list(tmp_path.glob("clips.*.report.json")), "nothing of other recordings is left"
        folder.mkdir()
        (tmp_path / "clips.large.report.json").touch()
        made.append("clips")
        return type("Report", (), {"summary": lambda self: ""})()

    monkeypatch.setattr(demo, "simulate_scans", simulate)
    monkeypatch.setattr(demo, "prepare_clips", prepare)
    for _ in range(2):
        demo.make_clips(arguments(tmp_path))
    assert made == ["recordings", "clips"]
    demo.make_clips(arguments(tmp_path, clips={"stride_seconds": 1.0}))
    assert made == ["recordings", "clips", "clips"]
    demo.make_clips(arguments(tmp_path, simulation={"seed": 1}))
    assert made == ["recordings", "clips", "clips", "recordings", "clips"]


def test_files_that_it_did_not_make_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "patient.mp4").touch()
    with pytest.raises(ArgumentsError, match=r"recordings holds files .*another data_dir"):
        demo.make_clips(arguments(tmp_path))
    assert (tmp_path / "recordings" / "patient.mp4").exists()


def test_misspelt_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match=r"'simulation\.scan'.*scans"):
        demo.simulation_parameters(arguments(tmp_path, simulation={"scan": 1}))
    with pytest.raises(ArgumentsError, match=r"'simulation\.speech\.wrong'.*wrong_share"):
        demo.simulation_parameters(arguments(tmp_path, simulation={"speech": {"wrong": 1}}))
    with pytest.raises(ArgumentsError, match=r"clip_seconds is 2, .*'large'.*'medium'"):
        demo.clip_parameters(arguments(tmp_path, dataset_config="medium"))


def test_every_clip_of_the_gallery_has_its_plane(made: Path) -> None:
    planes = demo.planes(arguments(made), gallery(made))
    assert len(planes) == 3 and set(planes) <= set(PLANES)


def test_the_control_keeps_voice_and_times_and_changes_the_words(made: Path) -> None:
    rows = gallery(made)
    control = demo.control_rows(arguments(made), rows)
    changed = []
    for row, other in zip(rows, control, strict=True):
        assert {**row, "audio": None} == {**other, "audio": None}
        sound, other_sound = decode_audio(row["audio"]), decode_audio(other["audio"])
        assert sound.shape == other_sound.shape
        changed.append(np.abs(sound - other_sound).max() > 0.01)
    assert sum(changed) >= 2, "most clips hold speech"
    (said,) = (made / "control_recordings").glob("*/remarks.csv")
    for before, after in zip(
        remarks(made / "recordings" / said.parent.name), remarks(said.parent), strict=True
    ):
        assert (before["kind"], after["kind"]) == ("plane", "wrong")
        assert before["start_s"] == after["start_s"]
        assert before["label"] != after["label"]


def remarks(folder: Path) -> list[dict[str, str]]:
    with (folder / "remarks.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
