"""Pixels as models take them: channels first, normalised as the processors do it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


@dataclass(frozen=True)
class PixelStatistics:
    """What the processor normalises pixels by: (channels,) mean and standard deviation of values in 0..1."""

    mean: Sequence[float]
    std: Sequence[float]

    def normalise(self, frames: Tensor) -> Tensor:
        """(frames / 255 - mean) / std, computed as the processor does it, to the last bit.

        Args:
            frames: uint8 (..., channels, height, width).

        Returns:
            float32 of the same shape.
        """
        mean, std = ((255 * torch.tensor(values)).tolist() for values in (self.mean, self.std))
        return functional.normalize(frames.float(), mean, std, inplace=True)

    def normalise_batch(self, clips: Sequence[Tensor]) -> Tensor:
        """`normalise` of frames or clips of one shape, stacked; grey ones become colour of equal channels.

        It is the same to the last bit; but clip by clip, which fits the processor's cache as no batch does.

        Args:
            clips: uint8 ([frames,] 1 or 3, height, width) each.

        Returns:
            float32 (batch, [frames,] channels, height, width).
        """
        mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        *frames, _, height, width = clips[0].shape
        batch = torch.empty(len(clips), *frames, len(mean), height, width)
        for values, clip in zip(batch, clips, strict=True):
            torch.sub(clip, mean, out=values).div_(std)
        return batch


def channels_first(frames: np.ndarray) -> Tensor:
    """(..., channels, height, width) of pixels (..., height, width, channels)."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
