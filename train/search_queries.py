"""What is searched for: a remark in a sound file, a remark as text, a picture, a moment of a recording."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.signal import resample_poly
from torch import Tensor
from transformers import BatchFeature

from datasets_scripts import espeak
from datasets_scripts.clips import ClipParameters, FrameEncoder, frames_of_clips, resize_to_square
from datasets_scripts.loudness import EBU_R128_LUFS, LoudnessMeter, normalising_gain
from datasets_scripts.media_streams import sound_chunks
from datasets_scripts.recording_errors import UnreadableError
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import (
    AUDIO,
    CLIP_ID,
    FRAMES,
    SAMPLING_RATE_HZ,
    SCAN_ID,
    SPEECH_FRACTION,
    START_S,
)
from datasets_scripts.sound_faults import finite
from train.search_index import SPEECH_EMBEDDING, VIDEO_EMBEDDING, SearchError
from train.search_model import SearchModel
from train.triples import log_mel

SHORTEST_SECONDS = 0.3
SILENT_DB = -60.0
LEVEL_WINDOW_SECONDS = 0.03
# Half a minute of speech: all of a text is spoken before a clip's length of it is taken.
LONGEST_TEXT = 300


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Args:
        embedding: (features,) float32.
        column: of the index, in which its nearest are looked for.
        note: a sentence on what was done to it; None where nothing was.
    """

    embedding: Tensor
    column: str
    note: str | None = None


def sound_query(path: Path, searcher: SearchModel, parameters: ClipParameters) -> Query:
    """A remark in any sound file that FFmpeg reads, or in the sound track of a video.

    Raises:
        SearchError: there is no such file, it holds no sound, or one too short or silent.
        RecordingError: it is damaged.
    """
    if not path.is_file():
        raise SearchError(f"There is no sound file {path}. Give the path of a recording of a remark.")
    try:
        waveform = read_start(path, parameters.clip_seconds + 1)
    except UnreadableError as error:
        raise SearchError(
            f"{path} holds no sound that FFmpeg reads: give a wav, or another file with sound."
        ) from error
    note = None
    if len(waveform) > round(parameters.clip_seconds * SAMPLING_RATE_HZ):
        note = f"{path} is longer than a clip: its first {parameters.clip_seconds:g} s are searched for."
    features = _log_mel(waveform, str(path), searcher, parameters, parameters.loudness_lufs)
    return _speech_query(features, searcher, note)


def text_query(text: str, searcher: SearchModel, parameters: ClipParameters) -> Query:
    """A remark as text, spoken by espeak-ng in its own English voice.

    Its pauses are digital silence, which no recording has: nothing is left quieter than what lies a standard
    deviation below the mean of the recordings that the model learnt from.

    Raises:
        SearchError: there is nothing to say, or more than 300 characters of it, or espeak-ng is not there.
    """
    if len(text) > LONGEST_TEXT:
        raise SearchError(
            f"The remark has {len(text)} characters, but may have {LONGEST_TEXT}: give a sentence or two."
        )
    try:
        spoken = espeak.synthesize(text, espeak.Voice())
    except (ImportError, RuntimeError, ValueError) as error:
        raise SearchError(str(error)) from error
    waveform = resample_poly(spoken, SAMPLING_RATE_HZ, espeak.SAMPLING_RATE_HZ).astype(np.float32)
    loudness_lufs = EBU_R128_LUFS if parameters.loudness_lufs is None else parameters.loudness_lufs
    features = _log_mel(waveform, repr(text), searcher, parameters, loudness_lufs)
    of_recordings = searcher.model.audio_model.norm
    quiet = (of_recordings.running_mean - of_recordings.running_var.sqrt()).cpu()
    return _speech_query(torch.maximum(features, quiet), searcher, None)


