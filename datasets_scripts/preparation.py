"""From a folder of recordings to one configuration of a data set: what clips, planes and gaze have in common.

Each kind says by a `Preparation` what its rows are and how one recording gives them. Here is the rest: what
is checked before any work, the key, the workers, the splits, shards that are written aside and then put in
their place, the card, and the report.
"""

import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from datasets import Features
from tqdm import tqdm

from datasets_scripts.contact_sheet import draw_tile, write_sheets
from datasets_scripts.dataset_card import add_to_card
from datasets_scripts.privacy import key_fingerprint, keyed_hash, read_or_create_key
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording, RecordingFiles, find_recordings, open_recording
from datasets_scripts.schema import SPLITS
from datasets_scripts.sector import SectorError
from datasets_scripts.set_parameters import SetParameters
from datasets_scripts.shards import config_dir, data_hash, stage_rows, write_info, write_shards
from datasets_scripts.splits import Splits, check_key, read_splits, split_by_patient, write_splits

MakeRows = Callable[[Recording, str, SetParameters, Counter[str]], Iterator[dict]]


class PrepareError(Exception):
    """Nothing was written, for the reason that the message gives."""


class StrictError(PrepareError):
    """A recording cannot be used, and `strict` forbids to leave it out."""


@dataclass(frozen=True)
class Preparation:
    """What is made of recordings.

    Args:
        config: name of the configuration.
        row: what a row is, in one word: clip or frame.
        features: of the rows.
        parameters: what decides their content.
        make_rows: called in a worker with the recording, its hashed scan id, the parameters and a counter;
            yields the rows in one pass, counts what it likes by name, and raises a RecordingError where it
            keeps nothing. A function of a module, so that workers find it.
        remedy: what to do where a split gets no row at all.
    """

    config: str
    row: str
    features: Features
    parameters: SetParameters
    make_rows: MakeRows
    remedy: str


class RunOptions(TypedDict, total=False):
    """How a preparation runs; none of it changes a row.

    Args:
        workers: processes; None or left out means one a CPU.
        key_file: the key of the hashed identifiers; None or left out means `<output_dir>.key`, made if
            absent.
        strict: stop at the first recording that cannot be used.
        overwrite: replace the configuration if the data set has it.
        sheet: PNG to show, a tile a recording, what is kept and what is blanked; None or left out: none.
    """

    workers: int | None
    key_file: Path | None
    strict: bool
    overwrite: bool
    sheet: Path | None


@dataclass(frozen=True)
class RecordingOutcome:
    """What became of one recording.

    `counts` is what its rows hold and what was dropped, by name. `left_out` says why none of it was kept, and
    `error` is the class of that error.
    """

    name: str
    scan_id: str
    patient: str
    rows: int
    counts: dict[str, int]
    left_out: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class PreparationReport:
    """What was kept and what was left out. It names files, so it is kept beside the data set, not in it.

    `rows`, `scans` and `counts` (sums over the recordings that were kept) are by split.
    """

    config: str
    row: str
    data_hash: str
    rows: dict[str, int]
    scans: dict[str, int]
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    recordings: tuple[RecordingOutcome, ...]

    def summary(self) -> str:
        """A few lines for people."""
        kept = [f"{self.rows[split]} {self.row}s of {self.scans[split]} scans to {split}" for split in SPLITS]
        lines = [f"{self.config}: {', '.join(kept)}.", *self.notes]
        for split, counts in self.counts.items():
            if counts:
                lines.append(
                    f"  {split}: " + ", ".join(f"{name} {number}" for name, number in counts.items())
                )
        left_out = [outcome.left_out for outcome in self.recordings if outcome.left_out]
        if left_out:
            lines += [f"{len(left_out)} of {len(self.recordings)} recordings were left out:"]
            lines += [f"  {reason}" for reason in left_out]
        return "\n".join(lines)


