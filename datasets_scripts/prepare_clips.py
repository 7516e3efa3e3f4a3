"""Recordings to clips in Parquet.

    python -m datasets_scripts.prepare_clips RECORDINGS OUT --clip-seconds 6

Writes `OUT/data/<configuration>/*.parquet`, `OUT/splits.json` and the card `OUT/README.md`. Beside OUT, since
they know names: `OUT.key`, the key of the hashed identifiers, and `OUT.<configuration>.report.json`, an entry
a recording. Run again with another clip length, it adds a configuration with the same splits.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from datasets_scripts.clip_shards import config_dir, data_hash, stage_clips, write_info, write_shards
from datasets_scripts.clips import ClipParameters, cut_clips
from datasets_scripts.dataset_card import add_to_card
from datasets_scripts.privacy import key_fingerprint, keyed_hash, read_or_create_key
from datasets_scripts.recording_errors import RecordingError, TooShortError
from datasets_scripts.recordings import RecordingFiles, find_recordings, open_recording
from datasets_scripts.schema import SAMPLING_RATE_HZ, SPEECH_FRACTION, SPLITS, clips_config_name
from datasets_scripts.splits import Splits, check_key, read_splits, split_by_patient, write_splits


class PrepareError(Exception):
    """Nothing was written, for the reason that the message gives."""


class StrictError(PrepareError):
    """A recording cannot be used, and `strict` forbids to leave it out."""


@dataclass(frozen=True)
class RecordingOutcome:
    """What became of one recording.

    `left_out` says why none of it was kept, and `error` is the class of the error, if it was one.
    `clips_below_speech` counts clips left out for too little speech.
    """

    name: str
    scan_id: str
    patient: str
    clips: int
    clips_below_speech: int
    has_sound: bool
    left_out: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ClipsReport:
    """What was kept and what was left out. It names files, so it is kept beside the data set, not in it."""

    config: str
    data_hash: str
    clips: dict[str, int]
    scans: dict[str, int]
    notes: tuple[str, ...]
    recordings: tuple[RecordingOutcome, ...]

    def summary(self) -> str:
        """A few lines for people."""
        kept = [f"{self.clips[split]} clips of {self.scans[split]} scans to {split}" for split in SPLITS]
        lines = [f"{self.config}: {', '.join(kept)}.", *self.notes]
        left_out = [outcome.left_out for outcome in self.recordings if outcome.left_out]
        if left_out:
            lines += [f"{len(left_out)} of {len(self.recordings)} recordings were left out:"]
            lines += [f"  {reason}" for reason in left_out]
        return "\n".join(lines)


def prepare_clips(
    recordings_dir: Path,
    output_dir: Path,
    parameters: ClipParameters,
    *,
    workers: int | None = None,
    key_file: Path | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> ClipsReport:
    """Cut all recordings of a folder into clips, and write them as a configuration of a data set.

    Args:
        recordings_dir: a folder a scan, or a flat folder of videos.
        output_dir: the data set; made if absent, extended by a configuration if there.
        workers: processes; None means one a CPU. Their number does not change the outcome.
        key_file: the key of the hashed identifiers; None means `<output_dir>.key`. Made if absent.
        strict: stop at the first recording that cannot be used.
        overwrite: replace the configuration if the data set has it.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    recordings_dir, output_dir = Path(recordings_dir).resolve(), Path(output_dir).resolve()
    config = clips_config_name(parameters.clip_seconds)
    recordings = _check_before(recordings_dir, output_dir, config, overwrite)
    known = read_splits(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    key = read_or_create_key(Path(key_file or _beside(output_dir, "key")), output_dir)
    if known is not None:
        check_key(known, key_fingerprint(key))
    staging = _beside(output_dir, "partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        tasks = [_Task(files, _staged(staging, n), parameters, key) for n, files in enumerate(recordings)]
        outcomes = _cut_all(tasks, workers or os.cpu_count() or 1, strict)
        splits = _split(outcomes, parameters, key, known)
        report = _write(output_dir, config, parameters, outcomes, splits, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
    _beside(output_dir, f"{config}.report.json").write_text(text + "\n", encoding="utf-8")
    return report


def _beside(output_dir: Path, suffix: str) -> Path:
    return output_dir.with_name(f"{output_dir.name}.{suffix}")


def _staged(staging: Path, number: int) -> Path:
    return staging / f"{number:06d}.arrow"


def _check_before(
    recordings_dir: Path, output_dir: Path, config: str, overwrite: bool
) -> list[RecordingFiles]:
    """The recordings, once all that can be known before any work is found in order."""
    if output_dir.is_relative_to(recordings_dir) or recordings_dir.is_relative_to(output_dir):
        raise PrepareError("The recordings and the data set lie one inside the other; name separate folders.")
    recordings = find_recordings(recordings_dir)
    if not recordings:
        raise PrepareError(f"{recordings_dir} holds no recording; put one folder a scan, or videos, into it.")
    if config_dir(output_dir, config).exists() and not overwrite:
        raise PrepareError(
            f"{output_dir} already has the configuration {config}; --overwrite replaces it, "
            "and another --clip-seconds adds one."
        )
    return recordings


@dataclass(frozen=True)
class _Task:
    files: RecordingFiles
    staged: Path
    parameters: ClipParameters
    key: bytes


def _cut_all(tasks: list[_Task], workers: int, strict: bool) -> list[RecordingOutcome]:
    outcomes = []
    for outcome in tqdm(_outcomes(tasks, min(workers, len(tasks))), total=len(tasks), unit="recording"):
        if strict and outcome.left_out:
            raise StrictError(outcome.left_out)
        outcomes.append(outcome)
    if not any(outcome.clips for outcome in outcomes):
        reasons = "\n".join(f"  {outcome.left_out}" for outcome in outcomes)
        raise PrepareError(f"No recording gave a clip:\n{reasons}")
    return outcomes


def _outcomes(tasks: list[_Task], workers: int) -> Iterator[RecordingOutcome]:
    """The outcomes in the order of the tasks."""
    if workers == 1:
        yield from map(_cut_one, tasks)
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from executor.map(_cut_one, tasks)
    except BrokenProcessPool as error:
        raise PrepareError(
            "A worker was killed, most often for want of memory; run again with fewer --workers."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _cut_one(task: _Task) -> RecordingOutcome:
    """Cut one recording and stage its clips; runs in a worker."""
    name, parameters = task.files.name, task.parameters
    scan_id = patient = keyed_hash(task.key, "scan", name)
    has_sound, below_speech = False, 0

    def rows_with_speech() -> Iterator[dict]:
        nonlocal below_speech
        for row in cut_clips(recording, scan_id, parameters):
            if row[SPEECH_FRACTION] >= parameters.minimum_speech_fraction:
                yield row
            else:
                below_speech += 1

    try:
        recording = open_recording(task.files)
        has_sound = recording.has_sound
        if recording.notes.patient_id is not None:
            patient = keyed_hash(task.key, "patient", recording.notes.patient_id)
        clips = stage_clips(rows_with_speech(), task.staged)
        if clips + below_speech == 0:
            raise TooShortError(
                f"{name}: shorter than one clip of {parameters.clip_seconds:g} s; leave it out."
            )
    except RecordingError as error:
        return RecordingOutcome(name, scan_id, patient, 0, 0, has_sound, str(error), type(error).__name__)
    left_out = None
    if clips == 0:
        left_out = f"{name}: none of its clips has a speech share of {parameters.minimum_speech_fraction:g}."
    return RecordingOutcome(name, scan_id, patient, clips, below_speech, has_sound, left_out)


def _split(
    outcomes: list[RecordingOutcome], parameters: ClipParameters, key: bytes, known: Splits | None
) -> Splits:
    patient_of_scan = {outcome.scan_id: outcome.patient for outcome in outcomes if outcome.clips}
    splits = split_by_patient(
        patient_of_scan, parameters.validation_fraction, parameters.seed, key_fingerprint(key), known
    )
    for split in SPLITS:
        held = splits.scans(split)
        if held and not held & set(patient_of_scan):
            raise PrepareError(
                f"No recording of the {split} split gave a clip of {parameters.clip_seconds:g} s; "
                "add recordings, or choose a shorter --clip-seconds."
            )
    return splits


def _write(
    output_dir: Path,
    config: str,
    parameters: ClipParameters,
    outcomes: list[RecordingOutcome],
    splits: Splits,
    staging: Path,
) -> ClipsReport:
    """Write the shards aside, then put splits, configuration and card in their places."""
    aside = staging / "set"
    config_dir(aside, config).mkdir(parents=True)
    clips, scans, shards = {}, {}, {}
    for split in SPLITS:
        held = splits.scans(split)
        staged = [
            (_staged(staging, number), outcome.clips)
            for number, outcome in enumerate(outcomes)
            if outcome.clips and outcome.scan_id in held
        ]
        clips[split], scans[split] = sum(number for _, number in staged), len(staged)
        shards[split] = write_shards(staged, config_dir(aside, config), split, parameters.seed)
    digest = data_hash(aside, config)
    info = _info(config, parameters, clips, scans, digest)
    write_info(aside, config, info)
    _put_in_place(aside, output_dir, config, splits)
    patterns = {split: f"data/{config}/{split}-*.parquet" for split in SPLITS if shards[split]}
    add_to_card(output_dir, config, patterns)
    return ClipsReport(config, digest, clips, scans, _notes(scans, parameters), tuple(outcomes))


def _info(
    config: str, parameters: ClipParameters, clips: dict[str, int], scans: dict[str, int], digest: str
) -> dict:
    return {
        "config": config,
        "clip_seconds": parameters.clip_seconds,
        "stride_seconds": parameters.step_seconds,
        "frames_per_clip": parameters.frames_per_clip,
        "frame_size": parameters.frame_size,
        "sampling_rate_hz": SAMPLING_RATE_HZ,
        "minimum_speech_fraction": parameters.minimum_speech_fraction,
        "clips": clips,
        "scans": scans,
        "data_hash": digest,
    }


def _put_in_place(aside: Path, output_dir: Path, config: str, splits: Splits) -> None:
    target = config_dir(output_dir, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_splits(splits, output_dir)
    if target.exists():
        shutil.rmtree(target)
    os.replace(config_dir(aside, config), target)


def _notes(scans: dict[str, int], parameters: ClipParameters) -> tuple[str, ...]:
    if scans["validation"] or parameters.validation_fraction == 0:
        return ()
    return ("There is one patient only: all clips are in train, and there is no validation split.",)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    options = vars(_parser().parse_args(arguments))
    recordings_dir, output_dir = options.pop("recordings"), options.pop("output")
    run = {name: options.pop(name) for name in ("workers", "key_file", "strict", "overwrite")}
    try:
        report = prepare_clips(recordings_dir, output_dir, ClipParameters(**options), **run)
    except StrictError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (PrepareError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.summary())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Cut recordings into clips and write them as Parquet shards."
    )
    parser.add_argument("recordings", type=Path, help="folder of recordings: one folder a scan, or videos")
    parser.add_argument("output", type=Path, help="folder of the data set")
    for field in fields(ClipParameters):
        kind = int if isinstance(field.default, int) else float
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=kind, default=field.default, help=f"default: {field.default}")
    parser.add_argument("--workers", type=int, help="processes; default: one a CPU")
    parser.add_argument("--key-file", type=Path, help="key of the hashed identifiers; default: OUT.key")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first recording that cannot be used"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the configuration if it is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
