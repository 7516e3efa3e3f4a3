"""Claims of one process on what others could take up as well."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(path: Path) -> Iterator[int | None]:
    """Within it, the descriptor of a file that this process alone has locked; None where another one has.

    The system takes the lock back when the process ends, however it ends; a process that it started with the
    descriptor keeps the lock.

    Args:
        path: of the file, which is made and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()
