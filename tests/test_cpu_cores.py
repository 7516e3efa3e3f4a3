"""How many threads a training process computes with."""

from collections.abc import Iterator

import pytest
import torch

from train import cpu_cores
from train.cpu_cores import use_free_cores


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu_cores, "available_cores", lambda: 8)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("device", "processes", "workers", "before", "after"),
    [
        ("cpu", 1, 0, 1, 8),
        ("cpu", 1, 2, 1, 6),
        ("cpu", 2, 1, 1, 3),
        ("cpu", 4, 5, 1, 1),
        ("cpu", 1, 0, 3, 3),
        ("cuda", 1, 0, 1, 1),
    ],
)
def test_a_process_takes_its_share_of_the_cores_unless_told_a_number(
    device: str, processes: int, workers: int, before: int, after: int
) -> None:
    torch.set_num_threads(before)
    use_free_cores(torch.device(device), processes, workers)
    assert torch.get_num_threads() == after
