"""Type checks for arguments, because annotations are not checked at run time."""

from __future__ import annotations

import numpy as np

__all__ = ["is_number", "is_text", "is_whole", "kind_of", "plain_int", "plain_number"]


def kind_of(value: object) -> str:
    """Return what a value is, for a message: its type, or that it is a class itself.

    >>> kind_of(5), kind_of(dict)
    ('int', 'the class dict')
    """
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def is_text(value: object) -> bool:
    """Return whether the value is text that is not blank.

    >>> is_text("okx"), is_text(" "), is_text(5)
    (True, False, False)
    """
    return isinstance(value, str) and bool(value.strip())


def is_whole(value: object) -> bool:
    """Return whether the value is a whole number; True and False are not.

    >>> is_whole(5), is_whole(5.0), is_whole(True)
    (True, False, False)
    """
    # The first test is for speed: nearly every number is one of Python's own.
    return type(value) is int or (
        isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)
    )


def is_number(value: object) -> bool:
    """Return whether the value is a number; NaN is not.

    >>> is_number(0.5), is_number(float("nan")), is_number("5")
    (True, False, False)
    """
    return is_whole(value) or (isinstance(value, float) and value == value)  # noqa: PLR0124


def plain_int(value: int) -> int:
    """Turn a whole number of numpy into Python's own; anything else is returned for a validator to refuse.

    >>> plain_int(np.int64(5)), plain_int(True)
    (5, True)
    """
    return int(value) if is_whole(value) else value


def plain_number(value: float) -> float:
    """Turn a number of numpy into Python's own; anything else is returned for a validator to refuse.

    >>> plain_number(np.float64(0.5)), plain_number(np.int64(5))
    (0.5, 5)
    """
    if is_whole(value):
        return int(value)
    given: object = value
    return float(given) if isinstance(given, np.floating) else value
