"""Pixels as models take them: channels first, normalised as the processors do it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from modeling_dualrep.tower import DualRepTower


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

    def batch_normaliser(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """`normalise` for batches on a device, to the last bit; grey ones become colour of equal channels.

        Returns:
            A function of uint8 (batch, [frames,] 1 or 3, height, width) on the device, which gives float32
            (batch, [frames,] channels, height, width) and does not wait for the device.
        """
        mean, std = self._of_channels(device)

        def normalise_batch(clips: Tensor) -> Tensor:
            *leading, _, height, width = clips.shape
            batch = torch.empty(*leading, len(mean), height, width, device=device)
            # Clip by clip fits a processor's cache as no batch does; a GPU takes all of them at once.
            parts = zip(batch, clips, strict=True) if device.type == "cpu" else [(batch, clips)]
            for values, part in parts:
                torch.sub(part, mean, out=values).div_(std)
            return batch

        return normalise_batch

    def normalise_in_towers(self, model: nn.Module, device: torch.device) -> None:
        """Has the towers of pixels take bytes as well, of which they make numbers, to the last bit the same.

        Where a batch goes through them in chunks, only the bytes of the whole batch lie on the device.
        """
        mean, std = self._of_channels(device)

        def normalise(tower: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            pixels, *others = inputs
            return ((pixels - mean) / std, *others) if pixels.dtype == torch.uint8 else inputs

        for tower in model.children():
            if isinstance(tower, DualRepTower) and tower.main_input_name.startswith("pixel_values"):
                tower.register_forward_pre_hook(normalise)

    def _of_channels(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of bytes, (channels, 1, 1)."""
        mean, std = (
            (255 * torch.tensor(values)).view(-1, 1, 1).to(device) for values in (self.mean, self.std)
        )
        return mean, std


def channels_first(frames: np.ndarray) -> Tensor:
    """(..., channels, height, width) of pixels (..., height, width, channels)."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3)
