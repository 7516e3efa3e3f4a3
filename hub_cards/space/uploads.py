"""Removes what visitors left behind: files that were cut off on their way here, or never analysed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OLDEST_SECONDS = 900.0
SWEEP_SECONDS = 60.0


def remove_old(folder: Path, oldest_seconds: float) -> None:
    """Removes what lies in a folder and has not been written to for so long, empty folders too.

    A file on its way here is written to all the time; what an analysis reads does not lie here any more.
    """
    before = time.time() - oldest_seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        # It may be taken or filled at this very moment.
        with suppress(OSError):
            if path.lstat().st_mtime <= before:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def swept(folder: Path, oldest_seconds: float, every_seconds: float) -> Iterator[None]:
    """Within it, a thread removes old files again and again."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(every_seconds):
            remove_old(folder, oldest_seconds)

    thread = threading.Thread(target=sweep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
