"""Stores of an older format are read as they are and migrated by `prepare`; those of a newer one are refused.

`data/` has stores that marketfetch wrote when the whole coverage of a series was one row (format 1): BTCUSDT
with three minutes confirmed empty, ETHUSDT with 550 such minutes, SOLUSDT without rows, and the premium index
of BTCUSDT at two minutes; in tables of ours, and in a table of the user's that has a row of its own.
"""

from __future__ import annotations

import gzip
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks.duckdb import shared_connection
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.sql.coverage_segments import SEGMENT_SPANS
from marketfetch.sinks.sql.file_store import SqlFileStore
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles, premium
from tests.support.postgres import short_folder

KINDS = [Dataset.parse("ohlcv"), Dataset.parse("premium_index")]
MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={"ohlcv": {"open": "o"}, "premium_index": {"close": "pfr"}},
    rename_symbol=without_quote("USDT"),
)

Store = SqlFileStore[Any]
Query = Callable[[str], list[Any]]


def minutes(first: int, end: int) -> Span:
    return Span(START + first * MINUTE, START + end * MINUTE)


GAPS = SpanSet(tuple(minutes(step, step + 1) for step in range(1, 1100, 2)))
KNOWN: dict[Series, Coverage] = {
    candles(): Coverage(SpanSet.of(minutes(0, 10)), SpanSet.of(minutes(5, 8))),
    candles("ETHUSDT"): Coverage(SpanSet.of(minutes(0, 1100)), GAPS),
    premium(): Coverage(SpanSet.of(minutes(1, 2), minutes(20, 21))),
    candles("SOLUSDT"): Coverage(SpanSet.of(minutes(0, 10)), SpanSet.of(minutes(0, 10))),
}


@pytest.fixture(params=[DuckDBSink, SQLiteSink])
def kind(request: pytest.FixtureRequest) -> type[Store]:
    found: type[Store] = request.param
    return found


@pytest.fixture(params=[None, MAPPING], ids=["own", "mapped"])
def old(request: pytest.FixtureRequest, kind: type[Store], tmp_path: Path) -> Store:
    ending = "duckdb" if kind is DuckDBSink else "sqlite"
    name = f"format1{'_mapped' if request.param else ''}.{ending}"
    path = tmp_path / name
    path.write_bytes(gzip.decompress(Path(__file__).with_name("data").joinpath(f"{name}.gz").read_bytes()))
    return kind(path, table=request.param)


@pytest.fixture
def query(old: Store) -> Query:
    def run(sql: str) -> list[Any]:
        opened: Any = duckdb.connect(old.path) if isinstance(old, DuckDBSink) else sqlite3.connect(old.path)
        with closing(opened) as connection:
            rows: list[Any] = connection.execute(sql).fetchall()
            connection.commit()
        return rows

    return run


def content(store: Store) -> list[Any]:
    """Return all that a store tells of the series of the old stores."""
    with store._connected_to_read():  # held open: opening a file of DuckDB takes longer than reading it
        rows = [store.read(series, EVER) for series in KNOWN]
        return [
            dict(store.ledger()),
            dict(store.coverage(KNOWN)),
            [(one.times.tolist(), one.values.tobytes()) for one in rows],
            [list(store.rejected(series, EVER)) for series in KNOWN],
        ]


def test_an_old_store_is_read_without_a_byte_being_written(old: Store, query: Query) -> None:
    before = old.path.read_bytes()
    assert old.ledger() == old.coverage(KNOWN) == KNOWN
    assert old.coverage([candles("XRPUSDT")]) == {candles("XRPUSDT"): Coverage()}
    assert old.read(candles(), EVER).values[0].tolist() == [1.5] * 5 + [2.5] * 2
    assert old.read(premium(), EVER).values[3].tolist() == [7e-5] * 2
    assert old.rejected(candles(), EVER) == []
    assert old.path.read_bytes() == before
    assert query("SELECT count(covered) FROM marketfetch_coverage") == [(4,)]


