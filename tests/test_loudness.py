"""Loudness as ITU-R BS.1770 defines it, by parity with pyloudnorm and the Recommendation's own numbers."""

import math

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly, sosfreqz
from sound_helpers import at_level, hum, music, silence, speech, white_noise

from datasets_scripts.loudness import LoudnessMeter, _k_weighting, normalising_gain
from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.speech_activity import SpeechSegments

# ITU-R BS.1770-4, tables 1 and 2: the shelf and the high pass at 48 kHz.
SHELF = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
HIGH_PASS = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]


def metered(sound: np.ndarray, piece: int = 50_000) -> LoudnessMeter:
    meter = LoudnessMeter()
    for start in range(0, len(sound), piece):
        meter.hear(sound[start : start + piece].astype(np.float32))
    return meter


def tone(seconds: float, frequency_hz: float, phase: float = 0.0) -> np.ndarray:
    return np.sin(
        2 * np.pi * frequency_hz * np.arange(round(seconds * SAMPLING_RATE_HZ)) / SAMPLING_RATE_HZ + phase
    )


def test_the_filters_are_those_of_the_recommendation():
    frequencies_hz = np.geomspace(20, 10_000, 50)
    _, wanted = sosfreqz([SHELF, HIGH_PASS], 2 * np.pi * frequencies_hz / 48_000)
    _, ours = sosfreqz(_k_weighting(), 2 * np.pi * frequencies_hz / SAMPLING_RATE_HZ)
    difference_db = 20 * np.log10(np.abs(ours) / np.abs(wanted))
    assert np.abs(difference_db[frequencies_hz < 5000]).max() < 0.05
    assert np.abs(difference_db).max() < 0.2  # the bilinear transform bends what is near half the rate


def test_a_full_scale_tone_of_997_hz_is_what_the_recommendation_says():
    assert metered(tone(5, 997)).integrated_lufs() == pytest.approx(-3.01, abs=0.02)


@pytest.mark.parametrize(
    "sound",
    [
        at_level(speech(6), -30),
        np.concatenate(
            [at_level(speech(3), -20), silence(4), at_level(hum(3), -45), at_level(speech(2), -28)]
        ),
        at_level(music(4.05), -18),
        at_level(white_noise(0.4), -30),
    ],
    ids=["speech", "speech with gaps", "music", "one block"],
)
def test_it_is_that_of_pyloudnorm(sound):
    reference = pyloudnorm.Meter(SAMPLING_RATE_HZ, filter_class="DeMan").integrated_loudness(
        sound.astype(float)
    )
    assert metered(sound).integrated_lufs() == pytest.approx(reference, abs=0.02)


@pytest.mark.parametrize("piece", [1, 3200, 12_345, 10**6])
def test_the_pieces_do_not_matter(piece):
    sound = at_level(speech(0.7 if piece == 1 else 4), -25)
    assert metered(sound, piece).integrated_lufs() == pytest.approx(
        metered(sound).integrated_lufs(), abs=1e-9
    )


def test_only_the_speech_is_measured():
    sound = np.concatenate([at_level(music(4), -12), at_level(speech(4), -35), at_level(music(4), -12)])
    alone = metered(at_level(speech(4), -35)).integrated_lufs()
    spoken = SpeechSegments(np.array([4.0, 8.0]))
    assert metered(sound).integrated_lufs(spoken) == pytest.approx(alone, abs=0.3)
    assert metered(sound).integrated_lufs() > alone + 15
    assert metered(sound).integrated_lufs(SpeechSegments(np.zeros(0))) == -math.inf


def test_silence_and_what_is_shorter_than_a_block_have_no_loudness():
    assert metered(silence(2)).integrated_lufs() == -math.inf
    assert metered(silence(2)).true_peak_db() == -math.inf
    assert metered(tone(0.3, 997)).integrated_lufs() == -math.inf
    assert metered(at_level(white_noise(2), -80)).integrated_lufs() == -math.inf
    assert metered(silence(0)).integrated_lufs() == -math.inf


def test_the_true_peak_lies_between_the_samples():
    """A tone of a quarter of the rate whose samples fall 45 degrees beside its peaks: 3 dB are not seen."""
    sound = 0.5 * tone(1, SAMPLING_RATE_HZ / 4, np.pi / 4)
    assert np.abs(sound).max() == pytest.approx(0.5 * np.sqrt(0.5), abs=1e-3)
    assert metered(sound).true_peak_db() == pytest.approx(20 * math.log10(0.5), abs=0.3)


def test_the_peak_of_any_piece_is_seen():
    sound = at_level(speech(4), -30)
    sound[70_000] = 0.8
    assert metered(sound, 10_000).true_peak_db() == pytest.approx(20 * math.log10(0.8), abs=0.5)
    assert metered(sound[::-1].copy(), 10_000).true_peak_db() == pytest.approx(20 * math.log10(0.8), abs=0.5)


@given(st.floats(-70, 0), st.floats(-60, 3), st.floats(-50, -5))
def test_the_gain_reaches_the_loudness_or_a_limit(loudness_lufs, true_peak_db, wanted_lufs):
    gain_db = 20 * math.log10(normalising_gain(loudness_lufs, true_peak_db, wanted_lufs))
    assert gain_db <= min(30, -1 - true_peak_db) + 1e-9
    reached = [wanted_lufs - loudness_lufs, 30, -1 - true_peak_db]
    assert min(abs(gain_db - each) for each in reached) < 1e-9
    assert gain_db <= wanted_lufs - loudness_lufs + 1e-9


def test_what_has_no_loudness_is_not_made_louder():
    assert normalising_gain(-math.inf, -math.inf, -23) == 1
    assert normalising_gain(-math.inf, -50, -23) == 1
    assert normalising_gain(-math.inf, 6, -23) == pytest.approx(10 ** (-7 / 20))


SPEECH = at_level(np.concatenate([speech(2), silence(1), 0.05 * white_noise(1), speech(2)]), -30)


@given(st.floats(-20, 20))
@settings(max_examples=20, deadline=None)
def test_any_gain_before_gives_the_same_sound_after(gain_db):
    def normalised(sound: np.ndarray) -> np.ndarray:
        meter = metered(sound)
        return sound * np.float32(normalising_gain(meter.integrated_lufs(), meter.true_peak_db(), -23))

    scaled = SPEECH * np.float32(10 ** (gain_db / 20))
    np.testing.assert_allclose(normalised(scaled), normalised(SPEECH), atol=2**-17)
    assert metered(normalised(scaled)).integrated_lufs() == pytest.approx(-23, abs=0.01)


@given(st.floats(-40, 20))
@settings(max_examples=20, deadline=None)
def test_nothing_clips(level_db):
    sound = at_level(speech(1), level_db)
    sound[::8000] *= 20  # clicks, far above the loudness
    meter = metered(sound)
    louder = sound * normalising_gain(meter.integrated_lufs(), meter.true_peak_db(), -5)
    assert np.abs(resample_poly(louder, 4, 1)).max() <= 10 ** (-1 / 20) + 1e-6
