"""Waiting for what another process does."""

import time
from collections.abc import Callable


def wait_for(holds: Callable[[], bool], seconds: float) -> None:
    """Returns as soon as it holds; fails where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
