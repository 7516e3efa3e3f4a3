"""What is kept of a clip's sound in the place of its waveform: its log-mel, or what a speech tower gives.

Both are computed from the same samples, and by the same code, as in training on waveforms.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from datasets import Features
from torch import Tensor

import modeling_dualrep
from datasets_scripts.schema import (
    AUDIO_EMBEDDING,
    LOG_MEL,
    SAMPLING_RATE_HZ,
    audio_embedding_clips_features,
    log_mel_clips_features,
)
from modeling_dualrep.audio_cnn14 import DualRepAudioModel
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from modeling_dualrep.processing_dualrep import DualRepProcessor
from train.stored_sound import LogMelSettings, encode_array, tower_sha256


@dataclass(frozen=True)
class LogMelEncoder:
    """Keeps the log-mel (time, mel) of a clip in dB, as float16. Speech can be rebuilt from it.

    Args:
        settings: of the log-mel.
        code: `code_digest()` of the code that computes it.
    """

    settings: LogMelSettings
    code: str
    column: ClassVar[str] = LOG_MEL

    @classmethod
    def of_model(cls, model: str | None) -> "LogMelEncoder":
        """At the settings of a model's folder; None means those of a new model.

        Raises:
            ValueError, OSError: no such model.
        """
        return cls(_settings_of(model), code_digest())

    def features(self) -> Features:
        """Of a clip row with the log-mel."""
        return log_mel_clips_features()

    def encode(self, waveform: np.ndarray) -> bytes | None:
        """A NumPy file of a 32 kHz waveform (samples,); None for digital silence."""
        log_mel = _log_mel(self.settings, waveform)
        return None if log_mel is None else encode_array(log_mel.numpy().astype(np.float16))

    def info(self) -> dict[str, Any]:
        """For `info.json`."""
        return {"column": self.column, "log_mel": asdict(self.settings)}


@dataclass(frozen=True)
class TowerEncoder:
    """Keeps the pooled output (hidden_size,) of the speech tower of a saved model, in evaluation mode.

    Args:
        folder: of the model.
        hidden_size: of its speech tower.
        tower_sha256: of the weights of that tower.
        settings: of the log-mels that it takes.
        code: `code_digest()` of the code that computes it.
    """

    folder: str
    hidden_size: int
    tower_sha256: str
    settings: LogMelSettings
    code: str
    column: ClassVar[str] = AUDIO_EMBEDDING

    @classmethod
    def of_model(cls, model: str, clip_seconds: float) -> "TowerEncoder":
        """Of a model's folder, for clips of one length.

        Raises:
            ValueError, OSError: no such model, one without a speech tower, or one for longer clips.
        """
        settings, tower = _settings_of(model), DualRepAudioModel.from_pretrained(model)
        frames = int(clip_seconds * settings.sampling_rate) // settings.hop_length + 1
        if frames < tower.min_frames:
            raise ValueError(
                f"clip_seconds is {clip_seconds:g}, too short for the speech tower of {model}, which takes "
                f"{tower.min_frames} frames of {settings.hop_length / settings.sampling_rate:g} s."
            )
        size = tower.config.hidden_size
        return cls(str(Path(model).resolve()), size, tower_sha256(tower), settings, code_digest())

    def features(self) -> Features:
        """Of a clip row with the embedding."""
        return audio_embedding_clips_features(self.hidden_size)

    def encode(self, waveform: np.ndarray) -> list[float] | None:
        """The embedding of a 32 kHz waveform (samples,); None for digital silence.

        Raises:
            ValueError: the model in the folder is no longer the one that was named.
        """
        tower, log_mel = _tower(self.folder, self.tower_sha256), _log_mel(self.settings, waveform)
        if log_mel is None:
            return None
        with torch.inference_mode(), _one_thread():
            return tower(log_mel[None]).pooler_output[0].tolist()

    def info(self) -> dict[str, Any]:
        """For `info.json`; the folder, a name of this machine, is not told."""
        told = {"hidden_size": self.hidden_size, "tower_sha256": self.tower_sha256}
        return {"column": self.column, "log_mel": asdict(self.settings), **told}


@cache
def code_digest() -> str:
    """Changes with any line of the code that encodes sound, and with the version of transformers."""
    here = Path(__file__)
    sources = sorted(Path(modeling_dualrep.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(transformers.__version__.encode())
    for source in (*sources, here, here.with_name("stored_sound.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _settings_of(model: str | None) -> LogMelSettings:
    if model is None:
        return LogMelSettings.of(DualRepFeatureExtractor())
    if not (Path(model) / "config.json").is_file():
        raise ValueError(f"{model} is no folder of a DualRep model: name one that train/pretrain.py wrote.")
    return LogMelSettings.of(DualRepProcessor.from_pretrained(model).feature_extractor)


@cache
def _extractor(settings: LogMelSettings) -> DualRepFeatureExtractor:
    return DualRepFeatureExtractor(**asdict(settings))


def _log_mel(settings: LogMelSettings, waveform: np.ndarray) -> Tensor | None:
    """(time, mel) in dB; None for digital silence."""
    with _one_thread():
        extracted = _extractor(settings)(waveform, sampling_rate=SAMPLING_RATE_HZ, return_tensors="pt")
    return extracted["input_features"][0] if extracted["audio_mask"][0] else None


@cache
def _tower(folder: str, sha256: str) -> DualRepAudioModel:
    """The tower, loaded once a process."""
    tower = DualRepAudioModel.from_pretrained(folder).eval()
    if tower_sha256(tower) != sha256:
        raise ValueError("the model that gives the embeddings was changed meanwhile; run the command again")
    return tower


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same bytes on every machine: what is summed by several threads is rounded by their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
