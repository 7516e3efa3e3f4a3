"""Pictures of a public set to rows: labels mapped, patients hashed, each picture a square JPEG.

A picture is searched for its sector and for text as a recording of one frame.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_scripts.burned_in_text import TextOnSectorError
from datasets_scripts.class_map import LEAVE_OUT, ClassMap, read_class_map
from datasets_scripts.clips import FrameEncoder
from datasets_scripts.contact_sheet import draw_tile
from datasets_scripts.media_streams import Frame
from datasets_scripts.one_recording import look_for_text
from datasets_scripts.preparation_report import RecordingOutcome
from datasets_scripts.privacy import keyed_hash
from datasets_scripts.public_set_layouts import LAYOUTS, Layout, Listing, PublicSetError, SourceImage
from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Area, Box, Recording
from datasets_scripts.scan_notes import ScanNotes
from datasets_scripts.schema import IMAGE, LABEL, PLANES, SCAN_ID, TIME_S, UNLABELLED
from datasets_scripts.sector import NoSectorError
from datasets_scripts.set_parameters import (
    IGNORE,
    SECTOR_CHOICES,
    TEXT_CHOICES,
    WHOLE,
    require,
    require_choice,
)
from datasets_scripts.set_parameters import LEAVE_OUT as LEAVE_TEXT_OUT

SPLIT = "split"


@dataclass(frozen=True)
class PictureParameters:
    """What becomes of each picture.

    Args:
        frame_size: width and height of a kept picture in pixels.
        crop: left, top, right and bottom edge, in pixels, of what is kept of each picture, and searched for
            its sector.
        seed: of the order of the pictures.
        sector: found keeps the ultrasound sector of each picture, or the crop, and blanks what lies outside
            the sector, where machines write names; whole keeps pictures as they are, or their crop.
        text: what becomes of text on what is kept: report tells it, blank blanks its boxes and tells it,
            leave_out leaves the picture out, ignore does not look for it.

    Raises:
        ValueError: a value out of its range.
    """

    frame_size: int = 160
    crop: tuple[int, int, int, int] | None = None
    seed: int = 0
    sector: str = WHOLE
    text: str = IGNORE

    def __post_init__(self) -> None:
        require(self.frame_size >= 16, "frame_size", self.frame_size, "16 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require_choice("sector", self.sector, SECTOR_CHOICES)
        require_choice("text", self.text, TEXT_CHOICES)
        if self.crop is not None:
            left, top, right, bottom = self.crop
            holds = 0 <= left < right and 0 <= top < bottom
            require(holds, "crop", self.crop, "left, top, right, bottom, with left < right and top < bottom")


AS_THEY_ARE = PictureParameters()


@dataclass(frozen=True)
class MappedSet:
    """The listing of a set, and for each of its pictures our plane, `leave_out`, or None for no label."""

    layout: str
    listing: Listing
    targets: tuple[str | None, ...]
    class_map: ClassMap | None

    def kept(self) -> list[tuple[SourceImage, str | None]]:
        """The pictures that the class map does not leave out."""
        pairs = zip(self.listing.images, self.targets, strict=True)
        return [(image, target) for image, target in pairs if target != LEAVE_OUT]

    def labels_left_out(self) -> dict[str, int]:
        """The number of pictures of each label that the class map leaves out."""
        pairs = zip(self.listing.images, self.targets, strict=True)
        return dict(Counter(image.label for image, target in pairs if target == LEAVE_OUT))


def map_labels(
    layout: str | Layout, source: str | Path, class_map: str | Path | ClassMap | None
) -> MappedSet:
    """List a set and map its labels; arguments and errors are those of `public_sets.read_public_set`.

    Raises:
        PublicSetError: see `public_sets.read_public_set`.
    """
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise PublicSetError(f"There is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
        layout = LAYOUTS[layout]()
    name = next(name for name, kind in LAYOUTS.items() if isinstance(layout, kind))
    if class_map is not None and layout.default_class_map is None:
        raise PublicSetError(f"The layout {name} has no labels, so it takes no class map.")
    if class_map is None:
        class_map = layout.default_class_map
    if class_map is not None and not isinstance(class_map, ClassMap):
        class_map = read_class_map(class_map)
    listing = layout.list_images(str(source), class_map)
    _check_patients(listing.images)
    targets = tuple(
        None if image.label is None else class_map.target_of(image.label, image.where)
        for image in listing.images
    )
    return MappedSet(name, listing, targets, class_map)


def _check_patients(images: Iterable[SourceImage]) -> None:
    """Refuse a patient in two splits: what is learnt of one would be tested on the same."""
    first: dict[str, SourceImage] = {}
    for image in images:
        other = first.setdefault(image.patient, image)
        if other.split != image.split:
            raise PublicSetError(
                f"Patient {image.patient} is in two splits, by {other.name} in {other.split} and by "
                f"{image.name} in {image.split}; move all pictures of a patient to one."
            )


class StillPicture(Recording):
    """A picture as a recording of one frame.

    Args:
        name: for messages.
        pixels: (height, width, 3) uint8 RGB.
        crop: the only part that may be kept; None for all.
    """

    def __init__(self, name: str, pixels: np.ndarray, crop: Box | None = None):
        self.name, self.notes = name, ScanNotes(crop=crop)
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels
        self.blank(())

    def frames(self) -> Iterator[Frame]:
        """The picture."""
        yield Frame(0.0, 0.0, lambda: self._pixels)

    def sampled_frames(self) -> np.ndarray:
        """The picture, (1, height, width, 3)."""
        return self._pixels[None]


@dataclass(frozen=True)
class MadePicture:
    """What became of a picture.

    `row` is its row of `planes_features()` and its `split`, None where it was left out; `outcome` is what is
    told of it, and `tile` shows it on the contact sheet, where that was asked for and it could be read.
    """

    row: dict | None
    outcome: RecordingOutcome
    tile: Image.Image | None = None


def picture_rows(
    images: Iterable[tuple[SourceImage, str | None]],
    parameters: PictureParameters,
    key: bytes,
    on_left_out: Callable[[str], object],
) -> Iterator[dict]:
    """A row of `planes_features()`, and its `split`, for each picture that is kept.

    Args:
        images: each with our plane, or None for no label.
        on_left_out: is told, in a sentence, of each that is not.
    """
    for image, target in images:
        made = make_picture(image, target, parameters, key)
        if made.row is None:
            on_left_out(made.outcome.left_out)
        else:
            yield made.row


def make_picture(
    image: SourceImage,
    target: str | None,
    parameters: PictureParameters,
    key: bytes,
    with_tile: bool = False,
) -> MadePicture:
    """The row of a picture, or why it is left out.

    Args:
        target: our plane, or None for no label.
    """
    scan_id, counts, texts, tile = keyed_hash(key, "scan", image.patient), Counter[str](), (), None
    tell = partial(RecordingOutcome, image.name, scan_id, scan_id)
    try:
        picture = StillPicture(image.name, _read_pixels(image, parameters.crop), parameters.crop)
        found = look_for_text(picture, parameters.sector, parameters.text, counts)
        texts = tuple(text.text for text in found)
        tile = draw_tile(picture, parameters.sector, found) if with_tile else None
        if found and parameters.text == LEAVE_TEXT_OUT:
            raise TextOnSectorError(f"{image.name}: text lies on what would be kept of it; look at it.")
        encode = FrameEncoder(_area(picture, parameters.sector), parameters.frame_size)
    except (PublicSetError, RecordingError) as error:
        return MadePicture(None, tell(0, dict(counts), str(error), type(error).__name__, texts), tile)
    row = {
        IMAGE: {"bytes": encode(next(picture.frames())), "path": None},
        LABEL: UNLABELLED if target is None else PLANES.index(target),
        SCAN_ID: scan_id,
        TIME_S: None,
        SPLIT: image.split,
    }
    return MadePicture(row, tell(1, dict(counts), texts=texts), tile)


def _area(picture: StillPicture, sector: str) -> Area:
    try:
        return picture.area(sector)
    except NoSectorError as error:
        raise NoSectorError(
            f"{picture.name}: no ultrasound sector is found on it; leave it out, name the part to keep by "
            "--crop, or keep whole pictures, with all that is written on them, by --sector whole."
        ) from error


def _read_pixels(image: SourceImage, crop: tuple[int, int, int, int] | None) -> np.ndarray:
    """(height, width, 3) uint8 RGB of the whole picture."""
    try:
        with image.open_file() as file, Image.open(file) as picture:
            if picture.mode.startswith(("I", "F")):
                raise PublicSetError(
                    f"{image.name}: has {picture.mode!r} pixels, whose white is not told; save 8 bits."
                )
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PublicSetError(f"{image.name}: cannot be decoded ({error}).") from error
    height, width = pixels.shape[:2]
    if crop is not None and (crop[2] > width or crop[3] > height):
        raise PublicSetError(
            f"{image.name}: crop {crop} does not lie within the picture of {width} x {height} pixels."
        )
    return pixels
