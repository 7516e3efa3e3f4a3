"""How much later one recording of a sound starts than another of the same sound, by their cross-correlation.

The correlation is weighted by its phase (GCC-PHAT: Knapp & Carter 1976, "The generalized correlation method
for estimation of time delay"), so that two microphones of different sound agree at one sharp peak.
"""

from collections.abc import Iterator

import numpy as np
from scipy import fft

from datasets_scripts.recording_errors import SidecarError

MEASURING_RATE_HZ = 8_000
# The first ten minutes of each: enough to be sure, and little memory however long the recording is.
MOST_SECONDS = 600
# Of sounds that are not the same, the highest of millions of peaks is hardly higher than the next.
CLEAR_PEAK_RATIO = 1.5
PEAK_WIDTH_S = 0.05

Chunks = Iterator[tuple[int, np.ndarray]]


def measured_offset_s(track: Chunks, other: Chunks, name: str) -> float:
    """The seconds to add to the times of `other` to get those of `track`.

    Args:
        track, other: chunks as `media_streams.sound_chunks` yields them, at `MEASURING_RATE_HZ`.

    Raises:
        SidecarError: the sounds agree at no place, or at several.
        RecordingError: one of them cannot be read.
    """
    (start, samples), (other_start, other_samples) = _beginning(track), _beginning(other)
    if not (samples.any() and other_samples.any()):
        raise SidecarError(f"{name}: its sound offset cannot be measured: one of the sounds is silent.")
    correlation = _phase_correlation(samples, other_samples)
    lag = int(np.argmax(correlation))
    around = round(PEAK_WIDTH_S * MEASURING_RATE_HZ)
    elsewhere = np.delete(correlation, np.arange(lag - around, lag + around + 1) % len(correlation))
    if correlation[lag] < CLEAR_PEAK_RATIO * elsewhere.max():
        raise SidecarError(
            f"{name}: its sound offset cannot be measured: the sound file and the sound track do not agree "
            "at one clear place; write sound_offset_s in seconds into scan.json."
        )
    lag -= len(correlation) if lag >= len(samples) else 0
    return (lag + start - other_start) / MEASURING_RATE_HZ


def _beginning(chunks: Chunks) -> tuple[int, np.ndarray]:
    """The index of the first sample, and the samples of the first minutes with zeros in gaps."""
    first, parts = None, []
    most = MOST_SECONDS * MEASURING_RATE_HZ
    for index, samples in chunks:
        first = index if first is None else first
        if index - first >= most:
            break
        parts.append((index - first, samples))
    sound = np.zeros(
        min(max((at + len(samples) for at, samples in parts), default=0), most), dtype=np.float32
    )
    for at, samples in parts:
        sound[max(at, 0) : at + len(samples)] = samples[max(-at, 0) : len(sound) - at]
    return first or 0, sound


def _phase_correlation(samples: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each lag of `other`, the negative ones at the end, how well it fits."""
    length = fft.next_fast_len(len(samples) + len(other), real=True)
    spectrum = fft.rfft(samples, length) * np.conj(fft.rfft(other, length))
    magnitude = np.abs(spectrum)
    # Frequencies at which there is next to nothing hold only noise.
    return fft.irfft(spectrum / (magnitude + 0.01 * magnitude.mean()), length)
