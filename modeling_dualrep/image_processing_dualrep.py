"""Frames of any size and colour to the image tower's input."""

from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tvF
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageInput,
    PILImageResampling,
    SizeDict,
)

# What transformers writes into a saved file beside the fields, and passes back when it loads the file.
SAVED_BESIDE_FIELDS = frozenset(
    {"auto_map", "image_processor_type", "processor_class", "video_processor_type"}
)


class FrameProcessorMixin:
    """What the image and the video processor share: their defaults, and that they refuse unknown fields.

    transformers keeps an unknown field as an attribute that nothing reads, so a misspelling would go
    unnoticed.
    """

    do_convert_rgb = True
    do_pad = True
    do_resize = True
    size = {"height": 128, "width": 128}  # noqa: RUF012 (transformers gives every instance its own)
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def __init__(self, **kwargs: Any) -> None:
        self.refuse_unknown_fields(kwargs)
        super().__init__(**kwargs)

    def preprocess(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Preprocesses one input or a list of them; fields passed here hold for this call alone."""
        self.refuse_unknown_fields(kwargs)
        return super().preprocess(*args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The fields, and nothing else that was set on the instance."""
        values = super().to_dict()
        return {name: values[name] for name in values if name in self.fields() | SAVED_BESIDE_FIELDS}

    @classmethod
    def fields(cls) -> set[str]:
        """Names of the fields: those that every processor of this kind has in transformers."""
        return set(cls.valid_kwargs.__annotations__)

    def refuse_unknown_fields(self, given: dict[str, Any]) -> None:
        """Raises ValueError, naming them, for fields that are none of ours."""
        unknown = sorted(set(given) - self.fields() - SAVED_BESIDE_FIELDS)
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}. "
                f"Its fields are: {', '.join(sorted(self.fields()))}."
            )


class DualRepImageProcessor(FrameProcessorMixin, TorchvisionBackend):
    """Turns frames into `pixel_values` (batch, channels, height, width), float32.

    A frame is a PIL image, or an array or tensor (height, width), (height, width, channels) or (channels,
    height, width) of values from 0 to 255. A grey frame becomes a colour frame of equal channels. Black is
    added until a frame has the shape of `size`, so that anatomy is not stretched (`do_pad=False` stretches
    it); then it is resized, divided by 255 and normalised with the statistics of ImageNet. The fields are
    those of every image processor of transformers.

    Raises:
        ValueError: for a field it does not know, or for pixels outside 0..255.
    """

    _auto_class = "AutoImageProcessor"

    def _prepare_images_structure(self, images: ImageInput, expected_ndims: int = 3) -> ImageInput:
        return super()._prepare_images_structure(_with_channel_axis(images), expected_ndims)

    def _preprocess(
        self, images: list[torch.Tensor], size: SizeDict, do_pad: bool, do_rescale: bool, **kwargs: Any
    ) -> BatchFeature:
        if do_rescale:
            check_pixel_range(images)
        if do_pad:
            images = [pad_to_shape_of(image, size) for image in images]
        return super()._preprocess(images, size=size, do_pad=False, do_rescale=do_rescale, **kwargs)


def check_pixel_range(frames: list[torch.Tensor]) -> None:
    """Raises ValueError unless frames that are to be divided by 255 hold values from 0 to 255.

    Args:
        frames: each (..., channels, height, width).
    """
    for frame in frames:
        if frame.dtype == torch.uint8:
            continue
        lowest, highest = frame.amin().item(), frame.amax().item()
        if not (lowest >= 0 and highest <= 255):
            raise ValueError(
                f"A frame of type {frame.dtype} holds values from {lowest:g} to {highest:g}, but pixels must "
                "lie in 0..255: scale it to 8 bits first."
            )
        if frame.is_floating_point() and 0 < highest <= 1:
            raise ValueError(
                f"A frame of type {frame.dtype} holds no value above {highest:g}, so it seems to be rescaled "
                "already: pass do_rescale=False, or pixels from 0 to 255."
            )


def pad_to_shape_of(frames: torch.Tensor, size: SizeDict) -> torch.Tensor:
    """Adds black on both sides, or above and below, until frames have the aspect ratio of `size`.

    What was at column x is then at `x + (padded width - width) // 2`; likewise the rows.

    Args:
        frames: (..., channels, height, width).
        size: what the frames are resized to afterwards; without height and width nothing is added.

    Returns:
        (..., channels, padded height, padded width).
    """
    if not (size.height and size.width):
        return frames
    height, width = frames.shape[-2:]
    missing_width = max(0, round(height * size.width / size.height) - width)
    missing_height = max(0, round(width * size.height / size.width) - height)
    if not (missing_width or missing_height):
        return frames
    left, top = missing_width // 2, missing_height // 2
    return tvF.pad(frames, [left, top, missing_width - left, missing_height - top], fill=0)


def _with_channel_axis(images: Any) -> Any:
    """Gives grey arrays (height, width) the channel axis that transformers wants."""
    if isinstance(images, list | tuple):
        return [_with_channel_axis(image) for image in images]
    is_grey = isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 2
    return images[None] if is_grey else images


__all__ = ["DualRepImageProcessor"]
