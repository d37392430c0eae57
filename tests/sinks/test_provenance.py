"""Provenance is stored with its rows or not at all, and stores without it are read and migrated."""

from __future__ import annotations

import gzip
import signal
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import attrs
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from marketfetch.errors import SinkError
from marketfetch.protocols import Store, SupportsForget, SupportsProvenance, SupportsRejected
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.sinks.urls import sink_from
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.roles import role

OHLCV = Dataset.parse("ohlcv")
DATA = Path(__file__).with_name("data")
UNUSABLE = SpanSet.of(Span(START + 10 * MINUTE, START + 12 * MINUTE))
KNOWN = Coverage(SpanSet.of(Span(START, START + 12 * MINUTE)), unusable=UNUSABLE)
WRONG = Batch(
    candles(),
    Columns.empty(OHLCV),
    Coverage(UNUSABLE, unusable=UNUSABLE),
    (RejectedRow(START + 10 * MINUTE + 5, "off the grid", "[10]"),),
)
JANUARY = Provenance(
    "BTCUSDT-1m-2020-01.zip", Span(START, START + 44_640 * MINUTE), 2_281_123, 5, "9f86d0", verified=True
)


def from_january(rows: range, **columns: float) -> Batch:
    return attrs.evolve(batch(candles(), rows, **columns), provenance=JANUARY)


def write(store: Store, *batches: Batch) -> None:
    with store.writer() as take:
        for one in batches:
            take(one)


# --- rows and provenance together ---

_KILLED = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from marketfetch.sinks.urls import sink_from
from tests.sinks.test_provenance import from_january, write

