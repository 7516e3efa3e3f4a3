"""Public sets of ultrasound pictures to labelled frames in Parquet, in the columns of our own sets.

    python -m datasets_scripts.public_sets fetal_planes_db FETAL_PLANES_ZENODO OUT
    python -m datasets_scripts.public_sets image_folder PICTURES OUT --class-map MAP.yaml
    python -m datasets_scripts.public_sets hc18 HC18 OUT
    python -m datasets_scripts.public_sets hub OWNER/SET OUT --label-column plane --patient-column patient

Writes `OUT/data/planes/*.parquet` and the card `OUT/README.md`, with the splits that the set brings. Beside
OUT, since they know names: `OUT.key`, the key of the hashed identifiers, and `OUT.planes.report.json` and
`.html`, an entry a picture.

Of an image folder the ultrasound sector of each picture is kept, and text on it blanked; pictures of sets
that were published de-identified are kept whole. `--sector` and `--text` choose otherwise, for each layout.
`--sheet FILE.png` shows what is kept, a tile a picture.
"""

import argparse
import inspect
import json
import os
import secrets
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tqdm import tqdm

from datasets_scripts.burned_in_text import require_reader
from datasets_scripts.class_map import ClassMap
from datasets_scripts.contact_sheet import check_sheet, place_sheets
from datasets_scripts.dataset_card import add_to_card
from datasets_scripts.finished_set import page_path
from datasets_scripts.one_recording import tile_label
from datasets_scripts.preparation_command import meanings_of
from datasets_scripts.preparation_report import (
    PreparationReport,
    PrepareError,
    RecordingOutcome,
    StrictError,
)
from datasets_scripts.privacy import KEY_BYTES, key_fingerprint, read_or_create_key
from datasets_scripts.public_set_layouts import LAYOUTS, Layout, PublicSetError
from datasets_scripts.public_set_rows import (
    AS_THEY_ARE,
    SPLIT,
    MadePicture,
    MappedSet,
    PictureParameters,
    make_picture,
    map_labels,
    picture_rows,
)
from datasets_scripts.report_page import SHOWN_RECORDINGS, ShownRecording, write_page
from datasets_scripts.row_facts import RowFacts
from datasets_scripts.schema import IMAGE, LABEL, PLANES, PLANES_CONFIG, SCAN_ID, UNLABELLED, planes_features
from datasets_scripts.set_parameters import IGNORE, SECTOR_CHOICES, TEXT_CHOICES
from datasets_scripts.shards import config_dir, data_hash, stage_rows, write_info, write_shards
from datasets_scripts.splits import SPLITS_FILE

UNLABELLED_NAME = "unlabelled"
MEANINGS = meanings_of(PictureParameters)
IMAGES_STAGED_TOGETHER = 1000


@dataclass(frozen=True)
class PublicSetReport:
    """What was kept and what was left out. It names files, so it is kept beside the data set, not in it.

    `frames` counts the frames of each class in each split, `scans` the scans of each split, `labels_left_out`
    the pictures of each label that the class map leaves out. `left_out` has a sentence for each picture that
    is missing, damaged or not kept, `ignored` the files that are no pictures of the set. `pictures` tells of
    each that was looked at, and `counts` sums up, for each split, what was found on those that were kept.
    """

    layout: str
    data_hash: str
    frames: dict[str, dict[str, int]]
    scans: dict[str, int]
    labels_left_out: dict[str, int]
    left_out: tuple[str, ...]
    ignored: tuple[str, ...]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    pictures: tuple[RecordingOutcome, ...] = ()

    def summary(self) -> str:
        """A few lines for people."""
        lines = []
        for split, classes in self.frames.items():
            counts = ", ".join(f"{name} {number}" for name, number in classes.items())
            lines.append(f"{split}: {sum(classes.values())} frames of {self.scans[split]} scans ({counts}).")
            if found := self.counts.get(split):
                lines.append("  " + ", ".join(f"{name} {number}" for name, number in found.items()))
        if self.labels_left_out:
            counts = ", ".join(f"{label} {number}" for label, number in self.labels_left_out.items())
            lines.append(f"Left out by the class map: {counts}.")
        if self.left_out:
            lines.append(f"{len(self.left_out)} pictures were left out:")
            lines += [f"  {reason}" for reason in self.left_out]
        if self.ignored:
            lines.append(f"{len(self.ignored)} files were ignored, such as {self.ignored[0]}.")
        return "\n".join(lines)


