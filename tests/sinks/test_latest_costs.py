"""The newest rows of a series cost the same work, however long its history is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import duckdb
import numpy as np
import psycopg
import pytest

from marketfetch.errors import SinkError
from marketfetch.protocols import Store
from marketfetch.sinks import DuckDBSink, ParquetSink, PostgresSink, SQLiteSink, TableMapping
from marketfetch.sinks.postgres import reader
from marketfetch.sinks.postgres.schema.mapped import MappedTable
from marketfetch.sinks.postgres.schema.own import OwnTables
from marketfetch.sinks.sql.newest import look_back, newest_present_end
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet
from tests.support.batches import MINUTE, START, batch, candles

SYMBOLS = [candles(symbol) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
ASKED = SYMBOLS[1]
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"close": "c"}})
TABLE = "CREATE TABLE candles (symbol TEXT, ts BIGINT, c DOUBLE PRECISION, PRIMARY KEY (symbol, ts))"


def fill(store: Store, first: int, end: int) -> None:
    """Store minutes of each symbol, in batches as a run does."""
    step = 20_000
    with store.writer() as write:
        for start in range(first, end, step):
            for series in SYMBOLS:
                rows = range(start, min(end, start + step))
                write(batch(series, rows, close=np.array(rows, np.float64)))


def newest(store: Store, count: int, last: int) -> None:
    """Read the newest rows, and check that they are these."""
    assert isinstance(store, SQLiteSink | DuckDBSink | ParquetSink | PostgresSink)
    found = store.latest([ASKED], count)[ASKED]
    assert found.values[ASKED.dataset.index("close")].tolist() == [*range(last - count, last)]


# --- SQLite: steps of its virtual machine ---


class CountingSQLite(SQLiteSink):
    """Counts the steps of statements that read."""

    steps: list[int] = []  # noqa: RUF012  # an attribute of the class: the store is frozen

    @contextmanager
    def _connected_to_read(self) -> Iterator[sqlite3.Connection]:
        with super()._connected_to_read() as connection:
            connection.set_progress_handler(lambda: self.steps.append(1), 1)
            yield connection


@pytest.mark.parametrize("table", [None, MAPPING])
def test_sqlite_takes_the_same_steps(tmp_path: Path, table: TableMapping | None) -> None:
    store = CountingSQLite(tmp_path / "market.sqlite", table=table)
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute(TABLE)
    store.prepare([ASKED.dataset])
    counts = []
    for first, end in ((0, 2_000), (2_000, 20_000)):
        fill(store, first, end)
        store.steps.clear()
        newest(store, 100, end)
        counts.append(len(store.steps))
    assert counts[0] > 100
    assert counts[1] <= counts[0] * 1.1, counts


# --- DuckDB: rows that its scans read ---


class Profiled:
    """A connection that writes down how many rows of the table each statement scans."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, profile: Path, scanned: list[int]) -> None:
        self._connection, self._profile, self._scanned = connection, profile, scanned
        connection.execute("PRAGMA enable_profiling = 'json'")
        connection.execute(f"PRAGMA profiling_output = '{profile}'")

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        found = self._connection.execute(sql, parameters)
        if "DESC LIMIT" not in sql:
            return found
        found.fetchall()
        self._scanned += _scanned(json.loads(self._profile.read_text("utf-8")))
        return self._connection.execute(sql, parameters)


def _scanned(node: Any) -> Iterator[int]:
    """Yield the numbers of rows that scans read; DuckDB has changed their name."""
    for name, value in node.items():
        if name in {"rows_scanned", "operator_rows_scanned"} and value:
            yield value
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, dict):
                    yield from _scanned(inner)


class CountingDuckDB(DuckDBSink):
    """Counts the rows that statements scan."""

    scanned: list[int] = []  # noqa: RUF012  # as above

    @contextmanager
    def _connected_to_read(self) -> Iterator[Any]:
        with super()._connected_to_read() as connection:
            yield Profiled(connection, self.path.with_suffix(".json"), self.scanned)


@pytest.mark.slow
@pytest.mark.parametrize("table", [None, MAPPING])
def test_duckdb_scans_the_same_rows(tmp_path: Path, table: TableMapping | None) -> None:
    store = CountingDuckDB(tmp_path / "market.duckdb", table=table)
    with duckdb.connect(store.path) as connection:
        connection.execute(TABLE)
    store.prepare([ASKED.dataset])
    counts = []
    for first, end in ((0, 100_000), (100_000, 400_000)):
        fill(store, first, end)
        store.scanned.clear()
        newest(store, 100, end)
        counts.append(sum(store.scanned))
    assert counts[0] > 0
    assert counts[1] <= 2 * 122_880 < 3 * 400_000 / 4, counts


# --- Parquet: files that are opened ---


