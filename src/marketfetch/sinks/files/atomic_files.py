"""Files that are there as a whole or not at all, also after a crash."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

from marketfetch.sinks.files.lock_files import Claim, claim, holder_of, is_abandoned, sweep, unique_name

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
"""Seconds to wait in one go for another process: a run that is stopped has to end soon, and may ask again."""

_POLL = 0.005

_LOCK = ".marketfetch.lock"
_ASIDE = ".aside"

_UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY}
)
"""What file systems say that do not have the call: FUSE, SMB of old, shares of Windows."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR})
"""What systems say that open no folder for reading, or not this one."""


def replace_file(file: Path, write: Callable[[BinaryIO], object], aside: Path | None = None) -> None:
    """Write a file aside and put it in the place of the old one, durably; raises OSError.

    A crash leaves the old file or the new one. `aside` is the folder to write in, by default that of the
    file.
    """

    def make(place: Path) -> None:
        with place.open("wb") as handle:
            write(handle)
            handle.flush()
            _synchronise(handle.fileno())

    create_atomically(file, make, aside)


def create_atomically(file: Path, make: Callable[[Path], object], aside: Path | None = None) -> None:
    """Have a file made aside, whole and durable, and put it in its place; raises OSError.

    Each writing has a name of its own, so that two never write into one file. What a crash leaves aside next
    to a file is removed when that is made again; in a folder of its own, `locks.sweep` removes it. A link is
    followed: a file may lie on another disk.
    """
    if os.path.islink(file):  # noqa: PTH114  # Path.is_link is the same
        file, aside = Path(os.path.realpath(file)), None  # nothing is moved from one disk to another
    prefix, suffix = ("", "") if aside is not None else (f".{file.name}.", _ASIDE)
    folder = file.parent if aside is None else aside
    if aside is None:
        sweep(folder, prefix, suffix)
    place = folder / f"{prefix}{unique_name()}{suffix}"
    try:
        make(place)
        _replace(place, file)
    except BaseException:
        place.unlink(missing_ok=True)  # on a full disk it takes the room that others need
        raise
    _fsync_directory(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those it is in, durably; raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)  # another process may have been faster
        _fsync_directory(folder.parent)


@contextmanager
def locked(lock: Path, give_up: float | None = None) -> Iterator[Claim]:
    """Wait until nobody else has a lock file, and have it while the block runs; see `locks.claim`.

    Makes the folder of the file. Raises OSError, and BlockingIOError where somebody has the lock until
    `give_up`, a moment of `monotonic`: by default for seconds.
    """
    if give_up is None:
        give_up = monotonic() + LOCK_TIMEOUT
    make_folder(lock.parent)
    while True:
        last = monotonic() > give_up
        claimed = claim(lock)
        if claimed is not None:
            break
        if last:
            raise BlockingIOError(errno.EAGAIN, f"{holder_of(lock)} is at work in it for long", str(lock))
        sleep(_POLL)
    try:
        yield claimed
    finally:
        claimed.release()


@contextmanager
def locked_directory(folder: Path, give_up: float | None = None) -> Iterator[None]:
    """Make a folder, wait until nobody else is in it through here, and keep others out; see `alone`."""
    with locked(folder / _LOCK, give_up):
        yield


def is_locked(folder: Path) -> bool:
    """Tell whether somebody is in a folder through `alone_in`; raises OSError."""
    lock = folder / _LOCK
    return lock.exists() and not is_abandoned(lock)


def _replace(place: Path, file: Path) -> None:
    try:
        place.replace(file)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The folder of the file is a link to another disk, or one is mounted there.
        create_atomically(file, lambda near: _copy(place, near))
        place.unlink()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        _synchronise(copy.fileno())


def _fsync_directory(folder: Path) -> None:
    """Make durable what names the folder has, where the file system lets anybody ask for it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _REFUSED | _UNSUPPORTED:
            return
        raise
    try:
        _synchronise(handle)
    finally:
        os.close(handle)


def _synchronise(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
