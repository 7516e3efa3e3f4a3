"""Varies the frames of a clip as another machine setting or another hold of the probe would."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional
from transformers.image_utils import SizeDict

from modeling_dualrep.image_processing_dualrep import pad_to_shape_of
from train.arguments import AugmentationArguments

# A shadow begins this deep (at the probe, where contact is lost, or below bone) and is this wide, as shares
# of the frame's height and of a half circle. Then how much of the echo is left in it, how soft its sides are,
# as a share of its width, and over which share of the height it sets in.
SHADOW_DEPTH, SHADOW_WIDTH, SHADOW_LIGHT = (0.0, 0.5), (0.02, 0.08), (0.1, 0.6)
SHADOW_EDGE, SHADOW_ONSET = 0.3, 0.05
# Shadows spread from a point above the frame, where the lines of a curved probe meet.
PROBE_ABOVE = 0.2
SECTOR = math.pi / 5


@dataclass(frozen=True)
class Shadow:
    """What bone or gas leaves dark below it: a sector, seen from the point where the probe's lines meet.

    Args:
        angle: of its middle from straight down, in radians; positive to the right.
        half_width: in radians.
        depth: where it begins below the top, as a share of the frame's height.
        light: how much of the echo is left in it.
    """

    angle: float
    half_width: float
    depth: float
    light: float

    def factors(self, height: int, width: int) -> Tensor:
        """float32 (height, width), what a frame's grey values are multiplied by."""
        y = (torch.arange(height) + 0.5)[:, None] / height
        x = ((torch.arange(width) + 0.5)[None] - width / 2) / height
        angle = torch.atan2(x, y + PROBE_ABOVE)
        edge = SHADOW_EDGE * self.half_width
        inside = ((self.half_width - (angle - self.angle).abs()) / edge + 0.5).clamp(0, 1)
        below = ((y - self.depth) / SHADOW_ONSET).clamp(0, 1)
        return 1 - (1 - self.light) * inside * below


