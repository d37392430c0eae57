"""What only the DuckDB store does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError, RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.duckdb import connect, memory_limit, row_merge, shared_connection
from marketfetch.sinks.duckdb.connect import open_file
from marketfetch.sinks.duckdb.errors import OpenedFile, sink_error
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.files import atomic_files
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT, locked_directory
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.sql.coverage_tables import FileCoverageTables
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from tests.support.batches import EVER, assert_alike, batch, candles, premium

OHLCV = Dataset.parse("ohlcv")
VALUES = st.lists(st.sampled_from([1.0, 2.0, np.nan]), max_size=4)


@pytest.fixture
def store(tmp_path: Path) -> DuckDBSink:
    store = DuckDBSink(tmp_path / "marketfetch.duckdb")
    store.prepare([OHLCV])
    return store


def test_the_view_has_timestamps_and_the_table_no_index(store: DuckDBSink) -> None:
    with store.writer() as take:
        take(batch(candles(), [1], open=1))
    with duckdb.connect(store.path) as connection:
        assert connection.execute("SELECT open_time FROM ohlcv").fetchall() == [(datetime(2020, 1, 1, 0, 1),)]  # noqa: DTZ001
        indexed = connection.execute("SELECT table_name FROM duckdb_indexes()").fetchall()
        assert indexed == [("marketfetch_series",)]  # which has a row for a series, and none for a candle
        keys = "SELECT DISTINCT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        assert ("marketfetch_ohlcv",) not in connection.execute(keys).fetchall()


def test_a_file_that_another_process_holds_is_unavailable(
    store: DuckDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_connection, "LOCK_TIMEOUT", 0.1)
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SinkUnavailable, match=r"one process at a time .*: end the other one"):
            store.prepare([OHLCV])
        other.communicate("")
    store.prepare([OHLCV])


@attrs.define
class Clock:
    """Time that passes only while somebody sleeps; something happens at a moment."""

    now: float = 0.0
    at: float = 0.0
    happens: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.at <= self.now < self.at + seconds:
            self.happens()


def test_the_line_and_the_file_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(path: Path) -> None:
        raise duckdb.IOException("Could not set lock on file")

    monkeypatch.setattr(duckdb, "connect", held)
    with ExitStack() as line:
        line.enter_context(locked_directory(tmp_path))
        clock = Clock(at=LOCK_TIMEOUT * 3 / 4, happens=line.close)
        for module in (connect, atomic_files):
            monkeypatch.setattr(module, "sleep", clock.sleep)
            monkeypatch.setattr(module, "monotonic", lambda: clock.now)
        with pytest.raises(duckdb.IOException, match="lock on file"):
            open_file(tmp_path / "x.duckdb", LOCK_TIMEOUT)
    assert LOCK_TIMEOUT <= clock.now < LOCK_TIMEOUT * 5 / 4


def limit_of(connection: duckdb.DuckDBPyConnection) -> str:
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(limit)


@pytest.mark.usefixtures("kept_open")
def test_your_own_connection_has_its_memory_again_after_a_run(store: DuckDBSink) -> None:
    with duckdb.connect(store.path) as yours:
        for wanted in ("51.3 GiB", "700.0 MiB"):
            number, unit = wanted.split()
            yours.execute("SET memory_limit = ?", [f"{number}5 {unit}"])
            assert limit_of(yours) == wanted
            for _ in range(3):  # and does not lose a digit each time
                with store.writer() as take:
                    take(batch(candles(), [0], open=1))
                    assert limit_of(yours) == memory_limit._SMALL
                    store.read(candles(), EVER)  # comes later and goes earlier
                assert limit_of(yours) == wanted
        before = limit_of(yours)
        yours.execute("SET memory_limit = '-1'")
        endless = limit_of(yours)
        store.read(candles(), EVER)
        assert limit_of(yours) == endless != before


def test_the_last_of_several_stores_gives_the_memory_back(store: DuckDBSink) -> None:
    with duckdb.connect(store.path) as yours:
        yours.execute("SET memory_limit = '700.05 MiB'")
        with store._connected():
            with store.writer() as take:
                take(batch(candles(), [0], open=1))
            assert limit_of(yours) != "700.0 MiB"  # the one that began first is still there
        assert limit_of(yours) == "700.0 MiB"


@pytest.mark.usefixtures("kept_open")
def test_writing_takes_no_more_memory_than_is_allowed(store: DuckDBSink) -> None:
    frugal = DuckDBSink(store.path, memory_limit="10MB")
    with duckdb.connect(store.path) as yours, frugal.writer() as take:
        take(batch(candles(), [0], open=1))
        assert limit_of(yours) == "9.5 MiB"


def test_two_stores_of_one_process_write_side_by_side(store: DuckDBSink) -> None:
    def fill(symbol: str) -> int:
        refused = 0
        with DuckDBSink(store.path).writer() as take:
            for start in range(0, 100, 10):
                while True:
                    try:
                        take(batch(candles(symbol), range(start, start + 15), open=1))
                        break
                    except SinkUnavailable:
                        refused += 1
        return refused

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fill, ["BTCUSDT", "BTCUSDT", "ETHUSDT", "ETHUSDT"]))
    with duckdb.connect(store.path) as connection:
        counted = "SELECT symbol, count(*), count(DISTINCT open_time) FROM ohlcv GROUP BY ALL ORDER BY ALL"
        assert connection.execute(counted).fetchall() == [("BTCUSDT", 105, 105), ("ETHUSDT", 105, 105)]


def test_where_memory_is_scarce_every_row_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A commit that finds no memory is undone, but what DuckDB then holds of the table is not right any more.
    monkeypatch.setattr(memory_limit, "_SMALL", "6.0 MiB")
    store = DuckDBSink(tmp_path / "scarce.duckdb")
    store.prepare([OHLCV])
    numbers = np.random.default_rng(0)
    wanted: set[int] = set()
    with store.writer() as take:
        for first in (0, 15_000, 30_000, 60_000, 75_000, 90_000):
            rows = range(first, first + 25_000)
            wanted.update(rows)
            columns = {name: numbers.random(len(rows)) for name in ("open", "high", "low", "close", "volume")}
            take(batch(candles(), rows, **columns))
    with duckdb.connect(store.path) as connection:
        counted = connection.execute("SELECT count(*), count(DISTINCT open_time) FROM ohlcv").fetchone()
    assert counted == (len(wanted), len(wanted))


def test_a_file_in_whose_making_duckdb_was_killed_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "torn.duckdb"

    def killed(place: Path) -> None:
        place.write_bytes(b"torn")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(duckdb, "connect", killed)
        with pytest.raises(KeyboardInterrupt):
            DuckDBSink(path).prepare([OHLCV])
    assert not path.exists()
    DuckDBSink(path).prepare([OHLCV])
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_had_put_aside_is_removed(store: DuckDBSink) -> None:
    aside = store.path.with_name(f"{store.path.name}.tmp")
    aside.mkdir()
    (aside / "duckdb_temp_0_0_storage_DEFAULT-0.tmp").touch()
    (aside / f"duckdb_temp_{os.getpid()}_0_owner").touch()
    store.prepare([OHLCV])
    assert [file.name for file in aside.iterdir()] == [f"duckdb_temp_{os.getpid()}_0_owner"]


def test_others_have_the_file_between_two_batches(store: DuckDBSink) -> None:
    with store.writer() as take:
        take(batch(candles(), [0], open=1))
        script = "import marketfetch, sys; print(len(marketfetch.DuckDBSink(sys.argv[1]).ledger()))"
        command = [sys.executable, "-c", script, str(store.path)]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
        assert said.stdout == "1\n", said.stderr
        take(batch(candles(), [1], open=1))
    assert len(store.read(candles(), EVER)) == 2


@pytest.mark.parametrize("time", ["TIMESTAMP", "TIMESTAMPTZ", "BIGINT"])
def test_your_table_may_have_a_schema_and_decimals(tmp_path: Path, time: str) -> None:
    path = tmp_path / "mine.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE SCHEMA market")
        connection.execute(f"CREATE TABLE market.candles (ts {time}, s VARCHAR, o DECIMAL(18, 8), p DOUBLE)")
    columns = {"ohlcv": {"open": "o"}, "premium_index": {"close": "p"}}
    store = DuckDBSink(path, table=TableMapping("market.candles", time="ts", symbol="s", columns=columns))
    store.prepare([OHLCV, Dataset.parse("premium_index")])
    with store.writer() as take:
        for _ in range(2):  # tables without a key keep each row once, too
            take(batch(candles(), range(3), open=[0.1, 0.2, 0.3]))
            take(batch(premium(), [2, 3], close=9))
    with duckdb.connect(path) as connection:
        found = connection.execute("SELECT o, p FROM market.candles ORDER BY ts").fetchall()
    assert found == [(Decimal("0.1"), None), (Decimal("0.2"), None), (Decimal("0.3"), 9.0), (None, 9.0)]
    assert store.read(candles(), EVER).values[0].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("kind", [DuckDBSink, SQLiteSink])
def test_batches_that_are_committed_together_are_stored_as_one_by_one(
    kind: type[DuckDBSink | SQLiteSink], tmp_path: Path
) -> None:
    # Batches of one series overlap or not, within a group and with earlier groups; some values are NULL.
    store, expected, examples = kind(tmp_path / "market.file"), MemorySink(), count()
    for each in (store, expected):
        each.prepare([OHLCV])

    group = st.lists(st.tuples(st.booleans(), st.integers(0, 6), VALUES), min_size=1, max_size=4)

    @given(st.lists(group, max_size=4), st.sampled_from([1, 100]))
    @settings(max_examples=20, deadline=None)
    def check(groups: list[list[tuple[bool, int, list[float]]]], small: int) -> None:
        number = next(examples)
        series = candles(f"BTC{number}USDT"), candles(f"ETH{number}USDT")  # which no other example uses
        for group in groups:
            batches = [
                batch(series[other], range(first, first + len(values)), open=values)
                for other, first, values in group
            ]
            with patch.object(row_merge, "_SMALL", small):
                take(batches)
            for one in batches:
                take_alone(one)
        for each in series:
            assert_alike(store, expected, each)

    # Held open meanwhile: opening a file takes longer than all else.
    with store._connected(), store.group_writer() as take, expected.writer() as take_alone:
        check()


@attrs.define
class _Counting:
    """A connection that counts its statements."""

    inner: duckdb.DuckDBPyConnection
    statements: int = 0

    def execute(self, *args: Any) -> Any:
        self.statements += 1
        return self.inner.execute(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("rows", [range(60, 61), range(59, 61)], ids=["new rows", "rows that are held, too"])
def test_a_row_of_each_of_many_series_takes_few_statements(tmp_path: Path, rows: range) -> None:
    store, opened = DuckDBSink(tmp_path / "market.duckdb"), list[_Counting]()
    series = [candles(f"S{number}USDT") for number in range(200)]

    def counted(connection: duckdb.DuckDBPyConnection, batches: Sequence[Batch]) -> None:
        opened.append(_Counting(connection))
        write(store, opened[-1], batches)  # type: ignore[arg-type]  # it does what a connection does

    write = DuckDBSink._write
    store.prepare([OHLCV])
    with store.group_writer() as take, patch.object(DuckDBSink, "_write", lambda _, *args: counted(*args)):
        take([batch(one, range(60)) for one in series])
        take([batch(one, rows, open=2) for one in series])
    assert opened[-1].statements < 20
    with duckdb.connect(store.path) as connection:  # once: each `read` would open the file anew
        found = connection.execute(
            "SELECT symbol, count(*), count_if(open = 2), epoch_ms(min(open_time) FILTER (open = 2)) "
            "FROM ohlcv GROUP BY symbol"
        ).fetchall()
    first = batch(series[0], rows).columns.times[0]
    assert sorted(found) == sorted((one.symbol, 61, len(rows), first) for one in series)


def test_a_refused_batch_leaves_nothing_of_its_group(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "mine.duckdb") as connection:
        connection.execute(
            "CREATE TABLE mine (symbol VARCHAR, open_time TIMESTAMP, o DECIMAL(6, 2), "
            "UNIQUE (symbol, open_time))"
        )
    mapping = TableMapping("mine", symbol="symbol", time="open_time", columns={"ohlcv": {"open": "o"}})
    store = DuckDBSink(tmp_path / "mine.duckdb", table=mapping)
    store.prepare([OHLCV])
    sound, broken = (
        batch(candles("BTCUSDT"), range(3), open=1),
        batch(candles("ETHUSDT"), range(3), open=0.125),
    )
    with store.group_writer() as take, pytest.raises(RowsRefused, match="ETHUSDT"):
        take([sound, broken])
    assert not store.ledger()
    assert not len(store.read(sound.series, EVER))


def test_two_connections_that_write_one_series_meet(store: DuckDBSink) -> None:
    # Each adds a segment of its own, and sees none of the other's: what they write must collide all the same.
    with store.writer() as take:
        take(batch(candles(), [0], open=1))
    with duckdb.connect(store.path) as one, duckdb.connect(store.path) as other:
        for connection in (one, other):
            connection.execute("BEGIN")
        FileCoverageTables().add(one, [batch(candles(), range(10, 20), open=1)])
        with pytest.raises(duckdb.TransactionException):
            FileCoverageTables().add(other, [batch(candles(), range(15, 25), open=1)])
        one.execute("COMMIT")


class Explaining:
    """A connection that explains what it is asked."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        self.plans.append(str(self._connection.execute(f"EXPLAIN ANALYZE {sql}", parameters).fetchall()))
        return self._connection.execute(sql, parameters)


@pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB uses the index for such a lookup from 2.0 on")
def test_a_series_is_found_by_an_index(store: DuckDBSink) -> None:
    with duckdb.connect(store.path) as connection:
        connection.execute(
            "INSERT INTO marketfetch_series (id, target, exchange, dataset, symbol, interval) "
            "SELECT i, '', 'binance-usdm', 'ohlcv', 'S' || i || 'USDT', '1m' FROM range(5000) AS t (i)"
        )
        explaining = Explaining(connection)
        assert FileCoverageTables().find(explaining, candles("S7USDT")) == 7
    (plan,) = explaining.plans
    assert "Index Scan" in plan


class Starving:
    """A connection whose first ROLLBACK finds no memory."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection, self._left = connection, 1

    def execute(self, sql: str) -> object:
        if sql == "ROLLBACK" and self._left:
            self._left = 0
            raise duckdb.OutOfMemoryException("failed to allocate data of size 2.0 KiB")
        return self._connection.execute(sql)


def test_a_rollback_that_finds_no_memory_is_made_up_for(store: DuckDBSink) -> None:
    with store._connected() as connection:
        starving: Any = Starving(connection)
        with pytest.raises(KeyboardInterrupt), store._transaction(starving):
            raise KeyboardInterrupt
        with pytest.raises(SinkUnavailable, match="write again"), store._transaction(starving):
            pass
        with store._transaction(starving):
            pass


@pytest.mark.parametrize(
    "error",
    [
        duckdb.TransactionException("Failed to commit: could not allocate block of size 256.0 KiB"),
        duckdb.CatalogException("Table Function with name pandas_scan does not exist!"),
    ],
)
def test_what_others_of_the_process_get_in_the_way_of_may_be_written_again(
    error: duckdb.Error,
) -> None:
    assert isinstance(sink_error(error, OpenedFile(Path("market.duckdb"), "256MB")), SinkUnavailable)


def test_a_memory_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"Memory (limit )?must have a number"):
        DuckDBSink(tmp_path / "x.duckdb", memory_limit="much").prepare([OHLCV])


def test_without_duckdb_the_remedy_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketfetch.sinks.files.paths.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'marketfetch\[duckdb\]'"):
        DuckDBSink("x.duckdb")


def test_a_file_of_another_process_is_known_on_windows_in_any_language() -> None:
    said = (
        'IO Error: Cannot open file "C:\\\\market.duckdb": 另一个程序正在使用此文件。\n\n\n'
        "File is already open in \nC:\\\\Python\\\\python.exe (PID 8252)"
    )
    error = sink_error(duckdb.IOException(said), OpenedFile(Path("market.duckdb"), "256MB"))
    assert isinstance(error, SinkUnavailable)
    assert "one process at a time has the file" in str(error)
