"""The two tables in which a database file remembers which series there are and what is known of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs

from marketfetch.errors import SinkError
from marketfetch.values.datasets import datasets
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["PREFIX", "Connection", "Ledger", "Rows", "packed", "unpacked"]

PREFIX = "marketfetch_"
"""Of every table of ours. No schema: `marketfetch.series` is ambiguous to DuckDB in `marketfetch.duckdb`."""


class Rows(Protocol):
    """What a statement of DuckDB or SQLite returns."""

    def fetchone(self) -> Any:
        """Return the next row, None if there is no other."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        ...


class Connection(Protocol):
    """What connections to DuckDB and to SQLite have in common."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Run one statement, its parameters written as question marks."""
        ...


def packed(spans: SpanSet) -> str:
    """Write spans as JSON, which both databases and people can read.

    >>> packed(SpanSet.of(Span(0, 60_000), Span(120_000, 180_000)))
    '[[0,60000],[120000,180000]]'
    """
    return json.dumps([(span.start, span.end) for span in spans], separators=(",", ":"))


def unpacked(text: str) -> SpanSet:
    """Read what `packed` wrote; raises SinkError for anything else."""
    try:
        return SpanSet(tuple(Span(start, end) for start, end in json.loads(text)))
    except (ValueError, TypeError) as error:
        raise SinkError(f"the coverage reads {text[:40]!r}, which marketfetch did not write") from error


@attrs.frozen
class Ledger:
    """The tables `marketfetch_series` and `marketfetch_coverage`.

    `target` names the user's table that the rows of a series are in, and is empty for our own: the same
    series in two places is covered in each by itself.
    """

    target: str = ""

    def prepare(self, connection: Connection) -> None:
        """Make the tables where they are missing."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {PREFIX}series (id INTEGER PRIMARY KEY, target TEXT NOT NULL, "
            "exchange TEXT NOT NULL, dataset TEXT NOT NULL, symbol TEXT NOT NULL, interval TEXT NOT NULL, "
            "UNIQUE (target, exchange, dataset, symbol, interval))"
        )
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {PREFIX}coverage (series_id INTEGER PRIMARY KEY, "
            'covered TEXT NOT NULL, "empty" TEXT NOT NULL)'
        )

    def find(self, connection: Connection, series: Series) -> int | None:
        """Return the id of a series, or None if it has none yet."""
        row = connection.execute(
            f"SELECT id FROM {PREFIX}series "
            "WHERE target = ? AND exchange = ? AND dataset = ? AND symbol = ? AND interval = ?",
            self._identity(series),
        ).fetchone()
        return None if row is None else int(row[0])

    def add(self, connection: Connection, series: Series, learnt: Coverage) -> int:
        """Unite what is stored of a series with what was learnt, and return the id of the series.

        The row is written even if it stays the same: where two connections write one series at once, it is
        what they meet on.
        """
        series_id = self.find(connection, series)
        if series_id is None:
            # Two statements: RETURNING is younger than the SQLite of some systems.
            found = connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {PREFIX}series").fetchone()
            series_id = int(found[0])
            connection.execute(
                f"INSERT INTO {PREFIX}series VALUES (?, ?, ?, ?, ?, ?)", [series_id, *self._identity(series)]
            )
        row = connection.execute(
            f'SELECT covered, "empty" FROM {PREFIX}coverage WHERE series_id = ?', [series_id]
        ).fetchone()
        known = learnt if row is None else Coverage(*map(unpacked, row)) | learnt
        # To DuckDB an upsert is three times the work of either.
        connection.execute(
            f'INSERT INTO {PREFIX}coverage (covered, "empty", series_id) VALUES (?, ?, ?)'
            if row is None
            else f'UPDATE {PREFIX}coverage SET covered = ?, "empty" = ? WHERE series_id = ?',
            [packed(known.covered), packed(known.empty), series_id],
        )
        return series_id

    def all(self, connection: Connection) -> Iterator[tuple[Series, Coverage]]:
        """Yield what is known of every series of the target whose dataset marketfetch itself knows."""
        known = datasets()
        rows = connection.execute(
            f'SELECT exchange, dataset, symbol, interval, covered, "empty" FROM {PREFIX}series '
            f"JOIN {PREFIX}coverage ON series_id = id WHERE target = ? ORDER BY id",
            [self.target],
        ).fetchall()
        for exchange, dataset, symbol, interval, covered, empty in rows:
            if dataset in known:
                series = Series.of(exchange, known[dataset], symbol, interval)
                yield series, Coverage(unpacked(covered), unpacked(empty))

    def _identity(self, series: Series) -> list[str]:
        return [self.target, series.exchange, series.dataset.name, series.symbol, series.interval.name]
