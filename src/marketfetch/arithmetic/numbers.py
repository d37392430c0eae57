"""Pages of rows as one flat list of numbers: what decoding does where nothing is compiled."""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = ["flattened", "parse_numbers"]

_NUMERIC = b"0123456789+-.eE"
_BLANK = bytes.maketrans(b'"[]', b"   ")
_UNQUOTED = {b"", b'""'}


def flattened(rows: bytes, width: int) -> bytes | None:
    """Turn a JSON list of rows into one flat list; None unless each row is `width` fields of digits.

    What is left of a page without the characters of numbers must be the same brackets, commas and quotes in
    every row: this holds for each row and is checked in two passes over the bytes, none of them in Python.

    >>> flattened(b'[[60000,"1.5"],[120000,"2"]]', width=2)
    b'[  60000, 1.5 ,  120000, 2   ]'
    >>> flattened(b'[[60000,"1.5",1],["2"]]', width=2) is None
    True
    """
    skeleton = rows.translate(None, _NUMERIC)
    row, count = skeleton[1 : skeleton.find(b"]") + 1], skeleton.count(b"]") - 1
    fields = row[1:-1].split(b",")
    if len(fields) != width or not _UNQUOTED.issuperset(fields):
        return None
    if skeleton != b"[" + b",".join([row] * count) + b"]":
        return None
    # Not cut out: two numbers on both sides of a quote or bracket must not become one.
    return b"[" + rows.translate(_BLANK) + b"]"


def parse_numbers(flat: bytes) -> NDArray[np.float64] | None:
    """Read a flat list as `float` would read each number, shape (n,); None for anything that is no number.

    >>> parse_numbers(b"[60000,1.5]")
    array([6.0e+04, 1.5e+00])
    """
    # Parsers read a whole -0 as an integer, which has no sign.
    if b"-" in flat and (b"-0," in flat or b"-0 " in flat or b"-0]" in flat):
        return None
    try:
        numbers = np.fromiter(orjson.loads(flat), np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return numbers if len(numbers) else None
