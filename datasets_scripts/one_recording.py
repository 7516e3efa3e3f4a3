"""What a worker does: one recording, whatever is wrong with it, to staged rows and an outcome."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets_scripts.burned_in_text import FoundText, TextOnSectorError, text_within
from datasets_scripts.contact_sheet import draw_tile
from datasets_scripts.coverage import coverage_of
from datasets_scripts.durable_files import is_no_space, written_aside
from datasets_scripts.preparation_report import PrepareError, RecordingOutcome
from datasets_scripts.privacy import keyed_hash
from datasets_scripts.recording_errors import RecordingError, UnreadableError
from datasets_scripts.recordings import Recording, RecordingFiles, open_recording
from datasets_scripts.sector import COLOURED, NoSectorError, Sector, SectorError, crop_to_sector
from datasets_scripts.set_parameters import BLANK, FOUND, IGNORE, LEAVE_OUT
from datasets_scripts.shards import stage_rows
from datasets_scripts.splits import hashed_origin
from datasets_scripts.staged_scans import StagedScan

if TYPE_CHECKING:
    from datasets_scripts.preparation import Preparation

TEXTS_ON_SECTOR, CROPS_WITHOUT_SECTOR = "texts_on_sector", "crops_without_a_sector"
# No fault of a recording that was cropped before, or of Doppler, but all that tells other videos apart.
WHOLE_PICTURES, COLOURED_PICTURES = "sectors_of_the_whole_picture", "strongly_coloured_pictures"
TO_LOOK_AT = {WHOLE_PICTURES: "whole picture", COLOURED_PICTURES: "coloured"}
WHOLE_SHARE = 0.95  # of the picture, that a sector takes up
COLOURED_SHARE = 0.15  # of the sector in the first frame; Doppler takes up less
FOLDERS_OF_PATHS = re.compile(r"(?:/[^\s/'\":]+)+/")


class NoSpaceError(RecordingError):
    """There is no room for what was made of the recording."""


class UnreadableNameError(RecordingError):
    """The file system has bytes for a name that are no text."""


class WorkerLostError(RecordingError):
    """The process that read the recording was killed."""


@dataclass(frozen=True)
class RecordingTask:
    """One recording and what is to be made of it; `with_tile` asks for its tile of the contact sheet."""

    files: RecordingFiles
    staged: StagedScan
    preparation: "Preparation"
    key: bytes
    with_tile: bool

    @property
    def name(self) -> str:
        """The recording's name as text that any file can hold."""
        return self.files.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    @property
    def scan_id(self) -> str:
        """Keyed hash of the name."""
        return keyed_hash(self.key, "scan", self.name)


def make_one(task: RecordingTask) -> RecordingOutcome:
    """The outcome of one recording, whose rows are staged; taken as it is where it was made before.

    Raises:
        PrepareError: there is no folder to stage in.
    """
    outcome = task.staged.read()
    if outcome is not None:
        return outcome
    if not task.staged.folder.is_dir():
        raise PrepareError(
            f"A worker does not find {task.staged.folder.name}; the recordings and the data set must lie in "
            "folders that all machines share by the same names."
        )
    task.staged.remove()
    try:
        outcome = _made(task)
        task.staged.write(outcome)
    except Exception as error:  # a second try may end otherwise, so that nothing of it is kept
        task.staged.remove()
        return _left_out(task, task.scan_id, {}, error)
    return outcome


def lost_outcome(task: RecordingTask) -> RecordingOutcome:
    """The outcome of a recording whose process was killed."""
    error = WorkerLostError(
        f"{task.name}: the process that read it was killed, twice: for want of memory, or by what the file "
        "holds; run again with fewer --workers, or leave it out."
    )
    return _left_out(task, task.scan_id, {}, error)


