"""Atomic and durable files: a crash leaves the old content of a file or the new one, never a part of it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

from marketfetch.common.platforms import is_open_elsewhere, retry_while_open_elsewhere
from marketfetch.sinks.files.lock_files import HeldLock, holder_of, is_abandoned, sweep, try_lock, unique_name

__all__ = [
    "LOCK_TIMEOUT",
    "create_atomically",
    "is_locked",
    "locked",
    "locked_directory",
    "make_folder",
    "replace_file",
]

LOCK_TIMEOUT = 2.0
"""Seconds that one call waits for another process: a run that is stopped has to end soon."""

_POLL = 0.005

_FOLDER_LOCK = ".marketfetch.lock"
_TEMPORARY_SUFFIX = ".aside"

_UNSUPPORTED_ERRNOS = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY}
)
"""The errors of file systems that have no fsync for this file: FUSE, old SMB, shares of Windows."""

_NO_ACCESS_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR})
"""The errors of systems that open no folder for reading, or not this folder."""


def replace_file(file: Path, write: Callable[[BinaryIO], object], temporary: Path | None = None) -> None:
    """Replace a file atomically and durably, with fsync; raises OSError.

    `write` writes into a temporary file, which is then renamed. `temporary` is the folder of that file, by
    default the folder of `file`.
    """

    def make(path: Path) -> None:
        with path.open("wb") as handle:
            write(handle)
            handle.flush()
            _fsync(handle.fileno())

    create_atomically(file, make, temporary)


def create_atomically(file: Path, make: Callable[[Path], object], temporary: Path | None = None) -> None:
    """Create or replace a file atomically: `make` makes a temporary file, durably, which is then renamed.

    Raises OSError. Each call has a temporary file of its own, so that two calls never write into one file. A
    temporary file that a crash left beside the file is removed by the next call for that file; in a folder
    `temporary`, `sweep` of `lock_files` removes it. A symbolic link is followed, also to another disk.
    """
    if os.path.islink(file):  # noqa: PTH114  # Path.is_link is the same
        file, temporary = Path(os.path.realpath(file)), None  # no rename leads from one disk to another
    prefix, suffix = ("", "") if temporary is not None else (f".{file.name}.", _TEMPORARY_SUFFIX)
    folder = file.parent if temporary is None else temporary
    if temporary is None:
        sweep(folder, prefix, suffix)
    path = folder / f"{prefix}{unique_name()}{suffix}"
    try:
        make(path)
        _replace(path, file)
    except BaseException:
        path.unlink(missing_ok=True)  # on a full disk its room is needed
        raise
    _fsync_directory(file.parent)


def make_folder(folder: Path, root: Path | None = None) -> None:
    """Make a folder and its parents, durably; raises OSError.

    `root` is a folder above it, in which others make folders, too. Example: two threads make `ohlcv/A` and
    `ohlcv/B`. Thread 1 has made `ohlcv`, and its name is not on the disk yet. Thread 2 finds `ohlcv` and
    makes `ohlcv/B`. So it also writes the names of all folders between `root` and `ohlcv/B` to the disk.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)  # another process may have been faster
    for parent in folder.parents:
        _fsync_directory(parent)
        if root is None or parent == root:
            break


@contextmanager
def locked(lock: Path, give_up: float | None = None) -> Iterator[HeldLock]:
    """Hold a lock file while the block runs, and wait for it first; see `try_lock` of `lock_files`.

    Makes the folder of the lock file. Raises OSError, and BlockingIOError where another holder has the lock
    until `give_up`, a moment of `monotonic`: by default LOCK_TIMEOUT from now.
    """
    if give_up is None:
        give_up = monotonic() + LOCK_TIMEOUT
    make_folder(lock.parent)
    while True:
        last = monotonic() > give_up
        try:
            held_lock = try_lock(lock)
        except OSError as error:  # on Windows, a lock file that another process reads or removes
            if last or not is_open_elsewhere(error):
                raise
            held_lock = None
        if held_lock is not None:
            break
        if last:
            raise BlockingIOError(errno.EAGAIN, f"{holder_of(lock)} is at work in it for long", str(lock))
        sleep(_POLL)
    try:
        yield held_lock
    finally:
        held_lock.release()


@contextmanager
def locked_directory(folder: Path, give_up: float | None = None) -> Iterator[None]:
    """Hold the lock file of a folder while the block runs, and make the folder first; see `locked`."""
    with locked(folder / _FOLDER_LOCK, give_up):
        yield


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds a folder through `locked_directory`; raises OSError."""
    lock = folder / _FOLDER_LOCK
    return lock.exists() and not is_abandoned(lock)


def _replace(path: Path, file: Path) -> None:
    try:
        retry_while_open_elsewhere(partial(path.replace, file))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The folder of the file is a link to another disk, or a disk is mounted there.
        create_atomically(file, lambda beside: _copy(path, beside))
        path.unlink()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        _fsync(copy.fileno())


def _fsync_directory(folder: Path) -> None:
    """Make the names in a folder durable, where the file system has a call for it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _NO_ACCESS_ERRNOS | _UNSUPPORTED_ERRNOS:
            return
        raise
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def _fsync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED_ERRNOS:
            raise
