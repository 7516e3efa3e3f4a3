"""Sound as a set of clips keeps it: waveforms, log-mels alone, or the outputs of a speech tower alone.

What a set without waveforms holds must fit the model that is trained on it; its `info.json` tells.
"""

import hashlib
import io
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from datasets_scripts.schema import AUDIO_EMBEDDING, LOG_MEL
from modeling_dualrep.configuration_dualrep import DualRepConfig
from modeling_dualrep.feature_extraction_dualrep import DualRepFeatureExtractor
from train.arguments import ArgumentsError, PretrainArguments, SpeechAugmentationArguments
from train.speech_augmentation import vary_log_mel
from train.stored_rows import INFO_FILE, StoredRowsError, read_text

ENCODER = "encoder"


@dataclass(frozen=True)
class LogMelSettings:
    """What decides a log-mel, by the names of `DualRepFeatureExtractor`."""

    feature_size: int
    sampling_rate: int
    n_fft: int
    hop_length: int
    min_frequency_hz: float
    max_frequency_hz: float

    @classmethod
    def of(cls, extractor: DualRepFeatureExtractor) -> "LogMelSettings":
        """Those of an extractor."""
        return cls(**{field.name: getattr(extractor, field.name) for field in fields(cls)})

    def difference(self, wanted: "LogMelSettings") -> str | None:
        """The first setting that is another one, in words; None where all are equal."""
        for name, value in asdict(self).items():
            if value != getattr(wanted, name):
                return f"{name} is {value} in the set and {getattr(wanted, name)} in the model"
        return None


class StoredSound(ABC):
    """How the sound of a row becomes an input of the model.

    `column` is where it is stored, `model_input` what the model calls it, `width` its last axis.
    """

    column: ClassVar[str]
    model_input: ClassVar[str]
    width: int

    @abstractmethod
    def read(self, stored: Any) -> Tensor | None:
        """One clip's input; None for digital silence.

        Raises:
            ValueError, RuntimeError: what is stored is damaged.
        """

    @abstractmethod
    def vary(self, sound: Tensor, arguments: SpeechAugmentationArguments, draw: random.Random) -> Tensor:
        """One clip's input as in training."""

    @abstractmethod
    def batch(self, sounds: Sequence[Tensor | None]) -> Tensor:
        """A batch's input, zeros where there is no sound."""


class Spectrograms(StoredSound):
    """Log-mels (time, width) in dB, however they are stored."""

    model_input = "input_features"

    def vary(self, sound: Tensor, arguments: SpeechAugmentationArguments, draw: random.Random) -> Tensor:
        """As `vary_log_mel` says."""
        return vary_log_mel(sound, arguments, draw)

    def batch(self, sounds: Sequence[Tensor | None]) -> Tensor:
        """(batch, time, width), zeros where there is no sound."""
        silent = torch.zeros(1, self.width)
        return pad_sequence([silent if sound is None else sound for sound in sounds], batch_first=True)


class LogMels(Spectrograms):
    """Log-mels stored as float16, within 0.032 dB of what was computed.

    Args:
        mel_bins: that the model takes.
    """

    column = LOG_MEL

    def __init__(self, mel_bins: int) -> None:
        self.width = mel_bins

    def read(self, stored: bytes) -> Tensor:
        """float32 (time, mel) in dB.

        Raises:
            ValueError: it has another shape.
        """
        log_mel = decode_array(stored)
        if log_mel.ndim != 2 or log_mel.shape[1] != self.width:
            raise ValueError(f"its log-mel has the shape {log_mel.shape} in place of (time, {self.width})")
        return torch.from_numpy(log_mel.astype(np.float32))


class TowerEmbeddings(StoredSound):
    """Pooled outputs of a speech tower, which take the place of those of the model's own.

    Args:
        hidden_size: of the tower that made them.
        tower_sha256: of the weights of that tower, as `tower_sha256` gives it.
    """

    column = AUDIO_EMBEDDING
    model_input = "audio_pooler_output"

    def __init__(self, hidden_size: int, tower_sha256: str) -> None:
        self.width, self.tower_sha256 = hidden_size, tower_sha256

    def read(self, stored: Sequence[float]) -> Tensor:
        """float32 (hidden_size,).

        Raises:
            ValueError: it has another length.
        """
        if len(stored) != self.width:
            raise ValueError(f"its embedding has {len(stored)} numbers in place of {self.width}")
        return torch.tensor(stored, dtype=torch.float32)

    def vary(self, sound: Tensor, arguments: SpeechAugmentationArguments, draw: random.Random) -> Tensor:
        """As it is: what varies speech is refused before."""
        return sound

    def batch(self, sounds: Sequence[Tensor | None]) -> Tensor:
        """(batch, hidden_size), zeros where there is no sound."""
        silent = torch.zeros(self.width)
        return torch.stack([silent if sound is None else sound for sound in sounds])

    def set_tower_aside(self, tower: PreTrainedModel) -> str:
        """Keep a model's own tower, which hears nothing in training, as it is; tells in words whether it is
        the one that made the embeddings.
        """
        tower.requires_grad_(False)
        if tower_sha256(tower) == self.tower_sha256:
            return "The speech tower of this model made the embeddings of the set; it is saved as it came."
        return (
            "The speech tower of this model is not the one that made the embeddings of the set: it is saved "
            "as it came, and the embeddings that the trained model gives of waveforms mean nothing. Name the "
            "folder of the model that made them as audio_weights.source to have its tower."
        )


