"""Pages of rows as one flat list of numbers: what decoding does where nothing is compiled."""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = ["flatten_numbers", "parse_numbers"]

_NUMERIC = b"0123456789+-.eE"
_BLANK = bytes.maketrans(b'"[]', b"   ")
# A number that stands outside of its quotes or brackets leaves an empty place behind.
_EMPTY_PLACES = (b'""', b"[,", b",]", b"[]")
_UNQUOTED = {b"", b'""'}


def flatten_numbers(rows: bytes, width: int) -> bytes | None:
    """Turn a JSON list of rows into one flat list; None unless each row is `width` fields of digits.

    What is left of a page without the characters of numbers must be the same brackets, commas and quotes in
    every row: this holds for each row and is checked in two passes over the bytes, none of them in Python.

    >>> flatten_numbers(b'[[60000,"1.5"],[120000,"2"]]', width=2)
    b'[  60000, 1.5 ,  120000, 2   ]'
    >>> flatten_numbers(b'[[60000,"1.5",1],["2"]]', width=2) is None
    True
    """
    if any(place in rows for place in _EMPTY_PLACES):
        return None
    skeleton = rows.translate(None, _NUMERIC)
    row, count = skeleton[1 : skeleton.find(b"]") + 1], skeleton.count(b"]") - 1
    fields = row[1:-1].split(b",")
    if len(fields) != width or not _UNQUOTED.issuperset(fields):
        return None
    if skeleton != b"[" + b",".join([row] * count) + b"]":
        return None
    # Not cut out: two numbers on both sides of a quote or bracket must not become one.
    return b"[" + rows.translate(_BLANK) + b"]"


def parse_numbers(flat: bytes, width: int, time: int) -> NDArray[np.float64] | None:
    """Read a flat list as `float` would read each number, shape (n,); None for anything that is no number.

    Of each `width` numbers the one at `time` has to be an integer, without a point and an exponent. Beyond
    768 digits, which no price has, orjson may take the neighbour of the nearest double.

    >>> parse_numbers(b"[60000,1.5]", width=2, time=0)
    array([6.0e+04, 1.5e+00])
    """
    # Parsers read a whole -0 as an integer, which has no sign.
    if b"-" in flat and (b"-0," in flat or b"-0 " in flat or b"-0]" in flat):
        return None
    try:
        parsed = orjson.loads(flat)
        numbers = np.fromiter(parsed, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    if not parsed or not all(type(stamp) is int for stamp in parsed[time::width]):
        return None
    return numbers
