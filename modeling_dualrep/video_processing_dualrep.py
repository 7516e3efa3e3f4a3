"""Clips of any length, size and colour to the video tower's input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers import BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import SizeDict
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, load_video

from .image_processing_dualrep import FrameProcessorMixin, check_pixel_range, pad_to_shape_of

CHANNEL_COUNTS = (1, 3, 4)


class DualRepVideoProcessor(FrameProcessorMixin, BaseVideoProcessor):
    """Turns clips into `pixel_values_videos` (batch, frames, channels, height, width), float32.

    A clip is a list of frames (PIL images, arrays or tensors of one size), or one array or tensor (frames,
    height, width), (frames, height, width, channels) or (frames, channels, height, width), or the path of a
    video file (read with PyAV). `num_frames` evenly spaced ones of its frames are taken, of T frames the i-th
    being number `floor(i * T / num_frames)`: where there are fewer, they repeat. Frames are padded, resized
    and normalised as the image processor does it and with the same statistics, so that both towers see a
    frame alike. The fields are those of every video processor of transformers.

    Raises:
        ValueError: for a field it does not know, pixels outside 0..255, or frames of several sizes in one
            clip.
    """

    _auto_class = "AutoVideoProcessor"

    do_sample_frames = True
    num_frames = 14

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs: Any
    ) -> np.ndarray:
        """Numbers of `num_frames` evenly spaced frames of a clip, some repeated where it has fewer.

        Raises:
            ValueError: the clip has no frames; or `fps` was asked for, where the model takes a number of
                frames.
        """
        if fps is not None:
            raise ValueError(
                "fps cannot be chosen, since the model takes a fixed number of frames: num_frames."
            )
        if metadata.total_num_frames < 1:
            raise ValueError("it does not say how many frames it has; decode it, and pass its frames.")
        count = self.num_frames if num_frames is None else num_frames
        return np.arange(count) * metadata.total_num_frames // count

    def fetch_videos(self, video_url_or_urls: Any, sample_indices_fn: Callable | None = None) -> Any:
        """Reads video files with PyAV, which brings its own FFmpeg.

        Raises:
            ValueError: a file cannot be read, or ends before the frames it says to have.
        """
        if isinstance(video_url_or_urls, list):
            videos = [self.fetch_videos(url, sample_indices_fn) for url in video_url_or_urls]
            return [list(part) for part in zip(*videos, strict=True)]
        try:
            frames, metadata = load_video(
                video_url_or_urls, backend="pyav", sample_indices_fn=sample_indices_fn
            )
        except (IndexError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"{video_url_or_urls} cannot be read as a video: {error}") from error
        # The reader returns a frame once, however often it was asked for.
        wanted, occurrence = np.unique(metadata.frames_indices, return_inverse=True)
        if len(frames) < len(wanted):
            raise ValueError(
                f"{video_url_or_urls} ends before the {metadata.total_num_frames} frames it says to have."
            )
        return frames[occurrence], metadata

    def _decode_and_sample_videos(self, videos: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._decode_and_sample_videos(_as_clips(videos), *args, **kwargs)

    def _preprocess(
        self, videos: list[torch.Tensor], size: SizeDict, do_pad: bool, do_rescale: bool, **kwargs: Any
    ) -> BatchFeature:
        if do_rescale:
            check_pixel_range(videos)
        if do_pad:
            videos = [pad_to_shape_of(video, size) for video in videos]
        return super()._preprocess(videos, size=size, do_rescale=do_rescale, **kwargs)


def _as_clips(videos: Any) -> list[Any]:
    """A list of clips, each with a channel axis or a path, whatever way one or several were given."""
    if isinstance(videos, str | Path):
        return [_as_clip(videos)]
    if _is_array(videos) and videos.ndim == 5:
        return list(videos)
    if _is_array(videos) or _is_frame(videos) or (_is_sequence(videos) and videos and _is_frame(videos[0])):
        return [_as_clip(videos)]
    if not (_is_sequence(videos) and videos):
        raise ValueError("videos holds no clip: pass the frames of one, or a list of clips.")
    return [_as_clip(clip) for clip in videos]


def _as_clip(clip: Any) -> Any:
    """One clip with a channel axis, or the path of one."""
    if isinstance(clip, str | Path):
        return str(clip)
    if _is_sequence(clip) and clip and all(_is_frame(frame) for frame in clip):
        return _stack(clip)
    if _is_array(clip) and clip.ndim == 3 and len(clip) and clip.shape[-1] not in CHANNEL_COUNTS:
        return clip[:, None]
    if _is_array(clip) and clip.ndim == 4 and len(clip) and _has_channel_axis(clip[0]):
        return clip
    what = f"an array of shape {tuple(clip.shape)}" if _is_array(clip) else f"a {type(clip).__name__}"
    raise ValueError(
        f"videos holds {what} where a clip is wanted: a list of frames, an array (frames, height, width), "
        "(frames, height, width, channels) or (frames, channels, height, width), or the path of a video."
    )


def _stack(frames: Any) -> np.ndarray:
    """The frames of one clip as one array (frames, ...) with a channel axis."""
    arrays = [
        convert_to_rgb(frame, return_numpy=True) if isinstance(frame, Image) else np.asarray(frame)
        for frame in frames
    ]
    arrays = [array[None] if array.ndim == 2 else array for array in arrays]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise ValueError(
            f"The frames of a clip must be of one size and colour, but have the shapes {shapes}."
        )
    return np.stack(arrays)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _is_frame(value: Any) -> bool:
    if _is_array(value):
        return value.ndim == 2 or (value.ndim == 3 and _has_channel_axis(value))
    return isinstance(value, Image)


def _has_channel_axis(frame: np.ndarray | torch.Tensor) -> bool:
    return frame.shape[0] in CHANNEL_COUNTS or frame.shape[-1] in CHANNEL_COUNTS


__all__ = ["DualRepVideoProcessor"]
