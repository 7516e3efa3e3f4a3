"""SIGTERM, a cluster's notice that it will soon end the job: the run stops after a whole step, on all
processes at the same one, so that a checkpoint can be written. An evaluation is cut short.

The training processes must get the signal. torchrun and `accelerate launch` of several processes pass theirs
on, and kill what still runs 30 s later; `accelerate launch` of one process passes nothing on, so send it to
`python train/pretrain.py` itself, or to all processes, as Slurm does.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

import torch
import torch.distributed
from accelerate import Accelerator

Item = TypeVar("Item")
# As shells and clusters report a process that SIGTERM ended.
EXIT_STATUS = 128 + signal.SIGTERM


class RunInterruptedError(RuntimeError):
    """A notice ended the run before its last step; the text says where to go on."""


class NoticeCameError(RuntimeError):
    """A notice cut work between two steps short, such as an evaluation."""


class NoticeOfEnd:
    """Within it, SIGTERM ends nothing at once; `has_come` tells after each step whether the run is to stop,
    and `until_it_comes` stops what lies between two steps.

    Args:
        accelerator: its processes are told alike, whichever of them got the signal.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.received = False
        self.group = None
        if accelerator.num_processes > 1:
            # A flag on the CPU, exchanged by the hosts: no process waits for what a GPU has still to do.
            self.group = torch.distributed.new_group(backend="gloo")

    def __enter__(self) -> "NoticeOfEnd":
        self.previous_handler = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # While a run stops, torchrun signals it once more as soon as another of its processes has gone.
        if not isinstance(error, RunInterruptedError):
            signal.signal(signal.SIGTERM, self.previous_handler)

    def has_come(self) -> bool:
        """Whether any process got the signal. All processes call it, after the same step."""
        if self.group is None:
            return self.received
        flag = torch.tensor(self.received, dtype=torch.int32)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self.group)
        return bool(flag)

    def until_it_comes(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, as long as no process got the signal. All processes ask for equally many.

        Raises:
            NoticeCameError: in the place of the next item.
        """
        for item in items:
            if self.has_come():
                raise NoticeCameError("SIGTERM came between two steps.")
            yield item

    def _receive(self, signal_number: int, frame: FrameType | None) -> None:
        self.received = True


@contextmanager
def ending_held_back() -> Iterator[None]:
    """Within it SIGINT and SIGTERM wait; they take effect at its end, when what was begun there is known.

    What is ignored stays so, for a process that is started within it too. For the main thread alone.
    """
    came: list[int] = []

    def hold(signal_number: int, frame: FrameType | None) -> None:
        came.append(signal_number)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in previous.items() if handler != signal.SIG_IGN}
    try:
        for number in held:
            signal.signal(number, hold)
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def leave_notices_to_trainer(worker: int) -> None:
    """Lets a worker of a DataLoader live through SIGTERM, which clusters and torchrun send it as well.

    The training process needs its workers up to the last step, and then ends them itself: a SIGTERM from it
    counts. A `worker_init_fn`.

    Args:
        worker: its number.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    # Blocked in all threads of the worker, the signal waits for the one that asks who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    trainer = multiprocessing.parent_process().pid
    threading.Thread(target=_end_at_signal_of, args=(trainer,), daemon=True).start()


def _end_at_signal_of(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
