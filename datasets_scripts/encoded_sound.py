"""Clips whose sound is kept encoded alone, for places that may keep no waveform.

A clip is made in memory as `prepare_clips` makes it; a sound encoder then puts log-mels, or embeddings of a
speech tower, in the place of its waveform, before anything of the clip is written.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import soundfile
from datasets import Features

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation import Preparation
from datasets_scripts.prepare_clips import clips_with_speech
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import AUDIO, encoded_clips_config_name


class SoundEncoder(Protocol):
    """Turns waveforms into what is kept of them; a frozen dataclass that workers can be sent.

    Its fields are of types that JSON can hold: they tell whether what an earlier run made may be taken.
    """

    column: ClassVar[str]

    def features(self) -> Features:
        """Of a clip row with `column` in the place of the waveform."""

    def encode(self, waveform: np.ndarray) -> bytes | list[float] | None:
        """What is kept of a 32 kHz waveform (samples,); None for digital silence."""

    def info(self) -> dict[str, Any]:
        """What a trainer must know of it, for `info.json`."""


@dataclass(frozen=True, kw_only=True)
class EncodedClipParameters(ClipParameters):
    """What decides the content of a set of clips without waveforms; `encoder` gives what is kept of the sound
    of each.
    """

    encoder: SoundEncoder

    def info(self) -> dict[str, Any]:
        """As of clips, with what the encoder tells of itself in the place of its fields."""
        return super().info() | {"encoder": self.encoder.info()}


def encoded_clips(parameters: ClipParameters, encoder: SoundEncoder) -> Preparation:
    """How recordings become clips that hold what the encoder gives in the place of waveforms."""
    shared = {field.name: getattr(parameters, field.name) for field in fields(ClipParameters)}
    return Preparation(
        config=encoded_clips_config_name(parameters.clip_seconds, encoder.column),
        row="clip",
        features=encoder.features(),
        parameters=EncodedClipParameters(**shared, encoder=encoder),
        make_rows=clips_without_waveform,
        remedy=f"add recordings, or choose a --clip-seconds shorter than {parameters.clip_seconds:g}",
    )


def clips_without_waveform(
    recording: Recording, scan_id: str, parameters: EncodedClipParameters, counts: Counter[str]
) -> Iterator[dict]:
    """The clips of a recording as `clips_with_speech` gives them, the waveform of each encoded.

    What is encoded are the samples that a set with waveforms would hold, so that both say the same.

    Raises:
        RecordingError: as `clips_with_speech` says.
    """
    encoder = parameters.encoder
    for row in clips_with_speech(recording, scan_id, parameters, counts):
        stored = row.pop(AUDIO)
        yield row | {encoder.column: None if stored is None else encoder.encode(_samples(stored["bytes"]))}


def _samples(flac: bytes) -> np.ndarray:
    """float32 (samples,) of the FLAC of a clip."""
    samples, _ = soundfile.read(io.BytesIO(flac), dtype="float32")
    return samples
