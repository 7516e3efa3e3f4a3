"""Pictures that FFmpeg cuts out and reduces are those that Pillow makes of the whole ones."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny_recordings import even_times, write_video

from datasets_scripts.clips import FrameEncoder, resize_to_square
from datasets_scripts.media_streams import Frame
from datasets_scripts.recordings import RecordingFiles, open_recording
from datasets_scripts.reduced_pictures import PLANAR, PictureReducer
from datasets_scripts.sector import Sector

WIDTH, HEIGHT, SIZE = 201, 151, 32
BOXES = {"whole": (0, 0, WIDTH, HEIGHT), "even": (40, 20, 140, 120), "odd": (41, 21, 140, 122)}
FULL_RANGE = 2


def picture() -> np.ndarray:
    """Colours that change slowly, with a bright frame around them."""
    down, right = np.mgrid[0:HEIGHT, 0:WIDTH]
    shades = np.stack([40 + right * 0.9, 200 - down * 0.9, 60 + (right + down) / 2], axis=-1)
    return shades.astype(np.uint8)


def decoded(pixel_format: str, color_range: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture()).reformat(
        format=pixel_format, dst_color_range=color_range or None
    )
    return frame


def by_pillow(pixels: np.ndarray, box: tuple[int, int, int, int], mask: np.ndarray | None) -> np.ndarray:
    pixels = pixels if mask is None else pixels * mask[..., None]
    return np.asarray(resize_to_square(Image.fromarray(pixels).crop(box), SIZE)).astype(int)


def reduced_to_square(frame: av.VideoFrame, area: Sector | tuple[int, int, int, int] | None) -> np.ndarray:
    """Decoded from the JPEG of an encoder that must not ask for the whole picture."""

    def never() -> np.ndarray:
        raise AssertionError("the whole picture was asked for")

    jpeg = FrameEncoder(area, SIZE)(Frame(0.0, 0.1, never, frame))
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("pixel_format", sorted(PLANAR))
def test_colours_and_shades_are_those_of_the_whole_picture(pixel_format, box):
    frame = decoded(pixel_format)
    wanted = by_pillow(frame.to_ndarray(format="rgb24"), box, None)
    assert np.abs(reduced_to_square(frame, box) - wanted).mean() < 3


@pytest.mark.parametrize("pixel_format", ["gray", "yuv420p", "yuvj420p", "yuv444p10le"])
@pytest.mark.parametrize("color_range", [0, FULL_RANGE])
def test_the_range_of_the_values_is_the_file_s(pixel_format, color_range):
    frame = decoded(pixel_format, color_range)
    mask = np.ones((HEIGHT, WIDTH), dtype=bool)
    mask[:, 120:] = False
    found = reduced_to_square(frame, Sector(mask, BOXES["even"]))
    wanted = by_pillow(frame.to_ndarray(format="rgb24"), BOXES["even"], mask)
    assert np.abs(found - wanted).mean() < 3
    assert found[:, -3:].max() <= 12, "what is blanked is black"


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "gray10le"])
def test_nothing_from_outside_the_mask_is_mixed_in(pixel_format):
    """The same picture inside, with black or with coloured light outside of a slanted edge."""
    down, right = np.mgrid[0:HEIGHT, 0:WIDTH]
    mask = right + down < 180
    results = []
    for outside in ((0, 0, 0), (255, 30, 30), (20, 20, 255)):
        pixels = np.where(mask[..., None], 90, np.array(outside)).astype(np.uint8)
        frame = av.VideoFrame(WIDTH, HEIGHT, "rgb24")
        frame.planes[0].update(_padded(pixels, frame.planes[0].line_size))
        reduce = PictureReducer(BOXES["whole"], mask, (32, 24))
        results.append(reduce(frame.reformat(format=pixel_format)).astype(int))
    for other in results[1:]:
        # Coding with less chroma than luma mixes over the edge already, by a pixel.
        assert np.abs(other - results[0]).max() <= 12
        assert (other[mask_of_target(~mask)] <= 2).all()


def _padded(pixels: np.ndarray, line_size: int) -> bytes:
    rows = np.zeros((len(pixels), line_size), dtype=np.uint8)
    rows[:, : 3 * pixels.shape[1]] = pixels.reshape(len(pixels), -1)
    return rows.tobytes()


def mask_of_target(outside: np.ndarray) -> np.ndarray:
    """The pixels of (24, 32) that lie two of them and more away from what is kept."""
    share = np.asarray(
        Image.fromarray((~outside * 255).astype(np.uint8)).resize((32, 24), Image.Resampling.BOX)
    )
    near = np.pad(share > 0, 2)
    shifted = [near[y : y + 24, x : x + 32] for y in range(5) for x in range(5)]
    return ~np.any(shifted, axis=0)


@pytest.mark.parametrize("pixel_format", ["rgb24", "pal8", "yuv410p", "gray16be", "yuva420p"])
def test_other_codings_are_left_to_the_whole_picture(pixel_format):
    frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
    assert PictureReducer(BOXES["even"], None, (16, 16))(frame) is None
    whole = Frame(0.0, 0.1, picture, frame)
    jpeg = FrameEncoder(BOXES["even"], SIZE)(whole)
    found = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(found - by_pillow(picture(), BOXES["even"], None)).mean() < 3


def test_pictures_that_are_not_made_smaller_are_as_the_file_says(tmp_path: Path):
    path = write_video(tmp_path / "scan.mp4", even_times(0.1))
    frame = next(open_recording(RecordingFiles("scan", path)).frames())
    assert frame.decoded is not None
    encode = FrameEncoder(None, 64)
    assert encode._reduced(frame) is None and FrameEncoder(None, 32)._reduced(frame).shape == (32, 32, 3)


def test_frames_that_need_turning_are_turned_first(tmp_path: Path):
    path = write_video(tmp_path / "scan.mp4", even_times(0.1))
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 44  # of a track header of version 0
    for place, value in zip((0, 4, 12, 16), (0, 1, -1, 0), strict=True):
        data[header + place : header + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    assert next(open_recording(RecordingFiles("scan", path)).frames()).decoded is None
