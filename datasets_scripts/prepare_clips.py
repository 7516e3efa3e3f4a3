"""Recordings to clips in Parquet.

    python -m datasets_scripts.prepare_clips RECORDINGS OUT --clip-seconds 6

Writes `OUT/data/<configuration>/*.parquet`, `OUT/splits.json` and the card `OUT/README.md`. Beside OUT, since
they know names: `OUT.key`, the key of the hashed identifiers, and `OUT.<configuration>.report.json` and, as a
page to read, `OUT.<configuration>.report.html`: an entry a recording, and one with its reason for every file
that is none. Run again with another clip length, it adds a configuration with the same splits.

As prepare_planes and prepare_gaze do, it keeps the ultrasound sector of each recording and blanks the rest;
`--sector whole` keeps frames as recorded. `--sheet FILE.png` shows what is kept, a tile a recording.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from datasets_scripts.clips import ClipParameters, cut_clips
from datasets_scripts.preparation import Preparation, PreparationReport, RunOptions, prepare
from datasets_scripts.preparation_command import run_command
from datasets_scripts.recording_errors import NothingKeptError, TooShortError
from datasets_scripts.recordings import Recording
from datasets_scripts.schema import AUDIO, SPEECH_FRACTION, clips_config_name, clips_features

BELOW_SPEECH, WITHOUT_SOUND = "clips_below_speech", "clips_without_sound"


def prepare_clips(
    recordings_dir: Path, output_dir: Path, parameters: ClipParameters, **run: Unpack[RunOptions]
) -> PreparationReport:
    """Cut all recordings of a folder into clips, and write them as a configuration of a data set.

    Args:
        recordings_dir: a folder a scan, or a flat folder of videos.
        output_dir: the data set; made if absent, extended by a configuration if there.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    preparation = Preparation(
        config=clips_config_name(parameters.clip_seconds),
        row="clip",
        features=clips_features(),
        parameters=parameters,
        make_rows=clips_with_speech,
        remedy=f"add recordings, or choose a --clip-seconds shorter than {parameters.clip_seconds:g}",
    )
    return prepare(recordings_dir, output_dir, preparation, **run)


def clips_with_speech(
    recording: Recording, scan_id: str, parameters: ClipParameters, counts: Counter[str]
) -> Iterator[dict]:
    """The clips of a recording that hold enough speech; the others are counted.

    Raises:
        RecordingError: the recording is damaged, too short for one clip, or has none with enough speech.
    """
    kept = 0
    for row in cut_clips(recording, scan_id, parameters, counts):
        if row[SPEECH_FRACTION] < parameters.minimum_speech_fraction:
            counts[BELOW_SPEECH] += 1
            continue
        counts[WITHOUT_SOUND] += row[AUDIO] is None
        kept += 1
        yield row
    if kept + counts[BELOW_SPEECH] == 0:
        raise TooShortError(
            f"{recording.name}: shorter than one clip of {parameters.clip_seconds:g} s; leave it out."
        )
    if kept == 0:
        raise NothingKeptError(
            f"{recording.name}: none of its clips has a speech share of "
            f"{parameters.minimum_speech_fraction:g}; leave it out, or choose a lower one."
        )


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    description = "Cut recordings into clips and write them as Parquet shards."
    return run_command(prepare_clips, ClipParameters, description, command_line)


if __name__ == "__main__":
    sys.exit(main())
