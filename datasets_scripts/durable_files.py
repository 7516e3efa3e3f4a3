"""Files that are whole or not there, whatever ends the process that writes them.

A file is written under another name, synced to the disk and renamed: a rename is one step, so that no reader,
and no later run, ever meets a file in parts.
"""

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ASIDE = ".partial"
_AT_WORKING_DIRECTORY, _RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h, linux/fs.h
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM})


def is_no_space(error: BaseException) -> bool:
    """Whether a disk that is full, or a limit on what may be written, is what went wrong."""
    return isinstance(error, OSError) and error.errno in NO_SPACE


def sync(path: Path) -> None:
    """Wait until what a file holds, or which names a folder has, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` of a folder and of all that is in it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` once all is written; after an error nothing is left of it.

    No two processes are given one name, so that one which was given up and goes on cannot spoil another's.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{ASIDE}")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def remove_asides(path: Path) -> None:
    """Remove what processes that were killed had begun to write for `path`; nobody may be writing it now."""
    for aside in path.parent.glob(f".{escape(path.name)}.*{ASIDE}"):
        aside.unlink()


def put_folder(new: Path, target: Path) -> None:
    """Put a folder in the place of another, or where there is none yet.

    What was there comes to lie at `new`. Linux exchanges the two in one step; elsewhere there is a moment at
    which nothing is at `target`, and a second call does what is missing.
    """
    if not target.exists():
        os.rename(new, target)
    elif not _exchanged(new, target):
        removed = new.with_name(f".{new.name}{ASIDE}")
        os.rename(target, removed)
        os.rename(new, target)
        os.rename(removed, new)
    sync(new.parent)
    sync(target.parent)


def _exchanged(first: Path, second: Path) -> bool:
    """Whether the two names were exchanged; False where the system or the file system cannot do it.

    Raises:
        OSError: it can, and failed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here = _AT_WORKING_DIRECTORY
    if rename(here, os.fsencode(first), here, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(first))
