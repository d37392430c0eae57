"""Read a store's rows and ledger with its database library alone, without the code under test.

Database files are read from a copy: opening a file after a crash may repair it, and the next run must do
that itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import duckdb
import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import ArrayLike
from psycopg import sql
from pyarrow import parquet

from chaos.harness.store_fixtures import files_of
from marketfetch.engine.composites import CompositeOhlcv
from marketfetch.protocols import SupportsProvenance
from marketfetch.sinks import sink_from
from marketfetch.testing import Market
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import datasets
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import truth

__all__ = [
    "Contents",
    "Oracle",
    "StoredSeries",
    "check_contents",
    "contents",
    "fingerprint",
    "provenance",
]

Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@attrs.frozen(eq=False)
class StoredSeries:
    """The stored rows of a series and its coverage in the ledger."""

    rows: Columns
    coverage: Coverage


Contents = Mapping[Series, StoredSeries]


@attrs.frozen(eq=False)
class Oracle:
    """The true rows of every series in a span, those of composites computed from their members."""

    market: Market
    span: Span
    composites: Sequence[Composite] = ()
    _rows: dict[Series, Columns] = attrs.field(factory=dict, init=False)

    def rows(self, series: Series) -> Columns:
        """Return the true rows of a series."""
        if series not in self._rows:
            self._rows[series] = self._made(series)
        return self._rows[series]

    def _made(self, series: Series) -> Columns:
        for composite in self.composites:
            if composite.symbol == series.symbol:
                members = tuple(attrs.evolve(series, symbol=symbol) for symbol in composite.members)
                return CompositeOhlcv(members).combine([self.rows(member) for member in members])
        return truth(self.market, series, self.span)


def contents(url: str) -> Contents:
    """Return everything in a store; an empty mapping if the store does not exist yet."""
    kind = url.partition(":")[0]
    if kind == "parquet":
        return _of_parquet(url)
    with {"sqlite": _sqlite, "duckdb": _duckdb, "postgresql": _postgres}[kind](url) as query:
        return {} if query is None else _of_tables(kind, query)


def provenance(url: str, series: Series) -> Sequence[Provenance]:
    """Return the files of archives from which a store has rows of a series."""
    kind = url.partition(":")[0]
    if kind in {"parquet", "postgresql"}:
        return _provenance(url, series)
    with _copied(url) as path:
        return [] if path is None else _provenance(f"{kind}:{path}", series)


def _provenance(url: str, series: Series) -> Sequence[Provenance]:
    store = sink_from(url)
    assert isinstance(store, SupportsProvenance)
    return store.provenance(series)


def fingerprint(url: str, *, verdicts_on_events: bool = True) -> str:
    """Return a digest of all rows and the ledger, in a fixed order; for Parquet also of each file's bytes.

    Which moments between two events are recorded as empty depends on the borders of pages.
    `verdicts_on_events=False` leaves them out, so that runs with other pages can be compared.
    """
    digest = hashlib.sha256()
    for series, held in sorted(contents(url).items(), key=lambda item: str(item[0])):
        empty = held.coverage.empty if verdicts_on_events or not series.interval.is_event else ""
        digest.update(f"{series} {held.coverage.covered} {empty} {held.coverage.unusable}".encode())
        digest.update(held.rows.times.tobytes())
        digest.update(np.where(np.isnan(held.rows.values), np.nan, held.rows.values).tobytes())
    if url.startswith("parquet:"):
        for name, file in files_of(url).items():
            if verdicts_on_events or "interval=event" not in name:  # coverage is in the row files
                digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


def check_contents(url: str, oracle: Oracle) -> Contents:
    """Fail unless all covered rows are stored and every stored row is true; return the contents.

    In databases rows and ledger change in one transaction: there no row may lie outside the coverage.
    """
    found = contents(url)
    for series, held in found.items():
        times, covered = held.rows.times, held.coverage.covered
        assert np.all(np.diff(times) > 0), f"{series}: rows are doubled"
        assert not covered - SpanSet.of(oracle.span), f"{series}: covered, but never asked for"
        expected = oracle.rows(series)
        there = held.rows.within(covered)
        claimed = expected.within(covered)
        assert np.array_equal(there.times, claimed.times), f"{series}: covered, but not there"
        true = expected.take(np.isin(expected.times, times))
        assert len(true) == len(times), f"{series}: rows that the exchange does not have"
        assert np.array_equal(true.values, held.rows.values, equal_nan=True), f"{series}: values are false"
        if not series.interval.is_event:
            lacking = held.coverage.present - series.interval.cover(times)
            assert not lacking, f"{series}: said to be present, but is not: {lacking}"
        if not url.startswith("parquet:"):
            assert len(there) == len(times), f"{series}: rows of half a batch are visible"
    return found


@contextmanager
def _copied(url: str) -> Iterator[Path | None]:
    """Copy a database file and its log as a crash left them; yields None if there is no file."""
    path = Path(url.partition(":")[2])
    if not path.exists():
        yield None
        return
    with TemporaryDirectory(prefix="marketfetch-copy-") as folder:
        for file in path.parent.glob(f"{path.name}*"):
            # SQLite recreates the -shm index; folders hold DuckDB's temporary data.
            if file.is_file() and not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        yield Path(folder) / path.name


@contextmanager
def _sqlite(url: str) -> Iterator[Query | None]:
    with _copied(url) as path:
        if path is None:
            yield None
            return
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            yield lambda text, values: connection.execute(text, values).fetchall()


@contextmanager
def _duckdb(url: str) -> Iterator[Query | None]:
    with _copied(url) as path:
        if path is None:
            yield None
            return
        with closing(duckdb.connect(path)) as connection:
            yield lambda text, values: connection.execute(text, values).fetchall()


@contextmanager
def _postgres(url: str) -> Iterator[Query | None]:
    with psycopg.connect(url) as connection:
        # One snapshot for all queries: the server may still finish the work of a killed client.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield lambda text, values: connection.execute(
            sql.SQL(text.replace("?", "%s")),
            values,
        ).fetchall()


def _ranges(column: str) -> str:
    """Return SQL that turns a PostgreSQL multirange into the JSON spans of the other databases."""
    return (
        "coalesce((SELECT json_agg(json_build_array(lower(r), upper(r)) ORDER BY r)::text "
        f"FROM unnest({column}) AS r), '[]')"
    )


_DIALECTS = {
    "sqlite": ("marketfetch_{}", "open_time", ("covered_spans", "empty_spans", "unusable_spans")),
    "duckdb": ("marketfetch_{}", "epoch_ms(open_time)", ("covered_spans", "empty_spans", "unusable_spans")),
    "postgresql": (
        "marketfetch.{}",
        "(extract(epoch FROM open_time) * 1000)::bigint",
        tuple(map(_ranges, ("covered", '"empty"', "unusable"))),
    ),
}


def _of_tables(kind: str, query: Query) -> Contents:
    name, time, verdicts = _DIALECTS[kind]
    prefix, schema = ("", "marketfetch") if kind == "postgresql" else ("marketfetch_", "main")
    if kind == "sqlite":
        listed = query("SELECT name FROM sqlite_master WHERE type = 'table'", [])
    else:
        listed = query("SELECT table_name FROM information_schema.tables WHERE table_schema = ?", [schema])
    tables = {table for (table,) in listed}
    if f"{prefix}coverage" not in tables:
        return {}
    lines = query(
        f"SELECT id, exchange, dataset, symbol, interval, {', '.join(verdicts)} FROM {name.format('series')} "
        f"JOIN {name.format('coverage')} ON series_id = id ORDER BY id",
        [],
    )
    found: dict[Series, StoredSeries] = {}
    for (number, exchange, dataset, symbol, interval), segments in groupby(lines, lambda line: line[:5]):
        series = Series.of(exchange, dataset, symbol, interval)
        assert series not in found, f"{series} has two ids"
        coverage = Coverage()
        for _, _, _, _, _, *texts in segments:
            segment = Coverage(*map(_spans, texts))
            assert not segment.covered & coverage.covered, f"{series}: two segments know of the same moment"
            coverage |= segment
        columns = ", ".join(f'"{column}"' for column in series.dataset.names)
        rows = query(
            f"SELECT {time}, {columns} FROM {name.format(dataset)} WHERE series_id = ? ORDER BY 1", [number]
        )
        found[series] = StoredSeries(_columns(series, rows), coverage)
    for dataset in datasets().keys() & {table.removeprefix(prefix) for table in tables}:
        ((stored,),) = query(f"SELECT count(*) FROM {name.format(dataset)}", [])
        known = sum(len(held.rows) for series, held in found.items() if series.dataset.name == dataset)
        assert stored == known, f"{stored - known} rows of {dataset} are of no series"
    return found


def _columns(series: Series, rows: ArrayLike) -> Columns:
    table = np.asarray(rows, np.float64).reshape(-1, 1 + len(series.dataset.names))  # None becomes NaN
    return Columns(table[:, 0].astype(np.int64), table[:, 1:].T)


def _spans(text: str | None) -> SpanSet:
    return SpanSet(tuple(Span(int(start), int(end)) for start, end in json.loads(text or "[]")))


def _of_parquet(url: str) -> Contents:
    found: dict[Series, StoredSeries] = {}
    for home in {file.parent for file in files_of(url).values() if file.suffix == ".parquet"}:
        dataset, *names = home.parts[-4:]
        exchange, symbol, interval = (name.partition("=")[2] for name in names)
        series = Series.of(exchange, dataset, symbol, interval)
        tables = [np.empty((0, 1 + len(series.dataset.names)))]
        coverage = Coverage()
        for file in sorted(home.glob("*.parquet")):
            table = parquet.ParquetFile(file)
            note = json.loads((table.metadata.metadata or {})[b"marketfetch"])
            if file.name == "_ledger.parquet":
                coverage |= _known(note["fileless"])
                there = {one.stem for one in home.glob("*.parquet")}
                assert note["files"].keys() <= there, f"{file} counts on a file that is not there"
                continue
            coverage |= _known(note["coverage"])
            rows = table.read()
            columns = [rows.column("open_time").cast(pa.int64()), *map(rows.column, series.dataset.names)]
            tables.append(np.column_stack([one.cast(pa.float64()).to_numpy() for one in columns]))
        found[series] = StoredSeries(_columns(series, np.concatenate(tables)), coverage)
    return found


def _known(sets: Sequence[Sequence[int]]) -> Coverage:
    """Decode three span sets; each is a list of starts and ends in turn, stored as differences."""
    edges = (np.cumsum(numbers, dtype=np.int64).tolist() for numbers in sets)
    return Coverage(*(SpanSet(tuple(map(Span, ends[::2], ends[1::2]))) for ends in edges))
