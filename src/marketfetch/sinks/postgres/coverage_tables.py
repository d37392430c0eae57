"""The tables that hold the series of a store and the coverage of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import attrs

from marketfetch.sinks.postgres.schema.multirange import dump_multirange, load_multirange
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.provenance import FILE_COLUMNS, by_span, dump_file, load_file
from marketfetch.sinks.remedies import newer_format_error
from marketfetch.sinks.sql.coverage_segments import join_segments, split
from marketfetch.sinks.sql.identifiers import escaped, quoted
from marketfetch.sinks.sql.ledger import Ledger, SegmentChange, registered_series
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FORMAT", "TABLES", "PostgresCoverageTables", "lock", "render_sql"]

FORMAT = 3
"""The format that this marketfetch writes; `format.version` in the database is the format of its tables."""

TABLES = ("format", "series", "coverage", "rejected", "files")

_LOCK = "marketfetch {}"
_NOTHING = "'{}'"


def lock(connection: Connection, name: str) -> None:
    """Take the advisory lock of a name, and hold it until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_LOCK.format(name)])


@attrs.frozen
class PostgresCoverageTables(Ledger[Connection]):
    """The tables `format`, `series`, `coverage`, `rejected` and `files` in a schema.

    A row of `coverage` is one segment of a series. The hulls of segments do not overlap, and `start_time` is
    the start of the hull. Call `unite` after `lock_and_get_series_id`, not in its statement: a
    statement sees the rows as they were before it waited for the lock, and the holder of the lock has changed
    them since.

    `series.table_name`, the `target`, is the user's table that the rows are in, or empty for tables of our
    own. A series that is stored in two tables has a coverage for each.

    Tables of an earlier `format` can only be read.
    """

    schema: str
    format: int = FORMAT

    def find(self, connection: Connection, target: str, series: Series) -> int | None:
        """Return the id of a series, None if it is not in the table."""
        row = connection.execute(
            self._sql("SELECT id FROM {series} WHERE ({identity}) = (%s, %s, %s, %s, %s)"),
            [target, *series.names],
        ).fetchone()
        return row[0] if row else None

    def coverage(
        self, connection: Connection, target: str, series: Sequence[Series]
    ) -> dict[Series, Coverage]:
        """Return the coverage of the given series; a series without coverage is left out."""
        if not series:
            return {}
        rows = connection.execute(
            self._sql(
                "SELECT asked.number, {spans} FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) "
                "WITH ORDINALITY AS asked(exchange, dataset, symbol, interval, number) "
                "JOIN {series} AS s ON ({identity_of_s}) = "
                "(%s, asked.exchange, asked.dataset, asked.symbol, asked.interval) "
                "JOIN {coverage} AS c ON c.series_id = s.id ORDER BY asked.number, lower(c.covered)"
            ),
            [*_in_columns([one.names for one in series]), target],
        )
        return {series[number - 1]: coverage for number, coverage in _unite_by_key(rows)}

    def all(self, connection: Connection, target: str) -> Iterator[tuple[Series, Coverage]]:
        """Yield every series of a target that has coverage, without those of unregistered datasets."""
        rows = connection.execute(
            self._sql(
                "SELECT s.exchange, s.dataset, s.symbol, s.interval, {spans} "
                "FROM {series} AS s JOIN {coverage} AS c ON c.series_id = s.id "
                "WHERE s.{table_name} = %s ORDER BY s.id, lower(c.covered)"
            ),
            [target],
        )
        for found, coverage in _unite_by_key((row[:4], *row[4:]) for row in rows):
            for series in registered_series([found] if coverage.covered else []).values():
                yield series, coverage

    def series(self, connection: Connection, target: str) -> list[Series]:
        """Return every series of a target that has coverage, without reading the coverage."""
        rows = connection.execute(
            self._sql(
                "SELECT exchange, dataset, symbol, interval FROM {series} AS s WHERE {table_name} = %s "
                "AND EXISTS (SELECT FROM {coverage} AS c WHERE c.series_id = s.id) ORDER BY id"
            ),
            [target],
        )
        return [*registered_series(rows).values()]

    def series_of_datasets(
        self, connection: Connection, target: str, kinds: Iterable[Dataset]
    ) -> list[Series]:
        """Return every series of a target that has one of the datasets, without reading coverage."""
        wanted = {kind.name: kind for kind in kinds}
        rows = connection.execute(
            self._sql(
                "SELECT exchange, dataset, symbol, interval FROM {series} "
                "WHERE {table_name} = %s AND dataset = ANY(%s) ORDER BY id"
            ),
            [target, [*wanted]],
        )
        return [*registered_series(rows, wanted.values()).values()]

    def lock_and_get_series_id(self, connection: Connection, name: str, target: str, series: Series) -> int:
        """Take the lock `name`, as `lock` does, and return the id of a series, which is inserted if missing.

        Each transaction asks again, in the statement that takes the lock: after a server has lost its last
        transactions, or was replaced, an id from before may belong to another series.

        Raises SinkError if a newer marketfetch has migrated the tables meanwhile. A migration locks the table
        `format` first, so it waits until this transaction ends, and no batch is written half way.
        """
        known = connection.execute(
            self._sql(
                "SELECT (SELECT id FROM {series} WHERE ({identity}) = (%s, %s, %s, %s, %s)), "
                "(SELECT max(version) FROM {format}) FROM pg_advisory_xact_lock(hashtextextended(%s, 0))"
            ),
            [target, *series.names, _LOCK.format(name)],
        ).fetchone()
        if known is not None and known[1] is not None and known[1] > FORMAT:
            raise newer_format_error(f"schema {self.schema}", known[1], FORMAT)
        if known is not None and known[0] is not None:
            return int(known[0])
        # Another transaction may insert the series first: then our INSERT waits for it, and the UPDATE makes
        # it return that id.
        row = connection.execute(
            self._sql(
                "INSERT INTO {series} ({identity}) VALUES (%s, %s, %s, %s, %s) "
                "ON CONFLICT ({identity}) DO UPDATE SET {table_name} = EXCLUDED.{table_name} RETURNING id"
            ),
            [target, *series.names],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def forget(self, connection: Connection, series_id: int, spans: SpanSet) -> None:
        """Remove the coverage and the rejected rows of some moments of a series; call it when `unite` is."""
        span = spans.hull
        if span is not None:
            before = self._touched(connection, series_id, span)
            self.replace(connection, series_id, before, split(join_segments(before.values()).without(spans)))
            self._reject(connection, series_id, spans, [])
        if span is not None and self.format > 2:
            connection.execute(
                self._sql(
                    "DELETE FROM {files} WHERE series_id = %s "
                    "AND int8range(start_time, end_time) <@ %s::int8multirange"
                ),
                [series_id, dump_multirange(spans)],
            )

    def segments(self, connection: Connection, spans: Mapping[int, Span]) -> dict[int, dict[int, Coverage]]:
        """See Ledger."""
        return {one: self._touched(connection, one, span) for one, span in spans.items()}

    def _touched(self, connection: Connection, series_id: int, span: Span) -> dict[int, Coverage]:
        rows = connection.execute(
            self._sql(
                "SELECT c.start_time, {spans} FROM {coverage} AS c WHERE c.series_id = %(id)s "
                "AND c.start_time <= %(end)s AND c.start_time >= coalesce((SELECT b.start_time FROM "
                "{coverage} AS b WHERE b.series_id = %(id)s AND b.start_time <= %(start)s "
                "ORDER BY b.start_time DESC LIMIT 1), %(start)s) ORDER BY c.start_time"
            ),
            {"id": series_id, "start": span.start, "end": span.end},
        )
        return {start: _coverage(spans) for start, *spans in rows}

    def _put(self, connection: Connection, changes: Mapping[int, SegmentChange]) -> None:
        for series_id, change in changes.items():
            self._put_one(connection, series_id, change)

    def _put_one(self, connection: Connection, series_id: int, change: SegmentChange) -> None:
        written = {**change.changed, **change.added}
        connection.execute(
            self._sql(
                "WITH gone AS (DELETE FROM {coverage} WHERE series_id = %(id)s "
                "AND start_time = ANY(%(gone)s)) "
                "INSERT INTO {coverage} (series_id, start_time, covered, empty, unusable) "
                "SELECT %(id)s, u.start, u.covered::int8multirange, u.empty::int8multirange, "
                "u.unusable::int8multirange FROM unnest(%(start)s::bigint[], %(covered)s::text[], "
                "%(empty)s::text[], %(unusable)s::text[]) AS u(start, covered, empty, unusable) "
                "ON CONFLICT (series_id, start_time) DO UPDATE "
                "SET (covered, empty, unusable) = (EXCLUDED.covered, EXCLUDED.empty, EXCLUDED.unusable)"
            ),
            {
                "id": series_id,
                "gone": [*change.gone],
                "start": [*written],
                "covered": [dump_multirange(one.covered) for one in written.values()],
                "empty": [dump_multirange(one.empty) for one in written.values()],
                "unusable": [dump_multirange(one.unusable) for one in written.values()],
            },
        )

    def rejected(self, connection: Connection, series_id: int, span: Span) -> list[RejectedRow]:
        """See Ledger."""
        if self.format < 2:
            return []
        rows = connection.execute(
            self._sql(
                "SELECT time, reason, raw FROM {rejected} WHERE series_id = %s AND time >= %s AND time < %s"
            ),
            [series_id, span.start, span.end],
        )
        return sorted(RejectedRow(*row) for row in rows)

    def _reject(
        self, connection: Connection, series_id: int, gone: SpanSet, new: Sequence[RejectedRow]
    ) -> None:
        if gone:
            connection.execute(
                self._sql("DELETE FROM {rejected} WHERE series_id = %s AND time <@ %s::int8multirange"),
                [series_id, dump_multirange(gone)],
            )
        if new:
            columns = _in_columns(
                [(row.time, _escape_unstorable(row.reason), _escape_unstorable(row.raw)) for row in new]
            )
            connection.execute(
                self._sql(
                    "INSERT INTO {rejected} (series_id, time, reason, raw) "
                    "SELECT %s, u.time, u.reason, u.raw "
                    "FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS u(time, reason, raw) "
                    "WHERE NOT EXISTS (SELECT FROM {rejected} AS r WHERE r.series_id = %s "
                    "AND (r.time, r.reason, r.raw) = (u.time, u.reason, u.raw))"
                ),
                [series_id, *columns, series_id],
            )

    def files(self, connection: Connection, series_id: int) -> list[Provenance]:
        """Return the entries of the files that rows of a series came from, sorted by span."""
        if self.format < 3:
            return []
        rows = connection.execute(self._sql("SELECT {file} FROM {files} WHERE series_id = %s"), [series_id])
        return by_span(map(load_file, rows))

    def _put_file(self, connection: Connection, series_id: int, entry: Provenance) -> None:
        connection.execute(
            self._sql(
                "INSERT INTO {files} AS f (series_id, {file}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (series_id, file_key) DO UPDATE SET ({file}) = ROW ({excluded}) "
                "WHERE ({stored}) IS DISTINCT FROM ({excluded})"
            ),
            [series_id, *dump_file(entry)],
        )

    def _sql(self, text: str) -> bytes:
        return render_sql(text, self.schema, self.format)


@lru_cache  # writing SQL takes longer than sending it
def render_sql(text: str, schema: str, form: int = FORMAT) -> bytes:
    """Return a statement about the tables of a schema; in format 1, some columns have other names.

    Execute it with parameters, if only with an empty list: a % in the name of the schema is doubled.
    """
    table_name = "target" if form < 2 else "table_name"
    identity = (table_name, "exchange", "dataset", "symbol", "interval")
    return text.format(
        **{name: escaped(quoted(schema, name)) for name in TABLES},
        table_name=table_name,
        identity=", ".join(identity),
        file=", ".join(FILE_COLUMNS),
        stored=", ".join(f"f.{name}" for name in FILE_COLUMNS),
        excluded=", ".join(f"excluded.{name}" for name in FILE_COLUMNS),
        identity_of_s=", ".join(f"s.{name}" for name in identity),
        spans=f"c.covered::text, c.empty::text, {'c.unusable::text' if form > 1 else _NOTHING}",
    ).encode()


def _unite_by_key(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, Coverage]]:
    """Unite the segments of rows `(key, covered, empty, unusable)` that are sorted by key and time."""
    for key, segments in groupby(rows, key=lambda row: row[0]):
        yield key, join_segments(_coverage(spans) for _, *spans in segments)


def _coverage(spans: Sequence[str]) -> Coverage:
    return Coverage(*map(load_multirange, spans))


def _in_columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _escape_unstorable(text: str) -> str:
    """Write NUL and lone surrogates, which the server cannot store in a text, as an escape."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
