"""Contact sheets of recordings: what is kept of each is outlined in green, what is blanked is darkened.

They show the recordings' pictures, with what is written on them, and are as private as these.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from datasets_scripts.clips import place_in_square
from datasets_scripts.recordings import Recording
from datasets_scripts.sector import NoSectorError, Sector

TILE, LABEL_HEIGHT, GAP = 180, 14, 4
COLUMNS, TILES_A_PAGE = 10, 100
DARKENED = 0.35
GREEN = (0, 255, 0)


def draw_tile(recording: Recording, sector: str) -> Image.Image:
    """The frame in the middle of a recording, in a square of `TILE` pixels.

    Args:
        sector: one of `SECTOR_CHOICES`; where it is to be found and there is none, all is darkened.

    Raises:
        RecordingError: the recording is cut short or damaged.
    """
    frames = recording.sampled_frames()
    return _shown(frames[len(frames) // 2], _kept(recording, sector))


def _kept(recording: Recording, sector: str) -> np.ndarray:
    """bool (height, width): the pixels that are neither cut off nor blanked."""
    kept = np.zeros((recording.height, recording.width), dtype=bool)
    try:
        area, (left, top, right, bottom) = recording.area(sector), recording.box(sector)
    except NoSectorError:
        return kept
    kept[top:bottom, left:right] = True
    return kept & area.mask if isinstance(area, Sector) else kept


def _shown(picture: np.ndarray, kept: np.ndarray) -> Image.Image:
    left, top, width, height = place_in_square(kept.shape[1], kept.shape[0], TILE)
    pixels = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    kept = np.asarray(Image.fromarray(kept).resize((width, height)))
    pixels[~kept] = (DARKENED * pixels[~kept]).astype(np.uint8)
    pixels[kept & ~ndimage.binary_erosion(kept)] = GREEN
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(Image.fromarray(pixels), (left, top))
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


def _page(tiles: Sequence[tuple[Path, str]]) -> Image.Image:
    columns, width, height = min(COLUMNS, len(tiles)), TILE + GAP, TILE + LABEL_HEIGHT + GAP
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), (48, 48, 48))
    draw = ImageDraw.Draw(page)
    for number, (picture, label) in enumerate(tiles):
        left, top = number % columns * width, number // columns * height
        page.paste(Image.open(picture), (left, top))
        draw.text((left + TILE // 2, top + TILE + 1), label, fill="white", anchor="ma", font_size=11)
    return page
