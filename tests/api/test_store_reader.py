"""`mf.open`: tables out of a store, without an exchange and without writing."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pytest

import marketfetch as mf
from marketfetch.api.reading import HeldSeries
from marketfetch.api.upkeep.export import ExportResult
from marketfetch.api.upkeep.refetch import SeriesChange
from marketfetch.errors import ConfigurationError, IncompleteError, IncompleteWarning, SinkUnavailable
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from tests.support.batches import MINUTE, START, batch, candles
from tests.support.postgres import short_folder
from tests.support.roles import role

BTC, ETH = candles(), candles("ETHUSDT")
FUNDING = mf.Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
ROWS = 300


def fill(store: mf.Store) -> None:
    store.prepare([BTC.dataset, FUNDING.dataset])
    with store.writer() as write:
        write(batch(BTC, range(ROWS), close=np.arange(ROWS)))
        write(batch(ETH, range(100), close=7))
        write(batch(ETH, range(110, 200), close=8))
        events = batch(FUNDING, [0, 480], funding_rate=[0.5, 0.25])
        covered = mf.SpanSet.of(mf.Span(START, START + 600 * MINUTE))
        write(Batch(FUNDING, events.columns, Coverage(covered)))


def make(kind: str, folder: Path) -> mf.Store:
    places = {"duckdb": "market.duckdb", "sqlite": "market.sqlite", "parquet": "market"}
    store = mf.sinks.sink_from(f"{kind}:{folder / places[kind]}" if kind in places else "memory:")
    assert isinstance(store, mf.Store)
    return store


@pytest.fixture(params=["duckdb", "sqlite", "parquet"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> mf.Store:
    return make(request.param, tmp_path)


class Plain:
    """A store of somebody's own: what every Store has, and nothing more."""

    max_writers = 1

    def __init__(self, store: mf.Store) -> None:
        self.prepare, self.writer, self.coverage = store.prepare, store.writer, store.coverage
        self.ledger, self.read = store.ledger, store.read


