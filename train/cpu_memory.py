"""How a process that trains on the CPU holds its memory."""

import ctypes
import platform

import torch

# mallopt(3) of the GNU C library, from its malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory(device: torch.device) -> None:
    """Has a training process on the CPU keep the memory of freed tensors for the next ones.

    The GNU C library gives that of large ones back at once, and the system has to clear every page of it that
    it hands out again: a quarter of the time of a step at full size. Kept, memory peaks some percent higher.

    Args:
        device: that the process trains on; on a GPU, and with another C library, nothing is changed.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, 0)  # no allocation gets a mapping of its own, which is gone when it is freed
    library.mallopt(M_TRIM_THRESHOLD, -1)  # and the heap never shrinks
