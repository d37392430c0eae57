"""Files that are either old or new, whatever happens while they are written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["alone", "put"]


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other thread or process is in a block with this lock file, and keep them out.

    The file is made where it is missing, and stays. The lock goes with whoever holds it, so that a crash
    leaves none behind. Raises OSError.
    """
    _make(lock.parent)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def put(path: Path, content: bytes) -> None:
    """Make a file hold exactly this content, durably; one that does so already is not written.

    The content is written to `_NAME.new` beside it, which then takes the file's place: what an interrupted
    write leaves there is overwritten by the next one. Folders are made where they are missing. Two callers
    must not put the same file at once. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "new", "greeting.txt")
    ...     put(path, b"hello")
    ...     path.read_bytes()
    b'hello'
    """
    _make(path.parent)
    if not (path.exists() and path.read_bytes() == content):
        aside = path.with_name(f"_{path.name}.new")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    # Also for a file that is as it should be: whoever wrote it may have been stopped right before this.
    _sync(path.parent)


def _make(folder: Path) -> None:
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            each.mkdir(exist_ok=True)
            _sync(each.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; syncing a file only saves what is in it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
