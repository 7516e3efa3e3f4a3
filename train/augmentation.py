"""Varies the frames of a clip as another machine setting or another hold of the probe would."""

import random

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional
from transformers.image_utils import SizeDict

from modeling_dualrep.image_processing_dualrep import pad_to_shape_of
from train.arguments import AugmentationArguments


def augment_frames(
    frames: Tensor, size: int, arguments: AugmentationArguments, draw: random.Random
) -> Tensor:
    """One random view of a clip: all its frames get the same crop, grey values and mirroring.

    Frames are first padded to a square, as the processor does it. Up and down are never swapped: the
    transducer is above, and shadows fall downwards.

    Args:
        frames: uint8 (frames, channels, height, width).
        size: height and width of the result in pixels.
        arguments: how far the view may go.
        draw: where chance comes from; the same state gives the same view.

    Returns:
        uint8 (frames, channels, size, size).
    """
    frames = pad_to_shape_of(frames, SizeDict(height=size, width=size))
    height, width = frames.shape[-2:]
    side = draw.uniform(arguments.crop_scale, 1.0) ** 0.5
    crop_height, crop_width = max(1, round(height * side)), max(1, round(width * side))
    top, left = draw.randint(0, height - crop_height), draw.randint(0, width - crop_width)
    view = functional.resized_crop(frames, top, left, crop_height, crop_width, [size, size], antialias=True)
    if draw.random() < arguments.horizontal_flip:
        view = functional.horizontal_flip(view)
    gain = draw.uniform(1 - arguments.brightness, 1 + arguments.brightness)
    gamma = (1 + arguments.gamma) ** draw.uniform(-1, 1)
    grey_values = (gain * torch.linspace(0, 1, 256) ** gamma).clamp(0, 1).mul(255).round().to(torch.uint8)
    return grey_values[view.long()]
