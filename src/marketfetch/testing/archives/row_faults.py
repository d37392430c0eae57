"""Wrong rows in the CSV file of an archive whose digest is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.archives.csv_text import CsvText
from marketfetch.testing.archives.faults import ArchiveFaultKind
from marketfetch.testing.markets.noise import hash_key
from marketfetch.values.spans import DAY

__all__ = ["break_rows"]

_ENOUGH = 13
"""How many rows are wrong, at most."""
_VALUE = 2
"""The column that faults change: high, funding rate, open interest."""
_FLOW = (5, 7, 8, 9, 10)
_OFF_GRID = 4_789
"""Milliseconds."""

_RowsFault = Callable[[CsvText, int], CsvText]


def break_rows(kind: ArchiveFaultKind, truth: CsvText, seed: int) -> CsvText:
    """Return the file with the fault. A file that cannot have the fault is returned as it is.

    The seed decides which rows are wrong; the same seed gives the same rows.
    """
    fault = _ROWS_FAULTS.get(kind)
    return truth if fault is None or not len(truth.times) else fault(truth, seed)


def _taken(truth: CsvText, rows: NDArray[np.int64]) -> CsvText:
    lines = truth.lines
    return CsvText(truth.header, truth.times[rows], b"".join([lines[row] for row in rows]))


def _missing_days(truth: CsvText, seed: int) -> CsvText:
    days = truth.times // DAY
    known = np.unique(days)
    # At least one day stays; two of the numbers may be those of one day.
    lost = [hash_key(seed, number) % len(known) for number in range(min(len(known) - 1, 1 + seed % 3))]
    return _taken(truth, np.flatnonzero(~np.isin(days, known[lost])))


def _first_week(truth: CsvText, _seed: int) -> CsvText:
    return _taken(truth, np.flatnonzero(truth.times // DAY < truth.times[0] // DAY + 7))


def _ends_early(truth: CsvText, seed: int) -> CsvText:
    count = len(truth.times)
    return _taken(truth, np.arange(max(1, count * (1 + seed % 3) // 4)))


def _some(truth: CsvText, seed: int) -> list[int]:
    """Return some consecutive rows."""
    count = len(truth.times)
    first = seed % max(1, count - _ENOUGH)
    return list(range(first, min(count, first + _ENOUGH)))


def _repeated(truth: CsvText, seed: int) -> CsvText:
    rows = np.sort(np.concatenate([np.arange(len(truth.times)), _some(truth, seed)]))
    return _taken(truth, rows.astype(np.int64))


def _unsorted(truth: CsvText, seed: int) -> CsvText:
    rows = np.arange(len(truth.times))
    some = _some(truth, seed)
    rows[some] = rows[some][::-1]
    return _taken(truth, rows)


def _edited(truth: CsvText, edit: Callable[[list[bytes]], list[bytes]], rows: list[int]) -> CsvText:
    lines = truth.lines
    for row in rows:
        lines[row] = _edited_line(lines[row], edit)
    return CsvText(truth.header, truth.times, b"".join(lines))


def _edited_line(line: bytes, edit: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return b",".join(edit(line.removesuffix(b"\n").split(b","))) + b"\n"


def _with_value(text: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda fields: [*fields[:_VALUE], text, *fields[_VALUE + 1 :]]


def _raised(fields: list[bytes]) -> list[bytes]:
    """Add a hundred units of the last decimal, which keeps a candle possible: its high grows."""
    text = fields[_VALUE].decode()
    units = Decimal(100).scaleb(-len(text.partition(".")[2]))
    return _with_value(f"{Decimal(text) + units:f}".encode())(fields)


def _without_volume(fields: list[bytes]) -> list[bytes]:
    return [b"0" if place in _FLOW else field for place, field in enumerate(fields)]


def _off_grid(fields: list[bytes]) -> list[bytes]:
    unit = 1000 if len(fields[0]) > 13 else 1
    return [b"%d" % (int(fields[0]) + _OFF_GRID * unit), *fields[1:]]


def _conflicting(truth: CsvText, seed: int) -> CsvText:
    lines = truth.lines
    some = _some(truth, seed)
    for row in some:
        lines[row] += _edited_line(lines[row], _raised)
    rows = np.sort(np.concatenate([np.arange(len(truth.times)), some])).astype(np.int64)
    return CsvText(truth.header, truth.times[rows], b"".join(lines))


def _without_column(truth: CsvText, _seed: int) -> CsvText:
    def edit(fields: list[bytes]) -> list[bytes]:
        return fields[:_VALUE] + fields[_VALUE + 1 :]

    header = _edited_line(truth.header, edit) if truth.header else b""
    return CsvText(header, truth.times, b"".join([_edited_line(line, edit) for line in truth.lines]))


_KIND = ArchiveFaultKind
_ROWS_FAULTS: Mapping[ArchiveFaultKind, _RowsFault] = MappingProxyType(
    {
        _KIND.MISSING_DAYS: _missing_days,
        _KIND.FIRST_WEEK: _first_week,
        _KIND.ENDS_EARLY: _ends_early,
        _KIND.OTHER_VALUES: lambda truth, seed: _edited(truth, _raised, _some(truth, seed)),
        _KIND.ZERO_VOLUME: lambda truth, seed: _edited(truth, _without_volume, _some(truth, seed)),
        _KIND.REPEATED_ROWS: _repeated,
        _KIND.CONFLICTING_ROWS: _conflicting,
        _KIND.UNSORTED_ROWS: _unsorted,
        _KIND.OFF_GRID_ROW: lambda truth, seed: _edited(truth, _off_grid, _some(truth, seed)[:1]),
        _KIND.TEXT_VALUE: lambda truth, seed: _edited(truth, _with_value(b"n/a"), _some(truth, seed)[:1]),
        _KIND.BLANK_VALUE: lambda truth, seed: _edited(truth, _with_value(b""), _some(truth, seed)),
        _KIND.WRONG_COLUMNS: _without_column,
    }
)
