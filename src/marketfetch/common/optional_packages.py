"""Optional packages: an extra of marketfetch installs them, or they have plug-ins for marketfetch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from marketfetch.errors import ConfigurationError

__all__ = ["from_extra", "plug_ins"]


@contextmanager
def from_extra(extra: str, user: str) -> Iterator[None]:
    """Raise ConfigurationError, which names the extra to install, for a package that is not there.

    >>> with from_extra("plot", "plot"):
    ...     import no_such_package
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: plot: needs no_such_package; pip install 'marketfetch[plot]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{user}: needs {error.name}; pip install 'marketfetch[{extra}]'") from error


def plug_ins(group: str) -> EntryPoints:
    """Return the entry points of a group, such as `marketfetch.sinks`.

    To read those of two hundred packages takes 20 ms: they are read again only if the import path has other
    folders, or something was installed into one of them.

    >>> "sqlite" in plug_ins("marketfetch.sinks").names
    True
    """
    found: EntryPoints = _installed(tuple(map(_state, sys.path))).select(group=group)
    return found


def _state(folder: str) -> tuple[str, int, int]:
    """Return what changes as soon as something is installed into a folder of the import path, or removed."""
    try:
        found = os.stat(folder or ".")  # noqa: PTH116  # no object is made for each folder each time
    except (OSError, ValueError):
        return folder, 0, 0
    return folder, found.st_ino, found.st_mtime_ns


@lru_cache(maxsize=1)
def _installed(state: object) -> Any:  # noqa: ARG001  # it decides whether to read again
    return entry_points()  # of all groups at once: each call reads the files of all packages