def _made(task: RecordingTask) -> RecordingOutcome:
    """Stage the rows, or tell what is wrong with the recording itself, for good.

    Raises:
        UnreadableError, NoSpaceError, Exception: what may pass, or is unexpected.
    """
    preparation, patient, texts = task.preparation, task.scan_id, ()
    parameters, counts = preparation.parameters, Counter[str]()
    try:
        if task.name != task.files.name:
            raise UnreadableNameError(f"{task.name}: its name is no text in UTF-8; rename it.")
        recording = open_recording(task.files)
        if recording.notes.patient_id is not None:
            patient = keyed_hash(task.key, "patient", recording.notes.patient_id)
        found = look_for_text(recording, parameters.sector, parameters.text, counts)
        texts = tuple(text.text for text in found)
        if task.with_tile:
            _save_tile(task, recording, found)
        _look_at_colours(recording, parameters.sector, counts)
        if found and parameters.text == LEAVE_OUT:
            raise TextOnSectorError(
                f"{task.name}: text lies on what would be kept of its pictures; look at it, then leave it "
                "out or choose --text blank."
            )
        rows = preparation.make_rows(recording, task.scan_id, parameters, counts)
        with written_aside(task.staged.rows) as aside:
            number = stage_rows(rows, aside, preparation.features)
        coverage = coverage_of(recording)
    except UnreadableError:
        raise
    except RecordingError as error:
        return _left_out(task, patient, dict(counts), error, texts)
    origin = tuple(hashed_origin(task.key, recording.notes.site, recording.notes.machine))
    about = {"texts": texts, "origin": origin, **vars(coverage)}
    return RecordingOutcome(task.name, task.scan_id, patient, number, dict(counts), **about)


def _save_tile(task: RecordingTask, recording: Recording, found: list[FoundText]) -> None:
    with written_aside(task.staged.tile) as aside:
        draw_tile(recording, task.preparation.parameters.sector, found).save(aside, format="PNG")


def look_for_text(recording: Recording, sector: str, text: str, counts: Counter[str]) -> list[FoundText]:
    """Text on what is kept of a recording: counted, and blanked where that is wanted.

    A crop without a sector is counted, and a sector of the whole picture.

    Args:
        sector, text: as `SetParameters` has them.
        counts: what is found is added to it.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    try:
        area = recording.area(sector)
        found = [] if text == IGNORE else text_within(recording, sector)
    except NoSectorError:
        return []  # it is told when the rows are made
    if sector == FOUND and not isinstance(area, Sector):
        counts[CROPS_WITHOUT_SECTOR] += 1
    elif sector == FOUND and area.crop is None and area.mask.mean() >= WHOLE_SHARE:
        counts[WHOLE_PICTURES] += 1
    if found:
        counts[TEXTS_ON_SECTOR] += len(found)
    if text == BLANK:
        recording.blank([each.box for each in found])
    return found


def tile_label(outcome: RecordingOutcome) -> str:
    """What stands below the tile of a recording: its hashed id, and what a person should look at."""
    words = ["left out"] if outcome.left_out else []
    words += [word for name, word in TO_LOOK_AT.items() if outcome.counts.get(name)]
    return f"{outcome.scan_id} {', '.join(words)}".strip()


def _look_at_colours(recording: Recording, sector: str, counts: Counter[str]) -> None:
    """Count a recording of which much is coloured; its first frame is read, before all are."""
    try:
        area = recording.area(sector)
    except NoSectorError:
        return
    if sector == FOUND and isinstance(area, Sector):
        kept = crop_to_sector(next(recording.frames()).read_pixels(), area)
        coloured = kept.max(axis=-1) - kept.min(axis=-1) > COLOURED
        if coloured.sum() >= COLOURED_SHARE * area.mask.sum():
            counts[COLOURED_PICTURES] += 1


def _left_out(
    task: RecordingTask,
    patient: str,
    counts: dict[str, int],
    error: Exception,
    texts: tuple[str, ...] = (),
) -> RecordingOutcome:
    if is_no_space(error):
        error = NoSpaceError(f"{task.name}: the disk is full; make room, and prepare it again.")
    reason, kind = str(error), type(error).__name__
    if isinstance(error, SectorError):
        reason = f"{task.name}: {reason}"
    elif not isinstance(error, RecordingError):
        reason = (
            f"{task.name}: this went wrong in a way that nobody foresaw ({kind}: "
            f"{FOLDERS_OF_PATHS.sub('', reason)}); leave it out, and report it to the makers of this program."
        )
    return RecordingOutcome(task.name, task.scan_id, patient, 0, counts, reason, kind, texts)
