"""Adapters against answers that the exchanges really gave."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketfetch.adapter import Exchange, Response, Slice, Span
from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.decoding.validation import validate_page
from marketfetch.errors import (
    BadRequest,
    BadSymbol,
    Banned,
    ExchangeNotAvailable,
    FetchError,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.planning.instrument_index import InstrumentIndex
from marketfetch.values.series import Series

NOW = 1_660_000_000_000
HOUR = 3_600_000
EXPECTED: dict[str, type[FetchError] | None] = {
    "binance-418-ban": Banned,
    "binance-429-ip-in-text": RateLimitExceeded,
    "binance-451": RestrictedLocation,
    "binance-us-403-country": RestrictedLocation,
    "binance-502-nginx": ExchangeNotAvailable,
    "binance-1121": BadSymbol,
    "binance-1130-limit": BadRequest,
    "empty-array": None,
}
ELSEWHERE = {"bybit-10006-http200", "truncated-content-length"}
"""Of an exchange we do not have, and of the wire."""


@pytest.fixture(scope="module")
def errors(shared_data: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((shared_data / "error_responses.json").read_text())
    return {entry["id"]: entry for entry in content["errors"]}


def checked(exchange: Exchange, entry: dict[str, Any]) -> FetchError | None:
    headers = {name.lower(): value for name, value in (entry["headers"] or {}).items()}
    response = Response(entry["http_status"], headers, entry["body"].encode(), NOW - 50, NOW)
    try:
        exchange.raise_for_error(response)
    except FetchError as error:
        return error
    return None


def test_every_recorded_error_is_looked_at(errors: dict[str, dict[str, Any]]) -> None:
    assert set(errors) == set(EXPECTED) | ELSEWHERE


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(
    "exchange", [BinanceUsdm(), BinanceCoinm(), BinanceSpot()], ids=lambda exchange: exchange.name
)
def test_a_recorded_error_is_named(errors: dict[str, dict[str, Any]], exchange: Exchange, name: str) -> None:
    error = checked(exchange, errors[name])
    assert type(error) is (EXPECTED[name] or type(None))


@pytest.mark.parametrize(
    "name", ["binance-451", "binance-us-403-country", "binance-502-nginx", "binance-418-ban"]
)
def test_what_any_gateway_may_say_is_named_for_okx_too(errors: dict[str, dict[str, Any]], name: str) -> None:
    expected = EXPECTED[name]
    assert expected is not None
    assert isinstance(checked(Okx(), errors[name]), expected | BadRequest)


def test_the_end_of_a_ban_is_read(errors: dict[str, dict[str, Any]]) -> None:
    error = checked(BinanceUsdm(), errors["binance-418-ban"])
    assert isinstance(error, Banned)
    assert error.until == 1_660_090_423_228


def test_the_callers_address_is_not_repeated(errors: dict[str, dict[str, Any]]) -> None:
    assert "194.233" in errors["binance-429-ip-in-text"]["body"]
    assert "194.233" not in str(checked(BinanceUsdm(), errors["binance-429-ip-in-text"]))


def recorded(shared_data: Path, name: str) -> Any:
    return json.loads((shared_data / "raw_http" / name).read_text())["http_response"]


@pytest.mark.parametrize(
    ("exchange", "name", "symbol", "rows_of"),
    [
        (BinanceSpot(), "ccxtrs_binance/fetch_ohlcv_BTC_USDT.json", "BTCUSDT", lambda body: body),
        (Okx(), "ccxtrs_okx/fetch_ohlcv_BTC_USDT.json", "BTC-USDT", lambda body: body["data"]),
    ],
    ids=["binance-spot", "okx"],
)
def test_recorded_candles_are_decoded(
    shared_data: Path, exchange: Exchange, name: str, symbol: str, rows_of: Callable[[Any], list[list[str]]]
) -> None:
    body = recorded(shared_data, name)
    rows = sorted(rows_of(body), key=lambda row: int(row[0]))
    span = Span(int(rows[0][0]), int(rows[-1][0]) + HOUR)
    part = Slice(Series.of(exchange.name, "ohlcv", symbol, "1h"), span, rows=len(rows))
    sent = json.dumps(body).encode()
    exchange.raise_for_error(Response(200, {}, sent, NOW - 50, NOW))
    page = validate_page(exchange.endpoint("ohlcv").decode(sent, part), part)
    unfinished = page.rejected.get("unfinished", 0)
    assert len(page.columns) + unfinished == len(rows)
    for line, at in zip(page.columns.values[:5], range(1, 6), strict=True):
        assert line.tolist() == [float(row[at]) for row in rows[: len(page.columns)]]
    assert np.array_equal(page.columns.times, [int(row[0]) for row in rows[: len(page.columns)]])


def test_the_unfinished_candle_of_okx_is_not_stored(shared_data: Path) -> None:
    body = recorded(shared_data, "ccxtrs_okx/fetch_ohlcv_BTC_USDT.json")
    flags = [row[8] for row in body["data"]]
    assert flags.count("0") == 1
    layout = Okx().endpoint("ohlcv")
    times = [int(row[0]) for row in body["data"]]
    part = Slice(
        Series.of("okx", "ohlcv", "BTC-USDT", "1h"), Span(min(times), max(times) + HOUR), rows=len(times)
    )
    page = validate_page(layout.decode(json.dumps(body).encode(), part), part)
    assert page.rejected == {"unfinished": 1}


@pytest.mark.parametrize(
    ("exchange", "folder", "unified", "entries"),
    [
        (BinanceCoinm(), "ccxtrs_binance", "BTC/USD:BTC", "symbols"),
        (Okx(), "ccxtrs_okx", "ETH/USD:ETH", "data"),
    ],
    ids=["binance", "okx"],
)
def test_a_recorded_listing_is_read(
    shared_data: Path, exchange: Exchange, folder: str, unified: str, entries: str
) -> None:
    """What was recorded of OKX are options: entries of the same shape as those of spot and swaps."""
    with gzip.open(shared_data / "raw_http" / folder / "fetch_markets.json.gz") as file:
        content = json.load(file)["http_response"]
    found = list(exchange.decode_listing(json.dumps(content).encode()))
    assert len(found) == len(content[entries])
    assert unified in {instrument.unified for instrument in found}
    assert all(instrument.listed_at for instrument in found)


def test_the_recorded_contracts_of_coinm_are_perpetual_or_dated(shared_data: Path) -> None:
    with gzip.open(shared_data / "raw_http" / "ccxtrs_binance" / "fetch_markets.json.gz") as file:
        content = json.load(file)["http_response"]
    found = {each.symbol: each for each in BinanceCoinm().decode_listing(json.dumps(content).encode())}
    assert sum(each.active for each in found.values()) == 38
    listing = InstrumentIndex.of(found.values())
    perpetual, dated = found["BTCUSD_PERP"], found["BTCUSD_260327"]
    assert listing.find("BTC/USD:BTC") == listing.find("btc/usd") == perpetual
    assert listing.find("BTC/USD:BTC-260327") == dated
    assert (perpetual.settle, perpetual.listed_at, perpetual.delisted_at) == ("BTC", 1_597_042_800_000, None)
    assert dated.delisted_at == 1_774_598_400_000


# Of the other answers of COIN-M nothing is recorded: these bodies are written in the documented shapes.
@pytest.mark.parametrize(
    ("dataset", "body", "expected"),
    [
        (
            "ohlcv",
            (
                b'[[1660003200000,"23800.1","23811.0","23790.5","23805.2","5211",1660003499999,"21.89101",'
                b'412,"2605","10.94421","0"]]'
            ),
            [23800.1, 23811.0, 23790.5, 23805.2, 21.89101, np.nan, 412, 10.94421, np.nan],
        ),
        (
            "index_price",
            b'[[1660003200000,"23800.12","23811.03","23790.51","23805.24","0",1660003499999,"0",60,"0","0","0"]]',
            [23800.12, 23811.03, 23790.51, 23805.24],
        ),
        (
            "funding_rate",
            (
                b'[{"symbol":"BTCUSD_PERP","fundingTime":1660003200000,"fundingRate":"-0.00002110",'
                b'"markPrice":"23801.2","rateType":"Regular"}]'
            ),
            [-0.0000211, 23801.2, np.nan],
        ),
        (
            "open_interest",
            (
                b'[{"pair":"BTCUSD","contractType":"PERPETUAL","sumOpenInterest":"5171254",'
                b'"sumOpenInterestValue":"21724.8312","timestamp":1660003200000}]'
            ),
            [21724.8312, np.nan],
        ),
        (
            "long_short_ratio",
            (
                b'[{"pair":"BTCUSD","longShortRatio":"1.5000","longAccount":"0.6000","shortAccount":"0.4000",'
                b'"timestamp":1660003200000}]'
            ),
            [1.5, 0.6, 0.4],
        ),
        (
            "taker_volume",
            (
                b'[{"pair":"BTCUSD","contractType":"PERPETUAL","takerBuyVol":"387","takerSellVol":"248",'
                b'"takerBuyVolValue":"3.0","takerSellVolValue":"2.0","timestamp":"1660003200000"}]'
            ),
            [3.0, 2.0, 1.5],
        ),
        (
            "taker_volume",
            (
                b'[{"pair":"BTCUSD","contractType":"PERPETUAL","takerBuyVol":"387","takerSellVol":"0",'
                b'"takerBuyVolValue":"3.0","takerSellVolValue":"0","timestamp":1660003200000}]'
            ),
            [3.0, 0.0, np.nan],
        ),
    ],
)
def test_documented_answers_of_coinm_are_decoded(dataset: str, body: bytes, expected: list[float]) -> None:
    exchange, midnight = BinanceCoinm(), 1_660_003_200_000
    interval = "event" if dataset == "funding_rate" else "5m"
    series = Series.of(exchange.name, dataset, "BTCUSD_PERP", interval)
    part = Slice(series, Span(midnight, midnight + HOUR), rows=12)
    exchange.raise_for_error(Response(200, {}, body, NOW - 50, NOW))
    page = validate_page(exchange.endpoint(dataset).decode(body, part), part)
    assert not page.rejected
    assert page.columns.times.tolist() == [midnight]
    np.testing.assert_array_equal(page.columns.values[:, 0], expected)


def test_a_window_that_is_too_long_is_a_bad_request() -> None:
    body = b'{"code":-4088,"msg":"Maximum time interval is 200 days."}'
    with pytest.raises(BadRequest, match="200 days"):
        BinanceCoinm().raise_for_error(Response(400, {}, body, NOW - 50, NOW))
