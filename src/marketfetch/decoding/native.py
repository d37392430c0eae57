"""Calls the compiled decoders of rows and lines, `_rows.c`, where this installation has them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.decoding.compiled import COMPILED

__all__ = ["MOMENT_DIGITS", "LineFormat", "LineReader", "RawRows", "read_rows"]

MOMENT_DIGITS = 15
"""The most digits of a time in a row of JSON. Example: 1767225600000, in milliseconds, has 13."""
_SYMBOL, _TIME, _SKIPPED = -3, -2, -1


@attrs.frozen(eq=False)
class RawRows:
    """Times, shape (n,), int64, and values, shape (fields, n), float64: a row for each field asked for."""

    times: NDArray[np.int64]
    values: NDArray[np.float64]


def read_rows(text: bytes, *, width: int, time: int, fields: Sequence[int]) -> RawRows | None:
    """Read a JSON list of rows: the column `time` and the columns `fields` of each row.

    Each row has `width` numbers, quoted or not, which are rounded as `float` rounds them. Returns None for
    any other text, for positions that are repeated or outside of a row, and where nothing is compiled: then
    the caller uses the decoder in Python.

    >>> rows = read_rows(b'[[60000,"1.5",7]]', width=3, time=0, fields=[1])
    >>> rows is None or (rows.times.tolist(), rows.values.tolist()) == ([60000], [[1.5]])
    True
    """
    lines = _lines_of_row(width, time, tuple(fields))
    if COMPILED is None or type(text) is not bytes or lines is None:
        return None
    count = COMPILED.marketfetch_count(text, len(text), b"]") - 1
    # One bracket closes the list. A row of n fields has at least 2n characters, so more brackets than that
    # are not rows. Example: b"[]]]]]]" must not get memory for five rows.
    if not 0 < count <= len(text) // (2 * width):
        return None
    times, values = np.empty(count, np.int64), np.empty((len(fields), count))
    pointers: list[Any] = [array.ctypes.data for array in (lines, times, values)]
    failed = COMPILED.marketfetch_rows(text, len(text), count, width, *pointers)
    return None if failed else RawRows(times, values)


@lru_cache(maxsize=256)  # a run has few kinds of rows
def _lines_of_row(width: int, time: int, fields: tuple[int, ...]) -> NDArray[np.intc] | None:
    positions = {time, *fields}
    # The C code reads each field once. The decoder in Python handles repeated and negative positions.
    if len(positions) <= len(fields) or not all(0 <= position < width for position in positions):
        return None
    lines = np.full(width, _SKIPPED, np.intc)
    lines[time] = _TIME
    lines[list(fields)] = np.arange(len(fields))
    return lines


def _lines_of(form: LineFormat) -> NDArray[np.intc] | None:
    special = {_TIME: form.time} if form.symbol is None else {_TIME: form.time, _SYMBOL: form.symbol}
    positions = special | form.fields
    # The C code reads each field once. The decoder in Python handles repeated positions.
    if len({*positions.values()}) < len(positions) or not 0 < form.digits <= 19:
        return None
    if not form.name.isprintable() or {",", '"'} & {*form.name}:
        return None
    lines = np.full(form.width, _SKIPPED, np.intc)
    lines[[*positions.values()]] = [*positions]
    return lines


@attrs.frozen(eq=False)
class LineFormat:
    """The fields of a line of CSV: how many, which of them are read, and how many digits a time has.

    `fields` maps a row of the array `values` to a position in the line, below `width`. Example: {0: 4} reads
    `values[0]` from the fifth field. The field at `symbol`, unless that is None, must be the text `name`.
    """

    width: int
    time: int
    digits: int
    fields: dict[int, int]
    symbol: int | None = None
    name: str = ""
    lines: NDArray[np.intc] | None = attrs.field(
        default=attrs.Factory(_lines_of, takes_self=True), init=False, repr=False
    )
    """For each field its row of `values`, or `_SYMBOL`, `_TIME`, `_SKIPPED`; None if only Python reads it."""


@attrs.define(eq=False)
class LineReader:
    r"""Reads lines of CSV into arrays: `at` is where the next line begins, `rows` how many were read.

    `times` has shape (n,), int64, `values` shape (columns, n), float64, with room for all lines.

    >>> form = LineFormat(width=2, time=0, digits=5, fields={0: 1})
    >>> lines = LineReader.of(b"60000,1.5\n90000,?\n", form, columns=1)
    >>> lines.read_numbers()
    >>> lines.rows in {0, 1}  # where nothing is compiled, the decoder in Python reads each line
    True
    """

    text: bytes
    form: LineFormat
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    at: int = 0
    rows: int = 0

    @classmethod
    def of(cls, text: bytes, form: LineFormat, *, columns: int, at: int = 0) -> LineReader:
        """Make the arrays for a text, whose last line ends with a line feed."""
        # A line of n fields has at least n characters: blank lines get no memory for a row each.
        count = text.count if COMPILED is None else partial(COMPILED.marketfetch_count, text, len(text))
        room = min(count(b"\n"), len(text) // form.width)
        return cls(text, form, np.empty(room, np.int64), np.empty((columns, room)), at)

    @property
    def is_done(self) -> bool:
        """Whether all lines have been read."""
        return self.at >= len(self.text)

    def read_numbers(self) -> None:
        """Read lines with the C code up to the first that is not exactly of the format; `at` is its start."""
        form = self.form
        if COMPILED is None or form.lines is None:
            return
        stopped = ctypes.c_size_t(self.at)
        room = len(self.times)
        arrays = (self.times.ctypes.data, self.values.ctypes.data)
        line = (form.width, form.lines.ctypes.data, form.digits, form.name.encode())
        text = (self.text, len(self.text), ctypes.byref(stopped))
        self.rows = COMPILED.marketfetch_csv(*text, *line, room, self.rows, *arrays)
        self.at = stopped.value

    def add(self, time: int, numbers: Sequence[float]) -> None:
        """Add one row, with the numbers in the order of the fields of the format."""
        self.times[self.rows] = time
        self.values[list(self.form.fields), self.rows] = numbers
        self.rows += 1