def prepare(
    recordings_dir: Path,
    output_dir: Path,
    preparation: Preparation,
    *,
    workers: int | None = None,
    key_file: Path | None = None,
    strict: bool = False,
    overwrite: bool = False,
    sheet: Path | None = None,
) -> PreparationReport:
    """Write what a preparation makes of the recordings of a folder as a configuration of a data set.

    Args:
        recordings_dir: a folder a scan, or a flat folder of videos.
        output_dir: the data set; made if absent, extended by a configuration if there.
        workers, key_file, strict, overwrite, sheet: as `RunOptions` says.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    recordings_dir, output_dir = Path(recordings_dir).resolve(), Path(output_dir).resolve()
    sheet = None if sheet is None else Path(sheet).resolve()
    recordings = _check_before(recordings_dir, output_dir, preparation.config, overwrite, sheet)
    known = read_splits(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    key = read_or_create_key(Path(key_file or _beside(output_dir, "key")), output_dir)
    if known is not None:
        check_key(known, key_fingerprint(key))
    staging = _beside(output_dir, "partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        tasks = [
            _Task(files, _staged(staging, number), preparation, key, sheet is not None)
            for number, files in enumerate(recordings)
        ]
        outcomes = _make_all(tasks, workers or os.cpu_count() or 1, strict)
        splits = _split(outcomes, preparation, key, known)
        report = _write(output_dir, preparation, outcomes, splits, staging)
        if sheet is not None:
            write_sheets(_labelled_tiles(tasks, outcomes), sheet)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
    _beside(output_dir, f"{report.config}.report.json").write_text(text + "\n", encoding="utf-8")
    return report


def _beside(output_dir: Path, suffix: str) -> Path:
    return output_dir.with_name(f"{output_dir.name}.{suffix}")


def _staged(staging: Path, number: int) -> Path:
    return staging / f"{number:06d}.arrow"


def _check_before(
    recordings_dir: Path, output_dir: Path, config: str, overwrite: bool, sheet: Path | None
) -> list[RecordingFiles]:
    """The recordings, once all that can be known before any work is found in order."""
    if output_dir.is_relative_to(recordings_dir) or recordings_dir.is_relative_to(output_dir):
        raise PrepareError("The recordings and the data set lie one inside the other; name separate folders.")
    recordings = find_recordings(recordings_dir)
    if not recordings:
        raise PrepareError(f"{recordings_dir} holds no recording; put one folder a scan, or videos, into it.")
    if config_dir(output_dir, config).exists() and not overwrite:
        raise PrepareError(f"{output_dir} already has the configuration {config}; --overwrite replaces it.")
    if sheet is not None and (sheet.suffix.lower() != ".png" or sheet.is_relative_to(output_dir)):
        raise PrepareError(
            f"{sheet} cannot be the sheet: it shows frames with all that is written on them; name a .png "
            "outside of the data set."
        )
    return recordings


@dataclass(frozen=True)
class _Task:
    files: RecordingFiles
    staged: Path
    preparation: Preparation
    key: bytes
    with_tile: bool

    @property
    def tile(self) -> Path:
        """Where the recording's tile of the sheet is staged."""
        return self.staged.with_suffix(".png")


def _make_all(tasks: list[_Task], workers: int, strict: bool) -> list[RecordingOutcome]:
    outcomes = []
    for outcome in tqdm(_outcomes(tasks, min(workers, len(tasks))), total=len(tasks), unit="recording"):
        if strict and outcome.left_out:
            raise StrictError(outcome.left_out)
        outcomes.append(outcome)
    if not any(outcome.rows for outcome in outcomes):
        reasons = "\n".join(f"  {outcome.left_out}" for outcome in outcomes)
        raise PrepareError(f"No recording gave a {tasks[0].preparation.row}:\n{reasons}")
    return outcomes


