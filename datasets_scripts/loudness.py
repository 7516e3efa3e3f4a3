"""The loudness of a recording, measured piece by piece, and the gain that brings it to the one wanted.

Integrated loudness as of ITU-R BS.1770-4, which EBU R 128 takes up: K-weighted, the mean over those 400 ms
blocks that are louder than -70 LUFS and than 10 dB below the mean of those. pyloudnorm, whose filters these
are, measures a sound as a whole; 90 minutes of it are too much to hold.
"""

import math

import numpy as np
from pyloudnorm import IIRfilter
from scipy.signal import resample_poly, sosfilt

from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.speech_activity import SpeechSegments

EBU_R128_LUFS = -23.0
QUIETEST_LUFS, LOUDEST_LUFS = -50.0, -5.0
MOST_GAIN_DB = 30.0
HIGHEST_TRUE_PEAK_DB = -1.0

STEP_SECONDS, STEPS_PER_BLOCK = 0.1, 4
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_DB = -70.0, -10.0
ALL_SPEECH = 0.999  # share of a block; one that reaches into music would measure the music
OVERSAMPLING = 4
# How far the peak between samples may lie above the highest sample; beyond 3 dB is hardly ever seen.
MOST_BETWEEN_SAMPLES = 2.0


class LoudnessMeter:
    """Measures one sound, mono at 32 kHz, which it is given from its start on, piece by piece."""

    def __init__(self) -> None:
        self._filters = _k_weighting()
        self._state = np.zeros((len(self._filters), 2))
        self._rest = np.zeros(0)
        self._step_powers: list[np.ndarray] = []
        self._true_peak = self._sample_peak = 0.0

    def hear(self, samples: np.ndarray) -> None:
        """Take the next (samples,) float32 in -1..1."""
        weighted, self._state = sosfilt(self._filters, samples, zi=self._state)
        weighted = np.concatenate([self._rest, weighted])
        step = round(STEP_SECONDS * SAMPLING_RATE_HZ)
        whole = len(weighted) // step * step
        self._step_powers.append(np.mean(weighted[:whole].reshape(-1, step) ** 2, axis=1))
        self._rest = weighted[whole:]
        self._look_for_peak(samples)

    def _look_for_peak(self, samples: np.ndarray) -> None:
        peak = float(np.abs(samples).max(initial=0.0))
        self._sample_peak = max(self._sample_peak, peak)
        if peak > 0 and peak * MOST_BETWEEN_SAMPLES >= self._true_peak:
            between = float(np.abs(resample_poly(samples, OVERSAMPLING, 1)).max())
            self._true_peak = max(self._true_peak, peak, between)

    def true_peak_db(self) -> float:
        """The highest value of the sound, between its samples too, in dB of full scale; -inf of silence."""
        return _decibels(self._true_peak**2)

    def integrated_lufs(self, speech: SpeechSegments | None = None) -> float:
        """Loudness in LUFS, or -inf where no block passes the gates.

        Args:
            speech: measure only blocks that are speech from end to end; None measures all.
        """
        steps = np.concatenate([np.zeros(0), *self._step_powers])
        if len(steps) < STEPS_PER_BLOCK:
            return -math.inf
        powers = np.convolve(steps, np.full(STEPS_PER_BLOCK, 1 / STEPS_PER_BLOCK), mode="valid")
        if speech is not None:
            starts_s = np.arange(len(powers)) * STEP_SECONDS
            powers = powers[speech.share(starts_s, STEP_SECONDS * STEPS_PER_BLOCK) > ALL_SPEECH]
        powers = powers[powers > _power(ABSOLUTE_GATE_LUFS)]
        if len(powers) == 0:
            return -math.inf
        powers = powers[powers > powers.mean() * 10 ** (RELATIVE_GATE_DB / 10)]
        return _loudness(float(powers.mean()))


def normalising_gain(loudness_lufs: float, true_peak_db: float, wanted_lufs: float) -> float:
    """The factor that brings a sound to a loudness: at most +30 dB, and no true peak above -1 dB.

    What has no loudness, since it is silent or nobody speaks in it, is not made louder.
    """
    gain_db = 0.0 if loudness_lufs == -math.inf else min(wanted_lufs - loudness_lufs, MOST_GAIN_DB)
    return 10 ** (min(gain_db, HIGHEST_TRUE_PEAK_DB - true_peak_db) / 20)


def _k_weighting() -> np.ndarray:
    """(2, 6): the high shelf and the high pass of BS.1770 at our rate, by the analogue filters behind them.

    The Recommendation gives coefficients for 48 kHz alone; these are the filters that De Man found to have
    them ("Evaluation of Implementations of the EBU R128 Loudness Measurement", AES 145, 2018).
    """
    shelf = IIRfilter(
        3.99984385397, 0.7071752369554193, 1681.9744509555319, SAMPLING_RATE_HZ, "high_shelf_DeMan"
    )
    high_pass = IIRfilter(0.0, 0.5003270373253953, 38.13547087613982, SAMPLING_RATE_HZ, "high_pass_DeMan")
    return np.stack([np.append(each.b, each.a) for each in (shelf, high_pass)])


def _loudness(power: float) -> float:
    return _decibels(power) - 0.691


def _power(loudness_lufs: float) -> float:
    return 10 ** ((loudness_lufs + 0.691) / 10)


def _decibels(power: float) -> float:
    return 10 * math.log10(power) if power > 0 else -math.inf
