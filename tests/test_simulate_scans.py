"""Simulated recordings as files: repeatable, in time, and apart in what they were drawn from."""

import csv
import json
from concurrent.futures import Future
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from PIL import Image

from datasets_scripts import simulate_scans as module
from datasets_scripts.recordings import find_recordings, open_recording
from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulate_scans import (
    SimulationError,
    SimulationParameters,
    main,
    simulate_scan,
    simulate_scans,
)
from datasets_scripts.simulated_gaze import SAMPLING_RATE_HZ as GAZE_RATE_HZ
from datasets_scripts.simulated_speech import SAMPLING_RATE_HZ, SpeechParameters
from datasets_scripts.simulation_preview import LABEL_HEIGHT, TILE

SPEECH = SpeechParameters(relevant_share=1.0, wrong_share=0.0, chat_share=0.0, room=None)
TINY = SimulationParameters(
    scans=3,
    scan_seconds=5.0,
    image_size=64,
    frames_per_second=10,
    hold_seconds=(1.1, 1.4),
    search_seconds=(0.3, 0.5),
    repeat_share=0.5,
    speech=SPEECH,
)
DRAWN_FILES = ("scan.mp4", "planes.csv", "gaze.csv", "remarks.csv")


class InThisProcess:
    """Stands in for a pool of processes, each of which takes seconds to start."""

    shut_down: ClassVar[list[bool]] = []

    def __init__(self, workers: int, context: object) -> None:
        self.shut_down.clear()

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        self.shut_down.append(cancel_futures)


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    monkeypatch.setattr(module, "ProcessPoolExecutor", InThisProcess)


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ProcessPoolExecutor", InThisProcess)
        return simulate_scans(tmp_path_factory.mktemp("recordings"), TINY)


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def about(folder: Path) -> dict:
    return json.loads((folder / "scan.json").read_text(encoding="utf-8"))


def packets(file: Path, kind: str) -> list[bytes]:
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0})]


def decoded_sound(file: Path) -> np.ndarray:
    """Samples by their time stamps, the first at time 0."""
    with av.open(str(file)) as container:
        frames = list(container.decode(audio=0))
    waveform = np.zeros(round(10 * TINY.scan_seconds * SAMPLING_RATE_HZ), dtype=np.float32)
    for frame in frames:
        first = round(frame.time * SAMPLING_RATE_HZ)
        samples = frame.to_ndarray()[0][max(0, -first) :]
        waveform[max(0, first) :][: len(samples)] = samples
    return waveform[: round(frames[-1].time * SAMPLING_RATE_HZ) + frames[-1].samples]


def assert_same_scan(one: Path, other: Path) -> None:
    for name in DRAWN_FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for key in ("patient_id", "index"):
        assert about(one)[key] == about(other)[key]


def test_other_workers_another_subset_and_more_scans_change_no_scan(scans, tmp_path):
    """Real processes, two of them, that write two of five scans, the later first."""
    folders = simulate_scans(tmp_path, replace(TINY, scans=5), indices=[2, 0], workers=2)
    assert [folder.name for folder in folders] == ["scan_00000", "scan_00002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan_00000", "scan_00002"]
    for folder, expected in zip(folders, (scans[0], scans[2]), strict=True):
        assert_same_scan(folder, expected)


def test_another_seed_gives_other_scans_and_no_two_scans_are_alike(scans, tmp_path):
    other = simulate_scan(tmp_path, replace(TINY, seed=1), 0, 0)
    for name in DRAWN_FILES:
        contents = {(folder / name).read_bytes() for folder in [*scans, other]}
        assert len(contents) == len(scans) + 1, name


def test_every_stream_of_every_scan_is_drawn_apart():
    draws = [
        stream.random() for seed in range(3) for index in range(20) for stream in module._streams(seed, index)
    ]
    draws += [module._generator(seed, 1, patient).random() for seed in range(3) for patient in range(20)]
    assert len(set(draws)) == len(draws)


