"""The ledger of a database file: its tables, the JSON in them, and what is used of the connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Protocol

import attrs
import msgspec

from marketfetch.errors import SinkError
from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "FORMAT",
    "PREFIX",
    "DbConnection",
    "DbCursor",
    "SeriesIds",
    "create_statements",
    "damage_error",
    "dump_spans",
    "load_segment",
]

PREFIX = "marketfetch_"
"""Begins the name of each of our tables. A schema `marketfetch` is ambiguous in `marketfetch.duckdb`."""

FORMAT = 3
"""The version of the tables that this marketfetch writes; without a table `marketfetch_format` it is 1."""

_ENDS = msgspec.json.Decoder(list[tuple[int, int]])

_TABLES = {
    "series": "id INTEGER PRIMARY KEY, target TEXT NOT NULL, exchange TEXT NOT NULL, "
    "dataset TEXT NOT NULL, symbol TEXT NOT NULL, interval TEXT NOT NULL, "
    "revision BIGINT DEFAULT 0, UNIQUE (target, exchange, dataset, symbol, interval)",
    # An older marketfetch fails, since it finds no column `covered`, instead of writing another format.
    "coverage": "series_id INTEGER NOT NULL, start_time BIGINT NOT NULL, end_time BIGINT NOT NULL, "
    "covered_spans TEXT NOT NULL, empty_spans TEXT NOT NULL, unusable_spans TEXT NOT NULL",
    "rejected": "series_id INTEGER NOT NULL, time BIGINT NOT NULL, reason TEXT NOT NULL, raw TEXT NOT NULL",
    "files": "series_id INTEGER NOT NULL, file_key TEXT NOT NULL, start_time BIGINT NOT NULL, "
    "end_time BIGINT NOT NULL, size BIGINT NOT NULL, modified BIGINT NOT NULL, digest TEXT NOT NULL, "
    "verified BOOLEAN NOT NULL",
    "format": "version INTEGER NOT NULL",
}
_KEYS = {
    "coverage": "series_id, start_time",
    "rejected": "series_id, time, reason, raw",
    "files": "series_id, file_key",
}


@attrs.define(eq=False)
class SeriesIds:
    """Ids for new series, each given once, for transactions of this process that run side by side.

    Neither transaction sees the ids that the other one has taken: by itself, each would take the first free
    one. An id whose transaction fails stays unused.

    >>> ids = SeriesIds()
    >>> ids.take(2, first_free=7), ids.take(1, first_free=7)
    (range(7, 9), range(9, 10))
    """

    _next: int = attrs.field(default=1, init=False)
    _lock: Lock = attrs.field(factory=Lock, init=False)

    def take(self, count: int, first_free: int) -> range:
        """Take ids from `first_free` on, the first one that is free as far as the transaction sees."""
        with self._lock:
            start = max(first_free, self._next)
            self._next = start + count
            return range(start, self._next)


class DbCursor(Protocol):
    """A cursor of DuckDB or SQLite."""

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...


class DbConnection(Protocol):
    """The common part of the connections of DuckDB and SQLite."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> DbCursor:
        """Run one statement, its parameters written as question marks."""
        ...


def create_statements(*, clustered: bool) -> Iterator[str]:
    """Yield the statements that make the tables where they are missing; see FileCoverageTables."""
    for name, columns in _TABLES.items():
        keyed = clustered and name in _KEYS
        text = f"({columns}, PRIMARY KEY ({_KEYS[name]})) WITHOUT ROWID" if keyed else f"({columns})"
        yield f"CREATE TABLE IF NOT EXISTS {PREFIX}{name} {text}"
    if not clustered:  # DuckDB does not use an index of several columns
        yield f"CREATE INDEX IF NOT EXISTS {PREFIX}series_symbol ON {PREFIX}series (symbol)"


def dump_spans(spans: SpanSet) -> str:
    """Write spans as JSON, which both databases and people can read.

    >>> dump_spans(SpanSet.of(Span(0, 60_000), Span(120_000, 180_000)))
    '[[0,60000],[120000,180000]]'
    """
    return msgspec.json.encode([(span.start, span.end) for span in spans]).decode()


def _load_spans(text: str) -> SpanSet:
    """Read the text of `dump_spans`; raises ValueError or TypeError for any other text."""
    return SpanSet(tuple(Span(*ends) for ends in _ENDS.decode(text)))


def load_segment(series_id: int, texts: Sequence[str]) -> Coverage:
    """Read the three sets of a row; raises SinkError where one of them is damaged."""
    try:
        return Coverage(*map(_load_spans, texts))
    except (ValueError, TypeError) as error:
        raise damage_error("coverage", series_id, texts) from error


def damage_error(table: str, series_id: int, values: Iterable[object]) -> SinkError:
    """Return the error for a row of a ledger that marketfetch did not write."""
    return SinkError(
        f"{PREFIX}{table} has {', '.join(str(value)[:40] for value in values)!r} for series_id "
        f"{series_id}, which marketfetch did not write; restore the file from a copy, or "
        f"DELETE FROM {PREFIX}{table} WHERE series_id = {series_id}, then fetch the series again"
    )
