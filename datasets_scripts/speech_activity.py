"""When somebody speaks: by silero-vad over a whole recording, or by the energy of one clip alone.

silero-vad (https://github.com/snakers4/silero-vad, MIT) brings its model in its package: a recurrent network
that tells, 32 ms after 32 ms at 16 kHz, how likely it is that somebody speaks. Here the model is run without
the Python of the package, which imports torch: that is half a gigabyte in each worker of a preparation. A
test holds that both find the same speech.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution

import av
import numpy as np
from onnxruntime import InferenceSession, SessionOptions

from datasets_scripts.schema import SAMPLING_RATE_HZ

LOUDNESS, SILERO = SPEECH_DETECTORS = ("loudness", "silero")

LEVEL_WINDOW_S = 0.03
SPEECH_ABOVE_FLOOR_DB = 12.0
SILENCE_DB = -60.0

MODEL_FILE = "silero_vad/data/silero_vad_16k_sequence.onnx"
MODEL_RATE_HZ = 16_000
WINDOW, CONTEXT = 512, 64  # samples that are judged at once, and those before them that the model sees too
STATE_SHAPE = (1, 1, 128)

# How silero-vad makes speech of probabilities.
SPEECH_PROBABILITY, PAUSE_PROBABILITY = 0.5, 0.35
LEAST_PAUSE_S, LEAST_SPEECH_S, MARGIN_S = 0.1, 0.25, 0.03


@dataclass(frozen=True)
class SpeechSegments:
    """The speech of a recording.

    Args:
        edges_s: (2 * segments,) ascending: start and end of each segment, in seconds.
    """

    edges_s: np.ndarray

    def share(self, start_s: np.ndarray | float, seconds: float) -> np.ndarray:
        """The share of `start_s` to `start_s + seconds` that is speech, 0 to 1; one for each start."""
        return (self._spoken_before(start_s + seconds) - self._spoken_before(start_s)) / seconds

    def _spoken_before(self, time_s: np.ndarray | float) -> np.ndarray:
        lengths_s = np.diff(self.edges_s, prepend=0.0)
        lengths_s[::2] = 0.0  # those are the pauses
        return np.interp(time_s, np.append(0.0, self.edges_s), np.append(0.0, np.cumsum(lengths_s)))


class SileroDetector:
    """Finds the speech of one recording, which it is given from its start on, piece by piece.

    Windows of digital silence are no speech, and the model is not asked about them: where a track is missing
    for an hour, that hour costs nothing.
    """

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=MODEL_RATE_HZ)
        self._rest = np.zeros(
            CONTEXT, dtype=np.float32
        )  # the context of the next window, and what there is of it
        self._state = [np.zeros(STATE_SHAPE, dtype=np.float32)] * 2
        self._probabilities: list[np.ndarray] = []

    def hear(self, samples: np.ndarray) -> None:
        """Take the next (samples,) float32 at 32 kHz, in -1..1."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
        frame.sample_rate = SAMPLING_RATE_HZ
        self._judge(self._resampled(frame))

    def segments(self) -> SpeechSegments:
        """The speech of all that was heard; called once, at its end."""
        self._judge(self._resampled(None))
        rest = len(self._rest) - CONTEXT
        seconds = (sum(map(len, self._probabilities)) * WINDOW + rest) / MODEL_RATE_HZ
        self._judge(np.zeros(-rest % WINDOW, dtype=np.float32))
        return segments_by_probability(np.concatenate([np.zeros(0), *self._probabilities]), seconds)

    def _resampled(self, frame: av.AudioFrame | None) -> np.ndarray:
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate([np.zeros(0, dtype=np.float32), *parts])

    def _judge(self, samples: np.ndarray) -> None:
        heard = np.concatenate([self._rest, samples])
        count = (len(heard) - CONTEXT) // WINDOW
        self._rest = heard[count * WINDOW :]
        starts = np.arange(count)[:, None] * WINDOW
        windows = heard[starts + np.arange(CONTEXT + WINDOW)]
        has_sound = windows[:, CONTEXT:].any(axis=1)
        probabilities = np.zeros(count, dtype=np.float32)
        if has_sound.any():
            probabilities[has_sound] = self._ask(windows[has_sound])
        self._probabilities.append(probabilities)

    def _ask(self, windows: np.ndarray) -> np.ndarray:
        hidden, cell = self._state
        probabilities, *self._state = _model().run(
            ["speech_probs", "hn", "cn"], {"input": windows, "h": hidden, "c": cell}
        )
        return probabilities.reshape(-1)


@cache
def _model() -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # recordings are read side by side
    path = distribution("silero-vad").locate_file(MODEL_FILE)
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def segments_by_probability(probabilities: np.ndarray, seconds: float) -> SpeechSegments:
    """What silero-vad makes of its probabilities.

    Speech begins where the probability reaches 0.5 and ends where it falls below 0.35 and does not come back
    to 0.5 for 100 ms; what is not longer than 250 ms is none; 30 ms are added at both sides.

    Args:
        probabilities: (windows,) one every 32 ms.
        seconds: length of the sound, whose last window may not be full.
    """
    spoken = [(start, min(end, seconds)) for start, end in _spoken(probabilities.tolist())]
    lasting = [(start - MARGIN_S, end + MARGIN_S) for start, end in spoken if end - start > LEAST_SPEECH_S]
    return SpeechSegments(np.array(lasting).ravel().clip(0.0, seconds))


def _spoken(probabilities: list[float]) -> Iterator[tuple[float, float]]:
    """Start and end in seconds of what is speech by the probabilities of all windows."""
    start = pause = None
    for window, probability in enumerate(probabilities):
        if probability >= SPEECH_PROBABILITY:
            start, pause = (window if start is None else start), None
        elif probability < PAUSE_PROBABILITY and start is not None:
            pause = window if pause is None else pause
            if _seconds(window - pause) >= LEAST_PAUSE_S:
                yield _seconds(start), _seconds(pause)
                start = pause = None
    if start is not None:
        yield _seconds(start), _seconds(len(probabilities))


def _seconds(windows: int) -> float:
    return windows * WINDOW / MODEL_RATE_HZ


def speech_fraction(waveform: np.ndarray) -> float:
    """A simple estimate of the share of a waveform that is speech, by energy alone.

    The share of 30 ms windows whose level is more than 12 dB above the noise floor, which is the tenth
    percentile of the levels, but no lower than -60 dB of full scale. Any loud sound that comes and goes
    counts: this tells talking from silence, not talking from music.

    Args:
        waveform: (samples,) float in -1..1 at 32 kHz.
    """
    length = round(LEVEL_WINDOW_S * SAMPLING_RATE_HZ)
    windows = waveform[: len(waveform) // length * length].reshape(-1, length).astype(np.float64)
    levels_db = 10 * np.log10(np.mean(windows**2, axis=1) + 1e-12)
    floor_db = max(float(np.percentile(levels_db, 10)), SILENCE_DB)
    return float(np.mean(levels_db > floor_db + SPEECH_ABOVE_FLOOR_DB))
