"""The CPU cores that a process may use, and how many of them its computations take."""

import os

import torch


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_free_cores(device: torch.device, processes: int, loader_workers: int) -> None:
    """Lets a training process on the CPU compute on all cores that neither others nor its loaders have.

    accelerate launch leaves a process one thread of the CPU unless it is told otherwise; any other number
    stays.

    Args:
        device: that the process trains on; on a GPU nothing is changed.
        processes: that train on this machine.
        loader_workers: processes that load data for each of them.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        # Threads that wait for one whose core a worker has are far slower than fewer threads.
        torch.set_num_threads(max(1, available_cores() // processes - loader_workers))
