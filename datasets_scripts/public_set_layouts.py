"""Layouts of public sets: which pictures they hold, of whom, in which split, and how they are labelled.

A layout lists its pictures without decoding them. Facts about a layout stand at its class.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from datasets import ClassLabel, Dataset, DownloadMode, Image, load_dataset
from datasets.exceptions import DatasetsError

from datasets_scripts.class_map import FETAL_PLANES_DB_MAP, SONONET_MAP, ClassMap
from datasets_scripts.preparation import PrepareError
from datasets_scripts.schema import UNLABELLED
from datasets_scripts.set_parameters import BLANK, FOUND, IGNORE, REPORT, WHOLE

TRAIN, TEST = "train", "test"
SPLIT_FOLDERS = (TRAIN, "validation", TEST)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class PublicSetError(PrepareError):
    """The set cannot be read; the message names the file and says what to do."""


@dataclass(frozen=True)
class SourceImage:
    """A picture of a public set, not yet read.

    `name` tells it to people, `patient` tells whose it is within the set, `label` is the set's own (None: the
    set has no labels), `where` is where the label stands, and `open_file()` opens the encoded picture.
    """

    name: str
    split: str
    patient: str
    label: str | None
    where: str
    open_file: Callable[[], BinaryIO]


@dataclass(frozen=True)
class Listing:
    """The pictures of a set; `missing`: sentences about pictures that it should hold, but does not;
    `ignored`: files that are no pictures of it."""

    images: tuple[SourceImage, ...]
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class Layout(Protocol):
    """A way in which a public set lies on disk or on the Hub; its fields are its options.

    `default_class_map` is the class map for its labels, and None where it has no labels. `default_sector` and
    `default_text` are what the command does with each picture unless it is told otherwise: pictures that were
    de-identified before they were published are kept whole.
    """

    default_class_map: ClassVar[Path | None]
    default_sector: ClassVar[str]
    default_text: ClassVar[str]

    def list_images(self, source: str, class_map: ClassMap | None) -> Listing:
        """The pictures of the set at `source`, a folder or a Hub id.

        Raises:
            PublicSetError: the set is not of this layout.
        """


@dataclass(frozen=True)
class FetalPlanesDb:
    """FETAL_PLANES_DB (Burgos-Artizzu et al. 2020; Zenodo 3904280): `Images/*.png` and a CSV, `;` between.

    Its columns are Image_name, Patient_num, Plane, Brain_plane, Operator, US_Machine and `Train ` (1 or 0),
    with blanks behind names and values. The set's own split is by patient; a patient in both is an error. A
    brain picture is labelled `Plane/Brain_plane`; every other one has the Brain_plane "Not A Brain", and is
    labelled `Plane`. The pictures were de-identified by the set's authors: they are kept whole by default.
    """

    default_class_map: ClassVar[Path | None] = FETAL_PLANES_DB_MAP
    default_sector: ClassVar[str] = WHOLE
    default_text: ClassVar[str] = IGNORE
    csv_name: ClassVar[str] = "FETAL_PLANES_DB_data.csv"
    columns: ClassVar[tuple[str, ...]] = ("Image_name", "Patient_num", "Plane", "Brain_plane", "Train")
    no_brain_plane: ClassVar[str] = "Not A Brain"

    def list_images(self, source: str, class_map: ClassMap | None) -> Listing:
        """The pictures that the CSV lists; those that it does not list are ignored.

        Raises:
            PublicSetError: there is no such CSV, or it lists a picture twice or without what it needs.
        """
        folder = Path(source)
        files = {path.stem: path for path in _files(folder / "Images") if _is_image(path)}
        images, missing, listed = [], [], set()
        for line, row in self._rows(folder / self.csv_name):
            where = f"{self.csv_name}, line {line}"
            name = row["Image_name"].removesuffix(".png")
            if name in listed:
                raise PublicSetError(f"{where}: {name} is listed a second time; keep one line.")
            listed.add(name)
            if name in files:
                images.append(self._image(name, row, where, files[name]))
            else:
                missing.append(f"{where}: there is no picture Images/{name}.png.")
        ignored = tuple(f"Images/{path.name}" for stem, path in files.items() if stem not in listed)
        return Listing(tuple(images), tuple(missing), ignored)

    def _rows(self, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """(line in the file, its values without blanks around them) of each row."""
        if not path.is_file():
            raise PublicSetError(
                f"There is no {path.name} in {path.parent}; name the folder that holds it and Images."
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=";")
            header = [name.strip() for name in next(reader, [])]
            if not set(self.columns) <= set(header):
                raise PublicSetError(
                    f"{path} has the columns {', '.join(header)}; it needs {', '.join(self.columns)}, "
                    "with semicolons between."
                )
            for values in reader:
                if len(values) != len(header):
                    raise PublicSetError(
                        f"{path.name}, line {reader.line_num}: {len(values)} values in {len(header)} columns."
                    )
                yield reader.line_num, dict(zip(header, map(str.strip, values), strict=True))

    def _image(self, name: str, row: dict[str, str], where: str, path: Path) -> SourceImage:
        if row["Train"] not in ("0", "1"):
            raise PublicSetError(f"{where}: Train is {row['Train']!r}; it must be 1 or 0.")
        if not row["Patient_num"]:
            raise PublicSetError(f"{where}: Patient_num is empty; the split needs it.")
        label = row["Plane"]
        if row["Brain_plane"] != self.no_brain_plane:
            label += f"/{row['Brain_plane']}"
        split = TRAIN if row["Train"] == "1" else TEST
        return SourceImage(name, split, row["Patient_num"], label, where, partial(path.open, "rb"))


@dataclass(frozen=True)
class ImageFolder:
    """Pictures in a folder a class, or in one folder, their names beginning with their class.

    The class folders, or the pictures, may stand in folders `train`, `validation` and `test`; else all
    pictures are in `train`. They may come as a machine wrote them, with names and dates: by default the
    sector is kept of each, and text on it is blanked.

    Args:
        patient_pattern: regular expression with a group `patient`, searched in each picture's path below the
            class folder; without it, each picture passes for a scan of its own.
    """

    default_class_map: ClassVar[Path | None] = SONONET_MAP
    default_sector: ClassVar[str] = FOUND
    default_text: ClassVar[str] = BLANK
    patient_pattern: str | None = None

    def __post_init__(self) -> None:
        if self.patient_pattern is None:
            return
        try:
            groups = re.compile(self.patient_pattern).groupindex
        except re.error as error:
            raise ValueError(f"patient_pattern is no regular expression: {error}.") from error
        if "patient" not in groups:
            raise ValueError(
                f"patient_pattern {self.patient_pattern!r} has no group (?P<patient>...); "
                "put one around what tells the patient."
            )

    def list_images(self, source: str, class_map: ClassMap | None) -> Listing:
        """All pictures below the folder; files of other kinds are ignored."""
        folder = Path(source)
        files = _files(folder, deep=True)
        images, ignored = [], []
        for split, root in self._roots(folder):
            for path in files:
                if path.is_relative_to(root) and _is_image(path):
                    images.append(self._image(path, root, folder, split, class_map))
        pictured = {image.name for image in images}
        names = [path.relative_to(folder).as_posix() for path in files]
        ignored = tuple(name for name in names if name not in pictured)
        return Listing(tuple(images), ignored=ignored)

    def _roots(self, folder: Path) -> list[tuple[str, Path]]:
        """The folder of each split."""
        folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
        splits = [name for name in folders if name in SPLIT_FOLDERS]
        others = [name for name in folders if name not in SPLIT_FOLDERS]
        if not splits:
            return [(TRAIN, folder)]
        if others:
            raise PublicSetError(
                f"{folder} holds the splits {', '.join(splits)} and also {', '.join(others)}; "
                f"rename or move what is none of {', '.join(SPLIT_FOLDERS)}."
            )
        return [(name, folder / name) for name in splits]

    def _image(
        self, path: Path, root: Path, folder: Path, split: str, class_map: ClassMap | None
    ) -> SourceImage:
        name, parts = path.relative_to(folder).as_posix(), path.relative_to(root).parts
        if len(parts) > 1:
            label = parts[0]
        else:
            label = path.stem if class_map is None else class_map.label_in_name(path.stem)
        below_class = "/".join(parts[1:] or parts)
        return SourceImage(
            name, split, self._patient(below_class, name), label, name, partial(path.open, "rb")
        )

    def _patient(self, below_class: str, name: str) -> str:
        if self.patient_pattern is None:
            return name
        found = re.search(self.patient_pattern, below_class)
        if not found or not found["patient"]:
            raise PublicSetError(
                f"{name}: patient_pattern {self.patient_pattern!r} finds no patient in {below_class!r}; "
                "change the pattern or move the picture away."
            )
        return found["patient"]


@dataclass(frozen=True)
class Hc18:
    """HC18, head circumference (van den Heuvel et al. 2018; Zenodo 1327317): pictures without plane labels.

    `training_set/001_HC.png`, further ones of the same number `001_2HC.png`, and outlines
    `001_HC_Annotation.png`, which are no frames; `test_set/` likewise, numbered anew. The number stands for
    an examination: there are more of them than the set has women (551), and which belong to one woman is not
    published. The set's authors kept an examination on one side of their split; that is all that can be held.
    They de-identified the pictures, which are kept whole by default.
    """

    default_class_map: ClassVar[Path | None] = None
    default_sector: ClassVar[str] = WHOLE
    default_text: ClassVar[str] = IGNORE
    split_of_folder: ClassVar[dict[str, str]] = {"training_set": TRAIN, "test_set": TEST}
    frame_name: ClassVar[re.Pattern] = re.compile(r"(\d+)_\d*HC\.png")

    def list_images(self, source: str, class_map: ClassMap | None) -> Listing:
        """The pictures of both parts, or of one where only one is there.

        Raises:
            PublicSetError: neither part is in the folder.
        """
        folder = Path(source)
        images, ignored = [], []
        parts = {name: split for name, split in self.split_of_folder.items() if (folder / name).is_dir()}
        if not parts:
            raise PublicSetError(f"{folder} holds no training_set or test_set; name the folder above them.")
        for part, split in parts.items():
            for path in _files(folder / part, deep=True):
                name, found = path.relative_to(folder).as_posix(), self.frame_name.fullmatch(path.name)
                if found:
                    patient = f"{part}/{found[1]}"
                    images.append(SourceImage(name, split, patient, None, name, partial(path.open, "rb")))
                else:
                    ignored.append(name)
        return Listing(tuple(images), ignored=tuple(ignored))


@dataclass(frozen=True)
class Hub:
    """An image data set that `datasets.load_dataset` reads: of the Hub, or a folder in one of its layouts.

    What is public should be de-identified, but nobody vouches for it: by default pictures are kept whole, and
    text on them is reported.

    Args:
        image_column: the pictures.
        label_column: the labels, texts or a ClassLabel; a row without one stays unlabelled.
        patient_column: whose picture it is; without it, each picture passes for a scan of its own.
        configuration: the set's configuration, where it has several.
    """

    default_class_map: ClassVar[Path | None] = SONONET_MAP
    default_sector: ClassVar[str] = WHOLE
    default_text: ClassVar[str] = REPORT
    image_column: str = "image"
    label_column: str = "label"
    patient_column: str | None = None
    configuration: str | None = None

    def list_images(self, source: str, class_map: ClassMap | None) -> Listing:
        """The pictures of all splits, under the splits' own names.

        Raises:
            PublicSetError: the set cannot be loaded, or lacks a column.
        """
        # A folder whose card lists configurations is cached by its name alone: another one of that name, or
        # an older state of it, would be read in its place.
        mode = DownloadMode.FORCE_REDOWNLOAD if Path(source).exists() else None
        try:
            splits = load_dataset(source, self.configuration, download_mode=mode)
        except (OSError, ValueError, DatasetsError) as error:
            raise PublicSetError(f"The data set {source} cannot be loaded: {error}") from error
        return Listing(tuple(chain.from_iterable(self._images(*split) for split in splits.items())))

    def _images(self, split: str, rows: Dataset) -> Iterator[SourceImage]:
        for column in filter(None, (self.image_column, self.label_column, self.patient_column)):
            if column not in rows.column_names:
                raise PublicSetError(
                    f"The split {split} has no column {column}; it has {', '.join(rows.column_names)}."
                )
        if not isinstance(rows.features[self.image_column], Image):
            raise PublicSetError(f"The column {self.image_column} holds no images.")
        rows = rows.cast_column(self.image_column, Image(decode=False))
        labels = rows[self.label_column]
        patients = rows[self.patient_column] if self.patient_column else range(len(rows))
        for number, (label, patient) in enumerate(zip(labels, patients, strict=True)):
            name = f"{split}, row {number}"
            if patient is None:
                raise PublicSetError(f"{name}: {self.patient_column} is empty; the splits need it.")
            whose = str(patient) if self.patient_column else name
            yield SourceImage(
                name, split, whose, self._label(rows, label), name, partial(self._open, rows, number)
            )

    def _label(self, rows: Dataset, label: object) -> str | None:
        kind = rows.features[self.label_column]
        if label is None or (isinstance(kind, ClassLabel) and label == UNLABELLED):
            return None
        return kind.int2str(label) if isinstance(kind, ClassLabel) else str(label)

    def _open(self, rows: Dataset, number: int) -> BinaryIO:
        image = rows[number][self.image_column]
        return Path(image["path"]).open("rb") if image["bytes"] is None else io.BytesIO(image["bytes"])


LAYOUTS: dict[str, type[Layout]] = {
    "fetal_planes_db": FetalPlanesDb,
    "image_folder": ImageFolder,
    "hc18": Hc18,
    "hub": Hub,
}


def _files(folder: Path, deep: bool = False) -> list[Path]:
    """The files of a folder, in the order of their names; with `deep`, of all folders below it too."""
    if not folder.is_dir():
        raise PublicSetError(f"There is no folder {folder}.")
    return sorted(path for path in folder.glob("**/*" if deep else "*") if path.is_file())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
