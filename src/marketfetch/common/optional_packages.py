"""Optional packages: an extra of marketfetch installs them, or they have plug-ins for marketfetch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import Secret

__all__ = ["from_extra", "load_plug_in", "plug_ins", "scheme_of"]


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


def load_plug_in(
    group: str, argument: str, name: str, *, others: Sequence[str] = (), method: str | None = None
) -> Any:
    """Load what the entry point of a name leads to.

    Raises ConfigurationError, which names the `argument`, for a plug-in that cannot be loaded or lacks a
    `method`, and, with near matches, for an unknown name. `others` may be written in place of a name.

    >>> load_plug_in("marketfetch.sinks", "to", "memory").__name__
    'MemorySink'
    """
    found = list(plug_ins(group).select(name=name))
    if not found:
        raise unknown(argument, name, [*others, *sorted(plug_ins(group).names)])
    plug_in = f"{argument}: the plug-in {name} ({found[0].value})"
    try:
        loaded = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{plug_in} cannot be loaded: {error}; install it anew") from error
    if method is not None and not callable(getattr(loaded, method, None)):
        raise ConfigurationError(f"{plug_in} has no {method}(text)")
    return loaded


def scheme_of(url: Secret) -> str:
    """Return the text before the first colon if it can be a scheme, and nothing else.

    Other text may be part of a credential. One letter is a drive of Windows.

    >>> scheme_of(Secret("postgres://ann@db.example/market")), scheme_of(Secret("C:/market"))
    ('postgresql', '')
    """
    scheme, colon, _ = url.reveal().partition(":")
    if not colon or len(scheme) < 2 or not scheme.replace("-", "").isalnum():
        return ""
    return "postgresql" if scheme == "postgres" else scheme  # libpq takes both spellings


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
