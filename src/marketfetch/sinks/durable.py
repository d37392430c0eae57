"""Files that are there as a whole or not at all, also after a crash."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO

__all__ = ["PATIENCE", "alone_in", "is_taken", "make_folder", "move_in", "replace_file"]

PATIENCE = 2.0
"""Seconds to wait in one go for another process: a run that is stopped has to end soon, and may ask again."""

_POLL = 0.005


def replace_file(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside and put it in the place of the old one, durably; raises OSError.

    A crash leaves the old file or the new one. What it may leave aside has a fixed name, so that the next
    writing takes its place.
    """

    def make(aside: Path) -> None:
        with aside.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())

    move_in(file, make)


def move_in(file: Path, make: Callable[[Path], object]) -> None:
    """Have a file made aside, whole and durable, and put it in its place; raises OSError.

    A link is followed: a file may lie on another disk.
    """
    file = Path(os.path.realpath(file))
    aside = file.with_name(f".{file.name}.aside")
    aside.unlink(missing_ok=True)
    try:
        make(aside)
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)  # on a full disk it takes the room that others need
        raise
    _settle(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those it is in, durably; raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)  # another process may have been faster
        _settle(folder.parent)


@contextmanager
def alone_in(folder: Path, give_up: float | None = None) -> Iterator[None]:
    """Make a folder, wait until nobody else is in it through here, and keep others out.

    The lock is on the folder itself: nothing is left behind, and a process that dies lets go of it. Raises
    OSError, and BlockingIOError where somebody stays in until `give_up`, a moment of `monotonic`: by default
    for seconds.
    """
    if give_up is None:
        give_up = monotonic() + PATIENCE
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        while not _locked(handle, last=monotonic() > give_up):
            sleep(_POLL)
        yield
    finally:
        os.close(handle)


def is_taken(folder: Path) -> bool:
    """Tell whether somebody is in a folder through `alone_in`; raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        return not _locked(handle, last=False)
    finally:
        os.close(handle)


def _locked(handle: int, *, last: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if last:
            raise
        return False
    return True


def _settle(folder: Path) -> None:
    """Make durable what names the folder has."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
