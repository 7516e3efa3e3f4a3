"""The speech of a recording: what silero-vad takes for it, and where it puts it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from silero_vad import get_speech_timestamps, get_speech_timestamps_from_probs, load_silero_vad
from sound_helpers import at_level, doppler, hum, music, silence, speech, white_noise

from datasets_scripts.media_streams import sound_chunks
from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.speech_activity import (
    MODEL_RATE_HZ,
    WINDOW,
    SileroDetector,
    SpeechSegments,
    segments_by_probability,
)
from datasets_scripts.voices import draw_voice

NO_SPEECH = {"hum": hum, "music": music, "doppler": doppler, "white noise": white_noise, "silence": silence}


def segments_of(sound: np.ndarray, piece: int = 100_000) -> SpeechSegments:
    detector = SileroDetector()
    for start in range(0, len(sound), piece):
        detector.hear(sound[start : start + piece])
    return detector.segments()


def share_of(sound: np.ndarray) -> float:
    return float(segments_of(sound).share(0.0, len(sound) / SAMPLING_RATE_HZ))


@pytest.mark.parametrize("level_db", [-10, -30, -50])
@pytest.mark.parametrize("kind", NO_SPEECH)
def test_what_is_no_speech_is_not_taken_for_it(kind, level_db):
    assert share_of(at_level(NO_SPEECH[kind](6), level_db)) == 0


@pytest.mark.parametrize("level_db", [-15, -30, -45])
def test_the_voices_of_the_simulator_are_speech_at_any_loudness(level_db):
    voices = [draw_voice(np.random.default_rng(seed)) for seed in range(6)]
    assert len(set(voices)) > 4
    shares = [share_of(at_level(speech(6, voice), level_db)) for voice in voices]
    assert min(shares) > 0.85


@pytest.mark.parametrize(
    ("kind", "below_db"), [("hum", 0), ("white noise", 10), ("doppler", 10), ("music", 15)]
)
def test_speech_is_found_over_other_sounds_and_where_it_is(kind, below_db):
    background = at_level(NO_SPEECH[kind](9), -25 - below_db)
    talk = at_level(speech(3), -25)
    found = segments_of(background + np.concatenate([silence(3), talk, silence(3)]))
    assert found.share(3.0, 3.0) > 0.85
    assert found.share(0.0, 2.9) == 0
    assert found.share(6.3, 2.7) == 0


def test_segments_are_those_of_silero_itself():
    parts = [speech(2), 0.01 * white_noise(1.5), speech(1.3), silence(2), 0.1 * hum(1), speech(2.2)]
    sound = at_level(np.concatenate(parts), -25) + 1e-6  # no digital silence, about which it is not asked
    at_16_khz = torch.from_numpy(resample_poly(sound, 1, 2).astype(np.float32))
    expected = get_speech_timestamps(at_16_khz, load_silero_vad(onnx=True), sampling_rate=MODEL_RATE_HZ)
    assert len(expected) >= 3
    np.testing.assert_allclose(segments_of(sound).edges_s, edges_of(expected), atol=0.002)


def edges_of(segments: list[dict[str, int]]) -> list[float]:
    return [each[edge] / MODEL_RATE_HZ for each in segments for edge in ("start", "end")]


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.34, 0.4, 0.49, 0.5, 0.9]), st.integers(1, 12)), max_size=14),
    st.integers(1, WINDOW),
)
@settings(max_examples=300, deadline=None)
def test_probabilities_become_the_segments_of_silero(runs, samples_in_last_window):
    probabilities = [probability for probability, windows in runs for _ in range(windows)]
    length = max(0, (len(probabilities) - 1) * WINDOW + samples_in_last_window)
    expected = get_speech_timestamps_from_probs(probabilities, audio_length_samples=length)
    found = segments_by_probability(np.array(probabilities), length / MODEL_RATE_HZ)
    np.testing.assert_allclose(found.edges_s, edges_of(expected), atol=2 / MODEL_RATE_HZ)


@pytest.mark.parametrize("piece", [700, 31_999, 10**6])
def test_the_pieces_do_not_matter(piece):
    sound = at_level(np.concatenate([speech(2), 0.01 * white_noise(1), speech(1.5)]), -25)
    np.testing.assert_array_equal(segments_of(sound, piece).edges_s, segments_of(sound).edges_s)


def test_one_recording_leaves_no_trace_in_the_next():
    talk, other = at_level(speech(3), -25), at_level(music(3), -20)
    first = segments_of(talk)
    segments_of(other)
    np.testing.assert_array_equal(segments_of(talk).edges_s, first.edges_s)


def test_digital_silence_is_not_asked_about(monkeypatch):
    detector, asked = SileroDetector(), []
    ask = detector._ask
    monkeypatch.setattr(detector, "_ask", lambda windows: asked.append(len(windows)) or ask(windows))
    detector.hear(np.concatenate([at_level(speech(2), -25), silence(60), at_level(speech(2), -25)]))
    found = detector.segments()
    assert sum(asked) < 4.2 * MODEL_RATE_HZ / WINDOW
    assert found.share(0.0, 2.0) > 0.85
    assert found.share(62.0, 2.0) > 0.85
    assert found.share(3.0, 58.0) == 0


def test_nothing_heard_is_no_speech():
    assert segments_of(silence(0)).share(0.0, 6.0) == 0
    assert segments_of(silence(0.01)).share(0.0, 6.0) == 0


@given(st.lists(st.integers(0, 100), max_size=8, unique=True), st.integers(0, 100), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_share_is_that_of_the_overlaps(edges, start, length):
    edges = sorted(edges)[: len(edges) // 2 * 2]
    overlaps = [
        max(0, min(right, start + length) - max(left, start))
        for left, right in zip(edges[::2], edges[1::2], strict=True)
    ]
    share = SpeechSegments(np.array(edges, dtype=np.float64)).share(np.array([start, start]), length)
    np.testing.assert_allclose(share, sum(overlaps) / length, atol=1e-12)


def test_the_detector_does_without_torch():
    """It is half a gigabyte in each worker, of the one that a worker may take."""
    script = (
        "import sys; import numpy as np; import datasets_scripts.prepare_clips\n"
        "from datasets_scripts.speech_activity import SileroDetector\n"
        "detector = SileroDetector(); detector.hear(np.ones(64000, dtype=np.float32)); detector.segments()\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.media
def test_the_real_speaker_is_heard(media):
    for path in sorted((media / "ultrasound_with_speech").glob("*.mp4")):
        sound = np.concatenate([part for _, part in sound_chunks(path, path.name, 0.0, SAMPLING_RATE_HZ)])
        assert 0.2 < share_of(sound) < 0.9
        assert share_of(sound * np.float32(0.05)) == pytest.approx(share_of(sound), abs=0.1)
        assert share_of(sound + at_level(hum(len(sound) / SAMPLING_RATE_HZ), -30)) > 0.2
