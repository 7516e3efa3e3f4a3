"""What was made of each recording, kept beside the data set until all are made.

A run that ends early, however it ends, leaves in `OUT.partial` what it made; the same command takes that and
makes the rest. Each scan has two or three files, named by the fingerprint of all that decides their content:
rows, the tile of the contact sheet, and, written last, a note with the outcome and the digests of the others.
Without a note that fits, nothing is taken. Another command has other fingerprints, so nothing is mixed.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from datasets_scripts.durable_files import written_aside
from datasets_scripts.preparation_report import PrepareError, RecordingOutcome
from datasets_scripts.recordings import RecordingFiles

LOCK_FILE = "lock"
LOCK_ATTEMPTS = 100
# Other versions of these may give other bytes for the same recording.
LIBRARIES = (
    *("av", "numpy", "onnxruntime", "pillow", "pyarrow", "pydicom", "pyloudnorm", "python-gdcm"),
    *("rapidocr", "scipy", "silero-vad", "soundfile", "torch"),
)


@dataclass(frozen=True)
class StagedScan:
    """Where what is made of one recording is kept: `folder`, and the `fingerprint` of what it is made of."""

    folder: Path
    fingerprint: str

    @property
    def rows(self) -> Path:
        """Arrow file of the rows."""
        return self.folder / f"{self.fingerprint}.arrow"

    @property
    def tile(self) -> Path:
        """PNG of the tile of the contact sheet."""
        return self.folder / f"{self.fingerprint}.png"

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.fingerprint}.json"

    def read(self) -> RecordingOutcome | None:
        """The outcome, where all that was made is there and whole."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            is_whole = note["fingerprint"] == self.fingerprint and note["digests"] == self._digests()
            return RecordingOutcome(**note["outcome"]) if is_whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, outcome: RecordingOutcome) -> None:
        """Note that rows and tile are whole and what became of the recording."""
        note = {"fingerprint": self.fingerprint, "outcome": asdict(outcome), "digests": self._digests()}
        with written_aside(self._note) as aside:
            aside.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")

    def remove(self) -> None:
        """Take away what does not fit, or is not to be kept."""
        for path in (self._note, self.rows, self.tile):
            path.unlink(missing_ok=True)

    def _digests(self) -> dict[str, str]:
        return {path.suffix: _digest(path) for path in (self.rows, self.tile) if path.exists()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: object) -> str:
    """32 hexadecimal characters for values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def state_of_files(files: RecordingFiles) -> dict[str, object]:
    """What tells whether a recording is as it was: of each of its files the name, size and time of change."""
    return {field.name: _state(getattr(files, field.name)) for field in fields(files)}


def _state(value: object) -> object:
    if isinstance(value, tuple):
        return [_state(each) for each in value]
    if not isinstance(value, Path):
        return value
    try:
        status = value.stat()
    except OSError as error:
        return [value.name, error.errno]
    return [value.name, status.st_size, status.st_mtime_ns]


@cache
def code_version() -> str:
    """Changes with any line of this package, and with the version of any library that decides bytes."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return fingerprint([_digest(source) for source in sources], [_version(name) for name in LIBRARIES])


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


@contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """The folder of what is staged, made if absent, for one process at a time; removed where it ends empty.

    The lock is the system's, and so ends with the process that holds it, however that ends.

    Raises:
        PrepareError: another process holds it.
    """
    with os.fdopen(_lock(folder), "w"):
        try:
            yield folder
        finally:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            with suppress(OSError):  # something is staged, or the next one is here already
                folder.rmdir()


def _lock(folder: Path) -> int:
    """A descriptor of the lock's file, locked."""
    path = folder / LOCK_FILE
    for _ in range(LOCK_ATTEMPTS):
        try:
            folder.mkdir(exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, FileExistsError):  # its last holder has just taken it away
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            break
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)
    raise PrepareError(
        f"Another preparation is at work on {folder.stem}; wait until it has ended, then run this one again."
    )


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the opened file is still the one of that name: its last holder may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def clear(folder: Path, last: Path) -> None:
    """Remove all that is staged but the lock, `last` at the end: while it is there, so is its meaning."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in (last, folder / LOCK_FILE):
            path.unlink()
    last.unlink(missing_ok=True)