def test_parquet_opens_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, opened = ParquetSink(tmp_path / "market"), list[str]()
    store.prepare([ASKED.dataset])
    plain: Callable[..., IO[Any]] = Path.open

    def counting(path: Path, *arguments: Any, **keywords: Any) -> IO[Any]:
        opened.extend([path.name] if path.suffix == ".parquet" else [])
        return plain(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", counting)
    month = 31 * 1440
    for first, end in ((0, month + 50), (month + 50, 12 * month)):
        fill(store, first, end)
        opened.clear()
        newest(store, 40, end)
        assert sorted(opened)[1:] == ["_ledger.parquet"]
    opened.clear()
    newest(store, 60_000, 12 * month)
    assert len(opened) <= 4


def test_a_last_file_that_is_gone_is_said(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([ASKED.dataset])
    fill(store, 0, 3 * 31 * 1440)
    first, *_, last = sorted((tmp_path / "market").rglob("symbol=ETHUSDT/**/2020-*.parquet"))
    first.unlink()
    newest(store, 100, 3 * 31 * 1440)  # rows of the other files are the newest all the same
    last.unlink()
    with pytest.raises(SinkError, match=f"{last.name} is missing, .* marketfetch forget"):
        store.latest([ASKED], 100)


# --- PostgreSQL: rows that a plan reads ---


class Explaining:
    """A connection that writes down how each query reads a table: the kind of scan, and its rows."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.scans: list[tuple[str, float]] = []

    def execute(self, query: Any, parameters: Any = None, **options: Any) -> Any:
        if isinstance(query, bytes):
            row = self._connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query, parameters).fetchone()
            assert row is not None
            plan: dict[str, Any] = row[0][0]["Plan"]
            while "Plans" in plan:
                (plan,) = plan["Plans"]
            read = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
            self.scans.append((plan["Node Type"], read * plan["Actual Loops"]))
        return self._connection.execute(query, parameters, **options)


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("mapping", [None, MAPPING])
def test_postgresql_reads_the_end_of_an_index(
    postgres_dsn: str, mapping: TableMapping | None, *, analysed: bool
) -> None:
    store = PostgresSink(postgres_dsn, table=mapping)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(TABLE)
        connection.commit()
        store.prepare([ASKED.dataset])
        for first, end in ((0, 2_000), (2_000, 20_000)):
            fill(store, first, end)
            newest(store, 100, end)
            connection.execute("ANALYZE" if analysed else "SELECT 1")  # the server does so within a minute
            layout = OwnTables("marketfetch") if mapping is None else MappedTable(mapping)
            table = layout.table(connection, ASKED.dataset)
            explaining: Any = Explaining(connection)
            reader.read_newest(explaining, table, table.label_values(ASKED, 2), ASKED.dataset, 100)
            assert explaining.scans == [("Index Scan", 100)]
            connection.commit()


def test_more_rows_than_the_server_packs_at_once_are_read_in_pages(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresSink(postgres_dsn)
    store.prepare([ASKED.dataset])
    fill(store, 0, 1_000)
    monkeypatch.setattr(reader, "_PAGE", 100)
    for count in (99, 100, 101, 250, 1_000):
        newest(store, count, 1_000)
    assert len(store.latest([ASKED], 5_000)[ASKED]) == 1_000


# --- where to look in a file ---


def test_a_long_end_without_rows_is_crossed_by_the_ledger(tmp_path: Path) -> None:
    """A delisted symbol is confirmed empty for years, in many segments: the rows before them are found."""
    store = CountingSQLite(tmp_path / "market.sqlite")
    store.prepare([ASKED.dataset])
    fill(store, 0, 1_000)
    years = Span(START + 1_000 * MINUTE, START + 2_000_000 * MINUTE)
    empty = SpanSet.of(years)
    with store.writer() as write:
        write(Batch(ASKED, Columns.empty(ASKED.dataset), Coverage(empty, empty)))
    newest(store, 100, 1_000)
    with closing(sqlite3.connect(store.path)) as connection:
        assert newest_present_end(connection, 2, 3) == START + 1_000 * MINUTE
        assert newest_present_end(connection, 9, 3) == 0
        assert newest_present_end(connection, 2, 1) == 0, "format 1 had no segments"


def test_rows_after_the_covered_ones_are_the_newest(tmp_path: Path) -> None:
    store = SQLiteSink(tmp_path / "market.sqlite")
    store.prepare([ASKED.dataset])
    fill(store, 0, 300)
    store.forget(ASKED, SpanSet.of(Span(START + 100 * MINUTE, START + 300 * MINUTE)))
    newest(store, 10, 300)


@pytest.mark.parametrize("end", [0, 1, 60_000, START])
@pytest.mark.parametrize("length", [1, 60_000, 10**12])
def test_the_last_look_sees_everything(end: int, length: int) -> None:
    spans = [*look_back(end, length)]
    assert spans[-1] == Span(0, MAX_TIMESTAMP)
    assert all(earlier.start > later.start for earlier, later in pairwise(spans))
    assert len(spans) < 20


def test_events_are_found_however_rare_they_are(tmp_path: Path) -> None:
    store, funding = SQLiteSink(tmp_path / "market.sqlite"), Series.of("okx", "funding_rate", "X", "event")
    store.prepare([funding.dataset])
    with store.writer() as write:
        events = batch(funding, [0, 480, 500_000], funding_rate=[1, 2, 3])
        covered = SpanSet.of(Span(START, START + 600_000 * MINUTE))
        write(Batch(funding, events.columns, Coverage(covered)))
    for limit in (1, 2, 3, 9):
        assert store.latest([funding], limit)[funding].values[0].tolist() == [1, 2, 3][-limit:]