class Reading:
    """What is the same in every store."""

    def test_a_table_has_the_rows_of_the_span(self, store: mf.Store) -> None:
        table = mf.open(store).table("ohlcv", "BTC/USDT", start=START + MINUTE, end=START + 4 * MINUTE)
        assert isinstance(table, mf.Table)
        assert table.report.complete
        frame = table.to_pandas()
        assert frame.close.tolist() == [1, 2, 3]
        assert frame.symbol.unique().tolist() == ["BTCUSDT"]
        assert frame.open_time.iloc[0] == datetime(2020, 1, 1, 0, 1, tzinfo=UTC)

    def test_without_a_span_it_has_all_that_is_held(self, store: mf.Store) -> None:
        market = mf.open(store)
        assert len(market.table("ohlcv", "btcusdt")) == ROWS
        with pytest.warns(IncompleteWarning, match=r"ETHUSDT: missing .*01:40.*01:50.*not in the store"):
            both = market.table("ohlcv", interval="1m")
        assert {series.symbol: len(rows) for series, rows in both.rows.items()} == {
            "BTCUSDT": 300,
            "ETHUSDT": 190,
        }
        assert not both.report.complete
        assert len(market.table("ohlcv", "BTCUSDT", start=START + 290 * MINUTE)) == 10
        assert len(market.table("ohlcv", "BTCUSDT", end=START + 7 * MINUTE)) == 7

    def test_several_datasets_make_several_tables(self, store: mf.Store) -> None:
        tables = mf.open(store).table(["ohlcv", "funding_rate"], "BTC/USDT", interval="1m")
        assert {name: len(table) for name, table in tables.items()} == {"ohlcv": ROWS, "funding_rate": 2}
        assert list(mf.open(store).table(["ohlcv"], "BTCUSDT")) == ["ohlcv"]

    def test_what_is_asked_and_not_held_is_told(self, store: mf.Store) -> None:
        market, late = mf.open(store), START + 290 * MINUTE
        asked: dict[str, Any] = {"start": late, "end": late + 20 * MINUTE}
        with pytest.warns(IncompleteWarning, match=r"ohlcv: BTCUSDT: missing .*not in the store") as caught:
            assert len(market.table("ohlcv", "BTCUSDT", **asked)) == 10
        assert caught[0].filename == __file__
        with pytest.raises(IncompleteError, match="BTCUSDT"):
            market.table("ohlcv", "BTCUSDT", **asked, on_missing="raise")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = market.table("ohlcv", "BTCUSDT", **asked, on_missing="ignore")
        (line,) = table.report.series
        assert [gap.spans for gap in line.missing] == [
            mf.SpanSet.of(mf.Span(late + 10 * MINUTE, late + 20 * MINUTE))
        ]

    @pytest.mark.parametrize("asked", [{"start": START + 900 * MINUTE}, {"end": START - 900 * MINUTE}])
    def test_a_span_of_which_nothing_is_held_is_told(self, store: mf.Store, asked: dict[str, Any]) -> None:
        with pytest.warns(IncompleteWarning, match="not in the store"):
            assert len(mf.open(store).table("ohlcv", "BTCUSDT", **asked)) == 0

    def test_latest_returns_the_newest_rows_of_each_symbol(self, store: mf.Store) -> None:
        table = mf.open(store).latest(3, "ohlcv", ["eth/usdt", "BTC-USDT"])
        assert table.to_pandas().close.tolist() == [8, 8, 8, 297, 298, 299]
        assert table.report.complete
        counts: list[Any] = [2, 1000, 2**70, np.int64(7)]
        for many in counts:
            assert len(mf.open(store).latest(many, "funding_rate", "BTCUSDT")) == 2

    def test_a_gap_among_the_newest_rows_is_in_the_report(self, store: mf.Store) -> None:
        table = mf.open(store).latest(95, "ohlcv", "ETHUSDT")
        assert len(table) == 95
        (line,) = table.report.series
        assert line.missing[0].spans == mf.SpanSet.of(mf.Span(START + 100 * MINUTE, START + 110 * MINUTE))

    def test_series_lists_what_is_held(self, store: mf.Store) -> None:
        found = {held.series: held for held in mf.open(store).series()}
        assert list(found) == sorted([BTC, ETH, FUNDING], key=str)
        eth = found[ETH]
        assert (eth.first, eth.last, eth.rows) == (START, START + 199 * MINUTE, 190)
        assert eth.gaps == mf.SpanSet.of(mf.Span(START + 100 * MINUTE, START + 110 * MINUTE))
        assert found[FUNDING].rows is None
        assert eth.as_dict() == {
            "exchange": "binance-usdm",
            "dataset": "ohlcv",
            "symbol": "ETHUSDT",
            "interval": "1m",
            "first": "2020-01-01T00:00:00Z",
            "last": "2020-01-01T03:19:00Z",
            "rows": 190,
            "gaps": [{"start": "2020-01-01T01:40:00Z", "end": "2020-01-01T01:50:00Z"}],
        }

    def test_coverage_is_that_of_the_store(self, store: mf.Store) -> None:
        assert mf.open(store).coverage() == store.ledger()
        assert mf.open(store).coverage("ohlcv", "eth/usdt") == store.coverage([ETH])

    def test_a_closed_reader_is_refused(self, store: mf.Store) -> None:
        with mf.open(store) as market:
            assert len(market.latest(1, "ohlcv", "BTCUSDT")) == 1
        for call in (
            market.series,
            market.coverage,
            lambda: market.latest(1),
            market.table,
            market.__enter__,
        ):
            with pytest.raises(ConfigurationError, match="is closed; call open again"):
                call()


