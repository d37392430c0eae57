"""The two tables of a database file that remember which series there are and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs
import orjson

from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Books", "Connection", "Cursor", "Names", "names"]

Names = tuple[str, str, str, str]
"""Exchange, dataset, symbol and interval of a series: what the books know of it."""


class Cursor(Protocol):
    """The answer to a statement."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        ...


class Connection(Protocol):
    """What sqlite3 and duckdb have in common."""

    def execute(self, query: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run a statement, with `?` for its parameters."""
        ...

    def close(self) -> None:
        """Let go of the file; a transaction that is open is undone."""
        ...


def names(series: Series) -> Names:
    """Return what the books know a series by."""
    return series.exchange, series.dataset.name, series.symbol, series.interval.name


@attrs.frozen
class Books:
    """The tables `series` and `coverage`, whose names are given as SQL.

    `target` names the user's table that the rows of a series are in, and is empty for our own: the same
    series in two places is covered in each by itself. Spans are JSON, `[[start, end], ...]` in UTC
    milliseconds.
    """

    series: str
    coverage: str
    target: str = ""

    def prepare(self, connection: Connection) -> None:
        """Make the tables where they are missing."""
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.series} (id INTEGER PRIMARY KEY, target VARCHAR NOT NULL, "
            "exchange VARCHAR NOT NULL, dataset VARCHAR NOT NULL, symbol VARCHAR NOT NULL, "
            '"interval" VARCHAR NOT NULL, UNIQUE (target, exchange, dataset, symbol, "interval"))'
        )
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.coverage} "
            "(series_id INTEGER PRIMARY KEY, covered VARCHAR NOT NULL, empty VARCHAR NOT NULL)"
        )

    def find(self, connection: Connection, series: Series) -> int | None:
        """Return the id of a series, or None if it has none yet."""
        row = connection.execute(
            f"SELECT id FROM {self.series} "
            'WHERE target = ? AND exchange = ? AND dataset = ? AND symbol = ? AND "interval" = ?',
            [self.target, *names(series)],
        ).fetchone()
        return None if row is None else int(row[0])

    def identify(self, connection: Connection, series: Series) -> int:
        """Return the id of a series, giving it one in this transaction if it has none."""
        known = self.find(connection, series)
        if known is not None:
            return known
        (series_id,) = connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {self.series}").fetchone()
        connection.execute(
            f"INSERT INTO {self.series} VALUES (?, ?, ?, ?, ?, ?)", [series_id, self.target, *names(series)]
        )
        connection.execute(f"INSERT INTO {self.coverage} VALUES (?, '[]', '[]')", [series_id])
        return int(series_id)

    def add(self, connection: Connection, series_id: int, coverage: Coverage) -> None:
        """Unite what is stored of a series with what was learnt, as `Coverage.__or__` does.

        The row is written even if nothing changes: of two transactions that write the same series at the
        same time, a database without row locks lets only one pass.
        """
        covered, empty = connection.execute(
            f"SELECT covered, empty FROM {self.coverage} WHERE series_id = ?", [series_id]
        ).fetchone()
        united = Coverage(_spans(covered), _spans(empty)) | coverage
        connection.execute(
            f"UPDATE {self.coverage} SET covered = ?, empty = ? WHERE series_id = ?",
            [_json(united.covered), _json(united.empty), series_id],
        )

    def all(self, connection: Connection) -> Iterator[tuple[Names, Coverage]]:
        """Yield every series of the target, and what is known of it."""
        rows = connection.execute(
            'SELECT s.exchange, s.dataset, s.symbol, s."interval", c.covered, c.empty '
            f"FROM {self.series} AS s JOIN {self.coverage} AS c ON c.series_id = s.id "
            "WHERE s.target = ? ORDER BY s.id",
            [self.target],
        ).fetchall()
        for exchange, dataset, symbol, interval, covered, empty in rows:
            yield (exchange, dataset, symbol, interval), Coverage(_spans(covered), _spans(empty))


def _json(spans: SpanSet) -> str:
    return orjson.dumps([(span.start, span.end) for span in spans]).decode()


def _spans(text: str) -> SpanSet:
    return SpanSet(tuple(Span(start, end) for start, end in orjson.loads(text)))
