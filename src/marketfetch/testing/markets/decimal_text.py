"""Columns of decimal text, and JSON rows written from them, many rows at once.

An exchange sends numbers as text with a fixed number of decimals. Here a number is an integer and its number
of decimals, which is exact. Table look-ups over whole columns turn the integers into digits. Every part of a
row is written into 4-byte cells padded with NUL bytes; deleting the NUL bytes gives the text. (Formatting in
plain Python takes nine times as long, which the tests and the demonstration would feel.)
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["FixedPointColumn", "RenderedColumn", "TextColumn", "write_rows"]

_Cells: TypeAlias = NDArray[np.uint32]
_CELL = 4
_GROUP = np.uint64(10_000)


def _table(texts: list[str]) -> _Cells:
    cells = np.array([text.encode() for text in texts], dtype=f"S{_CELL}").view(np.uint32)
    cells.setflags(write=False)
    return cells


# Four digits read "42" at the start of a number and "0042" after other digits: entries n and 10,000 + n of
# one table. In _INNER the first zero is empty text; in _LAST, for the last four digits, it is "0".
_INNER = _table(["", *(str(n) for n in range(1, 10_000)), *(f"{n:04}" for n in range(10_000))])
_LAST = _table([*(str(n) for n in range(10_000)), *(f"{n:04}" for n in range(10_000))])
_POINT = tuple(_table([f".{n:0{digits}}" for n in range(10**digits)]) for digits in range(1, 4))
_FRACTION = tuple(_table([f"{n:0{digits}}" for n in range(10**digits)]) for digits in range(1, 5))
_SIGN = _table(["", "-"])


class RenderedColumn(Protocol):
    """One column of a table: numbers, and the exact text that an exchange sends for them."""

    def cells(self) -> _Cells:
        """Return the text of every row as 4-byte cells from left to right, shape (cells, rows)."""
        ...

    def floats(self) -> NDArray[np.float64]:
        """Return what `float(text)` gives for every row, bit for bit; NaN for empty text."""
        ...

    def take(self, rows: slice | NDArray[np.int64]) -> RenderedColumn:
        """Return the given rows, in the given order."""
        ...

    def with_last_value_of(self, other: RenderedColumn) -> RenderedColumn:
        """Return the column with the last value of another column of the same kind in its last row."""
        ...


@attrs.frozen(eq=False)
class FixedPointColumn:
    """Numbers with a fixed number of decimals: row i is `values[i] / 10**places`.

    Exact for absolute values below 2**53 and at most 22 places.

    >>> FixedPointColumn(np.array([1050, -7]), 2).floats().tolist()
    [10.5, -0.07]
    """

    values: NDArray[np.int64]
    places: int = 0

    def cells(self) -> _Cells:
        digits: _Cells = _digits(self.values[np.newaxis], self.places)[0]
        return digits

    def floats(self) -> NDArray[np.float64]:
        # Both operands are exact, so the division rounds as a correct parser does.
        return self.values / np.float64(10**self.places)

    def take(self, rows: slice | NDArray[np.int64]) -> FixedPointColumn:
        return FixedPointColumn(self.values[rows], self.places)

    def with_last_value_of(self, other: RenderedColumn) -> FixedPointColumn:
        if not isinstance(other, FixedPointColumn) or other.places != self.places:
            raise TypeError("only a column with the same count of decimals can lend its last value")
        return FixedPointColumn(np.append(self.values[:-1], other.values[-1]), self.places)


def _cell_padded(values: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    width = max(_CELL, -(-values.dtype.itemsize // _CELL) * _CELL)
    return np.ascontiguousarray(values, dtype=f"S{width}")


@attrs.frozen(eq=False)
class TextColumn:
    """Recorded text in any format; empty text is an absent value.

    >>> TextColumn(np.array([b"0.1230", b""])).floats().tolist()
    [0.123, nan]
    """

    values: NDArray[np.bytes_] = attrs.field(converter=_cell_padded)

    def cells(self) -> _Cells:
        return self.values.view(np.uint32).reshape(len(self.values), -1).T

    def floats(self) -> NDArray[np.float64]:
        return np.where(self.values == b"", b"nan", self.values).astype(np.float64)

    def take(self, rows: slice | NDArray[np.int64]) -> TextColumn:
        return TextColumn(self.values[rows])

    def with_last_value_of(self, other: RenderedColumn) -> TextColumn:
        if not isinstance(other, TextColumn):
            raise TypeError("only another column of recorded text can lend its last value")
        return TextColumn(np.append(self.values[:-1], other.values[-1:]))


def write_rows(count: int, *parts: str | RenderedColumn) -> bytes:
    """Write `count` rows, each made of the parts in order; a part is a text for all rows, or a column.

    >>> whole, cents = FixedPointColumn(np.array([5, 12345])), FixedPointColumn(np.array([-5, 170]), 2)
    >>> write_rows(2, "[", whole, ',"', cents, '"],')
    b'[5,"-0.05"],[12345,"1.70"],'
    """
    if not count:
        return b""
    decimals = iter(_digits_of([part for part in parts if isinstance(part, FixedPointColumn)]))
    pieces: list[_Cells] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(np.broadcast_to(_padded(part), (-(-len(part.encode()) // _CELL), count)))
        else:
            pieces.append(next(decimals) if isinstance(part, FixedPointColumn) else part.cells())
    # An explicit output is row-major; without it NumPy may choose another memory layout.
    cells = np.concatenate(pieces, out=np.empty((sum(map(len, pieces)), count), np.uint32))
    return cells.T.tobytes().translate(None, b"\0")


def _padded(text: str) -> _Cells:
    data = text.encode()
    return np.frombuffer(data + b"\0" * (-len(data) % _CELL), np.uint32)[:, np.newaxis]


def _digits_of(columns: list[FixedPointColumn]) -> list[_Cells]:
    """Write columns with the same number of decimals in one call: NumPy's cost is per call."""
    written: dict[int, _Cells] = {}
    for places in {column.places for column in columns}:
        same = [number for number, column in enumerate(columns) if column.places == places]
        digits = _digits(np.stack([columns[number].values for number in same]), places)
        written.update(zip(same, digits, strict=True))
    return [written[number] for number in range(len(columns))]


