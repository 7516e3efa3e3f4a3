"""How many processes train together against how many were meant to."""

import warnings

import pytest

from train.arguments import ArgumentsError
from train.processes import check_processes


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    warnings.simplefilter("error")


@pytest.mark.parametrize(("running", "expected"), [(1, None), (1, 1), (4, 4), (4, None)])
def test_the_number_that_was_meant_passes_in_silence(running: int, expected: int | None) -> None:
    check_processes(running, expected)


@pytest.mark.parametrize(("running", "expected"), [(1, 2), (4, 2), (2, 1)])
def test_another_number_is_refused_with_both_and_what_to_do(running: int, expected: int) -> None:
    with pytest.raises(ArgumentsError, match=f"is {expected}, but .* are {running}\\..*torchrun"):
        check_processes(running, expected)


@pytest.mark.parametrize("expected", [None, 1])
def test_processes_that_know_nothing_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, expected: int | None
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ArgumentsError, match="started 3 processes, but each would train alone"):
        check_processes(1, expected)
    check_processes(3, None)


def test_one_process_of_a_launch_of_several_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.warns(UserWarning, match="One process trains alone.*accelerate launch --cpu"):
        check_processes(1, None)
    check_processes(1, 1)
    check_processes(2, None)