def _outcomes(tasks: list[_Task], workers: int) -> Iterator[RecordingOutcome]:
    """The outcomes in the order of the tasks."""
    if workers == 1:
        yield from map(_make_one, tasks)
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from executor.map(_make_one, tasks)
    except BrokenProcessPool as error:
        raise PrepareError(
            "A worker was killed, most often for want of memory; run again with fewer --workers."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _make_one(task: _Task) -> RecordingOutcome:
    """Stage the rows of one recording; runs in a worker."""
    name, preparation = task.files.name, task.preparation
    scan_id = patient = keyed_hash(task.key, "scan", name)
    counts: Counter[str] = Counter()
    try:
        recording = open_recording(task.files)
        if recording.notes.patient_id is not None:
            patient = keyed_hash(task.key, "patient", recording.notes.patient_id)
        if task.with_tile:
            draw_tile(recording, preparation.parameters.sector).save(task.tile)
        rows = preparation.make_rows(recording, scan_id, preparation.parameters, counts)
        number = stage_rows(rows, task.staged, preparation.features)
    except RecordingError as error:
        reason = f"{name}: {error}" if isinstance(error, SectorError) else str(error)
        return RecordingOutcome(name, scan_id, patient, 0, dict(counts), reason, type(error).__name__)
    return RecordingOutcome(name, scan_id, patient, number, dict(counts))


def _labelled_tiles(tasks: list[_Task], outcomes: list[RecordingOutcome]) -> list[tuple[Path, str]]:
    """The tiles of all recordings that can be decoded, each with its hashed scan id."""
    return [
        (task.tile, f"{outcome.scan_id} left out" if outcome.left_out else outcome.scan_id)
        for task, outcome in zip(tasks, outcomes, strict=True)
        if task.tile.exists()
    ]


def _split(
    outcomes: list[RecordingOutcome], preparation: Preparation, key: bytes, known: Splits | None
) -> Splits:
    patient_of_scan = {outcome.scan_id: outcome.patient for outcome in outcomes if outcome.rows}
    parameters = preparation.parameters
    splits = split_by_patient(
        patient_of_scan, parameters.validation_fraction, parameters.seed, key_fingerprint(key), known
    )
    for split in SPLITS:
        held = splits.scans(split)
        if held and not held & set(patient_of_scan):
            raise PrepareError(
                f"No recording of the {split} split gave a {preparation.row}; {preparation.remedy}."
            )
    return splits


def _write(
    output_dir: Path,
    preparation: Preparation,
    outcomes: list[RecordingOutcome],
    splits: Splits,
    staging: Path,
) -> PreparationReport:
    """Write the shards aside, then put splits, configuration and card in their places."""
    aside, config, parameters = staging / "set", preparation.config, preparation.parameters
    config_dir(aside, config).mkdir(parents=True)
    rows, scans, shards, counts = {}, {}, {}, {}
    for split in SPLITS:
        held = splits.scans(split)
        kept = [(n, each) for n, each in enumerate(outcomes) if each.rows and each.scan_id in held]
        staged = [(_staged(staging, number), outcome.rows) for number, outcome in kept]
        rows[split], scans[split] = sum(number for _, number in staged), len(staged)
        counts[split] = dict(sum((Counter(outcome.counts) for _, outcome in kept), Counter()))
        shards[split] = write_shards(
            staged, config_dir(aside, config), split, parameters.seed, preparation.features
        )
    digest = data_hash(aside, config)
    numbers = {f"{preparation.row}s": rows, "scans": scans, "data_hash": digest}
    write_info(aside, config, {"config": config, **parameters.info(), **numbers})
    _put_in_place(aside, output_dir, config, splits)
    patterns = {split: f"data/{config}/{split}-*.parquet" for split in SPLITS if shards[split]}
    add_to_card(output_dir, config, patterns, digest, splits.key_fingerprint)
    notes = _notes(preparation, scans)
    return PreparationReport(config, preparation.row, digest, rows, scans, counts, notes, tuple(outcomes))


def _put_in_place(aside: Path, output_dir: Path, config: str, splits: Splits) -> None:
    target = config_dir(output_dir, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_splits(splits, output_dir)
    if target.exists():
        shutil.rmtree(target)
    os.replace(config_dir(aside, config), target)


def _notes(preparation: Preparation, scans: dict[str, int]) -> tuple[str, ...]:
    if scans["validation"] or preparation.parameters.validation_fraction == 0:
        return ()
    return (
        f"There is one patient only: all {preparation.row}s are in train, and there is no validation split.",
    )
