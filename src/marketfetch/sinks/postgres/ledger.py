"""The two tables that remember which series there are and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import LiteralString

import attrs
from psycopg.sql import SQL, Identifier
from psycopg.types.multirange import Int8Multirange, Multirange
from psycopg.types.range import Range

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.catalogue import find
from marketfetch.sinks.postgres.session import Connection
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["LEDGER_COLUMNS", "Ledger", "Names", "lock", "names"]

LEDGER_COLUMNS = {
    "series": (("target", "exchange", "dataset", "symbol", "interval"), ("target",)),
    "coverage": (("series_id", "covered", "empty"), ("covered", "empty")),
}
"""For each table of the ledger, the columns that are read and inserted, and those that are updated."""

Names = tuple[str, str, str, str]
"""Exchange, dataset, symbol and interval of a series: what the ledger knows of it."""

_LOCK = "marketfetch {}"
_SERIES = ("target", "exchange", "dataset", "symbol", "interval")
_IDENTITY = SQL(", ").join(map(Identifier, _SERIES))
_UNITED = SQL(
    "c.covered + EXCLUDED.covered, "
    "(c.empty - (EXCLUDED.covered - EXCLUDED.empty)) + (EXCLUDED.empty - (c.covered - c.empty))"
)
"""`covered` and `empty` as Coverage.__or__ has them."""


def names(series: Series) -> Names:
    """Return what the ledger knows a series by."""
    return series.exchange, series.dataset.name, series.symbol, series.interval.name


def lock(connection: Connection, name: str) -> None:
    """Wait until nobody else is in a transaction under this name, and hold it until ours ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_LOCK.format(name)])


@attrs.frozen
class Ledger:
    """The tables `series` and `coverage` in a schema.

    `target` names the user's table that the rows of a series are in, and is empty for our own: the same
    series in two places is covered in each by itself.
    """

    schema: str

    def prepare(self, connection: Connection) -> None:
        """Make schema and tables where they are missing; raises SinkError where others are in their place."""
        ours = {"series": ("id", *_SERIES), "coverage": ("series_id", "covered", "empty")}
        found = {name: find(connection, Identifier(self.schema, name)) for name in ours}
        for name, table in found.items():
            if table is not None and not set(ours[name]) <= set(table.columns):
                raise SinkError(f"{table.title} was not made by marketfetch; choose another schema=")
        if None not in found.values():
            return  # and need no right to create anything
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(self.schema)))
        connection.execute(
            self._sql(
                "CREATE TABLE IF NOT EXISTS {series} (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                "target text NOT NULL, exchange text NOT NULL, dataset text NOT NULL, symbol text NOT NULL, "
                "interval text NOT NULL, UNIQUE ({identity}))"
            )
        )
        connection.execute(
            self._sql(
                "CREATE TABLE IF NOT EXISTS {coverage} (series_id integer PRIMARY KEY REFERENCES {series} "
                "ON DELETE CASCADE, covered int8multirange NOT NULL, empty int8multirange NOT NULL)"
            )
        )

    def exists(self, connection: Connection) -> bool:
        """Tell whether anything was prepared here."""
        return find(connection, Identifier(self.schema, "coverage")) is not None

    def find(self, connection: Connection, target: str, series: Series) -> int | None:
        """Return the id of a series, or None if it has none yet."""
        row = connection.execute(
            self._sql("SELECT id FROM {series} WHERE ({identity}) = (%s, %s, %s, %s, %s)"),
            [target, *names(series)],
        ).fetchone()
        return row[0] if row else None

    def claim(self, connection: Connection, name: str, target: str, series: Series) -> int:
        """Wait for a lock, as `lock` does, and return the id of a series, which has one from now on.

        It is asked for in every transaction, at no further cost: where a server comes back without its last
        transactions, or another one takes its place, the id from before may be that of another series.
        """
        known = connection.execute(
            self._sql(
                "SELECT (SELECT id FROM {series} WHERE ({identity}) = (%s, %s, %s, %s, %s)) "
                "FROM pg_advisory_xact_lock(hashtextextended(%s, 0))"
            ),
            [target, *names(series), _LOCK.format(name)],
        ).fetchone()
        if known is not None and known[0] is not None:
            return int(known[0])
        # It may have got one while we waited. An insert that meets another one waits for it; the update makes
        # it return the other's id.
        row = connection.execute(
            self._sql(
                "INSERT INTO {series} ({identity}) VALUES (%s, %s, %s, %s, %s) "
                "ON CONFLICT ({identity}) DO UPDATE SET target = EXCLUDED.target RETURNING id"
            ),
            [target, *names(series)],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def add(self, connection: Connection, series_id: int, coverage: Coverage) -> None:
        """Unite what is stored of a series with what was learnt, as `Coverage.__or__` does."""
        connection.execute(
            self._sql(
                "INSERT INTO {coverage} AS c (series_id, covered, empty) VALUES (%s, %s, %s) "
                "ON CONFLICT (series_id) DO UPDATE SET (covered, empty) = ({united}) "
                "WHERE (c.covered, c.empty) IS DISTINCT FROM ({united})"
            ),
            [series_id, _multirange(coverage.covered), _multirange(coverage.empty)],
        )

    def all(self, connection: Connection, target: str) -> Iterator[tuple[Names, Coverage]]:
        """Yield every series of a target, and what is known of it."""
        rows = connection.execute(
            self._sql(
                "SELECT s.exchange, s.dataset, s.symbol, s.interval, c.covered, c.empty "
                "FROM {series} AS s JOIN {coverage} AS c ON c.series_id = s.id "
                "WHERE s.target = %s ORDER BY s.id"
            ),
            [target],
        )
        for exchange, dataset, symbol, interval, covered, empty in rows:
            yield (exchange, dataset, symbol, interval), Coverage(_spans(covered), _spans(empty))

    def _sql(self, text: LiteralString) -> bytes:
        return _written(text, self.schema)


@lru_cache  # writing SQL takes longer than sending it
def _written(text: LiteralString, schema: str) -> bytes:
    names = {name: Identifier(schema, name) for name in ("series", "coverage")}
    return SQL(text).format(**names, identity=_IDENTITY, united=_UNITED).as_bytes()


def _multirange(spans: SpanSet) -> Int8Multirange:
    return Int8Multirange([Range(span.start, span.end) for span in spans])


def _spans(multirange: Multirange[int]) -> SpanSet:
    bounds = ((part.lower, part.upper) for part in multirange)
    return SpanSet.of(
        *(Span(lower, upper) for lower, upper in bounds if lower is not None and upper is not None)
    )
