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


def channels_first(frames: np.ndarray) -> Tensor:
    """(..., channels, height, width) of pixels (..., height, width, channels)."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