@dataclass(frozen=True)
class View:
    """One way of seeing a clip: all its frames get the same crop, turn, grey values and mirroring.

    Up and down are never swapped: the transducer is above, and shadows fall downwards.

    Args:
        height, width: of the frames that it is for, in pixels.
        size: height and width of what it gives.
        crop_left, crop_top, crop_width, crop_height: in pixels of the frame padded to a square and turned.
        mirrored: left and right swapped.
        gain, gamma: a grey value v in 0..1 becomes gain * v ** gamma.
        rotation_degrees: around the middle of the padded frame, against the clock.
        speckle: grey values are multiplied by 1 + speckle * n, n from the standard normal distribution and
            independent in each pixel of the view, but the same in all frames.
        speckle_seed: of that noise.
        shadow: below the probe, if there is one.
    """

    height: int
    width: int
    size: int
    crop_left: int
    crop_top: int
    crop_width: int
    crop_height: int
    mirrored: bool
    gain: float
    gamma: float
    rotation_degrees: float = 0.0
    speckle: float = 0.0
    speckle_seed: int = 0
    shadow: Shadow | None = None

    def apply(self, frames: Tensor) -> Tensor:
        """The frames in this view.

        Args:
            frames: uint8 (frames, channels, height, width).

        Returns:
            uint8 (frames, channels, size, size).
        """
        frames = pad_to_shape_of(frames, SizeDict(height=self.size, width=self.size))
        if self.shadow is not None:
            frames = _multiplied(frames, self.shadow.factors(*frames.shape[-2:]))
        if self.rotation_degrees:
            frames = functional.rotate(frames, self.rotation_degrees, InterpolationMode.BILINEAR)
        view = _in_fours(frames, self._resized_crop)
        if self.mirrored:
            view = functional.horizontal_flip(view)
        view = _looked_up(view, self._grey_values)
        return _multiplied(view, self._speckle_factors()) if self.speckle else view

    def move_points(self, points: np.ndarray) -> np.ndarray:
        """Where points of the frame lie in the view; those that it leaves out lie outside 0..1.

        Args:
            points: (n, 2) x, y in 0..1 of the frame's width and height.

        Returns:
            float64 (n, 2), in 0..1 of the view.
        """
        side = max(self.height, self.width)
        margins = [(side - self.width) // 2, (side - self.height) // 2]
        pixels = np.asarray(points, dtype=np.float64).reshape(-1, 2) * [self.width, self.height] + margins
        turn = math.radians(self.rotation_degrees)
        # Against the clock for the eye, where y points down.
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        pixels = (pixels - side / 2) @ rotation.T + side / 2
        moved = (pixels - [self.crop_left, self.crop_top]) / [self.crop_width, self.crop_height]
        if self.mirrored:
            moved[:, 0] = 1 - moved[:, 0]
        return moved

    @cached_property
    def _grey_values(self) -> bytes:
        grey_values = self.gain * torch.linspace(0, 1, 256) ** self.gamma
        return grey_values.clamp(0, 1).mul(255).round().to(torch.uint8).numpy().tobytes()

    def _resized_crop(self, frames: Tensor) -> Tensor:
        corner_and_size = self.crop_top, self.crop_left, self.crop_height, self.crop_width
        return functional.resized_crop(frames, *corner_and_size, [self.size, self.size], antialias=True)

    def _speckle_factors(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.speckle_seed)
        return 1 + self.speckle * torch.randn(self.size, self.size, generator=generator)


def draw_view(
    height: int, width: int, size: int, arguments: AugmentationArguments, draw: random.Random
) -> View:
    """A random view of frames.

    Args:
        height, width: of the frames in pixels; they are first padded to a square, as the processor does it.
        size: height and width of the view in pixels.
        arguments: how far the view may go.
        draw: where chance comes from; the same state gives the same view.
    """
    padded = max(height, width)
    side = draw.uniform(arguments.crop_scale, 1.0) ** 0.5
    crop = max(1, round(padded * side))
    top, left = draw.randint(0, padded - crop), draw.randint(0, padded - crop)
    mirrored = draw.random() < arguments.horizontal_flip
    gain = draw.uniform(1 - arguments.brightness, 1 + arguments.brightness)
    gamma = (1 + arguments.gamma) ** draw.uniform(-1, 1)
    most = arguments.rotation_degrees
    # What is switched off draws nothing, so that it changes nothing about the rest.
    return View(
        height,
        width,
        size,
        left,
        top,
        crop,
        crop,
        mirrored,
        gain,
        gamma,
        rotation_degrees=draw.uniform(-most, most) if most else 0.0,
        speckle=draw.uniform(0, arguments.speckle) if arguments.speckle else 0.0,
        speckle_seed=draw.getrandbits(32) if arguments.speckle else 0,
        shadow=_draw_shadow(draw) if arguments.shadow and draw.random() < arguments.shadow else None,
    )


def augment_frames(
    frames: Tensor, size: int, arguments: AugmentationArguments, draw: random.Random
) -> Tensor:
    """One random view of a clip: see `draw_view` and `View.apply`.

    Args:
        frames: uint8 (frames, channels, height, width).
        size: height and width of the result in pixels.
        arguments: how far the view may go.
        draw: where chance comes from; the same state gives the same view.

    Returns:
        uint8 (frames, channels, size, size).
    """
    height, width = frames.shape[-2:]
    return draw_view(height, width, size, arguments, draw).apply(frames)


def _draw_shadow(draw: random.Random) -> Shadow:
    return Shadow(
        angle=draw.uniform(-SECTOR, SECTOR),
        half_width=math.pi / 2 * draw.uniform(*SHADOW_WIDTH),
        depth=draw.uniform(*SHADOW_DEPTH),
        light=draw.uniform(*SHADOW_LIGHT),
    )


def _in_fours(frames: Tensor, resize: Callable[[Tensor], Tensor]) -> Tensor:
    """`resize` of frames (frames, channels, height, width), four grey ones at a time as if they were colours.

    PyTorch resizes images of one byte a colour four colours at a time, whether there are four or not.
    """
    count, channels = frames.shape[:2]
    if channels != 1 or count == 1:
        return resize(frames)
    filled = torch.cat([frames, frames[-1:].expand(-count % 4, -1, -1, -1)])
    resized = resize(filled.unflatten(0, (-1, 4)).squeeze(2))
    return resized.flatten(0, 1)[:count, None]


def _looked_up(frames: Tensor, table: bytes) -> Tensor:
    """uint8 frames with every value replaced by that of the table; PyTorch's own takes ten times as long."""
    values = bytearray(frames.contiguous().numpy()).translate(table)
    return torch.frombuffer(values, dtype=torch.uint8).view(frames.shape)


def _multiplied(frames: Tensor, factors: Tensor) -> Tensor:
    """uint8 frames times factors (height, width), rounded and kept in 0..255."""
    return (frames * factors).clamp(0, 255).round().to(torch.uint8)
