"""The benchmark's data, made small: parts that share nothing, made once, whole or not at all."""

import csv
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
import yaml

from datasets_scripts import benchmark_sets as module
from datasets_scripts import simulate_scans as simulation
from datasets_scripts import simulated_speech as speech
from datasets_scripts.benchmark_sets import (
    MADE_OF,
    BenchmarkSets,
    main,
    make_ceiling,
    make_clips,
    make_labelled,
    make_sets,
)
from datasets_scripts.benchmark_spec import (
    BENCHMARK_FILE,
    CEILING,
    LABELLED,
    PARTS,
    PRETRAINING,
    RECORDINGS,
    VALIDATION,
    BenchmarkError,
    BenchmarkSpec,
    read_spec,
)
from datasets_scripts.schema import AUDIO, CLIP_CONFIG_SECONDS, FRAMES, SCAN_ID, SPLITS, START_S
from datasets_scripts.shards import data_hash, read_info
from datasets_scripts.voices import VARIANTS, Voice
from datasets_scripts.wordings import chat_wordings, plane_wordings

DRAW = 0
SCAN_SECONDS = 15
SIZES = {
    "scans": {PRETRAINING: 2, VALIDATION: 2, LABELLED: 2, CEILING: 2},
    "recordings": {
        "scan_seconds": SCAN_SECONDS,
        "image_size": 32,
        "frames_per_second": 5,
        "hold_seconds": [3.0, 3.5],
        "search_seconds": [0.5, 1.0],
    },
    "clips": {config: {"frames_per_clip": 2, "frame_size": 16} for config in CLIP_CONFIG_SECONDS},
    "planes": {"frames_per_scan": 4, "frame_size": 16},
    "plane_clips": {"frames_per_scan": 2, "frames_per_clip": 2, "frame_size": 16},
    "gaze": {"frames_per_scan": 4, "frame_size": 16},
    "ceiling": {"frames_per_scan": 6, "frame_size": 16, "validation_fraction": 0.5},
}
CLIPS_OF_SCAN = {"large": 7, "medium": 2}
LABELLED_CONFIGS = ("planes", "plane_clips", "gaze")


