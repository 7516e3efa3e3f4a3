"""Negatives from all processes: gathering rows with their gradient."""

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all processes in order of rank; their gradient goes back to the process they came from.

    Outside of distributed training, the rows themselves. The processes must average the gradients of their
    parameters, as DistributedDataParallel does: a loss of the gathered rows then has the gradient that one
    process with all the rows would get.

    Args:
        tensors: (batch, ...) each, by name; the same names and batch size in every process.

    Returns:
        (processes * batch, ...) each, by the same names.

    Raises:
        ValueError: the processes hold batches of different sizes.
    """
    if process_count() == 1:
        return tensors
    _require_equal_batches(next(iter(tensors.values())))
    return {name: torch.cat(all_gather(rows.contiguous())) for name, rows in tensors.items()}


def process_count() -> int:
    """Processes that train together, 1 outside of distributed training."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _require_equal_batches(rows: Tensor) -> None:
    sizes = torch.cat(all_gather(torch.tensor([len(rows)], device=rows.device))).tolist()
    if len(set(sizes)) > 1:
        raise ValueError(
            f"The processes hold batches of {sizes} rows, but the losses need equally many: "
            "drop the last, incomplete batch."
        )
