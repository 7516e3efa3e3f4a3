"""Recordings to clips that keep no waveform, for places that may keep none.

    python -m train.prepare_clips_without_waveform RECORDINGS OUT --sound log_mel
    python -m train.prepare_clips_without_waveform RECORDINGS OUT --sound embedding --model FOLDER

It takes all options of `python -m datasets_scripts.prepare_clips`, and writes the same clips, as the
configuration `medium_log_mel` or `medium_audio_embedding` (clips of other lengths have other names), which
`train/pretrain.py --dataset OUT --dataset_config medium_log_mel` takes.

No waveform is written anywhere, not even for a while. Neither form is an anonymisation: speech can be rebuilt
from log-mels, and a probe on embeddings tells words, such as the plane that a remark names.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from datasets_scripts.clips import ClipParameters
from datasets_scripts.encoded_sound import SoundEncoder, encoded_clips
from datasets_scripts.preparation import PreparationReport, RunOptions, prepare
from datasets_scripts.preparation_command import run_command
from datasets_scripts.schema import LOG_MEL
from datasets_scripts.set_parameters import require, require_choice
from train.sound_encoders import LogMelEncoder, TowerEncoder

EMBEDDING = "embedding"
DESCRIPTION = (
    "Cut recordings into clips and write them as Parquet shards, with log-mels or embeddings in the place of "
    "waveforms. This is no anonymisation: speech can be rebuilt from log-mels, and a probe on embeddings "
    "tells words, such as the plane that a remark names."
)


@dataclass(frozen=True)
class WithoutWaveformParameters(ClipParameters):
    """What decides the content of a set of clips without waveforms.

    Args:
        sound: log_mel keeps the log-mel spectrogram of each clip, at the settings of the model; speech can be
            rebuilt from it. embedding keeps the pooled output of the model's speech tower, from which a probe
            tells words.
        model: folder of a DualRep model; left out, log-mels have the settings of a new one. For embeddings it
            must be given.

    Raises:
        ValueError: a value out of its range.
    """

    sound: str = LOG_MEL
    model: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("sound", self.sound, (LOG_MEL, EMBEDDING))
        has_tower = self.sound != EMBEDDING or self.model is not None
        require(has_tower, "model", self.model, "the folder of a DualRep model, whose tower gives embeddings")

    def encoder(self) -> SoundEncoder:
        """What encodes the sound.

        Raises:
            ValueError, OSError: no such model.
        """
        if self.sound == LOG_MEL:
            return LogMelEncoder.of_model(self.model)
        return TowerEncoder.of_model(self.model, self.clip_seconds)


def prepare_clips_without_waveform(
    recordings_dir: Path,
    output_dir: Path,
    parameters: WithoutWaveformParameters,
    **run: Unpack[RunOptions],
) -> PreparationReport:
    """Cut all recordings of a folder into clips, and write them without waveforms as a configuration of a
    data set.

    Args:
        recordings_dir: a folder a scan, or a flat folder of videos.
        output_dir: the data set; made if absent, extended by a configuration if there.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    return prepare(recordings_dir, output_dir, encoded_clips(parameters, parameters.encoder()), **run)


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    return run_command(prepare_clips_without_waveform, WithoutWaveformParameters, DESCRIPTION, command_line)


if __name__ == "__main__":
    sys.exit(main())
