"""The benchmark's parameters: in the paper's proportions, in parts that share nothing, mistakes refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_scripts.benchmark_spec import (
    BENCHMARK_FILE,
    CEILING,
    LABELLED,
    PARTS,
    PRETRAINING,
    VALIDATION,
    BenchmarkError,
    BenchmarkSpec,
    read_spec,
)
from datasets_scripts.clips import ClipParameters
from datasets_scripts.schema import CLIP_CONFIG_SECONDS, PLANES
from datasets_scripts.splits import split_by_patient

PAPER_SCANS = {PRETRAINING: 81, LABELLED: 135}
PAPER_CLIPS = {"large": 44_173, "medium": 10_457}
SCALE = 0.1


@pytest.fixture(scope="module")
def full() -> BenchmarkSpec:
    return read_spec()


def edited(folder: Path, *path: str, value: Any) -> Path:
    """The benchmark's file with one value put in its place."""
    sections = yaml.safe_load(BENCHMARK_FILE.read_text(encoding="utf-8"))
    *outer, last = path
    place = sections
    for name in outer:
        place = place[name]
    place[last] = value
    file = folder / "edited.yaml"
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return file


def clips_of_scan(spec: BenchmarkSpec, clips: ClipParameters) -> int:
    """How many clips lie within a scan as a whole."""
    starts_s = (number * clips.step_seconds for number in range(1000))
    return sum(start_s + clips.clip_seconds <= spec.recordings.scan_seconds for start_s in starts_s)


def test_the_sizes_are_a_tenth_of_the_paper_s(full):
    assert {part: full.scans[part] for part in PAPER_SCANS} == PAPER_SCANS
    counts = {
        config: full.scans[PRETRAINING] * clips_of_scan(full, clips) for config, clips in full.clips.items()
    }
    for config, number in PAPER_CLIPS.items():
        assert counts[config] == pytest.approx(SCALE * number, rel=0.01)
    proportion = PAPER_CLIPS["large"] / PAPER_CLIPS["medium"]
    assert counts["large"] / counts["medium"] == pytest.approx(proportion, rel=0.01)
    assert counts == {"large": 4455, "medium": 1053}


def test_large_and_medium_differ_in_length_and_stride_alone(full):
    large, medium = full.clips["large"], full.clips["medium"]
    assert (large.clip_seconds, medium.clip_seconds) == (2.0, 6.0)
    assert replace(large, clip_seconds=6.0, stride_seconds=medium.stride_seconds) == medium
    assert large.minimum_speech_fraction == 0.0
    for clips in (large, medium):
        assert clips.step_seconds >= clips.clip_seconds  # no moment is in two clips


def test_a_clip_of_two_seconds_has_frames_that_all_differ(full):
    large = full.clips["large"]
    assert full.recordings.frames_per_second > large.frames_per_clip / large.clip_seconds


def test_the_shortest_hold_of_a_plane_has_room_for_two_labelled_clips_and_a_search_for_none(full):
    seconds = full.plane_clips.clip_seconds
    assert full.recordings.hold_seconds[0] >= 2 * seconds
    assert full.recordings.search_seconds[1] - 2 * full.plane_clips.background_margin_seconds < seconds
    assert full.plane_clips.frames_per_scan == full.planes.frames_per_scan == len(PLANES), "of each class one"


def test_the_ceiling_has_many_times_the_labels_on_scans_of_its_own(full):
    patients = {str(scan): str(scan) for scan in full.indices(CEILING)}
    splits = split_by_patient(patients, full.ceiling.validation_fraction, 0, "")
    assert (len(splits.train), len(splits.validation)) == (225, 45)
    labels = 225 * full.ceiling.frames_per_scan
    assert labels > 5 * full.scans[LABELLED] * full.planes.frames_per_scan


def test_half_of_what_is_said_is_about_the_picture(full):
    speech = full.recordings.speech
    assert full.relevant_speech == pytest.approx(0.5)
    assert speech.spoken_share == pytest.approx(0.7)
    assert speech.wrong_share / speech.spoken_share == pytest.approx(1 / 14)


def test_the_parts_are_scans_of_one_simulation_and_share_none(full):
    numbers = [number for part in PARTS for number in full.indices(part)]
    assert numbers == list(range(sum(full.scans.values())))
    for part in PARTS:
        assert len(full.indices(part)) == full.scans[part]
        simulation = full.simulation(part, 0)
        assert simulation.repeat_share == 0  # else a patient's second scan could be of the next part
        assert simulation.scans == full.indices(part).stop
        assert simulation.seed == full.draws[0]


def test_voices_and_wordings_of_pretraining_are_heard_nowhere_else(full):
    for part in PARTS:
        speech = full.simulation(part, 0).speech
        group = "seen" if part == PRETRAINING else "held_out"
        assert (speech.voice_group, speech.wording_group) == (group, group)


def test_the_draws_differ_in_their_seeds_alone(full):
    assert len(set(full.draws)) == len(full.draws) >= 2
    first, second = (full.simulation(PRETRAINING, draw) for draw in (0, 1))
    assert first.seed != second.seed
    assert replace(second, seed=first.seed) == first


def test_another_relevance_changes_the_speech_alone(full):
    plain = full.simulation(PRETRAINING, 0)
    changed = full.simulation(PRETRAINING, 0, relevant_speech=0.25)
    assert changed.speech == plain.speech.with_relevance(0.25)
    assert replace(changed, speech=plain.speech) == plain
    with pytest.raises(BenchmarkError, match=r"relevance of the speech is 1\.5"):
        full.simulation(PRETRAINING, 0, relevant_speech=1.5)


