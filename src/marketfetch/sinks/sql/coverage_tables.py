"""The ledger of a database file: the tables of its series, their coverage and their rejected rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

import attrs

from marketfetch.sinks.provenance import FILE_COLUMNS, by_span, dump_file, load_file
from marketfetch.sinks.sql.coverage_schema import (
    FORMAT,
    PREFIX,
    DbConnection,
    SeriesIds,
    create_statements,
    damage_error,
    dump_spans,
    load_segment,
)
from marketfetch.sinks.sql.coverage_segments import hull, join_segments, split
from marketfetch.sinks.sql.ledger import Ledger, SegmentChange, registered_series
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FileCoverageTables"]

_T = TypeVar("_T")

_CHUNK_SIZE = 100
"""Rows, or values of a list, in one statement: an SQLite of some systems takes 999 parameters at most."""

_SPAN_COLUMNS = "covered_spans, empty_spans, unusable_spans"
"""The columns of `marketfetch_coverage` with the three sets of a Coverage."""

_SPAN_COLUMNS_1 = "covered, \"empty\", '[]'"
"""The same in format 1."""

_FILE = ", ".join(FILE_COLUMNS)


@attrs.frozen
class FileCoverageTables(Ledger[DbConnection]):
    """The tables `marketfetch_series`, `_coverage`, `_rejected`, `_files` and `_format`.

    `target` is the user's table with the rows of a series, and empty for our own tables: a series has a
    coverage of its own in each. The coverage of a series is stored in segments, a row for each; see
    `coverage_segments`. With `clustered`, as in SQLite, rows lie in the order of their primary key. DuckDB
    has no key on them: it would hold the whole index in memory, and a scan is fast. Ledgers that write to a
    file side by side share `series_ids`.
    """

    target: str = ""
    clustered: bool = attrs.field(default=False, kw_only=True)
    series_ids: SeriesIds = attrs.field(factory=SeriesIds, kw_only=True, eq=False)

    def prepare(self, connection: DbConnection) -> None:
        """Make the tables where they are missing."""
        for statement in create_statements(clustered=self.clustered):
            connection.execute(statement)
        if self.version(connection) is None:
            connection.execute(f"INSERT INTO {PREFIX}format VALUES (?)", [FORMAT])
        # Changes nothing. In a read-only file SQLite begins a transaction, and fails only at the first
        # statement that writes: at this one.
        connection.execute(f"DELETE FROM {PREFIX}format WHERE false")

    def migrate(self, connection: DbConnection, version: int) -> None:
        """Migrate tables of an older format to those of `prepare`, inside a transaction; raises SinkError.

        Format 2 had no table `marketfetch_files`. Format 1 had one row for the whole coverage of a series,
        `(series_id, covered, "empty")`.
        """
        if version > 1:
            self.prepare(connection)
            connection.execute(f"UPDATE {PREFIX}format SET version = ?", [FORMAT])
            return
        connection.execute(f"ALTER TABLE {PREFIX}series ADD COLUMN revision BIGINT DEFAULT 0")
        connection.execute(f"CREATE TEMPORARY TABLE {PREFIX}old AS SELECT * FROM {PREFIX}coverage")
        connection.execute(f"DROP TABLE {PREFIX}coverage")  # not renamed: SQLite would check every view
        self.prepare(connection)
        found = connection.execute(f"SELECT series_id FROM {PREFIX}old ORDER BY series_id").fetchall()
        for some in _chunks([series_id for (series_id,) in found]):
            rows = connection.execute(
                f"SELECT series_id, {_SPAN_COLUMNS_1} FROM {PREFIX}old WHERE series_id IN ({_marks(some)})",
                some,
            )
            self._insert(
                connection,
                [
                    (series_id, segment)
                    for series_id, *texts in rows.fetchall()
                    for segment in split(load_segment(series_id, texts))
                ],
            )
        connection.execute(f"DROP TABLE {PREFIX}old")

    def version(self, connection: DbConnection) -> int | None:
        """Return the version in `marketfetch_format`."""
        row = connection.execute(f"SELECT version FROM {PREFIX}format").fetchone()
        return None if row is None else int(row[0])

    def find(self, connection: DbConnection, series: Series) -> int | None:
        """Return the id of a series, or None if it has none yet."""
        return self._ids(connection, [series]).get(series)

    def add(self, connection: DbConnection, batches: Sequence[Batch]) -> dict[Series, int]:
        """Unite the ledger with batches, and return the ids of their series."""
        ids = self._touch_series(connection, list(dict.fromkeys(batch.series for batch in batches)))
        rest = list(batches)
        while rest:  # mostly once: a series has several batches where all are of few series
            firsts = {ids[batch.series]: batch for batch in reversed(rest)}
            self.unite(connection, firsts)
            rest = [batch for batch in rest if firsts[ids[batch.series]] is not batch]
        return ids

    def forget(self, connection: DbConnection, series: Series, spans: SpanSet, version: int) -> int | None:
        """Remove the coverage of the spans; return the id of the series, None if it has none.

        `version` is the format of the store, which is at least 2.
        """
        if self.find(connection, series) is None:
            return None
        series_id = self._touch_series(connection, [series])[series]
        for span in spans:
            # Deleted without parsing: forgetting is also the remedy for a damaged segment.
            inside = [series_id, span.start, span.end, span.end]
            connection.execute(
                f"DELETE FROM {PREFIX}coverage "
                "WHERE series_id = ? AND start_time >= ? AND start_time < ? AND end_time <= ?",
                inside,
            )
            cut = "start_time < ? AND end_time > ?"
            before = self._segments_where(connection, series_id, cut, [span.end, span.start])
            rest = join_segments(before.values()).without(SpanSet.of(span))
            self.replace(connection, series_id, before, split(rest))
        self._reject(connection, series_id, spans, [])
        for span in spans if version > 2 else ():
            connection.execute(
                f"DELETE FROM {PREFIX}files WHERE series_id = ? AND start_time >= ? AND end_time <= ?",
                [series_id, span.start, span.end],
            )
        return series_id

    def coverage(
        self, connection: DbConnection, series: Collection[Series], version: int
    ) -> dict[Series, Coverage]:
        """Return the coverage of those of the series that the store has; `version` is its format."""
        ids = self._ids(connection, series)
        found: dict[int, list[Coverage]] = {}
        for some in _chunks([*ids.values()]):
            rows = connection.execute(
                f"SELECT series_id, {_span_columns(version)} FROM {PREFIX}coverage "
                f"WHERE series_id IN ({_marks(some)})",
                some,
            )
            for series_id, *texts in rows.fetchall():
                found.setdefault(series_id, []).append(load_segment(series_id, texts))
        return {one: join_segments(found.get(series_id, ())) for one, series_id in ids.items()}

    def all(self, connection: DbConnection, version: int) -> Iterator[tuple[Series, Coverage]]:
        """Yield each series of the target and its coverage, without those of unregistered datasets."""
        rows = connection.execute(
            f"SELECT id, exchange, dataset, symbol, interval, {_span_columns(version)} FROM {PREFIX}series "
            f"JOIN {PREFIX}coverage ON series_id = id WHERE target = ? ORDER BY id",
            [self.target],
        ).fetchall()
        for (_, *found), segments in groupby(rows, lambda row: row[:5]):
            for series in registered_series([tuple(found)]).values():
                yield series, join_segments(load_segment(row[0], row[5:]) for row in segments)

    def counts_on(self, connection: DbConnection, dataset: Dataset) -> bool:
        """Tell whether the ledger says that rows of a dataset are stored."""
        series = self.series_of_datasets(connection, [dataset])
        return any(known.present for known in self.coverage(connection, series, FORMAT).values())

    def series_of_datasets(self, connection: DbConnection, kinds: Iterable[Dataset]) -> list[Series]:
        """Return every series of the target that has one of the datasets, without reading coverage.

        Another spelling of the target counts, too: `Candles`, or `main.candles`.
        """
        wanted = {kind.name: kind for kind in kinds}
        rows = connection.execute(
            f"SELECT target, exchange, dataset, symbol, interval FROM {PREFIX}series "
            f"WHERE dataset IN ({_marks(wanted)})",
            [*wanted],
        ).fetchall()
        found = (row[1:] for row in rows if _normalized_table(row[0]) == _normalized_table(self.target))
        return [*registered_series(found, wanted.values()).values()]

    def rejected(self, connection: DbConnection, series_id: int, span: Span) -> list[RejectedRow]:
        """See Ledger."""
        rows = connection.execute(
            f"SELECT time, reason, raw FROM {PREFIX}rejected WHERE series_id = ? AND time >= ? AND time < ?",
            [series_id, span.start, span.end],
        )
        return sorted(RejectedRow(*row) for row in rows.fetchall())

    def files(self, connection: DbConnection, series_id: int) -> list[Provenance]:
        """Return the entries of the files that rows of a series came from, sorted by span."""
        rows = connection.execute(f"SELECT {_FILE} FROM {PREFIX}files WHERE series_id = ?", [series_id])
        entries = []
        for row in rows.fetchall():
            try:
                entries.append(load_file(row))
            except (ValueError, TypeError) as error:
                raise damage_error("files", series_id, row) from error
        return by_span(entries)

    def _put_file(self, connection: DbConnection, series_id: int, entry: Provenance) -> None:
        where = f"FROM {PREFIX}files WHERE series_id = ? AND file_key = ?"
        found = connection.execute(f"SELECT {_FILE} {where}", [series_id, entry.key]).fetchone()
        if found == dump_file(entry):
            return
        if found is not None:
            connection.execute(f"DELETE {where}", [series_id, entry.key])
        row = [series_id, *dump_file(entry)]
        connection.execute(f"INSERT INTO {PREFIX}files (series_id, {_FILE}) VALUES ({_marks(row)})", row)

    def _ids(self, connection: DbConnection, series: Collection[Series]) -> dict[Series, int]:
        """Return the ids of those of the series that have one."""
        ids: dict[Series, int] = {}
        by_names: dict[tuple[str, str, str], dict[str, Series]] = {}
        for one in series:
            by_names.setdefault((one.exchange, one.dataset.name, one.interval.name), {})[one.symbol] = one
        for others, symbols in by_names.items():
            for some in _chunks([*symbols]):
                rows = connection.execute(
                    f"SELECT symbol, id FROM {PREFIX}series WHERE target = ? AND exchange = ? "
                    f"AND dataset = ? AND interval = ? AND symbol IN ({_marks(some)})",
                    [self.target, *others, *some],
                )
                ids |= {symbols[symbol]: int(series_id) for symbol, series_id in rows.fetchall()}
        return ids

    def _touch_series(self, connection: DbConnection, series: Sequence[Series]) -> dict[Series, int]:
        """Return the ids of series that are about to change, and add those that are new.

        The row of each series is written each time. Two connections that write one series at once conflict
        on that row; without it, neither would see the segments of the other.
        """
        ids = self._ids(connection, series)
        for some in _chunks([*ids.values()]):
            connection.execute(
                f"UPDATE {PREFIX}series SET revision = revision + 1 WHERE id IN ({_marks(some)})", some
            )
        new = [one for one in series if one not in ids]
        if not new:
            return ids
        # Two statements: RETURNING is newer than the SQLite of some systems.
        found = connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {PREFIX}series").fetchone()
        added = dict(zip(new, self.series_ids.take(len(new), int(found[0])), strict=True))
        for some_new in _chunks(new):
            connection.execute(
                f"INSERT INTO {PREFIX}series (id, target, exchange, dataset, symbol, interval) "
                f"VALUES {_rows_of_marks(some_new, 6)}",
                [value for one in some_new for value in (added[one], self.target, *one.names)],
            )
        return ids | added

    def segments(self, connection: DbConnection, spans: Mapping[int, Span]) -> dict[int, dict[int, Coverage]]:
        """See Ledger."""
        first = "w.first"
        if self.clustered:  # without a key, the segment before the span would cost a second scan
            first = (
                f"coalesce((SELECT max(b.start_time) FROM {PREFIX}coverage AS b "
                f"WHERE b.series_id = w.series_id AND b.start_time <= {first}), {first})"
            )
        found: dict[int, dict[int, Coverage]] = {series_id: {} for series_id in spans}
        for some in _chunks([*spans.items()]):
            rows = connection.execute(
                f"WITH w (series_id, first, last) AS (VALUES {_rows_of_marks(some, 3)}) "
                f"SELECT c.series_id, c.start_time, {_SPAN_COLUMNS} FROM w JOIN {PREFIX}coverage AS c "
                f"ON c.series_id = w.series_id AND c.start_time <= w.last "
                f"AND c.{'start' if self.clustered else 'end'}_time >= {first}",
                [value for series_id, span in some for value in (series_id, span.start, span.end)],
            )
            for series_id, start, *texts in rows.fetchall():
                found[series_id][start] = load_segment(series_id, texts)
        return found

    def _segments_where(
        self, connection: DbConnection, series_id: int, where: str, values: Sequence[int]
    ) -> dict[int, Coverage]:
        rows = connection.execute(
            f"SELECT start_time, {_SPAN_COLUMNS} FROM {PREFIX}coverage WHERE series_id = ? AND {where}",
            [series_id, *values],
        )
        return {start: load_segment(series_id, texts) for start, *texts in rows.fetchall()}

    def _put(self, connection: DbConnection, changes: Mapping[int, SegmentChange]) -> None:
        for series_id, change in changes.items():
            for some in _chunks(change.gone):
                connection.execute(
                    f"DELETE FROM {PREFIX}coverage WHERE series_id = ? AND start_time IN ({_marks(some)})",
                    [series_id, *some],
                )
        self._update(
            connection,
            [
                (series_id, start, segment)
                for series_id, change in changes.items()
                for start, segment in change.changed.items()
            ],
        )
        added = [(one, segment) for one, change in changes.items() for segment in change.added.values()]
        self._insert(connection, added)

    def _update(self, connection: DbConnection, segments: Sequence[tuple[int, int, Coverage]]) -> None:
        """Change segments, given with their series and their start.

        A statement costs SQLite little, and UPDATE FROM is newer than that of some systems. It costs DuckDB a
        millisecond.
        """
        names = "end_time", "covered_spans", "empty_spans", "unusable_spans"
        if self.clustered:
            for series_id, start, segment in segments:
                connection.execute(
                    f"UPDATE {PREFIX}coverage SET {', '.join(f'{name} = ?' for name in names)} "
                    "WHERE series_id = ? AND start_time = ?",
                    [*_row(segment)[1:], series_id, start],
                )
            return
        for some in _chunks(segments):
            connection.execute(
                f"UPDATE {PREFIX}coverage SET {', '.join(f'{name} = w.{name}' for name in names)} "
                f"FROM (VALUES {_rows_of_marks(some, 6)}) AS w (series_id, start_time, {', '.join(names)}) "
                f"WHERE {PREFIX}coverage.series_id = w.series_id "
                f"AND {PREFIX}coverage.start_time = w.start_time",
                [value for series_id, start, one in some for value in (series_id, start, *_row(one)[1:])],
            )

    def _insert(self, connection: DbConnection, segments: Sequence[tuple[int, Coverage]]) -> None:
        for some in _chunks(segments):
            connection.execute(
                f"INSERT INTO {PREFIX}coverage VALUES {_rows_of_marks(some, 6)}",
                [value for series_id, segment in some for value in (series_id, *_row(segment))],
            )

    def _reject(
        self, connection: DbConnection, series_id: int, gone: SpanSet, new: Sequence[RejectedRow]
    ) -> None:
        for span in gone:
            connection.execute(
                f"DELETE FROM {PREFIX}rejected WHERE series_id = ? AND time >= ? AND time < ?",
                [series_id, span.start, span.end],
            )
        for some in _chunks(new):
            connection.execute(
                f"INSERT INTO {PREFIX}rejected VALUES {_rows_of_marks(some, 4)}",
                [value for row in some for value in (series_id, row.time, row.reason, row.raw)],
            )


def _normalized_table(target: str) -> str:
    """Fold the spellings of a table name: both databases ignore case, and `main` is the default."""
    return target.casefold().removeprefix("main.")


def _span_columns(version: int) -> str:
    return _SPAN_COLUMNS_1 if version == 1 else _SPAN_COLUMNS


def _row(segment: Coverage) -> list[int | str]:
    """Return the columns of a segment, without the id of its series."""
    whole = hull(segment)
    sets = (segment.covered, segment.empty, segment.unusable)
    return [whole.start, whole.end, *map(dump_spans, sets)]


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[first : first + _CHUNK_SIZE] for first in range(0, len(items), _CHUNK_SIZE))


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def _rows_of_marks(rows: Sequence[object], width: int) -> str:
    return ", ".join([f"({_marks(range(width))})"] * len(rows))
