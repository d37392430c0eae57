"""Errors of the system that say what this machine has run out of, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marketfetch.common.local_resources import exhausted
from marketfetch.errors import LocalResourceError

__all__ = ["naming_exhaustion"]


@contextmanager
def naming_exhaustion() -> Iterator[None]:
    """Raise LocalResourceError for an OSError of the block that says so; others are let through.

    >>> import errno
    >>> with naming_exhaustion():
    ...     raise OSError(errno.ENOBUFS, "no buffer")
    Traceback (most recent call last):
    marketfetch.errors.LocalResourceError: this machine has no room for network buffers: lower concurrency
    """
    try:
        yield
    except OSError as error:
        lacking = exhausted(error.errno)
        if lacking is None:
            raise
        raise LocalResourceError(lacking) from error
