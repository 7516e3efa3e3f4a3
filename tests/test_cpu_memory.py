"""Memory of freed tensors is kept for the next ones, by a process that trains on the CPU alone."""

import ctypes
import platform
import subprocess
import sys

import pytest
import torch

from train.cpu_memory import keep_freed_memory

PAGES_TOUCHED = """
import resource, sys
import torch
from train.cpu_memory import keep_freed_memory
keep_freed_memory(torch.device(sys.argv[1]))
def touch():
    torch.ones(64 * 2**20, dtype=torch.uint8)
for _ in range(20):  # until the heap is as large as it gets
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(device: str) -> int:
    """Pages that the system hands to ten tensors of 64 MiB, one after the other."""
    command = [sys.executable, "-c", PAGES_TOUCHED, device]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is the GNU C library's")
def test_the_next_tensor_gets_the_pages_of_the_last() -> None:
    assert new_pages("cpu") < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is the GNU C library's")
def test_on_a_gpu_nothing_is_changed() -> None:
    assert new_pages("cuda") > 1000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was called"))
    keep_freed_memory(torch.device("cpu"))
