"""What is wrong with the sound of a recording: clipping, a track that drops out, NaN and infinite samples."""

from collections import Counter

import numpy as np

from datasets_scripts.schema import SAMPLING_RATE_HZ

# Resampling moves a clipped top of a wave a little: at 32 kHz, 0.99 finds the samples that 48 kHz had at 1.
FULL_SCALE = 0.99
LEAST_CLIPPED_SAMPLES = 3
DIGITAL_SILENCE = 2**-16  # half a step of 16 bit: written to a file, it is zero
LEAST_DROPOUT_S = 1.0


class SoundFaults:
    """Looks for faults in one sound at 32 kHz, which it is given from its start on, piece by piece.

    Where the track has nothing it is given zeros, so a track that was not recorded and one that was recorded
    as nothing are the same to it.
    """

    def __init__(self) -> None:
        self._heard = self._nonfinite = 0
        self._clipped = _Runs(LEAST_CLIPPED_SAMPLES)
        self._silent = _Runs(round(LEAST_DROPOUT_S * SAMPLING_RATE_HZ))

    def hear(self, samples: np.ndarray) -> None:
        """Take the next (samples,) float32, as the file has them."""
        self._nonfinite += len(samples) - int(np.isfinite(samples).sum())
        size = np.abs(finite(samples))
        self._clipped.hear(size >= FULL_SCALE)
        self._silent.hear(size < DIGITAL_SILENCE)
        self._heard += len(samples)

    def counts(self, end_s: float) -> Counter[str]:
        """What was found in the sound of a recording that is `end_s` long, by name; zeros are left out.

        sound_ms: its length, to put the rest in proportion; clipped_samples: those in runs of 3 or more at
        full scale, at 32 kHz; nonfinite_samples: NaN or infinite; silent_tracks: 1 where all is digital
        silence, and else, of the silences longer than 1 s: sound_begins_late_ms, sound_ends_early_ms,
        sound_gaps, the number of those between, and sound_gaps_ms, their length.
        """
        end = round(end_s * SAMPLING_RATE_HZ)
        found = Counter(
            sound_ms=_milliseconds(self._heard),
            clipped_samples=int(np.diff(self._clipped.found(self._heard)).sum()),
            nonfinite_samples=self._nonfinite,
        )
        for start, stop in self._silent.found(max(end, self._heard)).tolist():
            if start < end:
                found += _dropout(start, min(stop, end), end)
        return +found


def finite(samples: np.ndarray) -> np.ndarray:
    """The samples, zero where they are NaN or infinite."""
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _dropout(start: int, stop: int, end: int) -> Counter[str]:
    """How a silence from sample `start` to `stop` is counted in a recording of `end` samples."""
    length = _milliseconds(stop - start)
    if start == 0:
        return Counter(silent_tracks=1) if stop == end else Counter(sound_begins_late_ms=length)
    if stop == end:
        return Counter(sound_ends_early_ms=length)
    return Counter(sound_gaps=1, sound_gaps_ms=length)


def _milliseconds(samples: int) -> int:
    return round(1000 * samples / SAMPLING_RATE_HZ)


class _Runs:
    """Finds the runs of at least `least` samples of which something holds, across the pieces of a sound."""

    def __init__(self, least: int) -> None:
        self._least, self._heard = least, 0
        self._open_since: int | None = None
        self._found = [np.zeros((0, 2), dtype=np.int64)]

    def hear(self, holds: np.ndarray) -> None:
        """(samples,) bool."""
        changes = np.flatnonzero(np.diff(holds, prepend=self._open_since is not None)) + self._heard
        if self._open_since is not None:
            changes = np.append(self._open_since, changes)
        self._open_since = int(changes[-1]) if len(changes) % 2 else None
        runs = changes[: len(changes) // 2 * 2].reshape(-1, 2)
        self._found.append(runs[runs[:, 1] - runs[:, 0] >= self._least])
        self._heard += len(holds)

    def found(self, end: int) -> np.ndarray:
        """(runs, 2): first sample and the one after the last; what is not heard, up to `end`, is a run."""
        last = np.array([[self._heard if self._open_since is None else self._open_since, end]])
        return np.concatenate([*self._found, last[last[:, 1] - last[:, 0] >= self._least]])
