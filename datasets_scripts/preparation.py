"""From a folder of recordings to one configuration of a data set: what clips, planes and gaze have in common.

Each kind says by a `Preparation` what its rows are and how one recording gives them. Here is the rest: what
is checked before any work, the key, the splits, the shards, the card, and the report. What was made of each
recording is kept in `OUT.partial` until the set is in its place: after an end by error or kill, the same
command goes on from there.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile, rmtree
from typing import TypedDict

from datasets import Features
from tqdm import tqdm

from datasets_scripts.burned_in_text import require_reader
from datasets_scripts.contact_sheet import check_sheet, place_sheets
from datasets_scripts.dataset_card import CARD_FILE, add_to_card
from datasets_scripts.durable_files import is_no_space
from datasets_scripts.finished_set import (
    PAGE_FILE,
    REPORT_FILE,
    SET_FOLDER,
    beside,
    mark_finished,
    put_in_place,
    report_path,
)
from datasets_scripts.one_recording import RecordingTask, lost_outcome, make_one, tile_label
from datasets_scripts.preparation_engine import PROCESSES, Engine, Lost
from datasets_scripts.preparation_report import (
    PreparationReport,
    PrepareError,
    RecordingOutcome,
    StrictError,
    read_report,
    write_report,
)
from datasets_scripts.privacy import key_fingerprint, read_or_create_key
from datasets_scripts.recording_folders import RecordingFiles, find_all_files
from datasets_scripts.recordings import Recording
from datasets_scripts.report_page import ShownRecording, write_page
from datasets_scripts.row_facts import read_row_facts
from datasets_scripts.schema import SPLITS
from datasets_scripts.set_parameters import IGNORE, SetParameters
from datasets_scripts.shards import config_dir, data_hash, write_info, write_shards
from datasets_scripts.splits import (
    VALIDATION,
    HoldOut,
    Splits,
    check_key,
    read_splits,
    scans_held_out,
    split_by_patient,
    write_splits,
)
from datasets_scripts.staged_scans import (
    StagedScan,
    code_version,
    fingerprint,
    locked_folder,
    state_of_files,
)

MakeRows = Callable[[Recording, str, SetParameters, Counter[str]], Iterator[dict]]


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

    def fingerprint(self) -> str:
        """Of all that decides the rows, but the recording and the key."""
        maker = f"{self.make_rows.__module__}.{self.make_rows.__qualname__}"
        columns = str(self.features.arrow_schema)
        return fingerprint(self.config, maker, columns, asdict(self.parameters), code_version())


class RunOptions(TypedDict, total=False):
    """How a preparation runs; none of it changes a row.

    Args:
        workers: processes; None or left out means one a CPU.
        engine: processes of this machine, or ray.
        ray_address: of a running Ray cluster, whose machines must share the folders of the recordings and of
            the data set by the same names; None or left out means RAY_ADDRESS, or else this machine.
        key_file: the key of the hashed identifiers; None or left out means `<output_dir>.key`, made if
            absent.
        strict: stop at the first recording that cannot be used.
        overwrite: replace the configuration if the data set has it.
        sheet: PNG to show, a tile a recording, what is kept and what is blanked; None or left out: none.
    """

    workers: int | None
    engine: str
    ray_address: str | None
    key_file: Path | None
    strict: bool
    overwrite: bool
    sheet: Path | None


def prepare(
    recordings_dir: Path,
    output_dir: Path,
    preparation: Preparation,
    *,
    workers: int | None = None,
    engine: str = PROCESSES,
    ray_address: str | None = None,
    key_file: Path | None = None,
    strict: bool = False,
    overwrite: bool = False,
    sheet: Path | None = None,
) -> PreparationReport:
    """Write what a preparation makes of the recordings of a folder as a configuration of a data set.

    After an end by error or kill, at any moment, the same call goes on from what was made, and ends as one
    that nothing disturbed: the same files, the same report.

    Args:
        recordings_dir: a folder a scan, or a flat folder of videos.
        output_dir: the data set; made if absent, extended by a configuration if there.
        workers, engine, ray_address, key_file, strict, overwrite, sheet: as `RunOptions` says.

    Raises:
        PrepareError, ValueError, OSError: the data set is as it was; the message says why.
    """
    recordings_dir, output_dir = Path(recordings_dir).resolve(), Path(output_dir).resolve()
    sheet = None if sheet is None else Path(sheet).resolve()
    key_file = Path(key_file or beside(output_dir, "key"))
    run_on = Engine(engine, workers, ray_address)
    recordings = _check_before(recordings_dir, output_dir, sheet)
    if preparation.parameters.text != IGNORE:
        require_reader()
    states = [state_of_files(files) for files in recordings]
    command = fingerprint(states, preparation.fingerprint(), str(key_file.resolve()), str(sheet))
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with locked_folder(beside(output_dir, "partial")) as staging:
        if put_in_place(staging, output_dir) == command:
            return read_report(report_path(output_dir, preparation.config))
        if config_dir(output_dir, preparation.config).exists() and not overwrite:
            raise PrepareError(
                f"{output_dir} already has the configuration {preparation.config}; --overwrite replaces it."
            )
        known = read_splits(output_dir)
        key = read_or_create_key(key_file, output_dir)
        if known is not None:
            check_key(known, key_fingerprint(key))
        tasks = _tasks(recordings, states, preparation, key, staging, sheet is not None)
        try:
            outcomes = _make_all(tasks, run_on, strict)
            splits = _split(outcomes, preparation, key, known)
            report = _write_aside(staging / SET_FOLDER, output_dir, tasks, outcomes, splits)
            if sheet is not None:
                place_sheets(_labelled_tiles(tasks, outcomes), staging, sheet)
            mark_finished(staging, command, preparation.config)
        except OSError as error:
            raise _ended_by(error, staging) from error
        put_in_place(staging, output_dir)
    return report


def _check_before(recordings_dir: Path, output_dir: Path, sheet: Path | None) -> list[RecordingFiles]:
    """The recordings, and the files that are none, once all that can be known before any work is in order."""
    if output_dir.is_relative_to(recordings_dir) or recordings_dir.is_relative_to(output_dir):
        raise PrepareError("The recordings and the data set lie one inside the other; name separate folders.")
    recordings = find_all_files(recordings_dir)
    if not recordings:
        raise PrepareError(f"{recordings_dir} holds no recording; put one folder a scan, or videos, into it.")
    check_sheet(sheet, output_dir)
    return recordings


def _ended_by(error: OSError, staging: Path) -> Exception:
    """The error, or, where room is what is missing, a sentence."""
    if not is_no_space(error):
        return error
    return PrepareError(
        f"The disk of {staging.parent} is full; the data set is as it was, and what was made is kept in "
        f"{staging.name}. Make room, and run the same command again."
    )


def _tasks(
    recordings: list[RecordingFiles],
    states: list[dict],
    preparation: Preparation,
    key: bytes,
    staging: Path,
    with_tile: bool,
) -> list[RecordingTask]:
    of_all = preparation.fingerprint(), key_fingerprint(key), with_tile
    return [
        RecordingTask(files, StagedScan(staging, fingerprint(state, *of_all)), preparation, key, with_tile)
        for files, state in zip(recordings, states, strict=True)
    ]


def _make_all(tasks: list[RecordingTask], engine: Engine, strict: bool) -> list[RecordingOutcome]:
    """The outcomes in the order of the tasks."""
    outcomes: dict[int, RecordingOutcome] = {}
    with closing(engine.run(make_one, tasks)) as results:
        for place, result in tqdm(results, total=len(tasks), unit="recording"):
            outcome = lost_outcome(tasks[place]) if isinstance(result, Lost) else result
            if strict and outcome.left_out:
                raise StrictError(outcome.left_out)
            if outcome.rows and not tasks[place].staged.rows.exists():
                raise PrepareError(_NOT_SHARED)
            outcomes[place] = outcome
    if not any(outcome.rows for outcome in outcomes.values()):
        reasons = "\n".join(f"  {outcomes[place].left_out}" for place in sorted(outcomes))
        raise PrepareError(f"No recording gave a {tasks[0].preparation.row}:\n{reasons}")
    return [outcomes[place] for place in range(len(tasks))]


_NOT_SHARED = (
    "What a machine of the cluster made cannot be found here; the recordings and the data set must lie in "
    "folders that all machines share by the same names."
)


def _labelled_tiles(tasks: list[RecordingTask], outcomes: list[RecordingOutcome]) -> list[tuple[Path, str]]:
    """The tiles of all recordings that can be decoded, each with its hashed scan id and what to look at."""
    return [
        (task.staged.tile, tile_label(outcome))
        for task, outcome in zip(tasks, outcomes, strict=True)
        if task.staged.tile.exists()
    ]


def _split(
    outcomes: list[RecordingOutcome], preparation: Preparation, key: bytes, known: Splits | None
) -> Splits:
    patient_of_scan = {outcome.scan_id: outcome.patient for outcome in outcomes if outcome.rows}
    parameters = preparation.parameters
    hold_out = HoldOut(parameters.hold_out_site, parameters.hold_out_machine)
    origins = {outcome.scan_id: outcome.origin for outcome in outcomes if outcome.rows}
    if known is None:
        hold_out.check(key, origins.values())
    splits = split_by_patient(
        patient_of_scan,
        parameters.validation_fraction,
        parameters.seed,
        key_fingerprint(key),
        known,
        hold_out.hashes(key),
        origins,
    )
    for split in SPLITS:
        held = splits.scans(split)
        if held and not held & set(patient_of_scan):
            raise PrepareError(
                f"No recording of the {split} split gave a {preparation.row}; {preparation.remedy}."
            )
    return splits


def _write_aside(
    aside: Path,
    output_dir: Path,
    tasks: list[RecordingTask],
    outcomes: list[RecordingOutcome],
    splits: Splits,
) -> PreparationReport:
    """Write shards, splits, card and report to a new folder, as they are to be in and beside the data set."""
    rmtree(aside, ignore_errors=True)
    preparation = tasks[0].preparation
    config, parameters = preparation.config, preparation.parameters
    config_dir(aside, config).mkdir(parents=True)
    rows, scans, shards, counts = {}, {}, {}, {}
    for split in SPLITS:
        held = splits.scans(split)
        kept = [(n, each) for n, each in enumerate(outcomes) if each.rows and each.scan_id in held]
        staged = [(tasks[number].staged.rows, outcome.rows) for number, outcome in kept]
        rows[split], scans[split] = sum(number for _, number in staged), len(staged)
        counts[split] = dict(sum((Counter(outcome.counts) for _, outcome in kept), Counter()))
        shards[split] = write_shards(
            staged, config_dir(aside, config), split, parameters.seed, preparation.features
        )
    digest = data_hash(aside, config)
    numbers = {f"{preparation.row}s": rows, "scans": scans, "data_hash": digest}
    write_info(aside, config, {"config": config, **parameters.info(), **numbers})
    write_splits(splits, aside)
    if (output_dir / CARD_FILE).exists():
        copyfile(output_dir / CARD_FILE, aside / CARD_FILE)
    patterns = {split: f"data/{config}/{split}-*.parquet" for split in SPLITS if shards[split]}
    add_to_card(aside, config, patterns, digest, splits.key_fingerprint)
    notes = _notes(preparation, scans, splits, outcomes)
    report = PreparationReport(config, preparation.row, digest, rows, scans, counts, notes, tuple(outcomes))
    write_report(report, aside / REPORT_FILE)
    write_page(report, _shown(tasks, outcomes, splits), aside / PAGE_FILE)
    return report


def _shown(
    tasks: list[RecordingTask], outcomes: list[RecordingOutcome], splits: Splits
) -> list[ShownRecording]:
    """The recordings as the page of the report shows them."""
    preparation = tasks[0].preparation
    seconds = getattr(preparation.parameters, "clip_seconds", None) or 0.0
    split_of = {scan_id: split for split in SPLITS for scan_id in splits.scans(split)}
    shown = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        facts = read_row_facts(task.staged.rows, preparation.features, seconds) if outcome.rows else None
        tile = task.staged.tile if task.staged.tile.exists() else None
        shown.append(ShownRecording(outcome, split_of.get(outcome.scan_id, ""), facts, tile))
    return shown


def _notes(
    preparation: Preparation, scans: dict[str, int], splits: Splits, outcomes: list[RecordingOutcome]
) -> tuple[str, ...]:
    if splits.held_out:
        origins = {outcome.scan_id: outcome.origin for outcome in outcomes if outcome.rows}
        elsewhere = set(origins) & splits.scans(VALIDATION) - scans_held_out(splits.held_out, origins)
        number = len(set(origins) & splits.scans(VALIDATION)) - len(elsewhere)
        return (
            f"Validation is what is held out: {number} scans, and {len(elsewhere)} of its patients from "
            "elsewhere.",
        )
    if scans["validation"] or preparation.parameters.validation_fraction == 0:
        return ()
    return (
        f"There is one patient only: all {preparation.row}s are in train, and there is no validation split.",
    )
