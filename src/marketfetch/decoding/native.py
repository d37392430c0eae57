"""Calls the compiled decoder of rows, `_rows.c`, where this installation has it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["LIBRARY", "RawRows", "read_rows"]

LIBRARY = Path(__file__).with_name("_rows.so")
"""One name on every system: the library is loaded by its path and never searched for."""
_TIME, _SKIPPED = -2, -1


@attrs.frozen(eq=False)
class RawRows:
    """Times, shape (n,), int64, and one line for each of the fields asked for, shape (fields, n), float64."""

    times: NDArray[np.int64]
    values: NDArray[np.float64]


@cache
def _library() -> ctypes.CDLL | None:
    """Load the library; None if there was no compiler when marketfetch was installed."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    text = (ctypes.c_char_p, ctypes.c_size_t)
    library.marketfetch_brackets.argtypes = text
    library.marketfetch_brackets.restype = ctypes.c_int64
    pointers = (ctypes.c_void_p,) * 3
    library.marketfetch_rows.argtypes = (*text, ctypes.c_int64, ctypes.c_int, *pointers)
    library.marketfetch_rows.restype = ctypes.c_int
    return library


def read_rows(text: bytes, *, width: int, time: int, fields: Sequence[int]) -> RawRows | None:
    """Read a JSON list of rows: the column `time` and the columns `fields` of each row.

    Each row has `width` numbers, quoted or not, which are rounded as `float` rounds them. Returns None for
    any other text, and where nothing is compiled: then the careful decoder in Python reads the text.

    >>> rows = read_rows(b'[[60000,"1.5",7]]', width=3, time=0, fields=[1])
    >>> rows is None or (rows.times.tolist(), rows.values.tolist()) == ([60000], [[1.5]])
    True
    """
    library = _library()
    positions = {time, *fields}
    # The C code reads each field once. The careful decoder handles repeated and negative positions.
    if library is None or type(text) is not bytes or len(positions) <= len(fields):
        return None
    if not all(0 <= position < width for position in positions):
        return None
    count = library.marketfetch_brackets(text, len(text)) - 1
    # A row of n fields has at least 2n characters. A larger count of brackets cannot be rows: allocating for
    # it would let a short text ask for much memory.
    if not 0 < count <= len(text) // (2 * width):
        return None
    lines = np.full(width, _SKIPPED, np.intc)
    lines[time] = _TIME
    lines[list(fields)] = np.arange(len(fields))
    times, values = np.empty(count, np.int64), np.empty((len(fields), count))
    pointers: list[Any] = [array.ctypes.data for array in (lines, times, values)]
    failed = library.marketfetch_rows(text, len(text), count, width, *pointers)
    return None if failed else RawRows(times, values)
