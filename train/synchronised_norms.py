"""BatchNorm whose statistics are those of the clips of all processes (SyncBatchNorm)."""

import torch
from torch.nn import SyncBatchNorm

from modeling_dualrep.modeling_dualrep import DualRepModel
from train.arguments import ArgumentsError


def synchronise_batch_norm(model: DualRepModel, device: torch.device, processes: int) -> None:
    """Puts SyncBatchNorm in place of BatchNorm in all that takes the video and the frame.

    The audio's layers keep to the clips of their own process. How many of these have sound differs from
    process to process, down to none, and a process that has none would leave the others waiting.

    Args:
        model: changed in place; its weights and their names stay.
        device: that it is trained on.
        processes: that train together. One has nothing to synchronise.

    Raises:
        ArgumentsError: on a CPU, where PyTorch has no SyncBatchNorm.
    """
    if device.type == "cpu":
        raise ArgumentsError(
            "sync_batch_norm is True, but must be False on a CPU: PyTorch synchronises BatchNorm on GPUs."
        )
    if processes == 1:
        return
    for name, part in model.named_children():
        if not name.startswith("audio_"):
            setattr(model, name, SyncBatchNorm.convert_sync_batchnorm(part))
