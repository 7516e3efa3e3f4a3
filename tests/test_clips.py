"""The sound of clips as files give it: the speech in it, its loudness, its faults."""

import io
import math
import tracemalloc
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from sound_helpers import at_level, hum, music, silence, speech, white_noise
from tiny_recordings import even_times, write_video

from datasets_scripts.clip_sound import measure_sound
from datasets_scripts.clips import ClipParameters, cut_clips, encode_flac
from datasets_scripts.loudness import LoudnessMeter
from datasets_scripts.media_streams import SoundWindows
from datasets_scripts.prepare_clips import main, prepare_clips
from datasets_scripts.recording_errors import DamagedError
from datasets_scripts.recordings import Recording, RecordingFiles, open_recording
from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.shards import read_info

SMALL = {"clip_seconds": 2.0, "frames_per_clip": 4, "frame_size": 32}
AS_COMMAND = ClipParameters(**SMALL, speech_detector="silero", loudness_lufs=-23.0)


def write_scan(folder: Path, sound: np.ndarray, seconds: float | None = None) -> Path:
    """A video with its sound as float samples beside it, so that nothing is lost on the way."""
    seconds = len(sound) / SAMPLING_RATE_HZ if seconds is None else seconds
    write_video(folder / "scan.mp4", even_times(seconds, 10))
    soundfile.write(folder / "audio.wav", sound.astype(np.float32), SAMPLING_RATE_HZ, subtype="FLOAT")
    return folder


def opened(folder: Path) -> Recording:
    return open_recording(RecordingFiles("scan", folder / "scan.mp4", folder / "audio.wav"))


def cut(folder: Path, parameters: ClipParameters = AS_COMMAND) -> tuple[list[dict], Counter[str]]:
    counts = Counter()
    return list(cut_clips(opened(folder), "scan", parameters, counts)), counts


def waveform(row: dict) -> np.ndarray:
    return soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]


def loudness_of(sound: np.ndarray) -> float:
    meter = LoudnessMeter()
    meter.hear(sound)
    return meter.integrated_lufs()


def test_by_default_the_sound_is_the_recorded_one(tmp_path):
    """The sets of the benchmark were made so, and their bytes stay."""
    sound = at_level(np.concatenate([speech(2), hum(2), music(2)]), -30)
    folder = write_scan(tmp_path, sound)
    rows, _ = cut(folder, ClipParameters(**SMALL))
    recorded = opened(folder).sound()
    assert [row["audio"]["bytes"] for row in rows] == [
        encode_flac(recorded.window(2.0 * number, 2.0)) for number in range(3)
    ]
    assert rows[0]["speech_fraction"] > 0
    assert rows[2]["speech_fraction"] > 0.2  # music, which the estimate by energy takes for speech


def test_the_speech_of_each_clip_is_that_of_the_whole_recording(tmp_path):
    sound = np.concatenate([hum(2), speech(2), music(2), speech(1), silence(1)]) + 0.1 * hum(8)
    rows, _ = cut(write_scan(tmp_path, at_level(sound, -28)))
    shares = [row["speech_fraction"] for row in rows]
    assert shares == pytest.approx([0, 0.96, 0.06, 0.5], abs=0.08)


def test_clips_are_chosen_by_their_speech_and_not_by_their_music(tmp_path):
    for name, parts in (("a", [speech, music, speech, hum]), ("b", [music, hum, music, hum])):
        sound = np.concatenate([part(2) for part in parts]) + 0.05 * white_noise(8)
        write_scan(tmp_path / "in" / name, at_level(sound, -28))
    parameters = ClipParameters(**SMALL, minimum_speech_fraction=0.5, speech_detector="silero")
    report = prepare_clips(tmp_path / "in", tmp_path / "set", parameters, workers=1)
    outcomes = {outcome.name: outcome for outcome in report.recordings}
    assert (outcomes["a"].rows, outcomes["a"].counts["clips_below_speech"]) == (2, 2)
    assert outcomes["b"].error == "NothingKeptError"


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """The sound of all clips of one talk, recorded at a level."""
    sound = np.concatenate([speech(3), 0.01 * white_noise(1), speech(2)])

    @cache
    def sound_of_clips(level_db: float) -> np.ndarray:
        rows, _ = cut(write_scan(tmp_path_factory.mktemp("talk"), at_level(sound, level_db)))
        return np.concatenate([waveform(row) for row in rows])

    return sound_of_clips


@given(st.floats(-50, 0))
@settings(max_examples=8, deadline=None)
def test_talk_recorded_at_any_level_becomes_the_same(normalised, level_db):
    """To within two steps of 16 bit."""
    np.testing.assert_allclose(normalised(level_db), normalised(-30), atol=2**-14)
    assert loudness_of(normalised(-30)) == pytest.approx(-23, abs=0.4)  # pauses in the speech count here


def test_no_talk_is_made_more_than_30_db_louder(normalised):
    gain_db = 20 * math.log10(np.linalg.norm(normalised(-70)) / np.linalg.norm(normalised(-30)))
    assert gain_db == pytest.approx(-70 + 30 + 23, abs=0.4)


def test_the_speech_is_brought_to_the_loudness_and_not_the_music(tmp_path):
    sound = np.concatenate([at_level(music(4), -20), at_level(speech(4), -40)])
    rows, _ = cut(write_scan(tmp_path, sound))
    assert loudness_of(np.concatenate([waveform(row) for row in rows[2:]])) < -23
    peaks = resample_poly(np.concatenate([waveform(row) for row in rows]), 4, 1)
    assert np.abs(peaks).max() == pytest.approx(
        10 ** (-1 / 20), abs=0.01
    )  # all that the music leaves room for


