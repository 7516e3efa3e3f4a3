"""How much later a sound file starts than the sound track, found from what both of them hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter
from tiny_recordings import even_times, write_video

from datasets_scripts import recording_errors as errors
from datasets_scripts.recordings import RecordingFiles, open_recording
from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.sound_offset import MEASURING_RATE_HZ, MOST_SECONDS, measured_offset_s

TRACK_HZ = 48_000


def speech_like(seconds: float, rate_hz: int, seed: int = 0) -> np.ndarray:
    """(samples,) noise of a voice's band that comes and goes with syllables and pauses."""
    generator = np.random.default_rng(seed)
    samples = round(seconds * rate_hz)
    noise = lfilter([1.0], [1.0, -1.6, 0.8], generator.standard_normal(samples))
    levels = np.interp(
        np.arange(samples) / rate_hz, np.arange(0, seconds + 1, 0.15), _levels(generator, seconds)
    )
    return (0.05 * noise * levels).astype(np.float32)


def _levels(generator: np.random.Generator, seconds: float) -> np.ndarray:
    return np.maximum(generator.uniform(-0.5, 1, len(np.arange(0, seconds + 1, 0.15))), 0)


def chunks(sound: np.ndarray, first: int = 0, length: int = 1000):
    for begin in range(0, len(sound), length):
        yield first + begin, sound[begin : begin + length]


@pytest.mark.parametrize("offset_s", [-2.75, -0.004, 0.0, 0.01, 1.2345, 9.0])
def test_the_same_sound_through_another_microphone_is_found(offset_s):
    rate = MEASURING_RATE_HZ
    whole, generator = speech_like(30, rate), np.random.default_rng(1)
    begin = round(10 * rate)
    track = whole[begin : begin + 15 * rate] + 0.01 * generator.standard_normal(15 * rate).astype(np.float32)
    # A duller microphone, at another level, with noise of its own.
    other = lfilter([0.3, 0.2, 0.1], [1.0], whole)[begin + round(offset_s * rate) :][: 12 * rate]
    other = other + 0.01 * generator.standard_normal(len(other))
    found_s = measured_offset_s(chunks(track), chunks(other.astype(np.float32)), "x")
    assert found_s == pytest.approx(offset_s, abs=0.002)


def test_tracks_that_start_before_or_after_the_video_are_placed_by_their_index():
    rate, whole = MEASURING_RATE_HZ, speech_like(10, MEASURING_RATE_HZ)
    for first in (-2 * rate, 3 * rate):
        offset_s = measured_offset_s(chunks(whole, first), chunks(whole), "x")
        assert offset_s == pytest.approx(first / rate, abs=0.001)


def test_a_gap_in_the_track_is_no_shift():
    rate, whole = MEASURING_RATE_HZ, speech_like(10, MEASURING_RATE_HZ)
    with_gap = (chunk for chunk in chunks(whole) if not 2 * rate < chunk[0] < 4 * rate)
    assert measured_offset_s(with_gap, chunks(whole[rate:]), "x") == pytest.approx(1.0, abs=0.001)


def test_no_more_than_the_first_minutes_are_read():
    rate, read = MEASURING_RATE_HZ, []
    whole = speech_like(30, rate)

    def endless():
        for index, samples in chunks(whole):
            yield index, samples
        while True:
            read.append(1)
            yield index + len(read) * MOST_SECONDS * rate // 100, np.zeros(8, dtype=np.float32)

    assert measured_offset_s(endless(), chunks(whole[: 20 * rate]), "x") is not None
    assert len(read) < 200


@pytest.mark.parametrize("case", ["unrelated", "silent", "empty", "tone", "repeated"])
def test_sounds_that_do_not_agree_at_one_place_are_refused(case):
    rate = MEASURING_RATE_HZ
    track = speech_like(15, rate)
    tone = np.sin(2 * np.pi * 440 * np.arange(15 * rate) / rate).astype(np.float32)
    phrase = speech_like(3, rate)
    first, second = {
        "unrelated": (track, speech_like(15, rate, seed=2)),
        "silent": (track, np.zeros_like(track)),
        "empty": (track, track[:0]),
        "tone": (tone, tone),
        "repeated": (np.tile(phrase, 5), phrase),
    }[case]
    with pytest.raises(errors.SidecarError, match=r"x: its sound offset cannot be measured"):
        measured_offset_s(chunks(first), chunks(second), "x")


@pytest.fixture()
def scan(tmp_path) -> Path:
    """A video whose track holds a sound, and a file with the same sound from 0.8 s on, at another rate."""
    sound = speech_like(12, TRACK_HZ)
    write_video(tmp_path / "scan.mp4", even_times(12, 10, 5.0), None, sound, sound_start_s=5.0)
    later = sound[round(0.8 * TRACK_HZ) :: 3]
    soundfile.write(tmp_path / "audio.flac", np.stack([later, later], axis=1) * 3, TRACK_HZ // 3)
    (tmp_path / "scan.json").write_text(json.dumps({"sound_offset_s": "measured"}))
    return tmp_path


def opened(scan: Path, sound: str | None = "audio.flac"):
    path = None if sound is None else scan / sound
    return open_recording(RecordingFiles("scan", scan / "scan.mp4", sound=path, notes=scan / "scan.json"))


def test_a_sound_file_is_laid_upon_the_track_it_agrees_with(scan):
    recording = opened(scan)
    assert recording.sound_offset_s == pytest.approx(0.8, abs=0.005)
    from_file = recording.sound().window(2.0, 4.0)
    (scan / "scan.json").write_text("{}")
    from_track = opened(scan, None).sound().window(2.0, 4.0)
    lags = range(-400, 401)
    agreement = [np.dot(from_track[1000:-1000], np.roll(from_file, lag)[1000:-1000]) for lag in lags]
    assert abs(lags[int(np.argmax(agreement))]) / SAMPLING_RATE_HZ < 0.005


def test_an_offset_cannot_be_measured_against_nothing(scan):
    for sound, video in (("audio.flac", "silent"), (None, "sounding")):
        if video == "silent":
            write_video(scan / "scan.mp4", even_times(1))
        else:
            write_video(scan / "scan.mp4", even_times(1), None, speech_like(1, TRACK_HZ))
        with pytest.raises(
            errors.SidecarError, match=r"scan: scan\.json: sound_offset_s can be measured only"
        ):
            opened(scan, sound).sound()
