"""What a store says is compared with what it has, and taken back where the two differ."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

import marketfetch as mf
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Store, Writer
from marketfetch.reports import Problem
from marketfetch.sinks.merging import merge
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from marketfetch.verification.ledger import LedgerEntry, compare
from tests.support.batches import MINUTE, START, batch, candles
from tests.support.commands import Command

SOUND = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0}


S = TypeVar("S", bound=Store)


def minutes(first: int, last: int) -> Span:
    return Span(START + first * MINUTE, START + last * MINUTE)


class ForgetfulSink:
    """A store in memory that can forget, and whose rows a test may spoil behind the back of its ledger."""

    max_writers = 1

    def __init__(self) -> None:
        self.rows: dict[Series, Columns] = {}
        self.known: dict[Series, Coverage] = {}
        self.asked: list[Span] = []

    def prepare(self, datasets: object) -> None:
        pass

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        yield self._write

    def _write(self, batch: Batch) -> None:
        held = self.rows.get(batch.series, Columns.empty(batch.series.dataset))
        self.rows[batch.series] = merge([held, batch.columns], batch.series.dataset)
        self.known[batch.series] = self.known.get(batch.series, Coverage()) | batch.coverage

    def coverage(self, series: Collection[Series]) -> dict[Series, Coverage]:
        return {one: self.known.get(one, Coverage()) for one in series}

    def ledger(self) -> dict[Series, Coverage]:
        return dict(self.known)

    def read(self, series: Series, span: Span) -> Columns:
        self.asked.append(span)
        rows = self.rows.get(series, Columns.empty(series.dataset))
        return rows.take((rows.times >= span.start) & (rows.times < span.end))

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        self.known[series] = self.known[series].without(spans)
        if rows:
            held = self.rows[series]
            inside = np.array([int(time) in spans for time in held.times], np.bool_)
            self.rows[series] = held.take(~inside)


def filled(sink: S, count: int = 100, *, empty: Span | None = None, unusable: Span | None = None) -> S:
    series = candles()
    sink.prepare([series.dataset])
    with sink.writer() as write:
        write(batch(series, range(count), **SOUND))
        nothing = Columns.empty(series.dataset)
        for span, name in ((empty, "empty"), (unusable, "unusable")):
            if span is not None:
                write(Batch(series, nothing, Coverage(SpanSet.of(span), **{name: SpanSet.of(span)})))
    return sink


def problems(verification: mf.reports.Verification) -> dict[Problem, SpanSet]:
    return {finding.problem: finding.spans for finding in verification.findings}


STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: mf.MemorySink(),
    "sqlite": lambda path: mf.SQLiteSink(path / "market.sqlite"),
    "duckdb": lambda path: mf.DuckDBSink(path / "market.duckdb"),
    "parquet": lambda path: mf.ParquetSink(path / "market"),
}


@pytest.mark.parametrize("kind", STORES)
def test_sound_store_has_nothing_wrong(kind: str, tmp_path: Path) -> None:
    store = filled(STORES[kind](tmp_path), empty=minutes(100, 160))
    verification = mf.verify(store)
    assert verification.ok
    assert verification.findings == ()
    assert verification.rows == {candles(): 100}


def test_rows_deleted_behind_the_ledger_are_found_with_the_commands_that_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "market.sqlite"
    filled(mf.SQLiteSink(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "DELETE FROM marketfetch_ohlcv WHERE open_time IN (?, ?)",
            [START + 7 * MINUTE, START + 8 * MINUTE],
        )
    verification = mf.verify(f"sqlite:{path}", symbols="BTCUSDT", datasets="ohlcv", interval="1m")
    assert not verification.ok
    (finding,) = verification.findings
    assert (finding.problem, finding.spans, finding.rows) == (
        Problem.MISSING,
        SpanSet.of(minutes(7, 9)),
        2,
    )
    named = (
        f"--to sqlite:{path} --exchange binance-usdm --dataset ohlcv --symbol BTCUSDT --interval 1m "
        "--start 2020-01-01T00:07:00Z --end 2020-01-01T00:09:00Z"
    )
    assert finding.remedy == f"marketfetch forget {named} && marketfetch backfill {named}"


@pytest.mark.parametrize("verdict", ["empty", "unusable"])
def test_row_where_the_ledger_says_there_is_none_is_found(verdict: str) -> None:
    sink = ForgetfulSink()
    filled(sink, **{verdict: minutes(100, 110)})  # type: ignore[arg-type]
    series = candles()
    more = batch(series, [103], **SOUND).columns
    sink.rows[series] = merge([sink.rows[series], more], series.dataset)
    problem = Problem.NOT_EMPTY if verdict == "empty" else Problem.NOT_UNUSABLE
    assert problems(mf.verify(sink)) == {problem: SpanSet.of(minutes(103, 104))}


def test_rows_that_nobody_covers_are_said_and_are_no_error() -> None:
    sink = ForgetfulSink()
    filled(sink)
    sink.known[candles()] = sink.known[candles()].without(SpanSet.of(minutes(0, 10), minutes(50, 51)))
    verification = mf.verify(sink)
    assert verification.ok
    assert problems(verification) == {Problem.NOT_COVERED: SpanSet.of(minutes(0, 10), minutes(50, 51))}
    assert repr(verification).splitlines()[0].endswith("series, nothing harmful>")


def test_unsound_rows_are_found() -> None:
    sink = ForgetfulSink()
    filled(sink)
    rows = sink.rows[candles()]
    times, values = rows.times.copy(), rows.values.copy()
    times[5] += 14_789  # in the cell of minute 5
    times[9] = times[8]  # twice minute 8, and minute 9 is gone
    values[0, 20] = 99.0  # above the high
    values[4, 30] = np.nan  # no volume
    times[[60, 61]] = times[[61, 60]]
    sink.rows[candles()] = Columns(times, values)
    assert problems(mf.verify(sink)) == {
        Problem.OFF_GRID: SpanSet.of(minutes(5, 6)),
        Problem.REPEATED: SpanSet.of(minutes(8, 9)),
        Problem.MISSING: SpanSet.of(minutes(9, 10)),
        Problem.IMPOSSIBLE: SpanSet.of(minutes(20, 21), minutes(30, 31)),
        Problem.UNSORTED: SpanSet.of(minutes(60, 61)),
    }


def test_damaged_month_is_a_finding_and_the_others_are_compared_all_the_same(tmp_path: Path) -> None:
    store = mf.ParquetSink(tmp_path / "market")
    filled(store, 90 * 1440)
    files = sorted((tmp_path / "market").rglob("2*.parquet"))
    assert [file.stem for file in files] == ["2020-01", "2020-02", "2020-03"]
    files[1].write_bytes(b"PAR1 not any more")
    verification = mf.verify(store)
    (finding,) = verification.findings
    assert finding.problem is Problem.UNREADABLE
    assert str(files[1]) in finding.detail
    assert finding.spans == SpanSet.of(minutes(31 * 1440, 60 * 1440))
    assert verification.rows == {candles(): (31 + 30) * 1440}


def test_series_of_years_is_read_in_pieces() -> None:
    sink = ForgetfulSink()
    filled(sink, 1000)
    years = Span(START, START + 3 * 366 * 1440 * MINUTE)
    sink.known[candles()] = Coverage(
        SpanSet.of(years), empty=SpanSet.of(Span(minutes(0, 1000).end, years.end))
    )
    assert mf.verify(sink).ok
    assert max(span.length for span in sink.asked) == 100_000 * MINUTE


def test_events_may_come_at_any_moment_but_not_where_there_are_none() -> None:
    sink, series = ForgetfulSink(), Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "1m")
    spans = SpanSet.of(Span(START, START + 90 * 86_400_000))
    times = START + np.array([5, 28_800_009, 60 * 86_400_000])
    with sink.writer() as write:
        write(Batch(series, Columns(times, np.full((3, 3), 0.001)), Coverage(spans)))
    assert mf.verify(sink).ok
    empty = SpanSet.of(Span(START + 50 * 86_400_000, START + 90 * 86_400_000))
    sink.known[series] = Coverage(spans, empty)
    (finding,) = mf.verify(sink).findings
    assert (finding.problem, finding.rows) == (Problem.NOT_EMPTY, 1)


def test_months_lie_on_their_own_grid() -> None:
    series = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1M")
    span = Span(START, series.interval.shift(START, 24))
    opens = series.interval.grid(span)
    rows = Columns(np.delete(opens, 3), np.ones((4, 23)))
    found = compare(LedgerEntry.of(series, Coverage(SpanSet.of(span))), span, rows)
    assert {problem: times.tolist() for problem, times in found.items()} == {Problem.MISSING: [int(opens[3])]}


def test_forgotten_moments_are_asked_for_again() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        sink = ForgetfulSink()

        def fetch() -> mf.Report:
            return mf.fetch(
                "binance-usdm",
                "ohlcv",
                ["BTCUSDT", "ETHUSDT"],
                interval="1h",
                start="2026-06-01",
                end="2026-06-02",
                to=sink,
                base_url=exchange.base_url,
            ).report

        def forget(*, dry_run: bool) -> Mapping[Series, SpanSet]:
            start, end = "2026-06-01T03:30:00Z", "2026-06-01T05:00:00Z"
            return mf.forget(sink, symbols="BTCUSDT", start=start, end=end, rows=True, dry_run=dry_run)

        assert fetch().rows_written == 48
        before = {series: rows.values.copy() for series, rows in sink.rows.items()}
        dry = forget(dry_run=True)
        assert fetch().requests == 0
        forgotten = forget(dry_run=False)
        assert forgotten == dry
        assert {str(series): str(spans) for series, spans in forgotten.items()} == {
            "binance-usdm ohlcv BTCUSDT 1h": "[2026-06-01T03:00:00Z, 2026-06-01T05:00:00Z)"
        }
        assert len(sink.rows[Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")]) == 22
        assert fetch().rows_written == 2
        for series, rows in sink.rows.items():
            np.testing.assert_array_equal(rows.values, before[series])


def test_forgetting_has_to_name_what() -> None:
    sink = filled(ForgetfulSink())
    with pytest.raises(ConfigurationError, match=r"symbols: nothing is chosen; .*AllSymbols"):
        mf.forget(sink, start="2020-01-01")
    with pytest.raises(ConfigurationError, match="symbols: 'BTCUSD' is not held; did you mean 'BTCUSDT'"):
        mf.forget(sink, symbols="BTCUSD")
    with pytest.raises(ConfigurationError, match="datasets: 'funding_rate' is not held; choose one of ohlcv"):
        mf.verify(sink, datasets="funding_rate")
    with pytest.raises(ConfigurationError, match="exchange: 'okx' is not held"):
        mf.verify(sink, symbols="BTCUSDT", datasets="ohlcv", interval="1m", exchange="okx")
    with pytest.raises(ConfigurationError, match=r"start: .* is not before end"):
        mf.forget(sink, symbols="BTCUSDT", start="2020-01-02", end="2020-01-01")
    for some in (mf.AllSymbols("USDT"), mf.AllSymbols(kind="future"), mf.AllSymbols(delisted=True)):
        with pytest.raises(ConfigurationError, match=r"symbols: .* AllSymbols\(\) for all series, or names"):
            mf.forget(sink, symbols=some, rows=True)
    assert mf.forget(sink, symbols=mf.AllSymbols()) == {candles(): SpanSet.of(minutes(0, 100))}
    assert not sink.coverage([candles()])[candles()].covered


def test_store_that_cannot_forget_says_so(tmp_path: Path) -> None:
    class Plain:
        """Everything a store has, but for forgetting."""

        max_writers = 1
        prepare = writer = coverage = ledger = read = mf.MemorySink().read

    with pytest.raises(ConfigurationError, match="store: Plain has no forget"):
        mf.forget(Plain(), symbols="BTCUSDT")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="store: list lacks max_writers"):
        mf.verify([])  # type: ignore[arg-type]


def test_one_series_is_asked_for_alone() -> None:
    class Narrow(ForgetfulSink):
        def ledger(self) -> dict[Series, Coverage]:
            raise AssertionError("the whole ledger was asked for")

    sink = filled(Narrow())
    assert mf.verify(sink, symbols="BTCUSDT", datasets="ohlcv", interval="1m", exchange="binance-usdm").ok
    assert mf.forget(sink, symbols="BTCUSDT", datasets="ohlcv", interval="1m", exchange="binance-usdm")


def test_command_line_verifies_and_filters(marketfetch: Command, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/market.sqlite"
    filled(mf.SQLiteSink(tmp_path / "market.sqlite"), empty=minutes(200, 210))
    result = marketfetch("verify", "--to", store)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("100 rows of 1 series compared with the ledger: nothing wrong")
    assert marketfetch("verify", "--to", store, "--quiet").stdout == ""

    with closing(sqlite3.connect(tmp_path / "market.sqlite")) as connection, connection:
        connection.execute("DELETE FROM marketfetch_ohlcv WHERE open_time = ?", [START])
    result = marketfetch("verify", "--to", store, "--symbol", "BTCUSDT", "--json")
    assert (result.returncode, result.stderr) == (1, "")
    parsed = json.loads(result.stdout)
    assert (parsed["ok"], parsed["findings"][0]["problem"]) == (False, "missing")
    assert "1 series with problems" in marketfetch("verify", "--to", store, "--quiet").stdout
    result = marketfetch("verify", "--to", store, "--symbol", "BTCUSD")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--symbol: 'BTCUSD' is not held; did you mean 'BTCUSDT'?" in result.stderr

    result = marketfetch("coverage", "--to", store, "--symbol", "BTCUSDT", "--exchange", "binance-usdm")
    assert result.returncode == 1
    assert result.stdout.startswith("1 series, 1 of them with holes")
    result = marketfetch("coverage", "--to", store, "--dataset", "funding_rate")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--dataset: 'funding_rate' is not held" in result.stderr

    result = marketfetch("forget", "--to", store)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--symbol: nothing is chosen; name series by --symbol" in result.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_commands_of_a_finding_mend_it(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, scheme: str
) -> None:
    store = f"{scheme}:{tmp_path}/market.{scheme}"
    job = ["--exchange", "binance-usdm", "--symbol", "BTCUSDT", "--interval", "1h", "--to", store]
    job += ["--start", "2026-06-01", "--end", "2026-06-03", "--base-url", exchange.base_url]
    assert marketfetch("backfill", *job).returncode == 0
    before = mf.verify(store)
    assert before.ok
    _delete_rows(tmp_path / f"market.{scheme}", scheme)
    assert json.loads(marketfetch("backfill", *job, "--json").stdout)["requests"] == 0, "it cannot know"

    result = marketfetch("verify", "--to", store, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["problem"], finding["rows"]) == ("missing", 2)
    for command in finding["remedy"].split(" && "):
        program, *words = shlex.split(command)
        assert program == "marketfetch"
        host = ["--base-url", exchange.base_url] if words[0] == "backfill" else []
        done = marketfetch(*words, *host)
        assert done.returncode == 0, done.stderr
    assert mf.verify(store).rows == before.rows
    assert mf.verify(store).ok

    # Without a span all of it is forgotten, and with --rows there is nothing left.
    chosen = ["--to", store, "--symbol", "BTCUSDT"]
    result = marketfetch("forget", *chosen, "--rows", "--dry-run")
    assert result.stdout.startswith("Would forget coverage and rows of 1 series"), result.stderr
    assert mf.verify(store).rows == before.rows
    result = marketfetch("forget", *chosen, "--rows", "--json")
    assert result.returncode == 0, result.stderr
    (forgotten,) = json.loads(result.stdout)
    assert forgotten["forgotten"] == [{"start": "2026-06-01T00:00:00Z", "end": "2026-06-03T00:00:00Z"}]
    result = marketfetch("coverage", "--to", store)
    assert (result.returncode, result.stdout) == (2, "")
    assert "holds nothing yet" in result.stderr


def _delete_rows(path: Path, scheme: str) -> None:
    times = [1_780_279_200_000, 1_780_282_800_000]  # 02:00 and 03:00
    if scheme == "sqlite":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM marketfetch_ohlcv WHERE open_time IN (?, ?)", times)
        return
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("DELETE FROM marketfetch_ohlcv WHERE epoch_ms(open_time) IN (?, ?)", times)


@pytest.mark.parametrize("damage", ["removed", "cut short"])
def test_commands_of_a_finding_mend_a_parquet_file(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, damage: str
) -> None:
    store = f"parquet:{tmp_path}/market"
    job = ["--exchange", "binance-usdm", "--symbol", "BTCUSDT", "--interval", "15m", "--to", store]
    job += ["--start", "2026-05-30", "--end", "2026-06-03", "--base-url", exchange.base_url]
    assert marketfetch("backfill", *job).returncode == 0
    before = mf.verify(store)
    assert before.ok
    (file,) = (tmp_path / "market").rglob("2026-06.parquet")
    file.unlink() if damage == "removed" else file.write_bytes(file.read_bytes()[:100])

    verification = mf.verify(store)
    assert {finding.problem for finding in verification.findings} == {Problem.UNREADABLE}
    assert verification.rows == dict.fromkeys(before.rows, 192)
    (finding,) = verification.findings
    for command in finding.remedy.split(" && "):
        words = shlex.split(command)[1:]
        done = marketfetch(*words, *(["--base-url", exchange.base_url] if words[0] == "backfill" else []))
        assert done.returncode == 0, done.stderr
    # What the lost file covered nobody knows: all of its month was fetched.
    assert mf.verify(store).ok
    assert json.loads(marketfetch("backfill", *job, "--json").stdout)["requests"] == 0
