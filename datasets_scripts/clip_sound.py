"""The sound of a recording as its clips get it: measured once as a whole, then cut window by window."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets_scripts.loudness import EBU_R128_LUFS, LoudnessMeter, normalising_gain
from datasets_scripts.media_streams import SoundWindows
from datasets_scripts.recording_errors import DamagedError
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import SAMPLING_RATE_HZ
from datasets_scripts.sound_faults import SoundFaults, finite
from datasets_scripts.speech_activity import SILERO, SileroDetector, SpeechSegments

PIECE_SECONDS = 5.0
LONGEST_GAP_HOURS = 12  # no examination has one; time stamps that are damaged have

SoundChunks = Iterator[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class SoundMeasures:
    """What the sound of a recording is found to be.

    Args:
        speech: when somebody speaks; None where silero was not asked.
        gain: the factor that brings it to the loudness wanted; 1 where none is.
        faults: what is wrong with it.
    """

    speech: SpeechSegments | None
    gain: float
    faults: SoundFaults


def measure_sound(
    recording: Recording, speech_detector: str, loudness_lufs: float | None
) -> SoundMeasures | None:
    """Read the sound of a recording from its start to its end, for silero twice; None if it has none.

    Args:
        speech_detector: one of `SPEECH_DETECTORS`.
        loudness_lufs: integrated loudness that its speech is to have; None leaves the sound as it is.

    Raises:
        RecordingError: the sound is cut short or damaged.
    """
    if not recording.has_sound:
        return None
    faults, meter = SoundFaults(), LoudnessMeter()
    for piece in _pieces(recording):
        faults.hear(piece)
        meter.hear(finite(piece))
    speech = detect_speech(recording, meter) if speech_detector == SILERO else None
    if loudness_lufs is None:
        return SoundMeasures(speech, 1.0, faults)
    gain = normalising_gain(meter.integrated_lufs(speech), meter.true_peak_db(), loudness_lufs)
    return SoundMeasures(speech, gain, faults)


def detect_speech(recording: Recording, meter: LoudnessMeter) -> SpeechSegments:
    """The speech of a recording that has sound, by silero.

    Silero hears it at one loudness, however it was recorded: else the speech found, and so what is measured
    of it, would change a little with the level of the microphone.

    Args:
        meter: one that has heard the whole recording.
    """
    gain = np.float32(normalising_gain(meter.integrated_lufs(), meter.true_peak_db(), EBU_R128_LUFS))
    detector = SileroDetector()
    for piece in _pieces(recording):
        detector.hear(finite(piece) * gain)
    return detector.segments()


def sound_windows(recording: Recording, gain: float) -> SoundWindows:
    """The windows of the sound of a recording that has one, times `gain`; zero where it is no number."""
    factor = np.float32(gain)
    louder = ((first, finite(samples) * factor) for first, samples in recording.sound_chunks())
    return SoundWindows(louder, SAMPLING_RATE_HZ)


def _without_gaps(chunks: SoundChunks, name: str) -> Iterator[np.ndarray]:
    """The samples from the recording's first frame on, zeros where its track has none."""
    end, longest = 0, round(PIECE_SECONDS * SAMPLING_RATE_HZ)
    for first, samples in chunks:
        if first - end > LONGEST_GAP_HOURS * 3600 * SAMPLING_RATE_HZ:
            hours = (first - end) / SAMPLING_RATE_HZ / 3600
            raise DamagedError(
                f"{name}: its sound leaps by {hours:.0f} hours, so its time stamps are damaged; export it "
                "again from the machine."
            )
        while end < first:
            zeros = np.zeros(min(longest, first - end), dtype=np.float32)
            end += len(zeros)
            yield zeros
        yield samples[end - first :]  # from the first frame on, and nothing twice
        end = max(end, first + len(samples))


def _pieces(recording: Recording) -> Iterator[np.ndarray]:
    """The same of a recording, in pieces long enough to be worked through at once."""
    held, length = [], 0
    for part in _without_gaps(recording.sound_chunks(), recording.name):
        held.append(part)
        length += len(part)
        if length >= PIECE_SECONDS * SAMPLING_RATE_HZ:
            yield np.concatenate(held)
            held, length = [], 0
    if length:
        yield np.concatenate(held)