def picture_query(path: Path, searcher: SearchModel, parameters: ClipParameters) -> Query:
    """A picture, compared with speech by the image tower.

    Raises:
        SearchError: it cannot be read, or the model has no image tower.
    """
    if not searcher.model.config.use_image:
        raise SearchError(
            f"The model in {searcher.source} has no image tower (use_image is false): give --recording and "
            "--at in place of --frame."
        )
    try:
        with Image.open(path) as file:
            picture = resize_to_square(file.convert("RGB"), parameters.frame_size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SearchError(f"{path} is no picture that can be read: give a PNG or JPEG.") from error
    inputs = searcher.processor(images=[picture], return_tensors="pt")
    embedded = searcher.embed([([str(path)], inputs)])
    return Query(_finite(embedded.image[0]), SPEECH_EMBEDDING)


def moment_query(
    recording: Recording, at_s: float, searcher: SearchModel, parameters: ClipParameters
) -> Query:
    """What a recording shows around a moment, compared with speech by the video tower, as in training.

    The clip lies around the moment, or, near the start and the end of the recording, beside it.

    Raises:
        SearchError: the recording is shorter than a clip, or ends before the moment.
        RecordingError, NoSectorError: it is damaged, or shows no ultrasound.
    """
    seconds = parameters.clip_seconds
    starts_s = sorted({max(0.0, at_s - seconds), max(0.0, at_s - seconds / 2)})
    encode = FrameEncoder(recording.area(parameters.sector), parameters.frame_size)
    clips = list(frames_of_clips(recording, starts_s, seconds, parameters.frames_per_clip, encode))
    if at_s < 0 or not clips:
        raise SearchError(
            f"{recording.name} has no clip of {seconds:g} s around {at_s:g} s: give a moment within it."
        )
    row = {
        CLIP_ID: recording.name,
        SCAN_ID: recording.name,
        START_S: clips[-1].start_s,
        FRAMES: [{"bytes": jpeg, "path": None} for jpeg in clips[-1].jpegs],
        AUDIO: None,
        SPEECH_FRACTION: 0.0,
    }
    triples = searcher.triples(parameters.minimum_speech_fraction)
    embedded = searcher.embed([triples.collate([triples[0, row]])])
    return Query(_finite(embedded.video[0]), SPEECH_EMBEDDING)


def read_start(path: Path, seconds: float) -> np.ndarray:
    """(samples,) float32 at 32 kHz, mono: the first `seconds` of a file's sound or a little more.

    Raises:
        RecordingError: it is damaged, or holds no sound.
    """
    pieces, samples = [np.zeros(0, dtype=np.float32)], 0
    for _, piece in sound_chunks(path, path.name, None, SAMPLING_RATE_HZ):
        pieces.append(finite(piece))
        samples += len(piece)
        if samples >= seconds * SAMPLING_RATE_HZ:
            break
    return np.concatenate(pieces)


def _log_mel(
    waveform: np.ndarray,
    name: str,
    searcher: SearchModel,
    parameters: ClipParameters,
    loudness_lufs: float | None,
) -> Tensor:
    """(time, mel) of a remark (samples,) at 32 kHz, as long as a clip.

    What a shorter remark lacks is the mean of the recordings that the model learnt from, by its first
    BatchNorm: the same that SpecAugment puts in the place of what it masks. Digital silence would be a sound
    that no recording has; it halves the share of hits that are right.
    """
    length, seconds = round(parameters.clip_seconds * SAMPLING_RATE_HZ), len(waveform) / SAMPLING_RATE_HZ
    if seconds < SHORTEST_SECONDS:
        raise SearchError(f"{name} lasts {seconds:.2f} s: a remark takes {SHORTEST_SECONDS} s or more.")
    waveform = waveform[:length]
    if _loudest_db(waveform) < SILENT_DB:
        raise SearchError(f"{name} is silent for {len(waveform) / SAMPLING_RATE_HZ:.1f} s: record it again.")
    if loudness_lufs is not None:
        waveform = waveform * np.float32(_gain(waveform, loudness_lufs))
    features = log_mel(searcher.processor, waveform)
    missing = 1 + length // searcher.processor.feature_extractor.hop_length - len(features)
    mean = searcher.model.audio_model.norm.running_mean.cpu()
    return torch.cat([features, mean.expand(missing, -1)])


def _speech_query(features: Tensor, searcher: SearchModel, note: str | None) -> Query:
    inputs = BatchFeature({"input_features": features[None], "audio_mask": torch.tensor([True])})
    embedded = searcher.embed([(["remark"], inputs)])
    return Query(_finite(embedded.audio[0]), VIDEO_EMBEDDING, note)


def _loudest_db(waveform: np.ndarray) -> float:
    """Level of the loudest window, root mean square in dB of full scale."""
    length = round(LEVEL_WINDOW_SECONDS * SAMPLING_RATE_HZ)
    windows = waveform[: len(waveform) // length * length].reshape(-1, length).astype(np.float64)
    return float(10 * np.log10(np.mean(windows**2, axis=1).max() + 1e-12))


def _gain(waveform: np.ndarray, wanted_lufs: float) -> float:
    meter = LoudnessMeter()
    meter.hear(waveform)
    return normalising_gain(meter.integrated_lufs(), meter.true_peak_db(), wanted_lufs)


def _finite(embedding: Tensor) -> Tensor:
    if not embedding.isfinite().all():
        raise SearchError("The model gives values that are no numbers: its training must have diverged.")
    return embedding
