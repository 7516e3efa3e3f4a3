"""Sounds of an examination room at 32 kHz for the tests of the sound: speech, and what is none."""

from functools import cache

import numpy as np
from scipy.signal import butter, resample_poly, sosfilt

from datasets_scripts import espeak
from datasets_scripts.espeak import Voice, synthesize
from datasets_scripts.schema import SAMPLING_RATE_HZ

SENTENCES = "Now we look at the four chamber view of the heart. You can see both of the ventricles beating. "


@cache
def _spoken(voice: Voice) -> np.ndarray:
    samples = synthesize(SENTENCES * 3, voice)
    return resample_poly(samples, SAMPLING_RATE_HZ // 50, espeak.SAMPLING_RATE_HZ // 50)


def speech(seconds: float, voice: Voice | None = None) -> np.ndarray:
    """Talk without long pauses, (samples,) float32 of unit root mean square."""
    return at_unit_level(np.resize(_spoken(voice or Voice()), round(seconds * SAMPLING_RATE_HZ)))


def hum(seconds: float) -> np.ndarray:
    """The mains and its harmonics, of unit root mean square, as all that follow."""
    times = _times(seconds)
    return at_unit_level(sum(np.sin(2 * np.pi * 50 * n * times + n) / n for n in range(1, 7)))


def music(seconds: float) -> np.ndarray:
    """A plucked chord every half second, five partials a note."""
    times = _times(seconds)
    chords_hz = np.array([(262, 330, 392), (220, 277, 330), (294, 370, 440), (196, 247, 294)])
    notes_hz = chords_hz[(times // 0.5).astype(int) % len(chords_hz)]
    partials = sum(np.sin(2 * np.pi * n * notes_hz * times[:, None]) / n**1.5 for n in range(1, 6))
    return at_unit_level(partials.sum(axis=1) * np.exp(-5 * (times % 0.5)))


def doppler(seconds: float) -> np.ndarray:
    """Blood flow as a pulsed Doppler sounds: noise of 200 to 1200 Hz that swells 2.4 times a second."""
    band = butter(2, (200, 1200), "band", fs=SAMPLING_RATE_HZ, output="sos")
    beats = 0.05 + np.maximum(0, np.sin(2 * np.pi * 2.4 * _times(seconds))) ** 2
    return at_unit_level(sosfilt(band, white_noise(seconds)) * beats)


def white_noise(seconds: float) -> np.ndarray:
    """Noise of all frequencies."""
    return at_unit_level(np.random.default_rng(0).standard_normal(round(seconds * SAMPLING_RATE_HZ)))


def silence(seconds: float) -> np.ndarray:
    """Zeros."""
    return np.zeros(round(seconds * SAMPLING_RATE_HZ), dtype=np.float32)


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """A sound of unit level at another, in dB of full scale."""
    return (samples * 10 ** (level_db / 20)).astype(np.float32)


def at_unit_level(samples: np.ndarray) -> np.ndarray:
    """float32 of unit root mean square."""
    return (samples / np.sqrt(np.mean(np.square(samples)))).astype(np.float32)


def _times(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLING_RATE_HZ)) / SAMPLING_RATE_HZ
