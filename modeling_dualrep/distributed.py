"""Negatives from all processes: gathering rows with their gradient."""

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in order of rank; their gradient goes back to the process they came from.

    Outside of distributed training the rows themselves. Every process must hold as many rows as the others, and
    average the gradients of its parameters, as DistributedDataParallel does: the loss of the gathered rows then has
    the gradient that one process with all the rows would get.

    Args:
        rows: (batch, ...) of this process.

    Returns:
        (processes * batch, ...).

    Raises:
        ValueError: the processes hold different numbers of rows.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    if torch.distributed.get_world_size() == 1:
        return rows
    counts = [
        torch.zeros((), dtype=torch.long, device=rows.device)
        for _ in range(torch.distributed.get_world_size())
    ]
    torch.distributed.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    if len({int(count) for count in counts}) > 1:
        raise ValueError(
            f"The processes hold batches of {[int(count) for count in counts]} rows, but the losses need equal ones: "
            "drop the last incomplete batch."
        )
    return torch.cat(all_gather(rows.contiguous())) if rows.requires_grad else _gather_constants(rows)


def _gather_constants(rows: Tensor) -> Tensor:
    gathered = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)