class TestReadingAFileOrMemory(Reading):
    @pytest.fixture(params=["memory", "duckdb", "sqlite", "parquet"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> mf.Store:
        store = make(request.param, tmp_path)
        fill(store)
        return store


class TestReadingPostgres(Reading):
    @pytest.fixture
    def store(self, postgres_dsn: str) -> mf.Store:
        store = mf.PostgresSink(postgres_dsn)
        fill(store)
        return store


def test_a_candle_that_is_still_forming_is_not_missing() -> None:
    store, day = mf.MemorySink(), 86_400_000
    series = candles(interval="1d")
    now = series.interval.floor(int(datetime.now(UTC).timestamp() * 1000))
    times = np.arange(now - 3 * day, now, day)
    with store.writer() as write:
        rows = Columns(times, np.ones((len(series.dataset.columns), 3)))
        write(Batch(series, rows, Coverage(series.interval.cover(times))))
    table = mf.open(store).table("ohlcv", "BTCUSDT", start=now - 3 * day, end="now")
    assert table.report.complete
    assert len(table) == 3


def test_a_store_of_somebodys_own_is_read_too() -> None:
    store = mf.MemorySink()
    fill(store)
    market = mf.open(Plain(store))
    assert market.latest(2, "ohlcv", "BTCUSDT").to_pandas().close.tolist() == [298, 299]
    assert len(market.table("ohlcv", "BTC/USDT")) == ROWS


@pytest.mark.parametrize(
    ("asked", "expected_message"),
    [
        ({"dataset": "olhcv"}, r"dataset: 'olhcv' is unknown; did you mean 'ohlcv'"),
        ({"dataset": "mark_price"}, "dataset: 'mark_price' is not held; choose one of funding_rate, ohlcv"),
        ({"dataset": "ohlcv,funding_rate"}, r"names several; write a list: \['ohlcv', 'funding_rate'\]"),
        ({"dataset": []}, "datasets: none given"),
        ({"symbols": "BTCUSD"}, "symbols: 'BTCUSD' is not held; did you mean 'BTCUSDT'"),
        ({"symbols": []}, "symbols: none given"),
        ({"symbols": 7}, "symbols: 7 is not a name"),
        ({"interval": "1h"}, "interval: '1h' of BTCUSDT is not held; choose one of 1m"),
        ({"interval": "1x"}, "interval: '1x' is unknown"),
        ({"exchange": "okx"}, "exchange: 'okx' is not held; choose one of binance-usdm"),
        ({"exchange": 7}, "exchange: 7 is not a name"),
        ({"start": "2020-01-02", "end": "2020-01-01"}, "start: 2020-01-02T00:00:00Z is not before end"),
        ({"start": datetime(2020, 1, 1, 12)}, "start: 2020-01-01T12:00:00 has no time zone"),  # noqa: DTZ001
        ({"on_missing": "warm"}, "on_missing: 'warm' is unknown; did you mean 'warn'"),
    ],
)
def test_a_wrong_call_is_refused_once(asked: dict[str, Any], expected_message: str) -> None:
    store = mf.MemorySink()
    fill(store)
    given = {"dataset": "ohlcv", "symbols": "BTCUSDT", **asked}
    with pytest.raises(ConfigurationError, match=expected_message):
        mf.open(store).table(**given)
    with pytest.raises(ConfigurationError, match=expected_message):
        asyncio.run(mf.open(store).atable(**given))


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "3", None])
def test_a_wrong_number_of_rows_is_refused(n: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"n: .* is not a number of rows; write 1 or more"):
        mf.open("memory:").latest(n, "ohlcv")
    with pytest.raises(ConfigurationError, match="n: 'ohlcv' is not a number of rows"):
        mf.open("memory:").latest("ohlcv", "BTCUSDT", 5)  # type: ignore[arg-type]


def test_latest_of_several_datasets_is_refused() -> None:
    several: Any = ["ohlcv", "funding_rate"]
    with pytest.raises(ConfigurationError, match="dataset: a table holds one, not 2"):
        mf.open("memory:").latest(1, several)


def test_what_is_no_store_is_refused() -> None:
    csv_like: Any = object()
    with pytest.raises(ConfigurationError, match="store: object lacks"):
        mf.open(csv_like)
    retries: Any = 3
    with pytest.raises(ConfigurationError, match="retries: int is not a RetryPolicy"):
        mf.open("memory:", retries=retries)


def test_a_store_that_does_not_exist_is_refused_and_not_made(on_disk: mf.Store, tmp_path: Path) -> None:
    market = mf.open(on_disk)
    for call in (market.series, market.table, lambda: market.latest(1)):
        with pytest.raises(ConfigurationError, match=r"does not exist|no such folder"):
            call()
    assert not list(tmp_path.iterdir())


def test_an_empty_store_says_so(postgres_dsn: str) -> None:
    market = mf.open(postgres_dsn)
    with pytest.raises(
        ConfigurationError, match=r"store: PostgresSink.* holds no series; fetch into it first"
    ):
        market.table()
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('marketfetch')").fetchone() == (None,)