def read_public_set(
    layout: str | Layout,
    source: str | Path,
    class_map: str | Path | ClassMap | None = None,
    parameters: PictureParameters = AS_THEY_ARE,
    *,
    key: bytes | None = None,
    on_left_out: Callable[[str], object] = warnings.warn,
) -> Iterator[dict]:
    """The pictures of a public set as rows of `planes_features()`, with their `split` besides.

    Args:
        layout: a name in `LAYOUTS`, or a layout with its options.
        source: the set's folder, or its Hub id.
        class_map: a file or a map; None means the one that comes with the layout.
        key: of the hashed scan identifiers; None means a new one, so that they hold for this reading alone.
        on_left_out: is told, in a sentence, of each picture that is missing or damaged.

    Raises:
        PublicSetError, ClassMapError: the set or the map cannot be used; raised before the first row.
    """
    mapped = map_labels(layout, source, class_map)
    for reason in mapped.listing.missing:
        on_left_out(reason)
    return picture_rows(mapped.kept(), parameters, key or secrets.token_bytes(KEY_BYTES), on_left_out)


def prepare_public_set(
    layout: str | Layout,
    source: str | Path,
    output_dir: str | Path,
    parameters: PictureParameters = AS_THEY_ARE,
    *,
    class_map: str | Path | ClassMap | None = None,
    key_file: Path | None = None,
    strict: bool = False,
    overwrite: bool = False,
    sheet: Path | None = None,
) -> PublicSetReport:
    """Write a public set as the configuration `planes` of a data set of its own.

    Args:
        layout, source, class_map: as in `read_public_set`.
        output_dir: the data set; made if absent.
        key_file: the key of the hashed identifiers; None means `<output_dir>.key`. Made if absent.
        strict: stop at the first picture that is missing or damaged.
        overwrite: replace the configuration if the data set has it.
        sheet: PNG to show, a tile a picture, what is kept and what is blanked; None: none.

    Raises:
        PrepareError, ValueError, OSError: nothing was written; the message says why.
    """
    output_dir, sheet = Path(output_dir).resolve(), sheet and Path(sheet).resolve()
    _check_output(Path(source).resolve(), output_dir, overwrite)
    check_sheet(sheet, output_dir)
    if parameters.text != IGNORE:
        require_reader()
    mapped = map_labels(layout, source, class_map)
    if strict and mapped.listing.missing:
        raise StrictError(mapped.listing.missing[0])
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    key = read_or_create_key(Path(key_file or _beside(output_dir, "key")), output_dir)
    staging = _beside(output_dir, "public.partial")
    shutil.rmtree(staging, ignore_errors=True)
    config_dir(staging, PLANES_CONFIG).mkdir(parents=True)
    try:
        made = _Made(staging if sheet else None, strict)
        _write_splits(staging, mapped, parameters, key, made)
        report = _put_in_place(staging, output_dir, mapped, parameters, made, key)
        _write_reports(report, made.shown, mapped.listing.missing, output_dir)
        if sheet is not None:
            place_sheets(made.tiles, staging, sheet)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _write_reports(
    report: PublicSetReport, shown: Sequence[ShownRecording], missing: Sequence[str], output_dir: Path
) -> None:
    """The report beside the data set, as JSON and as a page."""
    text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
    _beside(output_dir, f"{PLANES_CONFIG}.report.json").write_text(text + "\n", encoding="utf-8")
    rows = {split: sum(classes.values()) for split, classes in report.frames.items()}
    notes = [
        f"{label}: {number} left out by the class map." for label, number in report.labels_left_out.items()
    ]
    told = PreparationReport(
        *(PLANES_CONFIG, "picture", report.data_hash, rows, report.scans, report.counts),
        notes=(*notes, *missing),
        recordings=report.pictures,
    )
    write_page(told, shown, page_path(output_dir, PLANES_CONFIG))


def _beside(output_dir: Path, suffix: str) -> Path:
    return output_dir.with_name(f"{output_dir.name}.{suffix}")


