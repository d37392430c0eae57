"""What is certain is accepted; what is not is refused at once, by one error that says what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import marketfetch as mf
from marketfetch.adapters.okx import Okx
from marketfetch.errors import ConfigurationError
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.times import parse_time

NOW = 1_795_000_000_000  # 2026-11-18T11:06:40Z
DAY = 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (datetime(2026, 11, 20), ms("2026-11-20")),  # noqa: DTZ001
        ("2026-11-20 00:00:00", ms("2026-11-20")),
        ("2026-11-20T00:00", ms("2026-11-20")),
        (date(2026, 11, 20), ms("2026-11-20")),
        (datetime(2026, 11, 20, 2, tzinfo=timezone(timedelta(hours=2))), ms("2026-11-20")),
        (timedelta(days=5), NOW - 5 * DAY),
        (timedelta(0), NOW),
        (np.datetime64("2026-11-20"), ms("2026-11-20")),
        (np.datetime64("2026-11-20T12:30:00.123456789"), ms("2026-11-20T12:30:00.123")),
        (np.datetime64("2026-11"), ms("2026-11-01")),
        (np.timedelta64(36, "h"), NOW - 36 * 3_600_000),
        (np.int64(1_780_272_000_000), 1_780_272_000_000),
        (1_780_272_000_000.0, 1_780_272_000_000),
        ("1780272000000", 1_780_272_000_000),
        ("2026-11", ms("2026-11-01")),
        ("2026", ms("2026-01-01")),
        ("20261120", ms("2026-11-20")),
        ("1y", ms("2025-11-18T11:06:40")),
        ("3Y", ms("2023-11-18T11:06:40")),
        ("20D", NOW - 20 * DAY),
        ("NOW", NOW),
    ],
    ids=repr,
)
def test_times_of_certain_meaning(written: Any, meant: int) -> None:
    assert parse_time("start", written, NOW) == meant
    assert parse_time("start", mf.Query(symbols="BTCUSDT", start=written).start, NOW) == meant


def test_leap_day_a_year_ago() -> None:
    assert parse_time("start", "1y", ms("2028-02-29T01:00")) == ms("2027-02-28T01:00")


def test_pandas_times() -> None:
    pd = pytest.importorskip("pandas")
    assert parse_time("start", pd.Timestamp("2026-11-20"), NOW) == ms("2026-11-20")
    assert parse_time("start", pd.Timestamp("2026-11-20T01:00", tz="UTC"), NOW) == ms("2026-11-20T01:00")
    assert parse_time("start", pd.Timedelta("36h"), NOW) == NOW - 36 * 3_600_000
    for wrong, message in ((pd.NaT, "is not a time"), (pd.Timestamp("2026-11-20T01:00"), "has no time zone")):
        with pytest.raises(ConfigurationError, match=f"start: .*{message}"):
            parse_time("start", wrong, NOW)


@pytest.mark.parametrize(
    ("written", "expected_message"),
    [
        (datetime(2026, 11, 20, 12), "2026-11-20T12:00:00 has no time zone; give it one"),  # noqa: DTZ001
        ("2026-11-20T12:00", "has no time zone; write '2026-11-20T12:00Z' for UTC"),
        ("yesterday", "is not a time; write 2026-06-01"),
        ("2026-13", "is not a time; write 2026-06-01"),
        ("6M", "may be minutes or months; write '6min' or '6mo'"),
        ("99y", "before 1970"),
        ("99999999999999d", "before 1970"),
        (timedelta(days=-1), "in the future"),
        (1_780_272_000.5, "round(1000 * seconds)"),
        (1_780_272_000, "multiply seconds by 1000"),
        (float("nan"), "is not a time"),
        (float("inf"), "is not a time"),
        (np.datetime64("NaT", "s"), "is not a time"),
        (np.int64(5).view("m8"), "is not a time"),  # no unit: its constructor is deprecated
        (np.timedelta64(1, "M"), "is not a time"),
        (None, "None is not a time"),
        (True, "True is not a time"),
        ([2026, 11, 20], "is not a time"),
        (np.array([1, 2]), "is not a time"),
        (b"2026-11-20", "is not a time"),
        (object, "is not a time"),
    ],
    ids=repr,
)
def test_times_that_are_not_certain(written: Any, expected_message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        mf.Query(symbols="BTCUSDT", start=written).span(NOW)
    assert str(raised.value).startswith("start: ")
    assert expected_message in str(raised.value)


def test_month_as_an_end_is_asked_back() -> None:
    with pytest.raises(ConfigurationError, match=r"end: '2026-10' is a month.*2026-11-01 to include it"):
        mf.Query(symbols="BTCUSDT", start="2026-09", end="2026-10").span(NOW)
    with pytest.raises(ConfigurationError, match=r"end: '2025' is a year.*write 2026-01-01 to include it"):
        mf.Query(symbols="BTCUSDT", start="2024", end="2025").span(NOW)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *[
            ("60m", "1h"),
            ("24h", "1d"),
            ("1D", "1d"),
            ("1H", "1h"),
            ("60s", "1m"),
            ("72H", "3d"),
            ("10m", "10m"),
            ("90m", "90m"),
            ("600s", "10m"),
            ("1D+08:00", "1d+08:00"),
            ("1h+08:00", "1h"),
            ("1d-00:00", "1d"),
            *((f"1h{offset}", "1h+00:30") for offset in ("+05:30", "-00:30", "-09:30")),
            ("1d-11:00", "1d+13:00"),
            ("1d-05:00", "1d-05:00"),
            ("1w-11:00", "1w-11:00"),
            ("1M", "1M"),
        ],
        *[(timedelta(hours=4), "4h"), (timedelta(minutes=1), "1m")],
        *[(np.timedelta64(1, "h"), "1h"), (np.timedelta64(60 * 10**9, "ns"), "1m")],
    ],
)
def test_intervals_of_certain_meaning(written: Any, name: str) -> None:
    assert mf.Query(symbols="BTCUSDT", start="5d", interval=written).interval.name == name


@pytest.mark.parametrize(
    ("written", "expected_message"),
    [
        ("1mo", "did you mean '1M'?"),
        ("1month", "did you mean '1M'?"),
        ("1min", "did you mean '1m'?"),
        ("5 minutes", "did you mean '5m'?"),
        ("1hour", "did you mean '1h'?"),
        ("1wk", "did you mean '1w'?"),
        ("1W", "did you mean '1w'?"),
        ("7d", "write one of these"),
        (timedelta(minutes=1, microseconds=999), "write one of these"),
        (timedelta(days=7), "write one of these"),
        *[("60min", "did you mean '1h'?"), ("10 minutes", "did you mean '10m'?")],
        *[("daily", "did you mean '1d'?"), ("h", "did you mean '1h'?"), ("30d", "write one of these")],
        ("7m", "does not divide a day; did you mean '5m' or '3m'?"),
        ("7h", "does not divide a day; did you mean '6h' or '8h'?"),
        ("1M+08:00", "is unknown"),
        *[(wrong, "are written 1d+08:00") for wrong in ("1d+8", "1d+0800")],
        *[(np.timedelta64(*wrong), "write one of these") for wrong in ((1, "M"), ("NaT", "h"), (1, "us"))],
        (mf.Interval, "the class Interval is unknown"),
        ("tick", "such as 1s, 1m, 3m"),
        (60, "write '1m' for 60 seconds or '1h' for 60 minutes"),
        (3600, "write '1h' for 3600 seconds"),
        (1.5, "write '90s' for 1.5 minutes"),
        (0.0001, "write text like 1h"),
        (None, "None is unknown"),
        (["1h", "1d"], "a run has one"),
        ("", "is unknown"),
    ],
    ids=repr,
)
def test_intervals_that_are_not_certain(written: Any, expected_message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        mf.Query(symbols="BTCUSDT", start="5d", interval=written)
    assert str(raised.value).startswith("interval: ")
    assert expected_message in str(raised.value)


@pytest.mark.parametrize(
    "written",
    [
        *[
            "BTCUSDT,ETHUSDT",
            "BTCUSDT, ETHUSDT",
            "BTCUSDT ETHUSDT",
            ["BTCUSDT,ETHUSDT"],
            ("BTCUSDT", "ETHUSDT"),
        ],
        *[iter(["BTCUSDT", "ETHUSDT", "BTCUSDT"]), np.array(["BTCUSDT", "ETHUSDT"])],
    ],
    ids=["commas", "commas and spaces", "spaces", "commas in a list", "tuple", "iterator", "array"],
)
def test_symbols_of_certain_meaning(written: Any) -> None:
    assert mf.Query(symbols=written, start="5d").symbols == ("BTCUSDT", "ETHUSDT")


def test_class_of_all_symbols_is_all_symbols() -> None:
    assert mf.Query(symbols=mf.AllSymbols, start="5d").symbols == mf.AllSymbols()


@pytest.mark.parametrize(
    ("arguments", "expected_message"),
    [
        ({"symbols": None}, "symbols: None is not a name; name some, or ask for AllSymbols"),
        ({"symbols": [1]}, "symbols: 1 is not a name; write text"),
        ({"symbols": 7}, "symbols: 7 is not a name; write text"),
        ({"symbols": [None]}, "symbols: None is not a name"),
        ({"symbols": mf.Series}, "symbols: the class Series is not a name"),
        ({"symbols": [mf.adapter.Instrument("A", "", "")]}, "is not a name; write its symbol, 'A'"),
        (
            {"symbols": ["BTCUSDT", mf.AllSymbols()]},
            "symbols: AllSymbols stands for a list; write it without",
        ),
        ({"datasets": None}, "datasets: None is not a name"),
        ({"datasets": 1}, "dataset: 1 is unknown; choose one of"),
        (
            {"datasets": "ohlcv,founding_rate"},
            "dataset: 'founding_rate' is unknown; did you mean 'funding_rate'",
        ),
        ({"composites": "MT=A,B"}, "composites: 'MT=A,B' is not a Composite; write Composite"),
        ({"composites": None}, "composites: None is not a Composite; write Composite"),
        ({"composites": [("MT", "A")]}, "composites: ('MT', 'A') is not a Composite; write Composite"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_query_is_said_when_it_is_made(
    arguments: dict[str, Any], expected_message: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        mf.Query(**({"symbols": "BTCUSDT", "start": "5d"} | arguments))
    assert expected_message in str(raised.value)


def test_credential_is_not_parted_into_pieces_that_are_shown() -> None:
    query = mf.Query(symbols="http://anna:hun,ter2 x@10.0.0.1:3128", start="5d")
    with pytest.raises(ConfigurationError, match="address with credentials") as raised:
        mf.Pipeline("binance-usdm", query)
    assert "hun" not in str(raised.value)


QUERY = mf.Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")


@pytest.mark.parametrize(
    ("arguments", "expected_message"),
    [
        ({"query": {"symbols": "BTCUSDT"}}, "query: dict is not a Query; write Query("),
        ({"query": mf.Query}, "query: the class Query is not a Query; write Query("),
        ({"settings": mf.Settings}, "settings: the class Settings is not a Settings; write Settings("),
        ({"sink": 7}, "sink: int lacks max_writers, prepare, writer"),
        ({"sink": mf.MemorySink}, "sink: MemorySink is a class; write MemorySink(...)"),
        ({"sink": Path("market.db")}, "sink: the path 'market.db' does not say what kind"),
        (
            {"settings": {"concurrency": 3}},
            "settings: dict is not a Settings; write Settings(concurrency=20)",
        ),
        ({"fetcher": mf.CurlFetcher}, "fetcher: CurlFetcher is a class; write CurlFetcher()"),
        ({"fetcher": "curl"}, "fetcher: str has no session and fetch"),
        ({"proxies": [1]}, "proxies: entry 1 is of type int"),
        ({"proxies": 3128}, "proxies: int is not a pool"),
        ({"proxies": mf.RotatingProxies}, "proxies: RotatingProxies is a class"),
        ({"proxies": ["anna:hunter2@nowhere"]}, "proxies: entry 1 is malformed"),
        ({"proxies": Path("nowhere.txt")}, "proxies: nowhere.txt cannot be read"),
        ({"exchange": None}, "exchange: None is unknown; choose one of"),
        ({"exchange": 7}, "exchange: 7 is unknown"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_pipeline_is_said_when_it_is_made(
    arguments: dict[str, Any], expected_message: str
) -> None:
    good: dict[str, Any] = {"exchange": "binance-usdm", "query": QUERY}
    with pytest.raises(ConfigurationError) as raised:
        mf.Pipeline(**(good | arguments))
    assert expected_message in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: mf.Settings(concurrency="20"),  # type: ignore[arg-type]
        lambda: mf.Settings(concurrency=2.5),  # type: ignore[arg-type]
        lambda: mf.Settings(deadline="30"),  # type: ignore[arg-type]
        lambda: mf.Settings(heartbeat=None),  # type: ignore[arg-type]
        lambda: mf.CurlFetcher(timeout="30"),  # type: ignore[arg-type]
        lambda: mf.RotatingProxies(None),  # type: ignore[arg-type]
        lambda: mf.SQLiteSink(None),  # type: ignore[arg-type]
        lambda: mf.DuckDBSink(7),  # type: ignore[arg-type]
    ],
)
def test_parts_of_a_wrong_type_are_refused_when_they_are_made(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_parts_of_certain_meaning(tmp_path: Path) -> None:
    file = tmp_path / "proxies.txt"
    file.write_text("10.0.0.1:3128\n10.0.0.2:3128\n")
    for proxies in (["10.0.0.1:3128"], "10.0.0.1:3128", file, mf.RotatingProxies("10.0.0.1:3128")):
        mf.Pipeline("binance-usdm", QUERY, proxies=proxies)
    for sink in (Path("market.duckdb"), Path("market.sqlite"), Path("market.sqlite3"), "sqlite:market.db"):
        mf.Pipeline(Okx, mf.Query(symbols="BTC-USDT", start="2026-06-01"), sink)  # type: ignore[arg-type]


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        yield exchange


def test_fetch_takes_a_path_a_text_of_names_and_one_dataset_in_a_list(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    more: dict[str, Any] = {
        "interval": "60m",
        "base_url": exchange.base_url,
        "start": datetime(2026, 6, 1),  # noqa: DTZ001
        "end": np.datetime64("2026-06-02"),
    }
    tables = mf.fetch("binance-usdm", ["ohlcv"], "BTCUSDT, ETHUSDT", to=tmp_path / "market.sqlite", **more)
    assert len(tables["ohlcv"]) == 48
    with pytest.raises(ConfigurationError, match=r"dataset: 'ohlcv,funding_rate' names 2, .* write a list"):
        mf.fetch("binance-usdm", "ohlcv,funding_rate", "BTCUSDT", **more)
    with pytest.raises(ConfigurationError, match="to: MemorySink is a class"):
        mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", to=mf.MemorySink, **more)  # type: ignore[call-overload]


def test_one_fetcher_serves_two_pipelines_at_once(exchange: SimulatedExchange) -> None:
    fetcher = mf.CurlFetcher()
    pipelines = [
        mf.Pipeline(
            "binance-usdm",
            mf.Query(symbols=symbol, interval="1h", start="2026-06-01", end="2026-06-10"),
            mf.MemorySink(),
            fetcher=fetcher,
            base_url=exchange.base_url,
        )
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    reports: list[mf.Report] = []

    async def run(pipeline: mf.Pipeline) -> None:
        reports.append(await pipeline)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for pipeline in [*pipelines, pipelines[0]]:
                group.start_soon(run, pipeline)

    anyio.run(main)
    assert [report.complete for report in reports] == [True, True, True]


def refusal(call: Callable[[], object]) -> str:
    """What is said of a call, if it is refused; anything else than a refusal is raised."""
    try:
        call()
    except ConfigurationError as error:
        return str(error)
    return ""


@given(
    st.one_of(
        st.integers(), st.floats(), st.text(max_size=12), st.none(), st.binary(max_size=4), st.booleans()
    )
)
def test_no_time_is_a_traceback(written: Any) -> None:
    message = refusal(lambda: parse_time("start", written, NOW))
    assert not message or message.startswith("start: ")


@pytest.mark.parametrize("argument", ["interval", "symbols", "datasets"])
@given(st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.none(), st.lists(st.text(max_size=3))))
def test_no_interval_and_no_name_is_a_traceback(argument: str, written: Any) -> None:
    given: dict[str, Any] = {"symbols": "BTCUSDT", "start": "5d", argument: written}
    message = refusal(lambda: mf.Query(**given))
    assert not message or message.startswith(argument.removesuffix("s"))
