"""The simulated archive: the format of its files, and their rows beside those of the simulated exchange."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import attrs
import pytest

from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    MarketInstrument,
    Publication,
    ReplayedMarket,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
    Window,
    simulate_binance,
)
from marketfetch.testing.markets.market import MarketRows
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, HOUR, Span
from tests.testing.client import Client, client_of

KLINES = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
KLINES += "taker_buy_quote_volume,ignore"
METRICS = "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
METRICS += "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio"


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2026-07-10T12:00")
COIN_MARGINED = [
    MarketInstrument(symbol, "BTC", "USD", "BTC", ms("2022-01-01"))
    for symbol in ("BTCUSD_PERP", "BTCUSD_260925")
]
market = GeneratedMarket(["BTCUSDT", "ETHUSDT", *COIN_MARGINED], seed=5, listed_at=ms("2022-01-01"))


@attrs.frozen
class ServersAndClients:
    exchange: SimulatedExchange
    archive: SimulatedArchive
    api: Client
    files: Client

    def text(self, key: str) -> str:
        """Download a file as a client does: check its digest, and return the text of its one member."""
        body = self.files.get(f"/{key}").body
        digest, name = self.files.get(f"/{key}.CHECKSUM").body.decode().split()
        assert (digest, name) == (hashlib.sha256(body).hexdigest(), key.rpartition("/")[2])
        with zipfile.ZipFile(io.BytesIO(body)) as packed:
            (member,) = packed.infolist()
            assert member.filename == name.removesuffix(".zip") + ".csv"
            assert member.compress_type == zipfile.ZIP_DEFLATED
            return packed.read(member).decode()

    def rows(self, key: str) -> list[list[str]]:
        return list(csv.reader(io.StringIO(self.text(key))))


@pytest.fixture(scope="module")
def world() -> Iterator[ServersAndClients]:
    with (
        simulate_binance(market, SimulatorOptions(limits=None), now=lambda: NOW) as (exchange, archive),
        client_of(exchange) as api,
        client_of(archive) as files,
    ):
        yield ServersAndClients(exchange, archive, api, files)


def candles(world: ServersAndClients, path: str, interval: str, span: Span, **params: str) -> list[list[str]]:
    """Return the rows of the API as texts."""
    rows = world.api.get(
        path, None, interval=interval, startTime=span.start, endTime=span.end - 1, limit=1000, **params
    ).json
    return [[str(value) for value in row] for row in rows]


@pytest.mark.parametrize(
    ("kind", "route", "name"),
    [
        ("klines", "klines", "symbol"),
        ("markPriceKlines", "markPriceKlines", "symbol"),
        ("indexPriceKlines", "indexPriceKlines", "pair"),
        ("premiumIndexKlines", "premiumIndexKlines", "symbol"),
    ],
)
def test_usdm_candles_are_those_of_the_api_text_by_text(
    world: ServersAndClients, kind: str, route: str, name: str
) -> None:
    day = Span(ms("2026-06-20"), ms("2026-06-21"))
    key = f"data/futures/um/daily/{kind}/ETHUSDT/5m/ETHUSDT-5m-2026-06-20.zip"
    header, *rows = world.rows(key)
    assert ",".join(header) == KLINES
    assert len(rows) == 288
    assert rows == candles(world, f"/fapi/v1/{route}", "5m", day, **{name: "ETHUSDT"})


@pytest.mark.parametrize("interval", ["1h", "12h", "1d", "3d", "1w", "1M"])
def test_a_month_has_the_candles_that_open_in_it(world: ServersAndClients, interval: str) -> None:
    month = Span(ms("2024-02-01"), ms("2024-03-01"))
    archived = interval.replace("1M", "1mo")
    key = f"data/futures/um/monthly/klines/BTCUSDT/{archived}/BTCUSDT-{archived}-2024-02.zip"
    assert world.rows(key)[1:] == candles(world, "/fapi/v1/klines", interval, month, symbol="BTCUSDT")


def test_spot_has_no_header_and_microseconds_from_2025_on(world: ServersAndClients) -> None:
    for month, unit in (("2024-12", 1), ("2025-01", 1000)):
        start = ms(f"{month}-01")
        span = Span(start, Interval.parse("1M").shift(start, 1))
        rows = world.rows(f"data/spot/monthly/klines/BTCUSDT/4h/BTCUSDT-4h-{month}.zip")
        expected = candles(world, "/api/v3/klines", "4h", span, symbol="BTCUSDT")
        assert [row[1:6] + row[7:] for row in rows] == [row[1:6] + row[7:] for row in expected]
        assert [int(row[0]) for row in rows] == [int(row[0]) * unit for row in expected]
        assert [int(row[6]) + 1 for row in rows] == [(int(row[6]) + 1) * unit for row in expected]


def test_futures_candles_have_a_header_from_june_2022_on(world: ServersAndClients) -> None:
    for date, header in (("2022-05", False), ("2022-06", True)):
        text = world.text(f"data/futures/um/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-{date}.zip")
        assert text.startswith(f"{KLINES}\n") is header
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
    assert world.text("data/futures/um/daily/klines/BTCUSDT/1d/BTCUSDT-1d-2022-05-31.zip")[0].isdigit()


def test_funding_has_three_columns_and_the_regular_events(world: ServersAndClients) -> None:
    month = Span(ms("2022-03-01"), ms("2022-04-01"))
    header, *rows = world.rows("data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2022-03.zip")
    assert header == ["calc_time", "funding_interval_hours", "last_funding_rate"]
    events = world.api.get(
        "/fapi/v1/fundingRate", symbol="BTCUSDT", startTime=month.start, endTime=month.end - 1, limit=1000
    ).json
    assert rows == [
        [str(event["fundingTime"]), "8", event["fundingRate"]]
        for event in events
        if event["rateType"] == "Regular"
    ]
    assert len(rows) == 93 < len(events)


@pytest.mark.parametrize(
    ("section", "symbol", "day", "label"),
    [
        ("um", "BTCUSDT", "2026-06-24", 5 * 60_000),
        ("um", "BTCUSDT", "2026-06-25", 0),
        ("cm", "BTCUSD_PERP", "2026-06-24", 0),
    ],
)
def test_metrics_join_the_statistics_of_the_same_five_minutes(
    world: ServersAndClients, section: str, symbol: str, day: str, label: int
) -> None:
    start, end = ms(day), ms(day) + DAY
    header, *rows = world.rows(f"data/futures/{section}/daily/metrics/{symbol}/{symbol}-metrics-{day}.zip")
    assert ",".join(header) == METRICS
    assert [row[1] for row in rows] == [symbol] * 288
    starts = [ms(row[0].replace(" ", "T")) - label for row in rows]
    assert starts == list(range(start, end, 5 * 60_000))

    # What only the simulated USD-M has is the same for a coin-margined contract.
    pair: dict[str, Any] = {"pair": symbol.removesuffix("_PERP"), "contractType": "PERPETUAL"}
    by_symbol: dict[str, Any] = {"symbol": symbol}
    subject = by_symbol if section == "um" else pair

    def statistic(route: str, field: str, later: int, of: dict[str, Any] = by_symbol) -> list[str]:
        found = world.api.get(
            f"/futures/data/{route}",
            **of,
            period="5m",
            startTime=start + later,
            endTime=end + later - 1,
            limit=500,
        ).json
        return [row[field] for row in found]

    # The API stamps a period with its end, but taker volume with its start.
    five = 5 * 60_000
    assert [list(column) for column in zip(*rows, strict=True)][2:] == [
        statistic("openInterestHist", "sumOpenInterest", five, subject),
        statistic("openInterestHist", "sumOpenInterestValue", five, subject),
        statistic("topLongShortAccountRatio", "longShortRatio", five),
        statistic("topLongShortPositionRatio", "longShortRatio", five),
        statistic("globalLongShortAccountRatio", "longShortRatio", five, subject),
        statistic("takerlongshortRatio", "buySellRatio", 0),
    ]


def test_first_metrics_of_a_symbol_begin_with_its_listing() -> None:
    listed = ms("2026-06-20T10:00")
    young = GeneratedMarket([MarketInstrument.parse("BTCUSDT", listed, listed + 6 * HOUR)])
    archive = SimulatedArchive(young, ArchiveOptions(now=lambda: NOW))
    key = "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-06-20.zip"
    rows = content(archive, key).splitlines()[1:]
    assert rows[0].startswith("2026-06-20 10:05:00,")
    assert rows[-1].startswith("2026-06-20 15:55:00,")


def test_coin_margined_files_are_those_of_instruments_that_settle_in_their_base(
    world: ServersAndClients,
) -> None:
    listed = {
        kind: [key.split("/")[5] for key in world.archive.keys(f"data/futures/cm/monthly/{kind}/")]
        for kind in ("fundingRate", "indexPriceKlines", "markPriceKlines")
    }
    assert set(listed["fundingRate"]) == {"BTCUSD_PERP"}
    assert set(listed["indexPriceKlines"]) == {"BTCUSD"}
    assert set(listed["markPriceKlines"]) == {"BTCUSD_PERP", "BTCUSD_260925"}
    assert not world.archive.keys("data/spot/monthly/klines/BTCUSD_PERP/")
    assert not world.archive.keys("data/futures/cm/monthly/fundingRate/BTCUSDT/")
    day = Span(ms("2026-06-20"), ms("2026-06-21"))
    rows = world.rows("data/futures/cm/daily/indexPriceKlines/BTCUSD/1h/BTCUSD-1h-2026-06-20.zip")[1:]
    assert rows == candles(world, "/fapi/v1/indexPriceKlines", "1h", day, pair="BTCUSD_PERP")


def test_digest_files_end_with_or_without_a_line_end(world: ServersAndClients) -> None:
    keys = world.archive.keys("data/spot/monthly/klines/BTCUSDT/1d/")
    ends = {world.archive.read(key)[-4:] for key in keys if key.endswith(".CHECKSUM")}
    assert ends == {b".zip", b"zip\n"}


def test_daily_files_come_the_next_day_and_monthly_files_after_the_month() -> None:
    clock = [0]
    archive = SimulatedArchive(
        market,
        ArchiveOptions(now=lambda: clock[0], publication=Publication(daily=2 * HOUR, monthly=DAY)),
    )
    daily = "data/spot/daily/klines/BTCUSDT/1d/"
    monthly = "data/spot/monthly/klines/BTCUSDT/1d/"

    def newest(prefix: str) -> str:
        return archive.keys(prefix)[-2].removeprefix(prefix)

    clock[0] = ms("2024-03-01T01:59:59")
    assert newest(daily) == "BTCUSDT-1d-2024-02-28.zip"
    clock[0] = ms("2024-03-01T02:00")
    assert newest(daily) == "BTCUSDT-1d-2024-02-29.zip"
    assert newest(monthly) == "BTCUSDT-1d-2024-01.zip"
    with pytest.raises(KeyError, match=r"2024-02\.zip: nothing is published"):
        archive.read(f"{monthly}BTCUSDT-1d-2024-02.zip")
    clock[0] = ms("2024-03-02")
    assert newest(monthly) == "BTCUSDT-1d-2024-02.zip"


def test_files_of_okx_come_two_days_after_their_end() -> None:
    clock = [ms("2024-03-02T15:59:59")]  # a day of Hong Kong ends at 16:00 UTC
    archive = SimulatedArchive(market, ArchiveOptions(now=lambda: clock[0]))
    day = "cdn/okex/traderecords/candlesticks/daily/20240229/BTC-USDT-candlesticks-2024-02-29.zip"
    with pytest.raises(KeyError, match="nothing is published"):
        archive.read(day)
    clock[0] += 1000
    assert archive.read(day)


def test_a_file_of_weeks_waits_for_its_last_week() -> None:
    clock = [ms("2024-03-03")]
    archive = SimulatedArchive(
        market, ArchiveOptions(now=lambda: clock[0], publication=Publication(monthly=0))
    )
    key = "data/spot/monthly/klines/BTCUSDT/1w/BTCUSDT-1w-2024-02.zip"
    assert key not in archive.keys("data/spot/monthly/klines/BTCUSDT/1w/")
    clock[0] = ms("2024-03-04")
    assert key in archive.keys("data/spot/monthly/klines/BTCUSDT/1w/")


def test_an_outage_delays_all_files_that_were_due() -> None:
    outage = Span(ms("2024-11-12"), ms("2024-11-20"))
    clock = [outage.end - 1]
    archive = SimulatedArchive(
        market, ArchiveOptions(now=lambda: clock[0], publication=Publication(outages=[outage]))
    )
    prefix = "data/spot/daily/klines/BTCUSDT/1d/BTCUSDT-1d-2024-11-"
    assert archive.keys(prefix)[-2].endswith("11-10.zip")
    clock[0] += 1
    assert archive.keys(prefix)[-2].endswith("11-18.zip")


def test_delisted_symbols_keep_their_files_and_gaps_have_none() -> None:
    gone = MarketInstrument.parse("LUNAUSDT", ms("2022-01-01"), ms("2022-03-10"))
    gap = Span(ms("2022-01-20"), ms("2022-01-22"))
    archive = SimulatedArchive(GeneratedMarket([gone], gaps=[gap]), ArchiveOptions(now=lambda: NOW))
    days = [key[-14:-4] for key in archive.keys("data/spot/daily/klines/LUNAUSDT/1h/")[::2]]
    assert len(days) == 31 + 28 + 9 - 2
    assert days[-1] == "2022-03-09"
    assert not {"2022-01-20", "2022-01-21"} & set(days)


def test_a_symbol_used_twice_has_the_rows_of_both_contracts() -> None:
    first = MarketInstrument.parse("LITUSDT", ms("2024-01-01"), ms("2024-02-10"))
    second = MarketInstrument.parse("LITUSDT", ms("2024-02-20"), ms("2024-05-01"))
    old, new = GeneratedMarket([first], seed=1), GeneratedMarket([second], seed=2)
    archive = SimulatedArchive(new, ArchiveOptions(now=lambda: NOW, former=old))
    keys = archive.keys("data/spot/monthly/klines/LITUSDT/1d/")[::2]
    assert [key[-11:-4] for key in keys] == ["2024-01", "2024-02", "2024-03", "2024-04"]
    alone = [SimulatedArchive(only, ArchiveOptions(now=lambda: NOW)) for only in (old, new)]
    january, february, march, _ = keys
    assert archive.read(january) == alone[0].read(january)
    assert archive.read(march) == alone[1].read(march)
    assert content(archive, february) == content(alone[0], february) + content(alone[1], february)
    assert len(content(archive, february).splitlines()) == 9 + 10


def test_recorded_candles_keep_their_text(tmp_path: Path) -> None:
    minutes = [ms("2024-03-01") + 60_000 * minute for minute in range(1440)]
    rows = "".join(
        f"{minute},0.10{number % 9}0,0.1100,0.0900,0.1000,{number}.0,{minute + 59_999},7.00,3,1.50,0.150,0\n"
        for number, minute in enumerate(minutes)
    )
    (tmp_path / "XUSDT-1m-2024-03.csv").write_text(rows)
    archive = SimulatedArchive(ReplayedMarket.from_folder(tmp_path), ArchiveOptions(now=lambda: NOW))
    prefix = "data/spot/daily/klines/XUSDT/1m/"
    assert archive.keys(prefix)[0] == f"{prefix}XUSDT-1m-2024-03-01.zip"
    assert len(archive.keys(prefix)) == 2
    assert content(archive, f"{prefix}XUSDT-1m-2024-03-01.zip") == rows


def test_no_file_is_older_than_the_archive() -> None:
    archive = SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, since=ms("2026-05-15")))
    prefix = "data/spot/monthly/klines/BTCUSDT/1h/"
    assert archive.keys(prefix)[0] == f"{prefix}BTCUSDT-1h-2026-05.zip"
    with pytest.raises(KeyError):
        archive.read(f"{prefix}BTCUSDT-1h-2026-04.zip")


@pytest.mark.parametrize(
    "key",
    [
        "data/spot/daily/klines/BTCUSDT/3d/BTCUSDT-3d-2024-01-01.zip",
        "data/spot/daily/klines/BTCUSDT/1M/BTCUSDT-1M-2024-01-01.zip",
        "data/spot/monthly/klines/BTCUSDT/1M/BTCUSDT-1M-2024-01.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/ETHUSDT-1m-2024-01.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-5m-2024-01.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-13.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip",
        "data/spot/monthly/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip",
        "data/futures/um/daily/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-01-01.zip",
        "data/futures/um/monthly/metrics/BTCUSDT/BTCUSDT-metrics-2024-01.zip",
        "data/futures/um/monthly/klines/NOUSDT/1m/NOUSDT-1m-2024-01.zip",
        "data/spot/monthly/klines/BTCUSDT/BTCUSDT-1m-2024-01.zip",
        "data/spot/monthly/klines/BTCUSDT/1m/",
        "nothing",
    ],
)
def test_other_names_are_no_files(world: ServersAndClients, key: str) -> None:
    answer = world.files.get(f"/{key}")
    assert answer.status == 404
    assert ET.fromstring(answer.body).findtext("Code") == "NoSuchKey"


def test_file_headers_repeat_its_entry_in_the_listing(world: ServersAndClients) -> None:
    key = "data/spot/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2024-01.zip"
    answer = world.files.get(f"/data.binance.vision/{key}")
    assert answer.body == world.archive.read(key)
    assert answer.headers["etag"] == f'"{hashlib.md5(answer.body).hexdigest()}"'
    assert answer.headers["last-modified"] == "Fri, 02 Feb 2024 08:00:00 GMT"
    assert answer.headers["content-type"] == "application/zip"


def test_same_market_and_clock_give_the_same_bytes() -> None:
    key = "data/spot/monthly/klines/ETHUSDT/1h/ETHUSDT-1h-2024-01.zip"
    first, second = (SimulatedArchive(market, ArchiveOptions(now=lambda: NOW)) for _ in range(2))
    assert first.read(key) == second.read(key)
    first.reissue(key)
    assert first.read(key) != second.read(key)
    assert content(first, key) == content(second, key)


def test_rendered_files_are_kept_within_the_bound() -> None:
    calls: list[str] = []

    class Counted(GeneratedMarket):
        def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
            if window.limit is None:
                calls.append(symbol)
            return super().rows(dataset, symbol, interval, window)

    counted = Counted(["BTCUSDT", "ETHUSDT"])
    keys = [f"data/spot/daily/klines/{name}/1h/{name}-1h-2024-01-01.zip" for name in ("BTCUSDT", "ETHUSDT")]
    for cache, expected in ((1, 4), (10_000_000, 2)):
        calls.clear()
        archive = SimulatedArchive(counted, ArchiveOptions(now=lambda: NOW, cache=cache))
        for key in keys * 2:
            archive.read(key)
        assert len(calls) == expected


def content(archive: SimulatedArchive, key: str) -> str:
    """Return the text of the one member of a file."""
    with zipfile.ZipFile(io.BytesIO(archive.read(key))) as packed:
        (name,) = packed.namelist()
        return packed.read(name).decode()
