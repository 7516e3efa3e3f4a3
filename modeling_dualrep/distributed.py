"""Negatives from all processes: gathering rows with their gradient, adding up what each made of its own.

The processes must average the gradients of their parameters, as DistributedDataParallel does. The sum over
processes of a loss of gathered rows then has the gradient that one process with all the rows would get.
"""

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce


def gather_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all processes in order of rank; their gradient goes back to the process they came from.

    Outside of distributed training, the rows themselves.

    Args:
        tensors: (batch, ...) each, by name; the same names and batch size in every process.

    Returns:
        (processes * batch, ...) each, by the same names.

    Raises:
        ValueError: the processes hold batches of different sizes. On GPUs this comes as an error of the
            device instead, some time later.
    """
    if process_count() == 1:
        return tensors
    batch = len(next(iter(tensors.values())))
    _require_equal_batches(batch, next(iter(tensors.values())).device)
    gathered: dict[str, Tensor] = {}
    for dtype in {values.dtype: None for values in tensors.values()}:
        # One call for all of a dtype: over many processes the calls, not the bytes, take the time.
        of_dtype = {name: values for name, values in tensors.items() if values.dtype == dtype}
        joined = torch.cat([values.reshape(batch, -1) for values in of_dtype.values()], dim=1)
        parts = torch.cat(all_gather(joined)).split(
            [values[0].numel() for values in of_dtype.values()], dim=1
        )
        for (name, values), part in zip(of_dtype.items(), parts, strict=True):
            gathered[name] = part.reshape(-1, *values.shape[1:])
    return {name: gathered[name] for name in tensors}


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of what the processes hold, the same in all of them.

    Outside of distributed training, the values themselves.

    Args:
        values: of any shape, the same in every process.
    """
    return values if process_count() == 1 else all_reduce(values)


def process_count() -> int:
    """Processes that train together, 1 outside of distributed training."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def process_index() -> int:
    """Which of these this one is, counted from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _require_equal_batches(batch: int, device: torch.device) -> None:
    sizes = torch.cat(all_gather(torch.tensor([batch], device=device)))
    if device.type == "cuda":
        # Reading the sizes would have the host wait for all that the GPU has still to do.
        torch._assert_async((sizes == batch).all(), "The processes hold batches of different sizes.")
    elif (sizes != batch).any():
        raise ValueError(
            f"The processes hold batches of {sizes.tolist()} rows, but the losses need equally many: "
            "drop the last, incomplete batch."
        )