def encode_array(array: np.ndarray) -> bytes:
    """The bytes of a NumPy file (.npy)."""
    encoded = io.BytesIO()
    np.save(encoded, array, allow_pickle=False)
    return encoded.getvalue()


def decode_array(encoded: bytes) -> np.ndarray:
    """What `encode_array` encoded.

    Raises:
        ValueError: the bytes are cut short, or no array.
    """
    try:
        return np.load(io.BytesIO(encoded), allow_pickle=False)
    except (EOFError, OSError) as error:
        raise ValueError(f"its array is damaged ({error})") from error


def tower_sha256(tower: PreTrainedModel) -> str:
    """SHA-256 over names, types, shapes and values of a tower's weights and running statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoded_sound(
    arguments: PretrainArguments, dataset: str, columns: Sequence[str], config: DualRepConfig
) -> StoredSound | None:
    """How the sound of a set without waveforms is read; None where the set has waveforms, or the model no
    speech tower.

    Args:
        arguments: the run, which names the configuration.
        dataset: as `open_clips` takes it.
        columns: of the set.
        config: of the model.

    Raises:
        StoredRowsError: the set does not tell how its sound was encoded, or not for this model.
        ArgumentsError: the run asks for what takes sound that the set has not.
    """
    if not config.use_audio or not {LOG_MEL, AUDIO_EMBEDDING} & set(columns):
        return None
    told = _encoder_told(dataset, arguments.dataset_config)
    if LOG_MEL in columns:
        return _fitting_log_mels(told, dataset, config)
    _refuse_what_needs_sound(arguments, dataset)
    return _fitting_embeddings(told, dataset, config)


def _encoder_told(dataset: str, config: str) -> dict[str, Any]:
    """What `info.json` tells of the encoder."""
    info = read_text(dataset, f"data/{config}/{INFO_FILE}")
    told = None if info is None else json.loads(info).get(ENCODER)
    if told is None:
        raise StoredRowsError(
            f"data/{config}/{INFO_FILE} of {dataset!r} does not tell how its sound was encoded: write the "
            "set by `python -m train.prepare_clips_without_waveform`."
        )
    return told


def _fitting_log_mels(told: dict[str, Any], dataset: str, config: DualRepConfig) -> LogMels:
    stored = LogMelSettings(**told["log_mel"])
    wanted = LogMelSettings.of(DualRepFeatureExtractor(feature_size=config.audio_config.num_mel_bins))
    difference = stored.difference(wanted)
    if difference:
        raise StoredRowsError(
            f"The log-mels of {dataset!r} are not those that the model takes: {difference}. Write the set "
            "with --model FOLDER of such a model, or change the model."
        )
    return LogMels(wanted.feature_size)


def _fitting_embeddings(told: dict[str, Any], dataset: str, config: DualRepConfig) -> TowerEmbeddings:
    hidden_size = config.audio_config.hidden_size
    if told["hidden_size"] != hidden_size:
        raise StoredRowsError(
            f"The speech embeddings of {dataset!r} have {told['hidden_size']} numbers, but the model's "
            f"speech tower gives {hidden_size}: set model.audio_config.hidden_sizes as in the model that "
            "made them."
        )
    return TowerEmbeddings(hidden_size, told["tower_sha256"])


def _refuse_what_needs_sound(arguments: PretrainArguments, dataset: str) -> None:
    if arguments.speech_words.steps:
        raise ArgumentsError(
            f"speech_words teaches the speech tower, which hears nothing of {dataset!r}, a set of "
            "embeddings: leave it out."
        )
    if arguments.speech_augmentation != SpeechAugmentationArguments():
        raise ArgumentsError(
            f"speech_augmentation varies log-mels, and {dataset!r} holds embeddings alone: leave it out."
        )
