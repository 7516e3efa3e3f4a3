"""SIGTERM: noticed between steps, told to all processes, and survived by the workers of a loader."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator
from pretrain_processes import CONTEXT, free_port
from torch.utils.data import DataLoader, IterableDataset

from train.interruption import (
    EXIT_STATUS,
    NoticeCameError,
    NoticeOfEnd,
    RunInterruptedError,
    ending_held_back,
    leave_notices_to_trainer,
)


@pytest.fixture(autouse=True)
def handler() -> Iterator[object]:
    """What handles SIGTERM before the test; put back after it."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def test_the_signal_is_noticed_and_ends_nothing(handler: object) -> None:
    with NoticeOfEnd(Accelerator(cpu=True)) as notice:
        assert not notice.has_come()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.has_come()
        assert notice.has_come(), "it does not go again"
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_run_that_is_stopping_is_not_ended_by_a_second_signal() -> None:
    """torchrun sends one to the other processes as soon as the first has gone."""
    with pytest.raises(RunInterruptedError), NoticeOfEnd(Accelerator(cpu=True)):
        raise RunInterruptedError("the checkpoint is written")
    os.kill(os.getpid(), signal.SIGTERM)


def test_after_another_error_the_signal_is_what_it_was(handler: object) -> None:
    with pytest.raises(ValueError), NoticeOfEnd(Accelerator(cpu=True)):
        raise ValueError
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_is_held_back_takes_effect_at_the_end(number: int) -> None:
    def end(signal_number: int, frame: object) -> None:
        raise KeyboardInterrupt

    reached, before = [], signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt), ending_held_back():
            os.kill(os.getpid(), number)
            reached.append("the end")
        assert reached and signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_what_is_held_back_stays_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_held_back():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_exit_status_is_that_of_a_process_which_the_signal_ended() -> None:
    assert EXIT_STATUS == 143


def test_between_two_steps_items_come_as_long_as_the_signal_does_not() -> None:
    seen = []
    with NoticeOfEnd(Accelerator(cpu=True)) as notice:
        assert list(notice.until_it_comes("abc")) == ["a", "b", "c"]
        with pytest.raises(NoticeCameError):
            for item in notice.until_it_comes(range(9)):
                seen.append(item)
                if item == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [0, 1, 2, 3]


def items_of_one_process(rank: int, port: int, folder: Path) -> None:
    """Notes how far it comes; only the second process gets the signal."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    seen = []
    with NoticeOfEnd(Accelerator(cpu=True)) as notice, pytest.raises(NoticeCameError):
        for item in notice.until_it_comes(range(9)):
            seen.append(item)
            if (rank, item) == (1, 3):
                os.kill(os.getpid(), signal.SIGTERM)
    (folder / str(rank)).write_text(repr(seen))


def test_all_processes_stop_at_the_same_item(tmp_path: Path) -> None:
    port = free_port()
    processes = [
        CONTEXT.Process(target=items_of_one_process, args=(rank, port, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[0, 1, 2, 3]"] * 2


class OwnProcess(IterableDataset):
    """Endless: the id of the process that reads it."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield os.getpid()


def is_alive(process_id: int) -> bool:
    """Whether it runs; one that has ended and was not asked for its status counts as ended."""
    try:
        with open(f"/proc/{process_id}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_loader_s_workers_live_through_the_signal_and_end_with_the_loader() -> None:
    loader = DataLoader(OwnProcess(), batch_size=None, num_workers=2, worker_init_fn=leave_notices_to_trainer)
    read = iter(loader)
    workers = {next(read) for _ in range(4)}
    assert len(workers) == 2
    for worker in workers:
        subprocess.run(["kill", "-TERM", str(worker)], check=True)
    time.sleep(0.2)
    assert {next(read) for _ in range(12)} == workers
    del read
    assert not any(is_alive(worker) for worker in workers)


def test_the_training_process_may_end_its_workers_by_the_signal() -> None:
    """Python does so at its end; if they did not heed it, it would wait for them for ever."""
    read = iter(DataLoader(OwnProcess(), num_workers=1, worker_init_fn=leave_notices_to_trainer))
    worker = next(read).item()
    os.kill(worker, signal.SIGTERM)
    until = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(worker)