def content(folder: Path) -> dict[Path, tuple[str, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


READ = """
import os, sys
import marketfetch as mf

def read():
    with mf.open(sys.argv[1]) as market:
        newest = market.latest(7, "ohlcv", "BTCUSDT")
        return len(market.table("ohlcv", "BTC/USDT").to_pandas()), len(newest), len(market.series())

read()  # while all modules can still be imported
if os.geteuid() == 0:  # whom no mode of a file keeps from writing
    os.setgroups([])
    os.setuid(65534)
print(*read())
"""


def test_reading_needs_no_right_to_write(on_disk: mf.Store) -> None:
    fill(on_disk)
    scheme, _, name = repr(on_disk).replace("Sink('", ":").rstrip("')").partition(":")
    home = short_folder("mf-readonly-")  # where others may look, unlike the folder of a test
    place = home / Path(name).name
    try:
        shutil.move(name, place)
        before = content(home)
        for path in (*home.rglob("*"), home):
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", READ, f"{scheme.lower()}:{place}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
        assert result.stdout == f"{ROWS} 7 3\n", result.stderr
        assert content(home) == before
    finally:
        for path in (home, *home.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(home)


RIGHTS = (
    "GRANT USAGE ON SCHEMA marketfetch TO {role}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA marketfetch TO {role}",
)


def test_a_role_that_may_only_select_reads(postgres_dsn: str) -> None:
    fill(mf.PostgresSink(postgres_dsn))
    with role(postgres_dsn, *RIGHTS) as dsn:
        market = mf.open(mf.PostgresSink(dsn))
        assert len(market.table("ohlcv", "BTC/USDT")) == ROWS
        assert market.latest(2, "ohlcv", "BTCUSDT").to_pandas().close.tolist() == [298, 299]
        assert len(market.series()) == 3


class Held(mf.MemorySink):
    """A store that another program holds for the first calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.threads: set[int] = set()

    def series(self) -> Any:
        self.threads.add(threading.get_ident())
        if self.times:
            self.times -= 1
            raise SinkUnavailable("market.duckdb: another process has it open")
        return super().series()


@pytest.fixture
def held() -> Held:
    store = Held(0)
    fill(store)
    store.times = 2
    return store


PATIENT = mf.RetryPolicy(attempts=3, initial=0.001)


def test_a_store_in_use_is_waited_for_visibly(held: Held) -> None:
    with pytest.warns(RuntimeWarning, match="another process has it open") as caught:
        assert len(mf.open(held, retries=PATIENT).latest(5, "ohlcv", "BTCUSDT")) == 5
    assert [warning.filename for warning in caught] == [__file__] * 2
    held.times = 9
    with pytest.warns(RuntimeWarning), pytest.raises(SinkUnavailable):
        mf.open(held, retries=PATIENT).latest(5, "ohlcv", "BTCUSDT")


async def test_on_a_loop_it_is_read_on_a_thread(held: Held) -> None:
    market = mf.open(held, retries=PATIENT)
    with pytest.warns(RuntimeWarning, match="another process has it open"):
        newest = await market.alatest(5, "ohlcv", "BTC/USDT")
    assert newest.to_pandas().close.tolist() == [295, 296, 297, 298, 299]
    table, tables = await asyncio.gather(
        market.atable("ohlcv", "BTCUSDT"), market.atable(["funding_rate"], "BTCUSDT")
    )
    assert (len(table), len(tables["funding_rate"])) == (ROWS, 2)
    assert threading.get_ident() not in held.threads


async def test_on_a_loop_what_is_missing_is_told(held: Held) -> None:
    held.times = 0
    with pytest.warns(IncompleteWarning, match="ETHUSDT"):
        await mf.open(held).atable("ohlcv", "ETHUSDT")


def test_on_a_loop_of_trio_it_is_refused() -> None:
    market = mf.open("memory:")
    coroutine = market.alatest(1)
    with pytest.raises(ConfigurationError, match="asyncio is needed"):
        coroutine.send(None)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[mf.DuckDBSink]:
    store = mf.DuckDBSink(tmp_path / "market.duckdb")
    fill(store)
    with store.writer() as write:
        write(batch(BTC, [ROWS], close=1))
        yield store


def test_what_a_writer_of_this_process_has_committed_is_read(writing: mf.DuckDBSink) -> None:
    assert len(mf.open(writing).table("ohlcv", "BTCUSDT")) == ROWS + 1


def test_beside_a_reader_another_program_may_read(on_disk: mf.Store) -> None:
    if not isinstance(on_disk, mf.DuckDBSink):
        pytest.skip("only DuckDB locks its file")
    fill(on_disk)
    with closing(duckdb.connect(on_disk.path, read_only=True)):
        assert len(mf.open(on_disk).latest(3, "ohlcv", "BTCUSDT")) == 3


def test_what_is_held_is_printed_in_a_line() -> None:
    one = mf.SpanSet.of(mf.Span(START, START + MINUTE))
    shown = str(HeldSeries(BTC, Coverage(one)))
    assert shown.startswith(f"{BTC}  ")
    assert shown.endswith(", 1 row")
    hostile = candles("BTC\x1b[2J\nUSDT")
    changed = SeriesChange(hostile, one, {"close": 1}, 0, 0)
    for text in (HeldSeries(hostile, Coverage(one)), HeldSeries(hostile, Coverage()), changed):
        assert str(text).isprintable()
    exported = str(ExportResult({hostile: 1}, {hostile: one}))
    assert all(line.isprintable() for line in exported.splitlines())
    assert len(exported.splitlines()) == 2
