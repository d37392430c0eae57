"""OKX's candle files, and what an archive without a listing must declare."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest

from marketfetch.adapter import (
    Archive,
    CalendarPeriod,
    Cost,
    CsvLayout,
    LimitPool,
    ListingRequest,
    Series,
    Slice,
    Span,
)
from marketfetch.adapters.okx import CandleFiles, Okx
from marketfetch.errors import AdapterError, Banned, FetchError, NoSuchFile, RateLimitExceeded
from marketfetch.testing import ArchiveOptions, GeneratedMarket, SimulatedArchive, simulate_binance
from marketfetch.testing.contracts.exchange_cases import DecodeCase, check_same_rows
from marketfetch.values.http import Response
from tests.testing.client import client_of

NOW = 1_771_545_600_000  # 2026-02-20
DAY_START = 1_770_652_800_000  # 2026-02-09T16:00Z, midnight in Hong Kong
KEY = "cdn/okex/traderecords/candlesticks/daily/20260210/{0}-candlesticks-2026-02-10.zip"


def response(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, headers or {}, body, 0, NOW)


def text_of(archive: SimulatedArchive, key: str) -> list[str]:
    with zipfile.ZipFile(BytesIO(archive.read(key))) as file:
        return file.read(file.namelist()[0]).decode().splitlines()


@pytest.mark.parametrize("symbol", ["BTC-USDT", "BTC-USDT-SWAP"])
def test_a_file_has_the_rows_of_the_api(symbol: str) -> None:
    series = Series.of("okx", "ohlcv", symbol, "1m")
    part = Slice(series, Span(DAY_START, DAY_START + 100 * 60_000), 100)
    endpoint = Okx().endpoint("ohlcv")
    with (
        simulate_binance(GeneratedMarket(["BTCUSDT"]), now=lambda: NOW) as (exchange, archive),
        client_of(exchange) as client,
    ):
        request = endpoint.request(part)
        page = client.get(request.path, **dict[str, Any](request.params)).body
        assert check_same_rows(CandleFiles(), DecodeCase(endpoint, part, page), archive.read) == 100


def test_the_simulated_files_are_as_those_of_okx() -> None:
    market = GeneratedMarket(["BTCUSDT", "BTCUSD_PERP"])
    archive = SimulatedArchive(market, ArchiveOptions(now=lambda: NOW, since=DAY_START))
    spot, swap = (text_of(archive, KEY.format(symbol)) for symbol in ("BTC-USDT", "BTC-USDT-SWAP"))
    names = "instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm"
    assert spot[0] == swap[0] == names
    assert len(spot) == len(swap) == 1 + 1440
    base, contracts = spot[1].split(","), swap[1].split(",")
    assert base[8] == contracts[8] == str(DAY_START)
    assert (base[0], contracts[0]) == ("BTC-USDT", "BTC-USDT-SWAP")
    assert float(contracts[5]) == pytest.approx(100 * float(base[5]), abs=0.1)  # of 0.01 base coin
    assert contracts[6] == base[5]
    # Neither a listing nor a digest shows them, and coin-margined contracts have other names.
    assert not archive.keys("cdn")
    for absent in (
        KEY.format("BTC-USDT") + ".CHECKSUM",
        KEY.format("BTC-USD-SWAP"),
        "cdn/okex/traderecords/x",
    ):
        with pytest.raises(KeyError):
            archive.read(absent)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"<html>Not Found</html>", NoSuchFile),
        (404, b"<Error><Code>NoSuchKey</Code></Error>", NoSuchFile),
        (403, b"<Error><Code>AccessDenied</Code></Error>", NoSuchFile),
        (403, b"<html>Request blocked</html>", Banned),
        (503, b"<Error><Code>SlowDown</Code></Error>", RateLimitExceeded),
    ],
)
def test_an_absent_file_is_told_from_a_refusal(status: int, body: bytes, error: type[FetchError]) -> None:
    with pytest.raises(error):
        CandleFiles().raise_for_error(response(status, body))


def test_headers_say_what_a_listing_would_say() -> None:
    headers = {"last-modified": "Thu, 12 Feb 2026 00:00:01 GMT", "etag": '"9F86"'}
    entry = CandleFiles().entry("a/b.zip", response(206, b"PK..", headers), 9)
    assert (entry.key, entry.size, entry.modified, entry.etag) == ("a/b.zip", 9, 1_770_854_401_000, '"9F86"')
    # Without them: the file was there when it was received.
    assert CandleFiles().entry("a/b.zip", response(200), 4).modified == NOW


def test_nothing_is_asked_for_a_listing() -> None:
    with pytest.raises(AdapterError, match=r"CandleFiles.listing_url is None"):
        CandleFiles("https://mirror.example.com").listing_request(ListingRequest("candles/"))


class Plain(Archive, abstract=True):
    dataset = "mark_price"
    intervals = {"1m": "1m"}  # noqa: RUF012
    files_url = "https://files.example.com"
    layout = CsvLayout({"open": 1, "high": 2, "low": 3, "close": 4}, width=5)

    def cost(self) -> Cost:
        return Cost(LimitPool("files", 10, 1000))

    def stem(self, series: Series) -> str:
        return f"{series.symbol}-"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"listing_url": None}, r"Mine lacks .*; write def key\(self, series, period\)$"),
        (
            {"listing_url": "https://s3.example.com"},
            r"; write def folder\(self, series, grain\)$",
        ),
        ({}, "Mine lacks .*; write listing_url = …, def folder"),
        ({"listing_url": None, "key": "a.zip"}, "Mine.key: found 'a.zip' .* write it as a method"),
        ({"listing_url": None, "key": print, "since": "2019"}, "Mine.since: found '2019' .* milliseconds"),
        (
            {"listing_url": None, "key": print, "publish_delay": -1},
            "Mine.publish_delay: found -1 .* milliseconds",
        ),
    ],
)
def test_an_archive_without_a_listing_names_its_files(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        type("Mine", (Plain,), attributes)


@pytest.mark.parametrize("key", [None, "", "/a.zip", "a/", CalendarPeriod.parse("2026-02")])
def test_a_key_is_a_path(key: object) -> None:
    mine = type("Mine", (Plain,), {"listing_url": None, "key": lambda *_: key})
    with pytest.raises(AdapterError, match=r"Mine.<?.*: found .* a path below the host"):
        mine().key(Series.of("okx", "mark_price", "BTC-USDT", "1m"), CalendarPeriod.parse("2026-02"))