def test_prepare_migrates_and_nothing_is_lost(old: Store, query: Query) -> None:
    before = content(old)
    for _ in range(2):  # the second finds nothing to do
        old.prepare(KINDS)
        assert content(old) == before
        assert query("SELECT version FROM marketfetch_format") == [(3,)]
    # 551 spans are more than fit in one segment.
    segments = query("SELECT series_id, count(*) FROM marketfetch_coverage GROUP BY 1 ORDER BY 1")
    assert [count for _, count in segments] == [1, 1 + len(GAPS) // SEGMENT_SPANS, 1, 1]
    with old.writer() as take:
        take(batch(candles("ETHUSDT"), [1, 3, 1100], open=4))
    held = old.coverage([candles("ETHUSDT")])[candles("ETHUSDT")]
    assert held.covered == SpanSet.of(minutes(0, 1101))
    assert held.empty == GAPS - SpanSet.of(minutes(0, 4))
    if old.table is not None:
        assert query("SELECT * FROM candles WHERE symbol = 'MINE'") == [(1, "MINE", None, None, "kept")]


def test_whoever_writes_without_prepare_is_told_to_call_it(old: Store) -> None:
    before = content(old)
    with old.writer() as take, pytest.raises(SinkError, match=r"call prepare\(\) first"):
        take(batch(candles(), [20], open=1))
    with pytest.raises(SinkError, match=r"call prepare\(\) first"):
        old.forget(candles(), SpanSet.of(EVER))
    assert content(old) == before


def test_an_older_marketfetch_meets_an_error_instead_of_a_ledger_it_misreads(
    old: Store, query: Query
) -> None:
    old.prepare(KINDS)
    before = content(old)
    for statement in (  # of format 1
        'SELECT covered, "empty" FROM marketfetch_coverage WHERE series_id = 1',
        "UPDATE marketfetch_coverage SET covered = '[]', \"empty\" = '[]' WHERE series_id = 1",
        "INSERT INTO marketfetch_coverage (covered, \"empty\", series_id) VALUES ('[]', '[]', 9)",
    ):
        with pytest.raises((sqlite3.Error, duckdb.Error), match="covered"):
            query(statement)
    assert content(old) == before


def test_a_store_of_a_newer_format_is_refused_untouched(old: Store, query: Query) -> None:
    old.prepare(KINDS)
    query("UPDATE marketfetch_format SET version = 4")
    everything = "SELECT * FROM marketfetch_series ORDER BY id"
    before = query(everything)

    def write() -> None:
        with old.writer() as take:
            take(batch(candles(), [20], open=1))

    newer = rf"{old.path} was written by a newer marketfetch \(format 4; this one knows 3\): upgrade"
    for use in (
        lambda: old.prepare(KINDS),
        lambda: old.coverage([candles()]),
        old.ledger,
        lambda: old.read(candles(), EVER),
        lambda: old.rejected(candles(), EVER),
        lambda: old.forget(candles(), SpanSet.of(EVER), rows=True),
        write,
    ):
        with pytest.raises(SinkError, match=newer):
            use()
    assert query(everything) == before
    assert query("SELECT count(*) FROM marketfetch_coverage WHERE series_id = 1") == [(1,)]


@pytest.mark.parametrize("text", ["[[0,60000],[12", '[["a","b"]]', "[[60000,0]]", "[[0.5,1.5]]", "{}x", "7"])
def test_a_damaged_ledger_is_neither_believed_nor_migrated(old: Store, query: Query, text: str) -> None:
    query(f"UPDATE marketfetch_coverage SET covered = '{text}' WHERE series_id = 2")
    for use in (old.ledger, lambda: old.coverage([candles("ETHUSDT")]), lambda: old.prepare(KINDS)):
        with pytest.raises(SinkError, match=r"for series_id 2, which marketfetch did not write; restore"):
            use()
    assert query("SELECT covered FROM marketfetch_coverage WHERE series_id = 2") == [(text,)]
    assert old.coverage([candles()]) == {candles(): KNOWN[candles()]}


def test_a_damaged_segment_can_be_forgotten(old: Store, query: Query) -> None:
    old.prepare(KINDS)
    query("UPDATE marketfetch_coverage SET empty_spans = 'rubbish' WHERE series_id = 2 AND start_time > 0")
    with pytest.raises(SinkError, match="rubbish"):
        old.coverage([candles("ETHUSDT")])
    old.forget(candles("ETHUSDT"), SpanSet.of(EVER))
    assert old.coverage([candles("ETHUSDT")]) == {candles("ETHUSDT"): Coverage()}
    assert old.ledger() == {series: known for series, known in KNOWN.items() if series != candles("ETHUSDT")}


_KILLED = """
import os, signal, sys
from marketfetch.sinks import sqlite
from marketfetch.sinks.duckdb import sink as duckdb
from marketfetch.sinks.sql import coverage_tables
from marketfetch.values.datasets import Dataset

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(coverage_tables.FileCoverageTables, sys.argv[3], killed)
store = {"DuckDBSink": duckdb.DuckDBSink, "SQLiteSink": sqlite.SQLiteSink}[sys.argv[1]](sys.argv[2])
store.prepare([Dataset.parse("ohlcv")])
"""


@pytest.mark.parametrize("step", ["prepare", "_insert"])
def test_a_migration_that_is_killed_has_not_happened(old: Store, step: str) -> None:
    before = content(old)
    command = [sys.executable, "-c", _KILLED, type(old).__name__, str(old.path), step]
    assert subprocess.run(command, check=False, timeout=250).returncode == -signal.SIGKILL
    assert content(old) == before
    old.prepare(KINDS)
    assert content(old) == before


_CLERK = """
import os, sys
from marketfetch.errors import SinkError
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.values.datasets import Dataset
import duckdb

kinds = [Dataset.parse("ohlcv")]
if os.geteuid() == 0:  # whom no mode of a file keeps from writing
    os.setgroups([])
    os.setuid(65534)
columns = {"ohlcv": {"open": "o"}, "premium_index": {"close": "pfr"}}
mapping = TableMapping("candles", time="ts", symbol="symbol", columns=columns)
kind = {"DuckDBSink": DuckDBSink, "SQLiteSink": SQLiteSink}[sys.argv[1]]
store = kind(sys.argv[2], table=mapping if sys.argv[3] == "mapped" else None)
ledger = store.ledger()
print(len(ledger), store.coverage(ledger) == ledger)
try:
    store.prepare(kinds)
except SinkError as error:
    print(error)
"""


def test_an_old_store_that_may_not_be_written_is_refused_as_it_is(old: Store) -> None:
    before = old.path.read_bytes()
    home = short_folder("mf-readonly-")  # where others may look, unlike the folder of a test
    try:
        path = home / "store"
        path.write_bytes(before)
        path.chmod(0o444)
        home.chmod(0o555)
        command = [sys.executable, "-c", _CLERK, type(old).__name__, str(path), "mapped" if old.table else ""]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
        assert said.stdout.startswith("4 True\n"), said.stderr
        assert re.search(
            "make the file and its folder readable and writable|make its folder writable", said.stdout
        ), said.stderr
        assert path.read_bytes() == before
        assert list(home.iterdir()) == [path]
    finally:
        home.chmod(0o755)
        shutil.rmtree(home)


def test_of_many_that_prepare_at_once_one_migrates(old: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_connection, "LOCK_TIMEOUT", 50.0)  # eight take turns on a busy machine
    before = content(old)

    def prepare(_: int) -> None:
        type(old)(old.path, table=old.table).prepare(KINDS)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(prepare, range(8)))
    assert content(old) == before