def _check_output(source: Path, output_dir: Path, overwrite: bool) -> None:
    if source.exists() and (output_dir.is_relative_to(source) or source.is_relative_to(output_dir)):
        raise PublicSetError(
            "The public set and the data set lie one inside the other; name separate folders."
        )
    if (output_dir / SPLITS_FILE).exists():
        raise PublicSetError(
            f"{output_dir} is made of recordings, whose splits are not the public set's; name another folder."
        )
    if config_dir(output_dir, PLANES_CONFIG).exists() and not overwrite:
        raise PublicSetError(
            f"{output_dir} already has the configuration {PLANES_CONFIG}; --overwrite replaces it."
        )


class _Made:
    """Takes the pictures as they are made: counts them, and keeps what is told and shown of them.

    Args:
        tiles_dir: folder for the tiles of the contact sheet; None where there is none.
        strict: stop at the first picture that is left out.
    """

    def __init__(self, tiles_dir: Path | None, strict: bool) -> None:
        self.tiles_dir, self._strict = tiles_dir, strict
        self.classes: dict[str, Counter] = {}
        self.scans: dict[str, set[str]] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.tiles: list[tuple[Path, str]] = []
        self.shown: list[ShownRecording] = []

    def rows(self, pictures: Iterable[MadePicture]) -> Iterator[dict]:
        """The rows of those that were kept, without their split.

        Raises:
            StrictError: one was left out.
        """
        for made in pictures:
            if made.row is None and self._strict:
                raise StrictError(made.outcome.left_out)
            tile = self._keep_tile(made)
            if made.row is None:
                self.shown.append(ShownRecording(made.outcome, "", None, tile))
                continue
            split, label = made.row.pop(SPLIT), made.row[LABEL]
            self.classes.setdefault(split, Counter())[label] += 1
            self.scans.setdefault(split, set()).add(made.row[SCAN_ID])
            self.counts.setdefault(split, Counter()).update(made.outcome.counts)
            self.shown.append(ShownRecording(made.outcome, split, self._facts(made.row), tile))
            yield made.row

    def _keep_tile(self, made: MadePicture) -> Path | None:
        if made.tile is None:
            return None
        path = self.tiles_dir / f"{len(self.tiles):07d}.png"
        made.tile.save(path)
        self.tiles.append((path, tile_label(made.outcome)))
        return path

    def _facts(self, row: dict) -> RowFacts:
        name = UNLABELLED_NAME if row[LABEL] == UNLABELLED else PLANES[row[LABEL]]
        # A page shows no more pictures than these, and a set may have very many.
        picture = row[IMAGE]["bytes"] if len(self.shown) < SHOWN_RECORDINGS else b""
        return RowFacts((), (), labels=(name,), picture=picture)

    @property
    def outcomes(self) -> tuple[RecordingOutcome, ...]:
        """Of all pictures that were looked at, in their order."""
        return tuple(each.outcome for each in self.shown)

    def frames(self) -> dict[str, dict[str, int]]:
        """Frames of each class that has any, in the order of the planes, for each split."""
        names = {**dict(enumerate(PLANES)), UNLABELLED: UNLABELLED_NAME}
        return {
            split: {name: classes[label] for label, name in names.items() if classes[label]}
            for split, classes in self.classes.items()
        }


def _write_splits(
    staging: Path, mapped: MappedSet, parameters: PictureParameters, key: bytes, made: _Made
) -> None:
    """Stage the pictures split by split, and write the shards of each."""
    kept = mapped.kept()
    with tqdm(total=len(kept), unit="picture") as progress:
        for split in dict.fromkeys(image.split for image, _ in kept):
            images, staged = [pair for pair in kept if pair[0].split == split], []
            for first in range(0, len(images), IMAGES_STAGED_TOGETHER):
                path = staging / f"{split}-{first:07d}.arrow"
                pictures = (
                    make_picture(*pair, parameters, key, made.tiles_dir is not None)
                    for pair in images[first : first + IMAGES_STAGED_TOGETHER]
                )
                rows = made.rows(_counted(pictures, progress))
                staged.append((path, stage_rows(rows, path, planes_features())))
            directory = config_dir(staging, PLANES_CONFIG)
            if split in made.classes:
                write_shards(staged, directory, split, parameters.seed, planes_features())
    if not made.classes:
        reasons = "".join(f"\n  {outcome.left_out}" for outcome in made.outcomes)
        raise PublicSetError(
            f"No picture was kept: all are missing, damaged, or left out by the class map.{reasons}"
        )


