"""Exception groups: task groups wrap errors in them, and callers shall see one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marketfetch.errors import MarketfetchError

__all__ = ["raising_one_error"]


@contextmanager
def raising_one_error() -> Iterator[None]:
    """Raise one error instead of the exception groups in which task groups wrap it.

    The first MarketfetchError is raised, or the first error if there is none; every other error becomes a
    note of the raised one.

    >>> try:
    ...     with raising_one_error():
    ...         raise ExceptionGroup("two tasks", [KeyError("a"), MarketfetchError("no egress is left")])
    ... except MarketfetchError as error:
    ...     error, error.__notes__
    (MarketfetchError('no egress is left'), ["at the same time: KeyError: 'a'"])
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_errors_in(group))
        chosen = next((error for error in errors if isinstance(error, MarketfetchError)), errors[0])
        for error in errors:
            if error is not chosen:
                chosen.add_note(f"at the same time: {type(error).__name__}: {error}")
        try:
            raise chosen from chosen.__cause__
        finally:
            # Its notes say what the group has; IPython cannot format an error with a group as its context.
            chosen.__context__ = None


def _errors_in(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups inside it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _errors_in(error)
        else:
            yield error
