"""Pictures cut out, blanked and reduced by FFmpeg's scaler, from the planes that its decoders give.

So most of what a reduction costs is saved: no picture of full size is turned into RGB.
"""

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

Box = tuple[int, int, int, int]

# Luma, and where there is colour two planes of chroma, in bytes or in words of the machine's own order.
PLANAR = frozenset(
    {"gray", "gray10le", "gray12le"}
    | {f"{kind}{chroma}p" for kind in ("yuv", "yuvj") for chroma in (420, 422, 444)}
    | {f"yuv{chroma}p{bits}le" for chroma in (420, 422, 444) for bits in (10, 12)}
)
FULL_RANGE = 2  # of AVColorRange: black is 0, not 16
HOW = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


class PictureReducer:
    """Cuts a box out of the frames of one video, black where a mask is False, and reduces it.

    What is masked is blanked before the scaling, so that none of it is mixed into what is kept.

    Args:
        box: left, top, right, bottom in pixels of the frame.
        mask: bool (height, width) of the whole frame; None keeps all of the box.
        size: width and height of the result, neither larger than the box's.
    """

    def __init__(self, box: Box, mask: np.ndarray | None, size: tuple[int, int]):
        self._box, self._mask, self._size = box, mask, size
        self._scaler = VideoReformatter()
        self._coding: tuple[str, int, int] | None = None
        self._canvas: av.VideoFrame | None = None
        self._planes: list[_Plane] = []

    def __call__(self, frame: av.VideoFrame) -> np.ndarray | None:
        """uint8 (height, width, 3) RGB; None where its pixels are coded in a way that this does not cut."""
        if frame.format.name not in PLANAR:
            return None
        coding = frame.format.name, frame.color_range, frame.colorspace
        if coding != self._coding:
            self._coding, self._canvas = coding, self._new_canvas(frame)
        for plane, source in zip(self._planes, frame.planes, strict=True):
            plane.take(source)
        width, height = self._size
        reduced = self._scaler.reformat(self._canvas, width, height, "rgb24", interpolation=HOW, threads=1)
        return reduced.to_ndarray()

    def _new_canvas(self, frame: av.VideoFrame) -> av.VideoFrame:
        left, top, right, bottom = self._box
        canvas = av.VideoFrame(right - left, bottom - top, frame.format.name)
        canvas.color_range, canvas.colorspace = frame.color_range, frame.colorspace
        bits = frame.format.components[0].bits
        is_full = frame.format.name.startswith(("gray", "yuvj")) or frame.color_range == FULL_RANGE
        greys = [0 if is_full else 16 << (bits - 8), *[128 << (bits - 8)] * 2]
        self._planes = [
            _Plane(target, (frame.width, frame.height), self._box, self._mask, bits, blank)
            for target, blank in zip(canvas.planes, greys, strict=False)
        ]
        return canvas


class _Plane:
    """One plane of the canvas, and where in a frame's plane its samples are taken."""

    def __init__(
        self,
        target: av.video.plane.VideoPlane,
        size: tuple[int, int],
        box: Box,
        mask: np.ndarray | None,
        bits: int,
        blank: int,
    ):
        self._type = np.dtype(np.uint8 if bits == 8 else "<u2")
        left, top, right, bottom = box
        # Pixels of the picture that share a sample of the plane, where it is of chroma.
        across = 1 if target.width == right - left else 2
        down = 1 if target.height == bottom - top else 2
        # A box that begins between two samples of chroma gets them half a sample off: no more than that.
        self._rows = slice(top // down, top // down + target.height)
        self._columns = slice(left // across, left // across + target.width)
        self._samples = _samples(target, self._type)
        self._kept, self._blank = None, np.asarray(blank, dtype=self._type)
        if mask is not None:
            kept = _where_all(mask, down, across)[self._rows, self._columns]
            self._kept = np.where(kept, np.iinfo(self._type).max, 0).astype(self._type)
            self._blank = np.where(kept, 0, blank).astype(self._type)

    def take(self, source: av.video.plane.VideoPlane) -> None:
        """Copy the samples of a frame's plane, blanked outside of the mask."""
        samples = _samples(source, self._type)[self._rows, self._columns]
        if self._kept is None:
            self._samples[:] = samples
        else:
            np.bitwise_and(samples, self._kept, out=self._samples)
            np.bitwise_or(self._samples, self._blank, out=self._samples)


def _samples(plane: av.video.plane.VideoPlane, of_type: np.dtype) -> np.ndarray:
    """A view of (height, width) samples, without what fills up the rows."""
    rows = np.frombuffer(plane, dtype=of_type).reshape(plane.height, plane.line_size // of_type.itemsize)
    return rows[:, : plane.width]


def _where_all(mask: np.ndarray, down: int, across: int) -> np.ndarray:
    """The samples all of whose pixels are True: a sample of chroma also tells of its other pixels."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % down), (0, -width % across)), mode="edge")
    return padded.reshape(padded.shape[0] // down, down, -1, across).all(axis=(1, 3))