@dataclass(frozen=True)
class Made:
    """A draw of the small benchmark, and who spoke in its scans, in the order of their numbers."""

    output: Path
    sets: BenchmarkSets
    ceiling: Path
    voices: list[Voice]

    def scans(self, part: str) -> list[Path]:
        """Folders of a part's recordings."""
        folder = self.output / f"draw_{DRAW}" / (PRETRAINING if part == VALIDATION else part) / RECORDINGS
        return sorted((folder / part if part in (PRETRAINING, VALIDATION) else folder).iterdir())


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory) -> Path:
    """The benchmark's own file with another section `quick`, the sizes of these tests."""
    file = tmp_path_factory.mktemp("spec") / "small.yaml"
    sections = yaml.safe_load(BENCHMARK_FILE.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(sections | {"quick": SIZES}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def spec(spec_file) -> BenchmarkSpec:
    return read_spec(spec_file, quick=True)


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """Scans are simulated without a pool of processes, each of which takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_run", lambda function, jobs, _: (function(*job) for job in jobs))
        yield


@pytest.fixture(scope="module")
def made(spec, tmp_path_factory, in_this_process) -> Made:
    output = tmp_path_factory.mktemp("benchmark")
    voices: list[Voice] = []
    with pytest.MonkeyPatch.context() as patch:
        draw_voice = speech.draw_voice

        def noted(*arguments) -> Voice:
            voices.append(draw_voice(*arguments))
            return voices[-1]

        patch.setattr(speech, "draw_voice", noted)
        sets = make_sets(spec, DRAW, output, workers=1)
        ceiling = make_ceiling(spec, DRAW, output, workers=1)
    return Made(output, sets, ceiling, voices)


@pytest.fixture
def nothing_is_simulated(monkeypatch) -> None:
    def refuse(*_) -> None:
        raise AssertionError("nothing was to be simulated")

    monkeypatch.setattr(module, "simulate_scans", refuse)


def rows(folder: Path, config: str, split: str) -> list[dict]:
    shards = sorted((folder / "data" / config).glob(f"{split}-*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def packets(file: Path) -> list[bytes]:
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(video=0)]


def hashes(sets: BenchmarkSets) -> dict[str, str]:
    folders = dict.fromkeys(CLIP_CONFIG_SECONDS, sets.clips) | dict.fromkeys(LABELLED_CONFIGS, sets.labelled)
    return {config: data_hash(folder, config) for config, folder in folders.items()}


def scans_of(folder: Path, config: str) -> dict[str, set[str]]:
    return {split: {row[SCAN_ID] for row in rows(folder, config, split)} for split in SPLITS}


def test_large_and_medium_are_cut_from_the_same_recordings(made):
    assert scans_of(made.sets.clips, "large") == scans_of(made.sets.clips, "medium")
    for config, seconds in CLIP_CONFIG_SECONDS.items():
        info = read_info(made.sets.clips, config)
        assert info["clip_seconds"] == seconds
        assert info["clips"] == {split: 2 * CLIPS_OF_SCAN[config] for split in SPLITS}
        for row in rows(made.sets.clips, config, "train"):
            assert row[START_S] % info["stride_seconds"] == pytest.approx(0, abs=1e-6)
            assert row[START_S] + seconds <= SCAN_SECONDS
    large, medium = (
        {(row[SCAN_ID], row[START_S]): row for row in rows(made.sets.clips, config, "train")}
        for config in ("large", "medium")
    )
    for scan in scans_of(made.sets.clips, "large")["train"]:
        assert large[scan, 0.0][FRAMES][0] == medium[scan, 0.0][FRAMES][0]


def test_every_clip_has_sound_and_every_scan_its_frames(made):
    for config, split in ((config, split) for config in CLIP_CONFIG_SECONDS for split in SPLITS):
        assert all(row[AUDIO] is not None for row in rows(made.sets.clips, config, split))
    for config in ("planes", "gaze"):
        assert read_info(made.sets.labelled, config)["frames"] == {"train": 8, "validation": 0}
    of_clips = read_info(made.sets.labelled, "plane_clips")
    assert (of_clips["clips"], of_clips["clip_seconds"]) == ({"train": 4, "validation": 0}, 2.0)
    assert read_info(made.ceiling, "planes")["frames"] == {"train": 6, "validation": 6}


def test_no_scan_and_no_patient_is_in_two_parts(made):
    notes = {
        part: [json.loads((scan / "scan.json").read_text()) for scan in made.scans(part)] for part in PARTS
    }
    patients = [note["patient_id"] for part in PARTS for note in notes[part]]
    assert len(set(patients)) == len(patients) == 8
    assert len({packets(scan / "scan.mp4")[0] for part in PARTS for scan in made.scans(part)}) == 8
    folders = [(made.sets.clips, "large"), (made.sets.labelled, "planes"), (made.ceiling, "planes")]
    scans = [scans_of(*folder)[split] for folder in folders for split in SPLITS]
    assert sum(map(len, scans)) == len(set(chain(*scans))) == 8
    for config in LABELLED_CONFIGS:
        assert scans_of(made.sets.labelled, config) == scans_of(made.sets.labelled, "planes")


def test_the_scans_to_pretrain_on_are_the_training_clips(made):
    report = json.loads(made.sets.clips.with_name("clips.large.report.json").read_text())
    names = {each["scan_id"]: each["name"].split("/")[0] for each in report["recordings"]}
    for split, part in zip(SPLITS, (PRETRAINING, VALIDATION), strict=True):
        assert {names[scan] for scan in scans_of(made.sets.clips, "large")[split]} == {part}


def test_voices_of_pretraining_are_heard_nowhere_else(made):
    assert len(made.voices) == 8
    for number, voice in enumerate(made.voices):
        assert voice.variant in VARIANTS["seen" if number < 2 else "held_out"]
    assert not set(VARIANTS["seen"]) & set(VARIANTS["held_out"])


def test_wordings_of_pretraining_are_heard_nowhere_else(made):
    for part in PARTS:
        group = "seen" if part == PRETRAINING else "held_out"
        remarks = [remark for scan in made.scans(part) for remark in table(scan / "remarks.csv")]
        assert remarks
        for remark in remarks:
            of_label = (
                chat_wordings(group) if remark["kind"] == "chat" else plane_wordings(remark["label"], group)
            )
            assert remark["text"] in of_label


def test_what_is_made_is_not_made_again(made, spec, nothing_is_simulated):
    before = {path: path.stat().st_mtime_ns for path in made.output.rglob("*") if path.is_file()}
    assert make_sets(spec, DRAW, made.output) == made.sets
    assert make_ceiling(spec, DRAW, made.output) == made.ceiling
    # The relevance that the benchmark has is the benchmark.
    assert make_clips(spec, DRAW, made.output, spec.relevant_speech) == made.sets.clips
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path: time for path, time in after.items() if path.suffix != ".lock"} == {
        path: time for path, time in before.items() if path.suffix != ".lock"
    }


def test_a_set_of_other_parameters_is_refused(made, spec, nothing_is_simulated):
    before = hashes(made.sets)
    others = [
        replace(spec, scans=spec.scans | {PRETRAINING: 3}),
        replace(spec, draws=(7, 8)),
        replace(spec, recordings=replace(spec.recordings, image_size=34)),
    ]
    for other in others:
        for make in (make_clips, make_labelled, make_ceiling):
            with pytest.raises(BenchmarkError, match="was made of other parameters") as error:
                make(other, DRAW, made.output)
            assert str(made.output) in str(error.value)
    clips = {config: replace(each, frames_per_clip=3) for config, each in spec.clips.items()}
    with pytest.raises(BenchmarkError, match="Name another folder, or remove that one"):
        make_clips(replace(spec, clips=clips), DRAW, made.output)
    of_frames = {
        "planes": replace(spec.planes, frames_per_scan=5),
        "plane_clips": replace(spec.plane_clips, frames_per_clip=3),
        "gaze": replace(spec.gaze, window_seconds=2.0),
    }
    for name, parameters in of_frames.items():
        with pytest.raises(BenchmarkError, match="was made of other parameters"):
            make_labelled(replace(spec, **{name: parameters}), DRAW, made.output)
    assert hashes(made.sets) == before


def test_the_same_draw_is_the_same_data_and_another_draw_is_not(made, spec, tmp_path):
    again = make_sets(spec, DRAW, tmp_path, workers=1)
    assert hashes(again) == hashes(made.sets)
    assert scans_of(again.clips, "large") == scans_of(made.sets.clips, "large")
    assert scans_of(again.labelled, "planes") == scans_of(made.sets.labelled, "planes")
    other = make_labelled(spec, 1, tmp_path, workers=1)
    assert other.is_relative_to(tmp_path / "draw_1")
    for config in LABELLED_CONFIGS:
        assert data_hash(other, config) != data_hash(again.labelled, config)
    assert not scans_of(other, "planes")["train"] & scans_of(again.labelled, "planes")["train"]


def test_another_relevance_has_the_same_pictures_times_and_validation(made, spec):
    folder = make_clips(spec, DRAW, made.output, 0.0, workers=1)
    assert folder.parent.name == "pretraining_relevant_0"
    for part in (PRETRAINING, VALIDATION):
        for scan in made.scans(part):
            same = folder.parent / RECORDINGS / part / scan.name
            assert packets(same / "scan.mp4") == packets(scan / "scan.mp4")
            assert (same / "planes.csv").read_bytes() == (scan / "planes.csv").read_bytes()
            remarks, before = table(same / "remarks.csv"), table(scan / "remarks.csv")
            assert [each["start_s"] for each in remarks] == [each["start_s"] for each in before]
            if part == PRETRAINING:
                assert "plane" not in {each["kind"] for each in remarks}
            else:
                assert remarks == before
    kinds = {each["kind"] for scan in made.scans(PRETRAINING) for each in table(scan / "remarks.csv")}
    assert "plane" in kinds
    for config in CLIP_CONFIG_SECONDS:
        assert rows(folder, config, "validation") == rows(made.sets.clips, config, "validation")
        for one, other in zip(
            *(rows(each, config, "train") for each in (folder, made.sets.clips)), strict=True
        ):
            assert one[FRAMES] == other[FRAMES]
        assert data_hash(folder, config) != data_hash(made.sets.clips, config)


def test_shuffled_speech_is_a_set_of_its_own_made_of_the_plain_one(made, spec, nothing_is_simulated):
    shuffled = make_sets(spec, DRAW, made.output, shuffled_speech=True)
    assert shuffled.labelled == made.sets.labelled
    assert shuffled.clips.parent.name == "pretraining_shuffled"
    note = json.loads((shuffled.clips.parent / MADE_OF).read_text())
    assert note["of"] == json.loads((made.sets.clips.parent / MADE_OF).read_text())
    for config in CLIP_CONFIG_SECONDS:
        plain, other = (rows(clips, config, "train") for clips in (made.sets.clips, shuffled.clips))
        assert [row[FRAMES] for row in other] == [row[FRAMES] for row in plain]
        assert all(row[AUDIO] != same[AUDIO] for row, same in zip(other, plain, strict=True))
        assert rows(shuffled.clips, config, "validation") == rows(made.sets.clips, config, "validation")


@pytest.fixture
def copied_scans(made, monkeypatch) -> list[range]:
    """Takes scans that are there already in place of simulating them; lists the numbers asked for."""
    scans = [scan for part in PARTS for scan in made.scans(part)]
    asked: list[range] = []

    def copy(folder: Path, _, indices: range, workers: int) -> None:
        asked.append(indices)
        for number in indices:
            shutil.copytree(scans[number], folder / scans[number].name)

    monkeypatch.setattr(module, "simulate_scans", copy)
    return asked


@pytest.mark.parametrize("stage", ["simulate_scans", "_write_splits", "prepare_clips"])
def test_an_interrupted_set_does_not_look_finished_and_is_made_anew(
    made, spec, stage, tmp_path, monkeypatch, copied_scans
):
    def stop(*_, **__) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            make_clips(spec, DRAW, tmp_path, workers=1)
    visible = [path.name for path in (tmp_path / f"draw_{DRAW}").iterdir() if not path.name.startswith(".")]
    assert visible == []
    clips = make_clips(spec, DRAW, tmp_path, workers=1)
    assert data_hash(clips, "large") == data_hash(made.sets.clips, "large")
    assert not list(tmp_path.rglob("*.unfinished"))


def test_two_commands_at_a_time_make_a_set_once(made, spec, tmp_path, copied_scans):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(make_clips, spec, DRAW, tmp_path, workers=1) for _ in range(2)]
        folders = {future.result() for future in both}
    assert folders == {tmp_path / f"draw_{DRAW}" / PRETRAINING / "clips"}
    assert copied_scans == [spec.indices(PRETRAINING), spec.indices(VALIDATION)]


@pytest.mark.parametrize("make", [make_clips, make_labelled, make_ceiling])
def test_a_recording_that_cannot_be_used_is_told_and_not_left_out(
    spec, tmp_path, monkeypatch, copied_scans, make
):
    copy = module.simulate_scans

    def copy_and_damage(folder: Path, *arguments) -> None:
        copy(folder, *arguments)
        first = min(folder.iterdir())
        (first / "scan.mp4").write_bytes(b"damaged")

    monkeypatch.setattr(module, "simulate_scans", copy_and_damage)
    with pytest.raises(BenchmarkError, match=r"could not be made\. .*scan_0000\d"):
        make(spec, DRAW, tmp_path, workers=1)
    assert not [path for path in (tmp_path / f"draw_{DRAW}").iterdir() if not path.name.startswith(".")]


def test_the_command_makes_describes_and_names_the_sets(made, spec_file, capsys, nothing_is_simulated):
    options = [
        str(made.output),
        "--quick",
        "--spec",
        str(spec_file),
        "--ceiling",
        "--describe",
        "--workers",
        "1",
    ]
    assert main(options) == 0
    told = capsys.readouterr().out
    folders = [made.sets.clips.parent, made.sets.labelled.parent, made.ceiling.parent]
    assert told.splitlines()[-3:] == [str(folder) for folder in folders]
    for folder in folders:
        description = json.loads((folder / "description.json").read_text())
        assert json.dumps(description, indent=1) in told
        assert (folder / "sheet.png").is_file()
    of_clips = json.loads((folders[0] / "description.json").read_text())
    assert of_clips["recordings"][VALIDATION]["scans"] == 2
    assert of_clips["clips"]["large"]["train"]["clips"] == 2 * CLIPS_OF_SCAN["large"]
    of_frames = json.loads((folders[1] / "description.json").read_text())["frames"]
    assert of_frames["planes"]["train"]["rows"] == of_frames["gaze"]["train"]["rows"] == 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--draw", "2"], "benchmark_sets: There is no draw 2; the draws are 0 to 1."),
        (["--relevant-speech", "2"], "benchmark_sets: The relevance of the speech is 2.0; give a share"),
        (["--spec", "nowhere.yaml"], "benchmark_sets: The benchmark nowhere.yaml cannot be read"),
        (["--workers", "0"], "could not be made. workers is 0: give 1 or more."),
    ],
)
def test_the_command_refuses_with_a_sentence(options, sentence, tmp_path, capsys):
    assert main([str(tmp_path), "--quick", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not [path for path in tmp_path.glob("*/*") if not path.name.startswith(".")]


def test_the_command_tells_of_a_missing_synthesiser(spec_file, tmp_path, capsys, monkeypatch):
    def missing(*_) -> None:
        raise ImportError("espeakng-loader is not installed.")

    monkeypatch.setattr(simulation, "narrate", missing)
    assert main([str(tmp_path), "--quick", "--spec", str(spec_file)]) == 2
    error = capsys.readouterr().err
    assert "benchmark_sets: " in error and "could not be made. espeakng-loader is not installed." in error
