"""Words that must not be published: identifiers, as whole words, and what gives itself away by its form."""

import contextlib
import datetime
import getpass
import glob
import hashlib
import json
import re
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.multival import MultiValue

from datasets_scripts.dataset_card import CARD_TEXT, COLUMN_TEXTS, describe_kind
from datasets_scripts.dicom_cine import is_dicom
from datasets_scripts.privacy import HASH_CHARACTERS
from datasets_scripts.recording_errors import NotARecordingError
from datasets_scripts.recordings import NOTES_FILE, VIDEO_SUFFIXES
from datasets_scripts.schema import (
    CLIP_CONFIG_SECONDS,
    GAZE_CONFIG,
    PLANE_CLIPS_CONFIG,
    PLANES,
    PLANES_CONFIG,
    SPLITS,
)

WORD = re.compile(r"[^\W_]+")
PERSON_NAME = re.compile(r"(?<![^\W\d_])[^\W\d_]{2,}\^+[^\W\d_]+")
PATHS = re.compile(
    r"\bfile:/+[^\s\"'<>]*"
    r"|(?<![A-Za-z0-9])[A-Za-z]:[\\/]{1,2}[^\s\\/\"'<>][^\s\"'<>]*"
    r"|\\{2,4}[\w.-]+\\{1,2}[\w$][^\s\"'<>]*"
    r"|(?<![\w.~:/<*)\]}+-])/[\w.@~+-]+/[\w.@~+%-][^\s\"'<>]*"
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
ORDINAL = "(?i:st|nd|rd|th)?"
DATE = (
    r"(?<![\w.])(?:(?P<year>\d{4})(?P<by>[-/.:])(?P<month>\d\d?)(?P=by)(?P<day>\d\d?)(?!\d)"
    r"|(?P<first>\d\d?)(?P<with>[-/.])(?P<second>\d\d?)(?P=with)(?P<last>\d{4})(?!\d)"
    rf"|(?P<day_written>\d\d?){ORDINAL}[ .-]{{0,2}}(?P<month_after>{MONTH})[ .,-]{{1,2}}"
    r"(?P<year_after>\d{4})(?!\d)"
    rf"|(?P<month_before>{MONTH})[ .]{{1,2}}(?P<day_after>\d\d?){ORDINAL}[ ,]{{1,2}}"
    r"(?P<year_last>\d{4})(?!\d)"
    r"|(?P<compact>(?:19|20)\d{6})(?!\w|\.\d))"
)
DATES = re.compile(DATE)
DATES_OF_BIRTH = re.compile(r"(?i:birth|born|\bdob)[^\d\n]{0,20}" + DATE)
YOUNGEST_YEARS, OLDEST_YEARS = 10, 110

# Names that many machines and accounts have, and that are words besides.
COMMON_ACCOUNTS = frozenset({"root", "user", "admin", "ubuntu", "runner", "localhost", "home", "docker"})
# DICOM tags that name somebody or some place, besides all whose value is a person's name.
NAMING_TAGS = frozenset(
    {"PatientID", "OtherPatientIDs", "IssuerOfPatientID", "PatientAddress", "PatientTelephoneNumbers"}
    | {"InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"}
    | {"AccessionNumber", "AdmissionID", "StudyID", "DeviceSerialNumber"}
    | {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
)
BIRTH_TAG = "PatientBirthDate"
FEWEST_DIGITS, FEWEST_LETTERS = 5, 3
NAME = "name of a folder or file of the recordings"


class PrivacyCheckError(ValueError):
    """The check cannot be made, for the reason that the message gives."""


def words_of(text: str) -> tuple[str, ...]:
    """Runs of letters and digits, in one case and one form of Unicode; an underscore parts words."""
    return tuple(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


# What the set says of itself: whoever names a folder `train` is not found on every page.
_CONFIGS = (*CLIP_CONFIG_SECONDS, PLANES_CONFIG, PLANE_CLIPS_CONFIG, GAZE_CONFIG)
_OWN_TEXTS = (CARD_TEXT, *COLUMN_TEXTS, *COLUMN_TEXTS.values(), *PLANES, *SPLITS, "recordings video README")
OWN_WORDS = frozenset(
    word
    for text in (*_OWN_TEXTS, *(told for config in _CONFIGS for told in (config, *describe_kind(config))))
    for word in words_of(text)
)


class Identifiers:
    """What is looked for, as whole words whatever is between them: `Doe^Jane` is also found as `doe_jane`.

    A number of few digits, or a word of one or two letters, is met by chance in any text: it is found only
    where it is the whole of a value. What consists of the set's own words is not looked for.
    """

    def __init__(self) -> None:
        self._phrases: dict[tuple[str, ...], str] = {}
        self._lengths: set[int] = set()
        self._values: dict[tuple[str, ...], str] = {}

    def add(self, text: str, kind: str, fewest_letters: int = FEWEST_LETTERS) -> None:
        """Look for `text`, and for its hashes without a key, which a list of all names undoes."""
        words, joined = words_of(text), "".join(words_of(text))
        if not words or OWN_WORDS.issuperset(words):
            return
        fewest = FEWEST_DIGITS if joined.isdecimal() else fewest_letters if joined.isalpha() else 2
        if len(joined) < fewest:
            self._values.setdefault(words, kind)
        else:
            self._add_phrase(words, kind)
        for algorithm in ("md5", "sha1", "sha256"):
            digest = hashlib.new(algorithm, text.encode(), usedforsecurity=False).hexdigest()
            for form in (digest, digest[:HASH_CHARACTERS]):
                self._add_phrase((form,), f"hash without a key of a {kind}")

    def _add_phrase(self, words: tuple[str, ...], kind: str) -> None:
        self._phrases.setdefault(words, kind)
        self._lengths.add(len(words))

    def found(self, text: str) -> Iterator[tuple[str, str]]:
        """Kind and text of each identifier that the text holds."""
        words = words_of(text)
        if words in self._values:
            yield self._values[words], text.strip()
        for length in self._lengths:
            for place in range(len(words) - length + 1):
                phrase = words[place : place + length]
                if phrase in self._phrases:
                    yield self._phrases[phrase], " ".join(phrase)


def add_machine(identifiers: Identifiers) -> None:
    """The names of this machine and of its user."""
    host, users = socket.gethostname(), {Path.home().name}
    with contextlib.suppress(KeyError, OSError):  # An account may have no name.
        users.add(getpass.getuser())
    for names, kind in (({host, host.partition(".")[0]}, "host name"), (users, "user name")):
        for name in sorted(names):
            if name.casefold() not in COMMON_ACCOUNTS:
                identifiers.add(name, kind, fewest_letters=2)


def add_reports(identifiers: Identifiers, folder: Path) -> None:
    """The names of recordings in the reports of the preparation that lie beside the set."""
    for report in sorted(folder.parent.glob(f"{glob.escape(folder.name)}.*.report.json")):
        contents = json.loads(report.read_text(encoding="utf-8"))
        if "recordings" in contents:
            for recording in contents["recordings"]:
                if recording.get("error") == NotARecordingError.__name__:  # nothing of it is in the set
                    continue
                path = Path(recording["name"])
                is_file = path.suffix.lower() in VIDEO_SUFFIXES
                for name in (*path.parts[:-1], path.stem if is_file else path.name):
                    identifiers.add(name, NAME)


def add_recordings(identifiers: Identifiers, recordings: Path) -> None:
    """The identifiers of all files below a folder of recordings.

    Raises:
        PrivacyCheckError: no such folder, or a file in it whose identifiers cannot be read.
    """
    if not recordings.is_dir():
        raise PrivacyCheckError(f"{recordings} is no folder; name the folder that holds the recordings.")
    for path in sorted(recordings.rglob("*")):
        identifiers.add(path.name if path.is_dir() else path.stem, NAME)
        if path.name == NOTES_FILE:
            _add_notes(identifiers, path)
        elif path.is_file() and is_dicom(path):
            _add_dicom(identifiers, path)


def _add_notes(identifiers: Identifiers, path: Path) -> None:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PrivacyCheckError(
            f"{path} is no JSON ({error}): its patient is not known; correct it."
        ) from error
    if isinstance(notes, dict) and "patient_id" in notes and notes["patient_id"] is not None:
        identifiers.add(str(notes["patient_id"]), "patient_id of the recordings")


def _add_dicom(identifiers: Identifiers, path: Path) -> None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        elements = [(each.keyword, each.VR, each.value) for each in header.iterall()]
    except Exception as error:  # the file is foreign, and pydicom raises what it meets
        raise PrivacyCheckError(
            f"{path}: pydicom cannot read this DICOM file, so its identifiers are not known; move it away."
        ) from error
    for keyword, form, value in elements:
        values = value if isinstance(value, MultiValue) else [value]
        for text in (str(each) for each in values if each is not None):
            if form == "PN":
                texts = [text, *re.split(r"[\^=]+", text)]
            elif keyword == BIRTH_TAG:
                year, month, day = text[:4], text[4:6], text[6:8]
                texts = [text, f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}"]
            else:
                texts = [text] if keyword in NAMING_TAGS else []
            for each in texts:
                identifiers.add(each, f"DICOM {keyword or 'name'} of the recordings")


def telling_forms(text: str, any_date: bool = False) -> Iterator[tuple[str, str]]:
    """Kind and text of paths, names in the form of DICOM and dates of birth.

    Args:
        any_date: dates of these years, on which a scan may have been made, are told too.
    """
    if "/" in text or "\\" in text:
        yield from (("absolute path", match.group()) for match in PATHS.finditer(text))
    if "^" in text:
        yield from (("name in the form of DICOM", match.group()) for match in PERSON_NAME.finditer(text))
    for match in DATES_OF_BIRTH.finditer(text):
        if _date(match) is not None:
            yield "date of birth", match.group()
    this_year = datetime.date.today().year
    for match in DATES.finditer(text):
        date = _date(match)
        age = OLDEST_YEARS + 1 if date is None else this_year - date.year
        if YOUNGEST_YEARS <= age <= OLDEST_YEARS:
            yield "date of birth", match.group()
        elif any_date and 0 <= age < YOUNGEST_YEARS:
            yield "date", match.group()


def _date(match: re.Match[str]) -> datetime.date | None:
    """The date of a match of DATES, where the calendar has it."""
    parts = match.groupdict()
    if parts["compact"]:
        orders = [(parts["compact"][:4], parts["compact"][4:6], parts["compact"][6:])]
    elif parts["year"]:
        orders = [(parts["year"], parts["month"], parts["day"])]
    elif parts["month_after"]:
        orders = [(parts["year_after"], _month(parts["month_after"]), parts["day_written"])]
    elif parts["month_before"]:
        orders = [(parts["year_last"], _month(parts["month_before"]), parts["day_after"])]
    else:
        orders = [(parts["last"], parts["first"], parts["second"])]
        orders += [(parts["last"], parts["second"], parts["first"])]
    for order in orders:
        with contextlib.suppress(ValueError):
            return datetime.date(*map(int, order))
    return None


def _month(name: str) -> int:
    """1 to 12."""
    return MONTHS.index(name[:3].casefold()) + 1
