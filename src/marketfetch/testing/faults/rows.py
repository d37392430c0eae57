"""Replace rows of a correct reply by well-formed wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs
import msgspec

from marketfetch.testing.faults.kinds import FaultKind
from marketfetch.testing.http.messages import ServerReply

__all__ = ["rows_broken_by"]

_Row: TypeAlias = Any  # a JSON list for a candle, a JSON object for an event or a statistic
_RowsFault = Callable[[list[_Row]], "list[_Row] | None"]


def rows_broken_by(kind: FaultKind, truth: ServerReply) -> ServerReply | None:
    """Return the reply with wrong rows; None if the fault cannot be applied to its rows.

    Faults that do not concern rows leave the reply unchanged.
    """
    if kind not in _ROWS_FAULTS:
        return truth
    fault = _ROWS_FAULTS[kind]
    content = msgspec.json.decode(truth.body)
    envelope = content if isinstance(content, dict) else None
    rows = content if envelope is None else envelope.get("data")
    broken = fault(rows) if isinstance(rows, list) and rows else None
    if broken is None:
        return None
    body: object = broken if envelope is None else {**envelope, "data": broken}
    return attrs.evolve(truth, body=msgspec.json.encode(body))


def _time_key(row: _Row) -> Any:
    if isinstance(row, list):
        return 0
    return next((name for name in ("fundingTime", "timestamp") if name in row), None)


def _later(row: _Row, ms: int) -> _Row | None:
    key = _time_key(row)
    if key is None:
        return None
    changed = row.copy()
    changed[key] = type(row[key])(int(row[key]) + ms)
    return changed


def _is_decimal(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _value_keys(row: _Row) -> list[Any]:
    """Return the indices or names of a row's values: all decimal text except the time."""
    items = enumerate(row) if isinstance(row, list) else row.items()
    return [key for key, value in items if key != _time_key(row) and _is_decimal(value)]


def _with_value(text: str) -> _RowsFault:
    def fault(rows: list[_Row]) -> list[_Row] | None:
        row = rows[len(rows) // 2].copy()
        keys = _value_keys(row)
        if not keys:
            return None
        row[keys[min(3, len(keys) - 1)]] = text
        return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]

    return fault


def _without_values(rows: list[_Row]) -> list[_Row]:
    row = rows[len(rows) // 2].copy()
    for key in _value_keys(row):
        row[key] = ""
    return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]


def _moved_row(ms: int) -> _RowsFault:
    def fault(rows: list[_Row]) -> list[_Row] | None:
        row = _later(rows[-1], ms)
        return None if row is None else [*rows[:-1], row]

    return fault


def _off_grid(rows: list[_Row]) -> list[_Row] | None:
    # Events have no grid: a client cannot recognize one that is a millisecond late.
    return None if _time_key(rows[0]) == "fundingTime" else _moved_row(1)(rows)


def _impossible(rows: list[_Row]) -> list[_Row] | None:
    if not isinstance(rows[0], list):
        return None
    row = rows[len(rows) // 2].copy()
    row[2], row[3] = row[3], row[2]
    if row[2] == row[3]:
        row[3] = str(2 * float(row[3]) + 1)
    return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]


def _negative_volume(rows: list[_Row]) -> list[_Row] | None:
    if not isinstance(rows[0], list) or len(rows[0]) <= 5:
        return None
    row = rows[len(rows) // 2].copy()
    for key in _value_keys(row):
        if 5 <= key <= 7:  # contracts, base and quote coin: which of them is the volume differs
            row[key] = "-1.5"
    return [*rows[: len(rows) // 2], row, *rows[len(rows) // 2 + 1 :]]


def _plain_numbers(rows: list[_Row]) -> list[_Row]:
    changed = [row.copy() for row in rows]
    for row in changed:
        for key in _value_keys(row):
            row[key] = float(row[key])
    return changed


def _short(rows: list[_Row]) -> list[_Row] | None:
    """Keep the first half, and all rows of its last moment: a client could not miss a row of that moment."""
    key = _time_key(rows[0])
    half = len(rows) // 2
    while key is not None and 0 < half < len(rows) and rows[half][key] == rows[half - 1][key]:
        half += 1
    return rows[:half] if 0 < half < len(rows) else None


_DECADE = 10 * 365 * 86_400_000
_ROWS_FAULTS: Mapping[FaultKind, _RowsFault] = MappingProxyType(
    {
        FaultKind.REVERSED_ORDER: lambda rows: rows[::-1] if len(rows) > 1 else None,
        FaultKind.SHORT_PAGE: _short,
        FaultKind.EMPTY_PAGE: lambda _: [],
        FaultKind.REPEATED_ROWS: lambda rows: [*rows[:1], *rows[:1], *rows[1:], *rows[-1:]],
        FaultKind.UNSORTED_ROWS: lambda rows: [*rows[1::2], *rows[::2]] if len(rows) > 2 else None,
        FaultKind.OFF_GRID_ROW: _off_grid,
        FaultKind.OUT_OF_RANGE_ROW: _moved_row(_DECADE),
        FaultKind.IMPOSSIBLE_ROW: _impossible,
        FaultKind.NEGATIVE_VOLUME: _negative_volume,
        FaultKind.NAN_TEXT: _with_value("NaN"),
        FaultKind.TEXT_VALUE: _with_value("n/a"),
        FaultKind.NO_VALUE: _without_values,
        FaultKind.HUGE_NUMBER: _with_value("1e400"),
        FaultKind.PLAIN_NUMBERS: _plain_numbers,
    }
)
