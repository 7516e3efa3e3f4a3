"""The rows of a batch that have sound, apart from the others.

Where a mask lies on the CPU, nothing of it is read from a GPU: a step never waits for one.
"""

import torch
from torch import Tensor, nn


def row_mask(audio_mask: Tensor | None, batch: int) -> Tensor:
    """(batch,) bool, True where a clip has sound; on the device of the mask.

    Args:
        audio_mask: (batch,), or None where all clips have sound.

    Raises:
        ValueError: another shape.
    """
    if audio_mask is None:
        return torch.ones(batch, dtype=torch.bool)
    if audio_mask.shape != (batch,):
        raise ValueError(
            f"audio_mask has shape {tuple(audio_mask.shape)}, but must have one value a clip: ({batch},)."
        )
    return audio_mask.to(dtype=torch.bool)


def row_numbers(mask: Tensor, device: torch.device) -> Tensor:
    """The numbers of the rows where the (batch,) mask is True: (rows,) int64 on the device."""
    return mask.nonzero().squeeze(1).to(device, non_blocking=True)


def put_rows(rows: Tensor, numbers: Tensor, batch: int) -> Tensor:
    """(batch, dim) with `rows` at those numbers and zeros elsewhere."""
    return rows.new_zeros(batch, rows.shape[1]).index_copy(0, numbers, rows)


def no_rows(dim: int, module: nn.Module) -> Tensor:
    """(0, dim), as if the module had made them: its weights get a gradient of zero, not none at all.

    Other processes wait for the gradient of every weight.
    """
    return sum(weight[:0].sum() for weight in module.parameters()).expand(0, dim)
