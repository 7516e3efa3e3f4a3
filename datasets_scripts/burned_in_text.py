"""Text that is burned into pictures: names, dates and measurements that lie on the ultrasound itself.

It is found by an OCR library, RapidOCR with the models of PP-OCR that lie in its package: one network finds
boxes that may hold text, another reads them. Speckle is taken for a box now and then, but is not read with
confidence as two letters or digits. Over a recording what is written stands still while tissue moves, so the
median over frames shows it best; single frames show what comes and goes. The median, or the only picture, is
looked at in two sizes, and with its contrast evened, since each look misses some letters that another finds:
a skull may be taken for one large letter, with all that is written on it. For small pictures one look does.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from datasets_scripts.recording_errors import RecordingError
from datasets_scripts.recordings import Recording
from datasets_scripts.sector import Sector

if TYPE_CHECKING:
    from rapidocr import RapidOCR

LONGEST_SIDE = 640  # pixels that the longer side of a picture is enlarged to, if it is shorter
MOST_ENLARGED = 3  # times
SMALL = 256  # pixels along the longer side: pictures up to this size are looked at once
SECOND_LOOK = 1.5  # times as large
MOST_PIXELS = 2000  # along the longer side, for a second look
LEAST_CONFIDENCE = 0.6  # of what was read: speckle stays below
FEWEST_CHARACTERS, SHORT = 2, 3  # letters or digits
LEAST_CONFIDENCE_SHORT = 0.85  # of up to `SHORT` characters: speckle may be read as 20
EVENED_OVER = 12  # pixels of the enlarged picture, standard deviation
TALLEST = 64  # pixels of the picture: letters are smaller, organs are larger
MOST_AT_ONCE = 900_000  # pixels that are searched at a time: the network takes some 350 bytes for each
LEAST_BOX_SCORE = 0.3  # of a box that may hold text
BAND_ROWS = 64
FEWEST_FOR_MEDIAN = 3
SINGLE_FRAMES = 3
SAME_SHARE = 0.5  # of the smaller of two boxes: they hold the same text


class TextSearchError(ValueError):
    """Text cannot be searched for, for the reason that the message gives."""


class TextOnSectorError(RecordingError):
    """Text lies on what would be kept of a recording, and such recordings are to be left out."""


@dataclass(frozen=True)
class FoundText:
    """Text on a picture.

    Args:
        text: as it was read, which may be wrong in some letters.
        confidence: of the reading, 0 to 1.
        box: left, top, right, bottom in pixels of the picture, the latter two exclusive.
    """

    text: str
    confidence: float
    box: tuple[int, int, int, int]


def text_within(recording: Recording, sector: str) -> list[FoundText]:
    """Text on what is kept of a recording, in frames from all over it.

    Args:
        sector: one of `SECTOR_CHOICES`.

    Raises:
        RecordingError: the recording is cut short or damaged, or its sector is not found.
        TextSearchError: RapidOCR is not installed.
    """
    kept = kept_pixels(recording, sector)
    # Read once the frames are let go, of which the looks are a fifth: both at once are too much for a worker.
    return _each_read_once(_looks(recording.sampled_frames(), kept))


def kept_pixels(recording: Recording, sector: str) -> np.ndarray:
    """bool (height, width): the pixels of a recording that are neither cut off nor blanked.

    Args:
        sector: one of `SECTOR_CHOICES`.

    Raises:
        RecordingError: the recording is cut short or damaged, or its sector is not found.
    """
    area, (left, top, right, bottom) = recording.area(sector), recording.box(sector)
    kept = np.zeros((recording.height, recording.width), dtype=bool)
    kept[top:bottom, left:right] = True
    return kept & area.mask if isinstance(area, Sector) else kept


def find_text(pictures: np.ndarray, mask: np.ndarray | None = None) -> list[FoundText]:
    """Text on a picture, or on several of one scene: in their median, and in some of them.

    Args:
        pictures: uint8 (frames, height, width, 3) or (height, width, 3).
        mask: bool (height, width), True where text is looked for; None means everywhere.

    Returns:
        Every text once, the surest first.

    Raises:
        ValueError: `pictures` is of another shape or type.
        TextSearchError: RapidOCR is not installed.
    """
    frames = pictures[None] if pictures.ndim == 3 else pictures
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or min(frames.shape) == 0:
        raise ValueError(
            "Pictures must be uint8 (height, width, 3), or several of one size, not "
            f"{pictures.dtype} {pictures.shape}."
        )
    return _each_read_once(_looks(frames, np.ones(frames.shape[1:3], dtype=bool) if mask is None else mask))


class _Look(NamedTuple):
    """A picture to be read, enlarged by a factor, and the pixel where its corner lies."""

    picture: np.ndarray
    factor: float
    left: int
    top: int


def _looks(frames: np.ndarray, mask: np.ndarray) -> list[_Look]:
    """What is to be read of some frames; what is masked is black."""
    left, top, inside = _bounds(mask)
    if not inside.any():
        return []
    height, width = inside.shape
    frames = frames[:, top : top + height, left : left + width]
    views = [view * inside[..., None] for view in _views(frames)]
    factor = min(max(1.0, LONGEST_SIDE / max(height, width)), MOST_ENLARGED)
    looks = [(view, factor) for view in views]
    if max(height, width) > SMALL:
        looks.append((_evened(views[0], factor) * inside[..., None], factor))
        if SECOND_LOOK * factor * max(height, width) <= MOST_PIXELS:
            looks.append((views[0], SECOND_LOOK * factor))
    return [_Look(view, factor, left, top) for view, factor in looks]


def _each_read_once(looks: list[_Look]) -> list[FoundText]:
    return _each_once([text for look in looks for piece in _pieces(look) for text in _read(*piece)])


def _pieces(look: _Look) -> Iterator[_Look]:
    """Bands of a picture of which one can be searched at a time; each line of text lies as a whole in one."""
    picture, factor, left, top = look
    height, width = picture.shape[:2]
    most_rows = max(int(MOST_AT_ONCE / (width * factor**2)), 3 * TALLEST)
    number = max(1, math.ceil((height - TALLEST) / (most_rows - TALLEST)))
    rows = math.ceil((height + (number - 1) * TALLEST) / number)
    for piece in range(number):
        first = min(piece * (rows - TALLEST), height - rows)
        yield _Look(picture[first : first + rows], factor, left, top + first)


def median_picture(frames: np.ndarray) -> np.ndarray:
    """What stands still: the median over uint8 (frames, height, width, 3)."""
    middle, median = len(frames) // 2, np.empty_like(frames[0])
    for top in range(0, len(median), BAND_ROWS):  # a copy of all at once takes hundreds of megabytes
        band = slice(top, top + BAND_ROWS)
        median[band] = np.partition(frames[:, band], middle, axis=0)[middle]
    return median


def _bounds(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Left and top of the smallest box around a mask, and the mask within it."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, mask[:0, :0]
    return columns[0], rows[0], mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _views(frames: np.ndarray) -> Iterator[np.ndarray]:
    """The median of some frames and some of them, or the only one."""
    count = len(frames)
    if count >= FEWEST_FOR_MEDIAN:
        yield median_picture(frames)
    for number in np.unique(np.linspace(0, count - 1, min(count, SINGLE_FRAMES) + 2)[1:-1].round()):
        yield frames[int(number)]


def _evened(picture: np.ndarray, factor: float) -> np.ndarray:
    """The picture, in grey, with about the same brightness and contrast everywhere."""
    grey, size = picture.mean(axis=-1, dtype=np.float32), EVENED_OVER / factor
    mean = ndimage.gaussian_filter(grey, size)
    deviation = np.sqrt(np.maximum(ndimage.gaussian_filter(grey**2, size) - mean**2, 0))
    evened = np.clip(110 + 45 * (grey - mean) / (deviation + 4), 0, 255)
    return np.repeat(evened.astype(np.uint8)[..., None], 3, axis=-1)


def _read(picture: np.ndarray, factor: float, left: int, top: int) -> Iterator[FoundText]:
    """What is read with confidence on a picture, enlarged by a factor, whose corner lies at `left`, `top`."""
    height, width = picture.shape[:2]
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    enlarged = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    read = _reader()(np.ascontiguousarray(enlarged[..., ::-1]))
    if read.txts is None:
        return
    for text, confidence, corners in zip(read.txts, read.scores, read.boxes, strict=True):
        x, y = np.floor(corners.min(axis=0) / factor).astype(int)
        right, bottom = np.ceil(corners.max(axis=0) / factor).astype(int)
        box = int(left + x), int(top + y), int(left + right), int(top + bottom)
        if min(right - x, bottom - y) <= TALLEST and _is_text(text, confidence):
            yield FoundText(text.strip(), float(confidence), box)


def _is_text(text: str, confidence: float) -> bool:
    """Whether what was read is no speckle."""
    characters = sum(map(str.isalnum, text))
    if characters < FEWEST_CHARACTERS:
        return False
    return confidence >= (LEAST_CONFIDENCE_SHORT if characters <= SHORT else LEAST_CONFIDENCE)


def require_reader() -> None:
    """Raise TextSearchError unless RapidOCR is installed and its models can be loaded."""
    _reader()


@cache
def _reader() -> "RapidOCR":
    """RapidOCR on one thread; it takes pictures in the order blue, green, red."""
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise TextSearchError(
            "Text on pictures is searched with RapidOCR, which is not installed; run `uv sync`."
        ) from error
    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,  # text on ultrasound is upright
            "Global.text_score": LEAST_CONFIDENCE,
            "Global.use_preprocess_img": False,
            "Det.limit_side_len": 32,
            "Det.box_thresh": LEAST_BOX_SCORE,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def _each_once(found: list[FoundText]) -> list[FoundText]:
    kept: list[FoundText] = []
    for text in sorted(found, key=lambda each: -each.confidence):
        if not any(_is_same(text.box, other.box) for other in kept):
            kept.append(text)
    return kept


def _is_same(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(width, 0) * max(height, 0) >= SAME_SHARE * smaller