def _digits(values: NDArray[np.int64], places: int) -> _Cells:
    """Write numbers of shape (columns, rows) as text of shape (columns, cells, rows)."""
    cells: list[_Cells] = []
    negative = values < 0
    if negative.any():
        cells.append(_SIGN[negative.view(np.int8)])
        values = np.abs(values)
    rest = values.view(np.uint64)
    whole = rest // np.uint64(10**places) if places else rest
    cells += _whole(whole)
    fraction, left = rest - whole * np.uint64(10**places), places
    while left:
        # The first cell holds the point and three digits.
        digits = min(4 if left < places else 3, left)
        left_over = np.uint64(10 ** (left - digits))
        head = fraction // left_over if left > digits else fraction
        cells.append((_FRACTION if left < places else _POINT)[digits - 1].take(head.view(np.int64)))
        fraction = fraction - head * left_over
        left -= digits
    return np.stack(cells, axis=1)


def _whole(values: NDArray[np.uint64]) -> list[_Cells]:
    groups = (len(str(values.max())) + _CELL - 1) // _CELL
    cells: list[_Cells] = []
    for group in range(groups):
        table = _LAST if group == 0 else _INNER
        if group == groups - 1:
            cells.append(table.take(values.view(np.int64)))
        else:
            higher = values // _GROUP
            # The last four digits, plus 10,000 if higher digits exist: entries with leading zeros.
            index = values - (higher - (higher > 0)) * _GROUP
            cells.append(table.take(index.view(np.int64)))
            values = higher
    return cells[::-1]
