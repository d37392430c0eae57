"""Files that are there as a whole or not at all, also after a crash."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["alone_in", "make_folder", "replace_file"]


def replace_file(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file aside and put it in the place of the old one, durably; raises OSError.

    A crash leaves the old file or the new one. What it may leave aside has a fixed name, so that the next
    writing takes its place.
    """
    aside = file.with_name(f".{file.name}.aside")
    with aside.open("wb") as handle:
        write(handle)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(file)
    _settle(file.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those it is in, durably; raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)  # another process may have been faster
        _settle(folder.parent)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, wait until nobody else is in it through here, and keep others out; raises OSError.

    The lock is on the folder itself: nothing is left behind, and a process that dies lets go of it.
    """
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _settle(folder: Path) -> None:
    """Make durable what names the folder has."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
