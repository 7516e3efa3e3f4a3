"""Contact sheets of recordings: what is kept of each is outlined in green, what is blanked is darkened, and
text on what is kept has a red box around it.

They show the recordings' pictures, with what is written on them, and are as private as these.
"""

from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from datasets_scripts.burned_in_text import FoundText, kept_pixels
from datasets_scripts.clips import place_in_square
from datasets_scripts.durable_files import remove_asides, written_aside
from datasets_scripts.preparation_report import PrepareError
from datasets_scripts.recordings import Box, Recording
from datasets_scripts.sector import NoSectorError

TILE, LABEL_HEIGHT, GAP = 300, 14, 4  # of so many pixels, a line of text that was missed is seen
COLUMNS, TILES_A_PAGE = 10, 100
DARKENED = 0.35
GREEN, RED = (0, 255, 0), (255, 0, 0)


def draw_tile(recording: Recording, sector: str, texts: Sequence[FoundText] = ()) -> Image.Image:
    """The frame in the middle of a recording, in a square of `TILE` pixels.

    Args:
        sector: one of `SECTOR_CHOICES`; where it is to be found and there is none, all is darkened.
        texts: found on what is kept.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    frames = recording.sampled_frames()
    return _shown(frames[len(frames) // 2], _kept(recording, sector), [text.box for text in texts])


def _kept(recording: Recording, sector: str) -> np.ndarray:
    """`kept_pixels`, or nothing where there is no sector."""
    try:
        return kept_pixels(recording, sector)
    except NoSectorError:
        return np.zeros((recording.height, recording.width), dtype=bool)


def _shown(picture: np.ndarray, kept: np.ndarray, boxes: Sequence[Box]) -> Image.Image:
    left, top, width, height = place_in_square(kept.shape[1], kept.shape[0], TILE)
    pixels = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    kept = np.asarray(Image.fromarray(kept).resize((width, height)))
    pixels[~kept] = (DARKENED * pixels[~kept]).astype(np.uint8)
    pixels[kept & ~ndimage.binary_erosion(kept)] = GREEN
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(Image.fromarray(pixels), (left, top))
    scale, draw = width / picture.shape[1], ImageDraw.Draw(tile)
    for box in boxes:
        # One pixel outside, so that what is written can be read.
        x, y, right, bottom = (round(edge * scale) for edge in box)
        draw.rectangle((left + x - 1, top + y - 1, left + right, top + bottom), outline=RED)
    return tile


def write_sheets(tiles: Sequence[tuple[Path, str]], file: Path) -> list[Path]:
    """Write a page for every hundred tiles: `FILE.png`, `FILE_2.png`, ...

    Args:
        tiles: the picture of each, and what is written below it.

    Returns:
        The pages.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    pages = []
    for first in range(0, len(tiles), TILES_A_PAGE):
        number = first // TILES_A_PAGE + 1
        pages.append(file if number == 1 else file.with_stem(f"{file.stem}_{number}"))
        _page(tiles[first : first + TILES_A_PAGE]).save(pages[-1], format="PNG")
    return pages


def check_sheet(sheet: Path | None, output_dir: Path) -> None:
    """Raise a PrepareError where `sheet` is no PNG, or lies in the data set."""
    if sheet is not None and (sheet.suffix.lower() != ".png" or sheet.is_relative_to(output_dir)):
        raise PrepareError(
            f"{sheet} cannot be the sheet: it shows frames with all that is written on them; name a .png "
            "outside of the data set."
        )


def place_sheets(tiles: Sequence[tuple[Path, str]], staging: Path, sheet: Path) -> None:
    """Write the pages of `sheet`, each as a whole, by way of the folder `staging`."""
    sheet.parent.mkdir(parents=True, exist_ok=True)
    for page in write_sheets(tiles, staging / "sheets" / sheet.name):
        remove_asides(sheet.with_name(page.name))  # of a run that was killed
        with written_aside(sheet.with_name(page.name)) as aside:
            copyfile(page, aside)


def _page(tiles: Sequence[tuple[Path, str]]) -> Image.Image:
    columns, width, height = min(COLUMNS, len(tiles)), TILE + GAP, TILE + LABEL_HEIGHT + GAP
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), (48, 48, 48))
    draw = ImageDraw.Draw(page)
    for number, (picture, label) in enumerate(tiles):
        left, top = number % columns * width, number // columns * height
        page.paste(Image.open(picture), (left, top))
        draw.text((left + TILE // 2, top + TILE + 1), label, fill="white", anchor="ma", font_size=11)
    return page