def test_no_two_parts_of_a_scan_share_a_generator(tmp_path, monkeypatch):
    used: list[np.random.Generator] = []

    def watched(function):
        def call(*arguments):
            used.extend(each for each in arguments if isinstance(each, np.random.Generator))
            return function(*arguments)

        return call

    parts = ("plan_visits", "draw_style", "Renderer", "draw_patient", "holds_of", "ProbePath", "narrate")
    for name in (*parts, "simulate_gaze"):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    simulate_scan(tmp_path, replace(TINY, scan_seconds=1.0), 0, 0)
    states = {str(generator.bit_generator.seed_seq.spawn_key) for generator in used}
    assert len(states) == len(used) == len(parts) + 2  # the narration has one for voice and one for words


def test_some_patients_come_twice_in_a_row(scans):
    numbers = module._patient_numbers(replace(TINY, scans=400, repeat_share=0.2))
    repeats = sum(earlier == later for earlier, later in pairwise(numbers))
    assert repeats / 400 == pytest.approx(0.2, abs=0.06)
    assert numbers == sorted(numbers)
    assert numbers[:100] == module._patient_numbers(replace(TINY, scans=100, repeat_share=0.2))
    assert len(set(module._patient_numbers(replace(TINY, scans=50, repeat_share=0.0)))) == 50
    assert [about(folder)["patient_id"] for folder in scans] == [
        f"patient_{number:05d}" for number in module._patient_numbers(TINY)
    ]


def test_other_shares_of_speech_change_the_words_alone(scans, tmp_path):
    wrong = replace(SPEECH, relevant_share=0.0, wrong_share=1.0)
    other = simulate_scan(tmp_path, replace(TINY, speech=wrong), 0, 0)
    for name in ("planes.csv", "gaze.csv"):
        assert (other / name).read_bytes() == (scans[0] / name).read_bytes()
    assert packets(other / "scan.mp4", "video") == packets(scans[0] / "scan.mp4", "video")
    said, changed = table(scans[0] / "remarks.csv"), table(other / "remarks.csv")
    assert len(said) == len(changed) > 1
    for remark, replaced in zip(said, changed, strict=True):
        assert (remark["kind"], replaced["kind"]) == ("plane", "wrong")
        assert remark["start_s"] == replaced["start_s"]
        assert remark["label"] != replaced["label"]


def test_sound_and_gaze_do_not_depend_on_how_pictures_are_taken(scans, tmp_path):
    other = simulate_scan(tmp_path, replace(TINY, image_size=32, frames_per_second=2), 0, 0)
    for name in ("planes.csv", "gaze.csv", "remarks.csv"):
        assert (other / name).read_bytes() == (scans[0] / name).read_bytes()
    assert packets(other / "scan.mp4", "audio") == packets(scans[0] / "scan.mp4", "audio")


def test_the_voice_is_drawn_independently_of_the_look(scans, tmp_path, monkeypatch):
    """Whatever else is drawn for look, patient and hand, voice and words stay the same."""

    def unlike(function):
        def drawn(*arguments):
            arguments[-1].random(1000)
            return function(*arguments)

        return drawn

    for name in ("draw_style", "draw_patient", "holds_of", "ProbePath"):
        monkeypatch.setattr(module, name, unlike(getattr(module, name)))
    other = simulate_scan(tmp_path, TINY, 0, 0)
    assert (other / "remarks.csv").read_bytes() == (scans[0] / "remarks.csv").read_bytes()
    assert packets(other / "scan.mp4", "audio") == packets(scans[0] / "scan.mp4", "audio")
    assert packets(other / "scan.mp4", "video") != packets(scans[0] / "scan.mp4", "video")