@pytest.mark.parametrize("draw", [-1, 2])
def test_a_draw_that_is_not_there_is_refused(full, draw):
    with pytest.raises(BenchmarkError, match=f"There is no draw {draw}; the draws are 0 to 1"):
        full.simulation(PRETRAINING, draw)


def test_quick_changes_sizes_alone(full):
    quick = read_spec(quick=True)
    assert sum(quick.scans.values()) < 30
    sizes = {name: getattr(full.recordings, name) for name in ("scan_seconds", "image_size")}
    assert replace(quick.recordings, **sizes) == full.recordings
    for name in ("planes", "plane_clips", "gaze", "ceiling"):
        frame_size = getattr(full, name).frame_size
        assert replace(getattr(quick, name), frame_size=frame_size) == getattr(full, name)
    for config in CLIP_CONFIG_SECONDS:
        assert replace(quick.clips[config], frame_size=full.clips[config].frame_size) == full.clips[config]
    assert quick.draws == full.draws


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("seeds",), [1], "must have the sections draws, scans, .* and no other"),
        (("draws",), 3, "draws must be a list of seeds"),
        (("draws",), [], "draws must be seeds of 0 or more"),
        (("draws",), [1, 1], "none twice"),
        (("draws",), [1, -2], "draws must be seeds of 0 or more"),
        (("draws",), [1.5], "draws must be seeds of 0 or more"),
        (("scans",), None, "scans must be a section of fields"),
        (
            ("scans", "test"),
            5,
            "scans must be a number for each of pretraining, validation, labelled, ceiling",
        ),
        (("scans", VALIDATION), 1, "scans.validation must be a number from 2 on"),
        (("scans", LABELLED), "many", "scans.labelled must be a number from 2 on"),
        (("recordings", "image_sise"), 64, r"recordings\.image_sise must be one of the fields scans, seed"),
        (("recordings", "image_size"), "64", r"recordings\.image_size must be of type int; it is '64'"),
        (("recordings", "image_size"), 33, r"recordings: .*image_size is 33; give an even number"),
        (("recordings", "frames_per_second"), True, "frames_per_second must be of type int"),
        (("recordings", "hold_seconds"), [4.0], r"hold_seconds must be of type tuple\[float, float\]"),
        (("recordings", "seed"), 3, r"recordings\.seed must be left out"),
        (("recordings", "repeat_share"), 0.1, "the two scans of a patient could fall into two parts"),
        (("recordings", "scan_seconds"), 5, r"scan_seconds must be 6 or more, the length of a clip"),
        (("speech", "mumbling"), 0.1, r"speech\.mumbling must be one of the fields relevant_share"),
        (("speech", "chat_share"), 0.9, "speech: .* add up to"),
        (("speech", "voice_group"), "seen", r"speech\.voice_group must be left out"),
        (("speech", "wording_group"), "loud", r"speech\.wording_group must be of type"),
        (("speech", "room"), {"noise": 1}, r"speech\.room must be of type"),
        (("speech",), {"relevant_share": 0, "wrong_share": 0, "chat_share": 0.0}, "something is said"),
        (("clips", "huge"), {}, "clips must be large and medium"),
        (("clips", "large"), None, r"clips\.large must be a section of fields"),
        (("clips", "large", "clip_seconds"), 3.0, r"clips\.large\.clip_seconds must be 2"),
        (("clips", "medium", "frames"), 3, r"clips\.medium\.frames must be one of the fields"),
        (("planes", "clip_seconds"), 2.0, r"planes\.clip_seconds must be left out"),
        (("plane_clips", "clip_seconds"), None, r"plane_clips\.clip_seconds must be given"),
        (("planes", "validation_fraction"), 0.2, r"planes\.validation_fraction must be 0"),
        (("plane_clips", "validation_fraction"), 0.2, r"plane_clips\.validation_fraction must be 0"),
        (("gaze", "validation_fraction"), 0.2, r"gaze\.validation_fraction must be 0"),
        (("gaze", "window_seconds"), 0, "gaze: window_seconds is 0"),
        (("ceiling", "validation_fraction"), 0.0, r"ceiling\.validation_fraction must be more than 0"),
        (("quick",), None, "quick must be a section of fields"),
        (("quick", "scan"), {}, r"quick\.scan must be one of the sections"),
        (("quick", "planes", "frame_sise"), 32, r"planes\.frame_sise must be one of the fields"),
    ],
)
def test_a_mistake_is_refused_with_a_sentence(path, value, sentence, tmp_path):
    file = edited(tmp_path, *path, value=value)
    with pytest.raises(BenchmarkError, match=sentence) as error:
        read_spec(file)
    assert str(file) in str(error.value)


def leave_out_a_section(file: Path) -> None:
    sections = yaml.safe_load(BENCHMARK_FILE.read_text(encoding="utf-8"))
    del sections["gaze"]
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: None, "cannot be read: No such file"),
        (lambda file: file.write_text("draws: [1"), "is not valid YAML"),
        (lambda file: file.write_text("- 1\n"), "must have the sections"),
        (leave_out_a_section, "must have the sections"),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused(write: Callable[[Path], Any], sentence, tmp_path):
    file = tmp_path / "own.yaml"
    write(file)
    with pytest.raises(BenchmarkError, match=sentence):
        read_spec(file)


def test_a_file_of_one_s_own_is_read(tmp_path):
    assert read_spec(edited(tmp_path, "scans", PRETRAINING, value=7)).scans[PRETRAINING] == 7
    assert read_spec(edited(tmp_path, "speech", "room", value=None)).recordings.speech.room is None
    assert read_spec(edited(tmp_path, "recordings", "scan_seconds", value=90)).recordings.scan_seconds == 90