def test_a_silent_track_stays_silent_and_hum_is_not_made_louder(tmp_path):
    rows, counts = cut(write_scan(tmp_path / "silent", silence(4)))
    assert all(not waveform(row).any() and row["speech_fraction"] == 0 for row in rows)
    assert counts["silent_tracks"] == 1
    quiet = at_level(hum(4), -50)
    rows, _ = cut(write_scan(tmp_path / "hum", quiet))
    np.testing.assert_allclose(waveform(rows[0]), quiet[: 2 * SAMPLING_RATE_HZ], atol=2**-15)


def test_what_is_no_number_is_silence_in_the_rows_and_counted(tmp_path):
    sound = at_level(speech(4), -25)
    sound[40_000:40_010], sound[50_000], sound[60_000] = np.nan, np.inf, -np.inf
    rows, counts = cut(write_scan(tmp_path, sound))
    heard = np.concatenate([waveform(row) for row in rows])
    assert counts["nonfinite_samples"] == 12
    assert not heard[40_000:40_010].any() and not heard[[50_000, 60_000]].any()
    assert loudness_of(heard) == pytest.approx(-23, abs=0.3)
    assert rows[0]["speech_fraction"] > 0.8


def test_faults_of_the_sound_are_counted(tmp_path):
    talk = at_level(speech(6), -25)
    sound = np.concatenate([silence(1.5), np.clip(30 * talk[:64_000], -1, 1), silence(1.2), talk[:32_000]])
    _, counts = cut(write_scan(tmp_path, sound, seconds=8.4))
    assert counts["sound_begins_late_ms"] == pytest.approx(1500, abs=30)
    assert (counts["sound_gaps"], counts["sound_gaps_ms"]) == (1, pytest.approx(1200, abs=30))
    assert counts["sound_ends_early_ms"] == pytest.approx(8400 - 5700, abs=501)  # the frames are 0.5 s apart
    assert counts["clipped_samples"] == pytest.approx(np.sum(np.abs(30 * talk[:64_000]) >= 1), rel=0.1)
    assert cut(write_scan(tmp_path / "good", talk))[1] == {"sound_ms": 6000}


def test_a_track_of_the_video_that_starts_late_is_on_its_clock(tmp_path):
    sound = at_level(resample_poly(speech(4), 3, 2), -30)
    path = write_video(tmp_path / "scan.mp4", even_times(8, 10), sound=sound, sound_start_s=3.0)
    counts = Counter()
    rows = list(cut_clips(open_recording(RecordingFiles("scan", path)), "scan", AS_COMMAND, counts))
    assert [row["speech_fraction"] for row in rows] == pytest.approx([0, 0.47, 0.96, 0.5], abs=0.08)
    assert counts["sound_begins_late_ms"] == pytest.approx(3000, abs=60)


def test_the_command_takes_silero_and_minus_23_and_says_so(tmp_path, capsys):
    write_scan(tmp_path / "in" / "a", at_level(speech(4), -40))
    command = [str(tmp_path / "in"), str(tmp_path / "set"), "--clip-seconds", "2", "--sector", "whole"]
    assert main([*command, "--frame-size", "32", "--workers", "1"]) == 0
    info = read_info(tmp_path / "set", "large")
    assert (info["speech_detector"], info["loudness_lufs"]) == ("silero", -23.0)
    assert main([*command, "--overwrite", "--speech-detector", "webrtc"]) == 2
    assert "speech_detector is webrtc; it must be loudness or silero." in capsys.readouterr().err
    assert main([*command, "--overwrite", "--loudness-lufs", "-3"]) == 2
    assert "loudness_lufs is -3.0; it must be -50 to -5." in capsys.readouterr().err


def recording_of(chunks) -> SimpleNamespace:
    """A recording that is nothing but its sound."""
    return SimpleNamespace(
        name="scan",
        has_sound=True,
        sound=lambda: SoundWindows(iter(chunks), SAMPLING_RATE_HZ),
        sound_chunks=lambda: iter(chunks),
    )


def test_a_long_recording_is_measured_in_little_memory():
    """Ten minutes are 77 MB of samples."""
    piece = at_level(speech(1), -25)
    chunks = [(number * SAMPLING_RATE_HZ, piece) for number in range(600)]
    measure_sound(recording_of(chunks[:1]), "silero", -23.0)  # imports and the model
    tracemalloc.start()
    measures = measure_sound(recording_of(chunks), "silero", -23.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert measures.speech.share(0.0, 600.0) > 0.7
    assert peak_bytes < 30e6


def test_chunks_before_the_first_frame_and_chunks_that_overlap_are_heard_once():
    second = SAMPLING_RATE_HZ
    noise = at_level(white_noise(1), -30)
    starts = (-second // 2, second // 4, second // 2)
    chunks = [(start, noise) for start in starts] + [
        (second // 2, noise[:100]),
        (second, noise[: second // 2]),
    ]
    counts = measure_sound(recording_of(chunks), "loudness", None).faults.counts(1.5)
    assert counts == {"sound_ms": 1500}


def test_sound_that_leaps_by_days_is_damaged():
    chunks = [(0, silence(1)), (48 * 3600 * SAMPLING_RATE_HZ, silence(1))]
    with pytest.raises(DamagedError, match="leaps by 48 hours"):
        measure_sound(recording_of(chunks), "loudness", None)
