"""Translate what can come out of a block of code into the one error that a caller shall see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marketfetch.common.local_resources import exhausted
from marketfetch.errors import LocalResourceError, MarketfetchError

__all__ = ["naming_exhaustion", "raising_one_error"]


@contextmanager
def naming_exhaustion() -> Iterator[None]:
    """Raise LocalResourceError for an OSError that says that this machine ran out of something.

    Every other error leaves the block unchanged.

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


@contextmanager
def raising_one_error() -> Iterator[None]:
    """Raise one error instead of the exception groups in which task groups wrap it.

    The first MarketfetchError is raised, or the first error if there is none; every other error becomes a
    note of the raised one.

    >>> with raising_one_error():
    ...     raise ExceptionGroup("two tasks", [KeyError("a"), MarketfetchError("no egress is left")])
    Traceback (most recent call last):
    marketfetch.errors.MarketfetchError: no egress is left
    at the same time: KeyError: 'a'
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_errors_in(group))
        chosen = next((error for error in errors if isinstance(error, MarketfetchError)), errors[0])
        for error in errors:
            if error is not chosen:
                chosen.add_note(f"at the same time: {type(error).__name__}: {error}")
        raise chosen from chosen.__cause__


def _errors_in(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups inside it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _errors_in(error)
        else:
            yield error
