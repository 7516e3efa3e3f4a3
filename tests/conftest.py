"""What all tests share: real media where there is any, few threads, no network."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"


def pytest_configure() -> None:
    # Tiny models gain nothing from more threads, and tests that run side by side lose.
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings beside the project; a clone elsewhere has none."""
    if not MEDIA.is_dir():
        pytest.skip("no folder of real media beside the project")
    return MEDIA