def _counted(pictures: Iterable[MadePicture], progress: tqdm) -> Iterator[MadePicture]:
    for picture in pictures:
        yield picture
        progress.update()


def _put_in_place(
    staging: Path,
    output_dir: Path,
    mapped: MappedSet,
    parameters: PictureParameters,
    made: _Made,
    key: bytes,
) -> PublicSetReport:
    """Write what is told of the shards, and move all to the data set."""
    left_out = (outcome.left_out for outcome in made.outcomes if outcome.left_out)
    report = PublicSetReport(
        mapped.layout,
        data_hash(staging, PLANES_CONFIG),
        made.frames(),
        {split: len(scans) for split, scans in made.scans.items()},
        mapped.labels_left_out(),
        (*mapped.listing.missing, *left_out),
        mapped.listing.ignored,
        {split: dict(counts) for split, counts in made.counts.items()},
        made.outcomes,
    )
    info = {
        "config": PLANES_CONFIG,
        "layout": mapped.layout,
        "class_map": None if mapped.class_map is None else mapped.class_map.labels,
        "frame_size": parameters.frame_size,
        "crop": parameters.crop,
        "sector": parameters.sector,
        "text": parameters.text,
        "frames": report.frames,
        "scans": report.scans,
        "labels_left_out": report.labels_left_out,
        "data_hash": report.data_hash,
    }
    write_info(staging, PLANES_CONFIG, info)
    target = config_dir(output_dir, PLANES_CONFIG)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    os.replace(config_dir(staging, PLANES_CONFIG), target)
    patterns = {split: f"data/{PLANES_CONFIG}/{split}-*.parquet" for split in report.frames}
    add_to_card(output_dir, PLANES_CONFIG, patterns, report.data_hash, key_fingerprint(key))
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 under --strict, 2 where nothing could be done."""
    options = vars(_parser().parse_args(arguments))
    layout_class = LAYOUTS[options.pop("layout")]
    source, output_dir, crop = options.pop("source"), options.pop("output"), options.pop("crop")
    try:
        layout = layout_class(**{each.name: options.pop(each.name) for each in fields(layout_class)})
        chosen = {name: options.pop(name) for name in ("frame_size", "seed", "sector", "text")}
        parameters = PictureParameters(crop=crop and tuple(crop), **chosen)
        report = prepare_public_set(layout, source, output_dir, parameters, **options)
    except (PrepareError, ValueError, OSError) as error:
        print(f"public_sets: {error}", file=sys.stderr)
        return 1 if isinstance(error, StrictError) else 2
    print(report.summary())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="public_sets", description="Write a public set of ultrasound pictures as labelled frames."
    )
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for name, kind in LAYOUTS.items():
        about = inspect.getdoc(kind)
        of_layout = layouts.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        of_layout.add_argument("source", help="folder of the public set, or Hub id")
        of_layout.add_argument("output", type=Path, help="folder of the data set to write")
        for each in fields(kind):
            option = "--" + each.name.replace("_", "-")
            of_layout.add_argument(option, default=each.default, help=f"default: {each.default}")
        _add_common_options(of_layout, kind)
    return parser


def _add_common_options(parser: argparse.ArgumentParser, layout: type[Layout]) -> None:
    parser.add_argument(
        "--class-map", type=Path, help="YAML file; default: the one that comes with the layout"
    )
    size, edges = AS_THEY_ARE.frame_size, ("LEFT", "TOP", "RIGHT", "BOTTOM")
    parser.add_argument("--frame-size", type=int, default=size, help=f"pixels a side; default: {size}")
    parser.add_argument("--crop", type=int, nargs=4, metavar=edges, help="pixels; default: the whole picture")
    for name, choices, default in (
        ("sector", SECTOR_CHOICES, layout.default_sector),
        ("text", TEXT_CHOICES, layout.default_text),
    ):
        about = f"{MEANINGS[name]} Default: {default}."
        parser.add_argument(f"--{name}", choices=choices, default=default, help=about)
    parser.add_argument(
        "--sheet", type=Path, help="PNG to show, a tile a picture, what is kept and what is blanked"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the pictures; default: 0")
    parser.add_argument("--key-file", type=Path, help="key of the hashed identifiers; default: OUT.key")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first picture that is missing or damaged"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the configuration if it is there")


if __name__ == "__main__":
    sys.exit(main())