def dying(original):
    def act(*given, **named):
        original(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return act

module, _, names = sys.argv[1].partition(":")
owner, name = names.split(".")
owner = getattr(import_module(module), owner)
store = sink_from(sys.argv[2])
setattr(owner, name, dying(getattr(owner, name)))
write(store, from_january(range(10, 20), open=2))
"""


def check_kill(url: str, step: str, *, stored: bool) -> None:
    """Kill a process that writes rows of a file after a step; see what it left, and write them again."""
    store = sink_from(url)
    assert isinstance(store, Store)
    assert isinstance(store, SupportsProvenance)
    store.prepare([OHLCV])
    write(store, batch(candles(), range(10), open=1))
    command = [
        sys.executable,
        "-c",
        _KILLED,
        f"marketfetch.sinks.{step}",
        url,
        str(Path(__file__).parents[2]),
    ]
    run = subprocess.run(command, check=False, timeout=250, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert len(store.read(candles(), EVER)) == (20 if stored else 10)
    assert list(store.provenance(candles())) == ([JANUARY] if stored else [])
    store.prepare([OHLCV])
    write(store, from_january(range(10, 20), open=2))
    assert len(store.read(candles(), EVER)) == 20
    assert list(store.provenance(candles())) == [JANUARY]


@pytest.mark.parametrize(
    ("kind", "step", "stored"),
    [
        ("sqlite", "sqlite:SQLiteSink._merge", False),
        ("sqlite", "sql.coverage_tables:FileCoverageTables._put_file", False),
        ("duckdb", "duckdb.sink:DuckDBSink._merge", False),
        ("parquet", "parquet.series_folder:SeriesFolder._read_contents", False),
        ("parquet", "parquet.series_folder:SeriesFolder._put", True),
    ],
)
def test_a_writer_that_is_killed_leaves_rows_and_provenance_or_neither(
    tmp_path: Path, kind: str, step: str, *, stored: bool
) -> None:
    check_kill(f"{kind}:{tmp_path / 'store'}", step, stored=stored)


@pytest.mark.parametrize(
    "step", ["writer:BatchWriter._write", "coverage_tables:PostgresCoverageTables.unite"]
)
def test_a_writer_that_is_killed_leaves_neither_in_postgresql(postgres_dsn: str, step: str) -> None:
    check_kill(postgres_dsn, f"postgres.{step}", stored=False)


def test_a_batch_that_is_refused_leaves_no_provenance(tmp_path: Path, postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as database:
        database.execute(
            "CREATE TABLE candles (ts bigint, symbol text, o numeric(6,2), PRIMARY KEY (ts, symbol))"
        )
    mapping = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
    sink = PostgresSink(postgres_dsn, table=mapping)
    sink.prepare([OHLCV])
    with pytest.raises(SinkError, match=r"numeric\(6,2\)"):
        write(sink, from_january(range(3), open=0.001))
    assert sink.provenance(candles()) == []
    write(sink, from_january(range(3), open=0.5))
    assert sink.provenance(candles()) == [JANUARY]


def test_an_equal_entry_is_not_written_again(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    write(sink, from_january(range(3), open=1))
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        before = database.execute("SELECT xmin::text FROM marketfetch.files").fetchall()
        write(sink, from_january(range(3, 6), open=1))
        assert database.execute("SELECT xmin::text FROM marketfetch.files").fetchall() == before


# --- stores of format 2, which had no provenance ---


@pytest.fixture(params=[SQLiteSink, DuckDBSink, ParquetSink, PostgresSink])
def old(request: pytest.FixtureRequest, tmp_path: Path, postgres_dsn: str) -> Store:
    """Return a store as the version before provenance wrote it."""
    kind = request.param
    if kind is PostgresSink:
        sink = PostgresSink(postgres_dsn)
        sink.prepare([OHLCV])
        write(sink, batch(candles(), range(10), open=1.5, close=2.5), WRONG)
        with psycopg.connect(postgres_dsn) as database:
            database.execute("DROP TABLE marketfetch.files")
            database.execute("UPDATE marketfetch.format SET version = 2")
        return sink
    if kind is ParquetSink:
        with tarfile.open(DATA / "format2_parquet.tar.gz") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not before Python 3.11.4
            archive.extractall(tmp_path)
        return ParquetSink(tmp_path / "format2_parquet")
    name = f"format2.{'sqlite' if kind is SQLiteSink else 'duckdb'}"
    (tmp_path / name).write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    store: Store = kind(tmp_path / name)
    return store


def all_there(store: Store) -> bool:
    assert isinstance(store, SupportsRejected)
    (wrong,) = store.rejected(candles(), EVER)
    return (
        store.ledger() == store.coverage([candles()]) == {candles(): KNOWN}
        and store.read(candles(), EVER).values[0].tolist() == [1.5] * 10
        and wrong.raw == "[10]"
    )


def test_an_old_store_is_read_as_it_is(old: Store, tmp_path: Path) -> None:
    assert isinstance(old, SupportsProvenance)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert all_there(old)
    assert list(old.provenance(candles())) == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_old_store_is_migrated_by_prepare(old: Store) -> None:
    assert isinstance(old, SupportsProvenance)
    for _ in range(2):
        old.prepare([OHLCV])
        assert all_there(old)
        assert list(old.provenance(candles())) == []
    write(old, from_january(range(20, 25), open=3))
    assert list(old.provenance(candles())) == [JANUARY]
    assert len(old.read(candles(), EVER)) == 15


def test_an_old_store_forgets_before_it_is_migrated(old: Store) -> None:
    assert isinstance(old, SupportsForget)
    old.forget(candles(), SpanSet.of(Span(START + 5 * MINUTE, START + 12 * MINUTE)), rows=True)
    assert old.coverage([candles()])[candles()] == Coverage(SpanSet.of(Span(START, START + 5 * MINUTE)))
    assert len(old.read(candles(), EVER)) == 5


def test_a_role_that_may_not_migrate_is_told_who_may(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    rights = (
        "GRANT USAGE ON SCHEMA marketfetch TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA marketfetch TO {role}",
    )
    with (
        role(postgres_dsn, *rights) as dsn,
        psycopg.connect(postgres_dsn, autocommit=True) as database,
    ):
        name = conninfo_to_dict(dsn)["user"]
        database.execute("DROP TABLE marketfetch.files")
        database.execute("UPDATE marketfetch.format SET version = 2")
        writer = PostgresSink(dsn, views=False)
        with pytest.raises(SinkError, match=rf"has format 2 and must be brought to format 3.*{name}"):
            writer.prepare([OHLCV])
        assert database.execute("SELECT version FROM marketfetch.format").fetchall() == [(2,)]
        sink.prepare([OHLCV])
        writer.prepare([OHLCV])
        write(writer, from_january(range(3), open=1))
        assert writer.provenance(candles()) == [JANUARY]
        database.execute(f"REVOKE DELETE ON marketfetch.files FROM {name}")
        with pytest.raises(SinkError, match=r"GRANT DELETE ON .*files"):
            writer.prepare([OHLCV])


# --- an archive file whose rows are in several Parquet files ---


def test_the_last_issue_counts_in_whichever_parquet_file_it_is(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([OHLCV])
    year = attrs.evolve(JANUARY, key="2020.zip", span=Span(START, START + 366 * 1440 * MINUTE))
    anew = attrs.evolve(year, size=7, modified=year.modified + 1)
    months = [range(44_640 * month, 44_640 * month + 3) for month in range(3)]
    write(store, *(attrs.evolve(batch(candles(), rows, open=1), provenance=year) for rows in months))
    assert store.provenance(candles()) == [year]
    write(store, attrs.evolve(batch(candles(), months[1], open=2), provenance=anew))
    assert store.provenance(candles()) == [anew]
    store.forget(candles(), SpanSet.of(Span(START, START + 44_640 * MINUTE)), rows=True)
    assert store.provenance(candles()) == [anew]
    store.forget(candles(), SpanSet.of(year.span), rows=True)
    assert store.provenance(candles()) == []
    assert not store.ledger()


def test_a_damaged_entry_in_a_parquet_file_is_named(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([OHLCV])
    write(store, from_january(range(3), open=1))
    (file,) = tmp_path.rglob("2020-01.parquet")
    file.write_bytes(file.read_bytes().replace(b'"9f86d0"', b"12345678"))
    with pytest.raises(SinkError, match=r"2020-01\.parquet is not a file that marketfetch wrote"):
        store.provenance(candles())


def test_a_damaged_entry_in_a_database_file_is_named_and_can_be_forgotten(tmp_path: Path) -> None:
    store = SQLiteSink(tmp_path / "market.sqlite")
    store.prepare([OHLCV])
    write(store, from_january(range(3), open=1))
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE marketfetch_files SET size = 'large'")
    with pytest.raises(SinkError, match=r"marketfetch_files has 'BTCUSDT-1m-2020-01.zip, .*, large, "):
        store.provenance(candles())
    store.forget(candles(), SpanSet.of(EVER))
    assert store.provenance(candles()) == []
