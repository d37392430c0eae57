"""What is particular about each built-in exchange, beyond the contract."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marketfetch.adapter import DecodeError, Interval, Response, Slice, Span
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.decoding.validation import validate_page
from marketfetch.errors import BadSymbol, Banned, ExchangeNotAvailable, RateLimitExceeded
from marketfetch.values.series import Series

START = 1_780_272_000_000
DAY = 86_400_000
USDM = BinanceUsdm()


def funding() -> Slice:
    return Slice(Series.of("binance-usdm", "funding_rate", "X", "event"), Span(START, START + DAY), rows=1000)


def test_a_special_event_shares_the_row_of_the_regular_one() -> None:
    events = [
        {"fundingTime": START, "fundingRate": "0.0001", "markPrice": "10", "rateType": "Regular"},
        {"fundingTime": START, "fundingRate": "-0.02", "markPrice": "", "rateType": "Special"},
        {"fundingTime": START + 1, "fundingRate": "0.0003", "markPrice": ""},
    ]
    found = USDM.endpoint("funding_rate").decode(json.dumps(events).encode(), funding())
    assert found.columns.times.tolist() == [START, START + 1]
    assert found.received == 3
    rate, mark, special = found.columns.values
    assert rate.tolist() == [0.0001, 0.0003]
    assert special[0] == -0.02
    assert mark[0] == 10
    assert np.isnan(special[1])
    assert np.isnan(mark[1])


@pytest.mark.parametrize(
    "event", [None, 7, {}, {"fundingTime": "x"}, {"fundingTime": None}, {"fundingTime": []}]
)
def test_events_without_a_time_are_refused(event: object) -> None:
    with pytest.raises(DecodeError):
        USDM.endpoint("funding_rate").decode(json.dumps([event]).encode(), funding())


def test_an_index_is_asked_for_by_its_pair() -> None:
    series = Series.of("binance-usdm", "index_price", "BTCUSDT_260925", "1m")
    request = USDM.endpoint("index_price").request(Slice(series, Span(START, START + DAY), rows=1440))
    assert request.params["pair"] == "BTCUSDT"
    assert request.params["endTime"] == START + DAY - 1


@pytest.mark.parametrize(
    ("rows", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_weights_are_the_documented_ones(rows: int, weight: int) -> None:
    assert USDM.endpoint("ohlcv").cost(rows).weight == weight


def test_no_endpoint_shares_another_ones_limit_by_mistake() -> None:
    pools = {
        name: USDM.endpoint(name).cost(1).pool.name for name in ("ohlcv", "funding_rate", "open_interest")
    }
    assert len(set(pools.values())) == 3
    assert USDM.endpoint("premium_index").cost(1).pool == USDM.endpoint("ohlcv").cost(1).pool


def test_bars_of_okx_are_those_of_utc() -> None:
    endpoint = Okx().endpoint("ohlcv")
    for name in ("6h", "12h", "1d", "2d", "3d", "1w", "1M"):
        assert endpoint.native_interval(Interval.parse(name)).endswith("utc")


def test_bounds_of_okx_are_exclusive() -> None:
    series = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
    request = Okx().endpoint("ohlcv").request(Slice(series, Span(START, START + 60_000), rows=1))
    assert (request.params["before"], request.params["after"]) == (START - 1, START + 60_000)


@pytest.mark.parametrize(("symbol", "volume"), [("BTC-USDT", 5.0), ("BTC-USDT-SWAP", 6.0)])
def test_volume_of_okx_is_in_base_coin(symbol: str, volume: float) -> None:
    body = {"code": "0", "msg": "", "data": [[str(START), "1", "2", "1", "2", "5", "6", "7", "1"]]}
    part = Slice(Series.of("okx", "ohlcv", symbol, "1m"), Span(START, START + 60_000), rows=1)
    found = Okx().endpoint("ohlcv").decode(json.dumps(body).encode(), part)
    assert found.columns.values[4:6, 0].tolist() == [volume, 7.0]


def answer(status: int, content: object) -> Response:
    return Response(status, {}, json.dumps(content).encode(), START - 10, START)


@pytest.mark.parametrize(
    ("code", "error"),
    [("50011", RateLimitExceeded), ("50001", ExchangeNotAvailable), ("51001", BadSymbol)],
)
def test_okx_says_no_inside_200(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Okx().raise_for_error(answer(200, {"code": code, "msg": "no", "data": []}))


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (200, -1003, RateLimitExceeded),
        (418, -1003, Banned),
        (400, -1121, BadSymbol),
        (503, -1008, ExchangeNotAvailable),
        (200, -1001, ExchangeNotAvailable),
    ],
)
def test_binance_says_no_by_code(status: int, code: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        USDM.raise_for_error(answer(status, {"code": code, "msg": "no"}))


def test_contracts_that_never_end_have_no_end() -> None:
    symbols = [
        {"symbol": "A", "deliveryDate": 4_133_404_800_000, "onboardDate": START, "status": "TRADING"},
        {"symbol": "B", "deliveryDate": START + DAY, "onboardDate": 0, "status": "SETTLING"},
    ]
    endless, dated = USDM.decode_listing(json.dumps({"symbols": symbols}).encode())
    assert (endless.listed_at, endless.delisted_at, endless.active) == (START, None, True)
    assert (dated.listed_at, dated.delisted_at, dated.active) == (None, START + DAY, False)


def test_a_rate_that_reads_nan_is_not_taken_for_no_rate() -> None:
    """The column may be NULL, so that a NaN would pass for one: it is refused as impossible."""
    event = {"fundingTime": START, "fundingRate": "NaN", "markPrice": "10", "rateType": "Regular"}
    page = validate_page(
        USDM.endpoint("funding_rate").decode(json.dumps([event]).encode(), funding()), funding()
    )
    assert len(page.columns) == 0
    assert page.rejected == {"impossible": 1}
