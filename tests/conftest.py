"""What all tests share: real media where there is any, few threads, no network."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before NumPy and PyTorch start their threads: with tests side by side, threads would wait for cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings beside the project; a clone elsewhere has none."""
    if not MEDIA.is_dir():
        pytest.skip("no folder of real media beside the project")
    return MEDIA


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Training in a test's own process takes no more threads than the tests beside it leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.cpu_cores.available_cores", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random weights in every run: a comparison that passes does so again."""
    torch.manual_seed(0)