def test_by_default_a_file_is_h264_at_30_frames_a_second_with_aac(tmp_path):
    folder = simulate_scan(tmp_path, SimulationParameters(scan_seconds=1.0), 0, 0)
    with av.open(str(folder / "scan.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (128, 128)
        assert video.average_rate == 30
        assert (audio.rate, audio.channels) == (SAMPLING_RATE_HZ, 1)
        frames = list(container.decode(video=0))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 30, atol=1e-6)
    assert len({frame.to_ndarray(format="gray").tobytes() for frame in frames}) == 30


def test_picture_and_sound_last_as_long_as_the_scan(scans):
    for folder in scans:
        with av.open(str(folder / "scan.mp4")) as container:
            for stream in (container.streams.video[0], container.streams.audio[0]):
                seconds = float(stream.duration * stream.time_base)
                assert seconds == pytest.approx(TINY.scan_seconds, abs=1024 / SAMPLING_RATE_HZ + 0.01)
        # AAC fills its last block of 1024 samples.
        lacking = len(decoded_sound(folder / "scan.mp4")) - TINY.scan_seconds * SAMPLING_RATE_HZ
        assert 0 <= lacking <= 1024


def test_the_sound_is_in_time_with_the_remarks(scans):
    """From the bare voice in the decoded file: it sets in within 20 ms of each remark's start."""
    remarks_count = 0
    for folder in scans:
        waveform = decoded_sound(folder / "scan.mp4")
        block = SAMPLING_RATE_HZ // 500
        blocks = waveform[: len(waveform) // block * block].reshape(-1, block)
        loud = np.sqrt((blocks**2).mean(axis=1)) > 10 ** (-50 / 20)
        times_s = np.arange(len(blocks)) * block / SAMPLING_RATE_HZ
        for remark in table(folder / "remarks.csv"):
            start_s, end_s = float(remark["start_s"]), float(remark["end_s"])
            near = loud & (times_s > start_s - 0.15) & (times_s < end_s)
            assert times_s[near][0] == pytest.approx(start_s, abs=0.02)
            remarks_count += 1
    assert remarks_count > 3


def test_the_sound_in_the_file_lies_where_the_narration_put_it(tmp_path, monkeypatch):
    narrations = []
    narrate = module.narrate
    monkeypatch.setattr(
        module, "narrate", lambda *given: narrations.append(narrate(*given)) or narrations[-1]
    )
    folder = simulate_scan(tmp_path, replace(TINY, image_size=32, frames_per_second=2), 1, 0)
    said, heard = narrations[0].waveform, decoded_sound(folder / "scan.mp4")[: len(narrations[0].waveform)]
    correlation = np.fft.irfft(np.fft.rfft(heard, 2 * len(said)) * np.fft.rfft(said, 2 * len(said)).conj())
    lag = int(correlation.argmax())
    assert min(lag, 2 * len(said) - lag) < 0.002 * SAMPLING_RATE_HZ
    assert np.abs(heard - said).std() < 0.2 * said.std()


def test_planes_lie_in_the_scan_in_order_without_overlap(scans):
    for folder in scans:
        rows = table(folder / "planes.csv")
        times = [float(row[name]) for row in rows for name in ("start_s", "end_s")]
        assert len(rows) >= 2
        assert times == sorted(set(times))
        assert times[0] > 0
        assert times[-1] <= TINY.scan_seconds
        assert {row["label"] for row in rows} <= set(PLANES) - {BACKGROUND}
        held = {row["label"] for row in rows}
        assert {remark["label"] for remark in table(folder / "remarks.csv")} <= held


def test_gaze_is_on_the_screen_at_the_tracker_s_rate(scans):
    for folder in scans:
        samples = np.array([[float(value) for value in row.values()] for row in table(folder / "gaze.csv")])
        times_s, places = samples[:, 0], samples[:, 1:]
        assert np.all((times_s >= 0) & (times_s < TINY.scan_seconds))
        assert np.median(np.diff(times_s)) == pytest.approx(1 / GAZE_RATE_HZ, abs=1e-4)
        assert np.all((places >= 0) & (places <= 1))
        assert len(samples) > 0.8 * TINY.scan_seconds * GAZE_RATE_HZ


def test_the_project_reads_what_it_wrote(scans):
    found = find_recordings(scans[0].parent)
    assert [files.name for files in found] == [folder.name for folder in scans]
    recording = open_recording(found[0])
    frames = list(recording.frames())
    assert len(frames) == TINY.scan_seconds * TINY.frames_per_second
    remark = table(scans[0] / "remarks.csv")[0]
    start_s, seconds = float(remark["start_s"]), float(remark["end_s"]) - float(remark["start_s"])
    said = recording.sound().window(start_s, seconds)
    quiet = recording.sound().window(0.0, start_s - 0.05)
    assert said.std() > 30 * quiet.std()


def test_pictures_keep_their_greys_in_the_file(tmp_path):
    greys = [0, 60, 128, 200, 255]
    pictures = (np.full((64, 64), grey, np.uint8) for grey in greys)
    silence = module.Narration(np.zeros(SAMPLING_RATE_HZ // 2, np.float32), SAMPLING_RATE_HZ, [])
    module.write_recording(tmp_path / "scan.mp4", pictures, TINY, silence)
    with av.open(str(tmp_path / "scan.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for grey, picture in zip(greys, decoded, strict=True):
        np.testing.assert_allclose(picture, grey, atol=3)


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SimulationError, match="not empty"):
        simulate_scans(tmp_path, TINY)
    with pytest.raises(SimulationError, match=r"notes\.txt is a file"):
        simulate_scans(tmp_path / "notes.txt", TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("indices", [[3], [-1], [0, 0]])
def test_indices_that_are_none_of_the_scans_are_refused(indices, tmp_path):
    with pytest.raises(SimulationError, match="from 0 to 2"):
        simulate_scans(tmp_path / "new", TINY, indices)
    assert not (tmp_path / "new").exists()


def test_a_scan_that_fails_leaves_no_recording_behind(tmp_path, monkeypatch, in_this_process):
    def fails(*_):
        raise RuntimeError("out of breath")

    monkeypatch.setattr(module, "simulate_gaze", fails)
    with pytest.raises(RuntimeError, match="out of breath"):
        simulate_scans(tmp_path, replace(TINY, scans=1, scan_seconds=1.0))
    assert find_recordings(tmp_path) == []
    assert InThisProcess.shut_down == [True]  # what had not begun yet is left alone


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scans", 0),
        ("seed", -1),
        ("scan_seconds", 0.5),
        ("scan_seconds", float("nan")),
        ("image_size", 65),
        ("image_size", 16),
        ("frames_per_second", 0),
        ("hold_seconds", (2.0, 1.0)),
        ("hold_seconds", (0.0, 1.0)),
        ("search_seconds", (-1.0, 1.0)),
        ("repeat_share", 1.0),
    ],
)
def test_impossible_parameters_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"SimulationParameters\.{name} is .*; give "):
        SimulationParameters(**{name: value})


TINY_FLAGS = ["--scan-seconds", "2", "--image-size", "32", "--hold-seconds", "0.4", "0.6"]


def test_the_command_writes_scans_and_a_sheet(tmp_path, capsys, in_this_process):
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    status = main([str(out), "--scans", "2", "--seed", "4", "--preview", str(sheet), *TINY_FLAGS])
    assert status == 0
    assert f"2 scans of 2 s lie in {out}." in capsys.readouterr().out
    assert sorted(folder.name for folder in out.iterdir()) == ["scan_00000", "scan_00001"]
    simulation = about(out / "scan_00000")["simulation"]
    assert (simulation["seed"], simulation["hold_seconds"]) == (4, [0.4, 0.6])
    assert Image.open(sheet).size == (len(PLANES) * TILE, LABEL_HEIGHT + 2 * TILE)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--scans", "0"], "SimulationParameters.scans is 0"),
        (["--wrong-share", "2"], "SpeechParameters.wrong_share is 2"),
        (["--voice-group", "loud"], "SpeechParameters.voice_group is 'loud'"),
        (["--workers", "0"], "workers is 0: give 1 or more"),
        (["--preview", "sheet.txt"], "--preview is sheet.txt: give a name that ends in .png"),
    ],
)
def test_the_command_refuses_with_a_sentence_before_it_writes(flags, sentence, tmp_path, capsys):
    assert main([str(tmp_path / "out"), *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_tells_of_a_full_folder_and_a_missing_synthesiser(
    tmp_path, capsys, monkeypatch, in_this_process
):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(tmp_path)]) == 2
    assert "is not empty: give another" in capsys.readouterr().err

    def missing(*_):
        raise ImportError("espeakng-loader is not installed.")

    monkeypatch.setattr(module, "narrate", missing)
    assert main([str(tmp_path / "new"), "--scans", "1", *TINY_FLAGS]) == 2
    assert "espeakng-loader is not installed." in capsys.readouterr().err


def test_the_help_says_what_each_option_is(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    options = " ".join(capsys.readouterr().out.split())
    assert "how many scans. Default: 8." in options
    for cls in (SimulationParameters, SpeechParameters):
        for each in fields(cls):
            if each.name not in ("speech", "room"):
                assert f"--{each.name.replace('_', '-')} " in options
                assert len(module._meanings(cls)[each.name]) > 10
