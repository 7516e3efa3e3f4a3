"""Opens every shard and every text file of a prepared set, and names what must not be published.

    python -m datasets_scripts.privacy_check OUT --recordings RECORDINGS

Looked for, in all columns, in the metadata of Parquet files, of stored pictures (EXIF, text chunks, comments)
and of stored FLAC (Vorbis comments), in text files and in the names of files:

- identifiers of the recordings: names of folders and files, `patient_id` of `scan.json`, DICOM tags. Without
  `--recordings` they are the names in the reports beside the set, as far as these lie there;
- absolute paths, the names of this machine and of its user;
- names in the form of DICOM (Family^Given), and dates of birth: 10 to 110 years back, or beside `birth`; in
  columns and metadata dates of any year, since a scan's own date tells on a patient as well;
- the key of the hashes, and scans or patients that are not named by keyed hashes;
- text on frames: some pictures of each scan, and what stands still over them, are read by an OCR library. It
  is told as it was read, so that a person can judge it: keep what this prints as private as the recordings.

The sound is not listened to: a name that is spoken is not found. Files of `.git`, which are not pushed, are
left out.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets_scripts.dataset_card import CARD_FILE
from datasets_scripts.privacy import HASH_CHARACTERS, KEY_BYTES, key_fingerprint
from datasets_scripts.private_words import (
    Identifiers,
    PrivacyCheckError,
    add_machine,
    add_recordings,
    add_reports,
    telling_forms,
)
from datasets_scripts.schema import CLIP_ID, SCAN_ID, SPLITS
from datasets_scripts.set_parameters import require
from datasets_scripts.splits import SPLITS_FILE, SplitError, read_splits
from datasets_scripts.stored_metadata import metadata_texts, texts_in
from datasets_scripts.text_on_frames import StoredPicture, TextOnFrames

SHARD_NUMBERS = re.compile(r"-\d{5}-of-\d{5}\.parquet$")
KEYED = re.compile(rf"[0-9a-f]{{{HASH_CHARACTERS}}}")
KEYED_CLIP = re.compile(rf"({KEYED.pattern})_\d+")
KEY = re.compile(rf"(?<![0-9a-f])[0-9a-f]{{{2 * KEY_BYTES}}}(?![0-9a-f])", re.IGNORECASE)
FINGERPRINT = re.compile(rf'(?:"key_fingerprint": "|, key )({KEYED.pattern})\b')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
BIRTH_COLUMN = re.compile(r"birth|\bdob\b", re.IGNORECASE)

NOT_PUSHED = ".git"

FAIL, REPORT, SKIP = TEXT_CHOICES = ("fail", "report", "skip")
TEXT_ON_A_FRAME = "text on a frame"
FRAMES_A_SCAN = 3


@dataclass(frozen=True)
class Finding:
    """What must not be published, and where it is; the identifier itself is not in it, unless it was read on
    a frame.

    Args:
        file: path in the set; parts that are themselves identifiers are masked.
        column: of the shard, with the place in a list or struct; None for text files and file names.
        row: of the shard, counted from 0, or line of the text file, counted from 1; None for what is of a
            whole file.
        kind: what was found.
        masked: its first character and its length; None where there is nothing to mask.
        read: what was read on a frame.
        scan: whose frame it is, by its keyed hash.
    """

    file: str
    column: str | None
    row: int | None
    kind: str
    masked: str | None = None
    read: str | None = None
    scan: str | None = None

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {self.column}"
        row = "" if self.row is None else f", {'line' if self.column is None else 'row'} {self.row}"
        masked = "" if self.masked is None else f" ({self.masked})"
        scan = "" if self.scan is None else f", scan {self.scan}"
        read = "" if self.read is None else f", read as {self.read!r}"
        return f"{self.file}{column}{row}{scan}: {self.kind}{masked}{read}"


@dataclass
class Checked:
    """What was found, and how much was read; `reported` does not make a set fail."""

    findings: list[Finding] = field(default_factory=list)
    reported: list[Finding] = field(default_factory=list)
    shards: int = 0
    rows: int = 0
    text_files: int = 0


def check_privacy(
    folder: Path,
    recordings: Path | None = None,
    text_on_frames: str = FAIL,
    frames_a_scan: int | None = FRAMES_A_SCAN,
) -> list[Finding]:
    """What must not be published of a prepared set; empty where it is clean.

    Args:
        folder: the set.
        recordings: the recordings that it is made of, whose identifiers are looked for.
        text_on_frames: fail makes text on a frame a finding, report only tells it, skip reads no frame.
        frames_a_scan: pictures that are read of each scan and configuration; None reads every picture.

    Raises:
        PrivacyCheckError, OSError: no such folder, a set without a shard, or recordings that cannot be read.
        TextSearchError: frames are to be read and the OCR library is not installed.
        ValueError: `text_on_frames` is none of `TEXT_CHOICES`, or `frames_a_scan` is below one.
    """
    return examine(folder, recordings, text_on_frames, frames_a_scan).findings


def examine(
    folder: Path,
    recordings: Path | None = None,
    text_on_frames: str = FAIL,
    frames_a_scan: int | None = FRAMES_A_SCAN,
) -> Checked:
    """`check_privacy`, and how many shards, rows and text files were read.

    Raises:
        PrivacyCheckError: see `check_privacy`.
    """
    require(text_on_frames in TEXT_CHOICES, "text_on_frames", text_on_frames, " or ".join(TEXT_CHOICES))
    require(frames_a_scan is None or frames_a_scan >= 1, "frames_a_scan", frames_a_scan, "1 or more, or all")
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise PrivacyCheckError(f"{folder} is no folder; name the folder of the data set.")
    identifiers = Identifiers()
    add_machine(identifiers)
    if recordings is None:
        add_reports(identifiers, folder)
    else:
        add_recordings(identifiers, Path(recordings))
    check = _Check(folder, identifiers, text_on_frames, frames_a_scan)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and NOT_PUSHED not in path.relative_to(folder).parts:
            check.file(path)
    check.rest_of_frames()
    if not check.checked.shards:
        raise PrivacyCheckError(f"{folder} holds no shard *.parquet; name the folder of a prepared set.")
    return check.checked


class _Check:
    """Goes through the files of a set, and keeps what it finds."""

    def __init__(
        self, folder: Path, identifiers: Identifiers, text_on_frames: str, frames_a_scan: int | None
    ) -> None:
        self.checked = Checked()
        self._folder, self._identifiers = folder, identifiers
        self._frames = None if text_on_frames == SKIP else TextOnFrames(frames_a_scan)
        self._texts = self.checked.findings if text_on_frames == FAIL else self.checked.reported
        self._fingerprints = _fingerprints(folder)

    def file(self, path: Path) -> None:
        """Read one file of the set, whatever it is."""
        place = path.relative_to(self._folder)
        parts = [SHARD_NUMBERS.sub("", part) for part in place.parts]
        name = "/".join(
            self._shown(part) + whole[len(part) :] for part, whole in zip(parts, place.parts, strict=True)
        )
        for part in parts:
            self._look(name, None, None, part)
        if path.suffix == ".parquet":
            self._shard(path, name)
            return
        raw = path.read_bytes()
        texts = metadata_texts(raw)
        if texts is not None:
            self._look(name, None, None, *texts, any_date=True)
        elif (text := _as_text(raw)) is not None:
            self._text_file(path, name, text)
        else:
            self._add(name, None, None, "file of a form that this check does not read")

    def _text_file(self, path: Path, name: str, text: str) -> None:
        self.checked.text_files += 1
        if path.suffix == ".key" or KEY.fullmatch(text.strip()):
            self._add(name, None, None, "key file inside the set")
        for number, line in enumerate(text.splitlines(), 1):
            self._look(name, None, number, line)
        if path == self._folder / SPLITS_FILE:
            self._splits(name)

    def _splits(self, name: str) -> None:
        try:
            splits = read_splits(self._folder)
        except (SplitError, AttributeError):
            self._add(name, None, None, "splits that cannot be read")
            return
        for split in SPLITS:
            for patient, scans in getattr(splits, split).items():
                for identifier in (patient, *scans):
                    self._keyed(name, split, None, KEYED, identifier)

    def _shard(self, path: Path, name: str) -> None:
        self.checked.shards += 1
        try:
            file = pq.ParquetFile(path)
            self._parquet_metadata(file, name)
            first = 0
            for group in range(file.num_row_groups):  # iter_batches would read the whole file ahead
                columns = file.read_row_group(group).to_pydict()
                for column, values in columns.items():
                    for row, value in enumerate(values, first):
                        self._cell(name, column, row, value)
                self._read_frames(path, name, columns, first)
                first += file.metadata.row_group(group).num_rows
            self.checked.rows += first
        except (pa.ArrowException, OSError):
            self._add(name, None, None, "shard that cannot be read")

    def _read_frames(self, path: Path, name: str, columns: dict[str, list], first: int) -> None:
        """Read pictures of some rows of a shard."""
        if self._frames is None:
            return
        for column, values in columns.items():
            scans = columns.get(SCAN_ID, [None] * len(values))
            for row, (scan, value) in enumerate(zip(scans, values, strict=True), first):
                scan = scan if isinstance(scan, str) and KEYED.fullmatch(scan) else ""
                shown = self._shown(column)
                self._add_texts(self._frames.row(str(path.parent), name, shown, row, scan, value))

    def rest_of_frames(self) -> None:
        """Read the pictures of scans with few rows."""
        if self._frames is not None:
            self._add_texts(self._frames.rest())

    def _add_texts(self, texts: Iterable[tuple[StoredPicture, str]]) -> None:
        for picture, text in texts:
            place = picture.file, picture.column, picture.row, TEXT_ON_A_FRAME
            self._texts.append(Finding(*place, read=text, scan=picture.scan or None))

    def _parquet_metadata(self, file: pq.ParquetFile, name: str) -> None:
        schema = file.schema_arrow
        for each in (file.metadata.metadata, schema.metadata, *(each.metadata for each in schema)):
            # The schema in Arrow's own coding is read by `schema_arrow`.
            told = {key: value for key, value in (each or {}).items() if key != b"ARROW:schema"}
            for text in texts_in(told):
                self._look(name, None, None, *text.splitlines(), any_date=True)
        for column in schema.names:
            self._look(name, self._shown(column), None, column)
            if BIRTH_COLUMN.search(column):
                self._add(name, self._shown(column), None, "column of dates of birth")

    def _cell(self, name: str, column: str, row: int, value: object) -> None:
        if column == CLIP_ID:
            self._keyed(name, column, row, KEYED_CLIP, value)
            is_keyed = isinstance(value, str) and KEYED_CLIP.fullmatch(value)
            # The start in milliseconds is any number.
            value = is_keyed[1] if is_keyed else value
        elif column == SCAN_ID or column.startswith("patient"):
            self._keyed(name, column, row, KEYED, value)
        self._value(name, self._shown(column), row, value)

    def _value(self, name: str, column: str, row: int, value: object) -> None:
        """Look through a value and what is in it."""
        if isinstance(value, bytes):
            texts = metadata_texts(value)
            if texts is None:
                self._add(name, column, row, "bytes of a form that this check does not read")
            else:
                self._look(name, column, row, *texts, any_date=True)
        elif isinstance(value, dict):
            for key, each in value.items():
                self._value(name, f"{column}.{self._shown(str(key))}", row, each)
        elif isinstance(value, list | tuple):
            for number, each in enumerate(value):
                if not isinstance(each, float):
                    self._value(name, f"{column}[{number}]", row, each)
        elif isinstance(value, str | datetime.date) or (isinstance(value, int) and value >= 10**4):
            self._look(name, column, row, str(value), any_date=True)

    def _keyed(self, name: str, column: str, row: int | None, form: re.Pattern, value: object) -> None:
        if not (isinstance(value, str) and form.fullmatch(value)):
            self._add(name, self._shown(column), row, "identifier that is no keyed hash", str(value))

    def _look(
        self, name: str, column: str | None, row: int | None, *texts: str, any_date: bool = False
    ) -> None:
        found = dict.fromkeys(each for text in texts for each in self._found(text, any_date))
        for kind, text in found:
            self._add(name, column, row, kind, text)

    def _found(self, text: str, any_date: bool = False) -> Iterator[tuple[str, str]]:
        text = ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        yield from self._identifiers.found(text)
        for quoted in QUOTED.findall(text):
            yield from self._identifiers.found(quoted)
        yield from telling_forms(text, any_date)
        for key in KEY.findall(text):
            if key_fingerprint(bytes.fromhex(key)) in self._fingerprints:
                yield "key of the hashed identifiers", key

    def _add(
        self, name: str, column: str | None, row: int | None, kind: str, text: str | None = None
    ) -> None:
        self.checked.findings.append(Finding(name, column, row, kind, None if text is None else mask(text)))

    def _shown(self, name: str) -> str:
        """A name as it may be printed."""
        return mask(name) if any(self._found(name)) else name


def mask(text: str) -> str:
    """The first character of an identifier and its length."""
    return f"{text[:1] if len(text) > 2 else ''}… of {len(text)} characters"


def _fingerprints(folder: Path) -> set[str]:
    """Of the key, as the card and the splits tell it."""
    paths = (folder / CARD_FILE, folder / SPLITS_FILE)
    texts: Iterable[str] = (path.read_text("utf-8", "replace") for path in paths if path.is_file())
    return {fingerprint for text in texts for fingerprint in FINGERPRINT.findall(text)}


def _as_text(raw: bytes) -> str | None:
    """The bytes as text; None where they are no text."""
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def main(command_line: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 for a clean set, 1 with findings, 2 where it cannot be read."""
    options = _parser().parse_args(command_line)
    try:
        checked = examine(options.output, options.recordings, options.text_on_frames, options.frames_a_scan)
    except (ValueError, OSError) as error:
        print(f"privacy_check: {error}", file=sys.stderr)
        return 2
    for finding in [*checked.findings, *checked.reported]:
        print(finding)
    read = f"{checked.shards} shards, {checked.rows} rows and {checked.text_files} text files were read"
    print(f"{read}: {f'{len(checked.findings)} findings' if checked.findings else 'nothing was found'}.")
    if checked.reported:
        print(f"{len(checked.reported)} texts on frames are reported and do not count.")
    return 1 if checked.findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="privacy_check", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("output", type=Path, metavar="OUT", help="folder of the data set")
    parser.add_argument(
        "--recordings", type=Path, help="folder of the recordings, whose identifiers are looked for"
    )
    parser.add_argument(
        "--text-on-frames",
        choices=TEXT_CHOICES,
        default=FAIL,
        help="whether text on a frame makes the check fail, is only reported, or is not looked for",
    )
    parser.add_argument(
        "--frames-a-scan",
        type=_frames_a_scan,
        default=FRAMES_A_SCAN,
        metavar="N|all",
        help="pictures that are read of each scan and configuration; one takes a core 0.1 to 0.5 s by its "
        f"size. Default: {FRAMES_A_SCAN}",
    )
    return parser


def _frames_a_scan(text: str) -> int | None:
    return None if text == "all" else int(text)


if __name__ == "__main__":
    sys.exit(main())
