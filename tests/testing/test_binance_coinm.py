"""The COIN-M venue: windows of 200 days, volumes in contracts, statistics by pair and contract type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from marketfetch.testing import (
    GeneratedMarket,
    LimitRules,
    MarketInstrument,
    SimulatedExchange,
    SimulatorOptions,
    Window,
)
from marketfetch.values.intervals import Interval
from tests.testing.client import Client, client_of

HOUR = 3_600_000
DAY = 24 * HOUR
LISTED = 1_600_000_020_000
NOW = 1_700_000_000_123
LONGEST = 200 * DAY
DELIVERY = NOW + 30 * DAY
KLINES = "/dapi/v1/klines"

market = GeneratedMarket(
    [
        *(MarketInstrument.parse(name, LISTED) for name in ("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSDT")),
        MarketInstrument.parse("BTCUSD_231229", LISTED, DELIVERY),
    ]
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options = SimulatorOptions(limits=LimitRules(futures_weight=10**9), now=lambda: NOW)
    with SimulatedExchange(market, options) as exchange, client_of(exchange) as connected:
        yield connected


def opens(client: Client, path: str = KLINES, interval: str = "1d", **params: Any) -> list[int]:
    named: dict[str, Any] = {"pair": "BTCUSD"} if "index" in path else {"symbol": "BTCUSD_PERP"}
    answer = client.get(path, interval=interval, **named, **params)
    assert answer.status == 200, answer.body
    return [row[0] for row in answer.json]


@pytest.mark.parametrize(
    "path", [KLINES, *(f"/dapi/v1/{kind}Klines" for kind in ("premiumIndex", "markPrice", "indexPrice"))]
)
def test_a_page_is_filled_from_the_end_of_its_window(client: Client, path: str) -> None:
    day = Interval.parse("1d")
    start, end = day.ceil(LISTED), day.ceil(LISTED) + 9 * DAY
    assert opens(client, path, startTime=start, endTime=end, limit=3) == [end - 2 * DAY, end - DAY, end]
    assert opens(client, path, startTime=start, limit=2)[-1] == start + LONGEST
    assert opens(client, path, endTime=start + 300 * DAY, limit=500)[0] == start + 100 * DAY
    assert opens(client, path, limit=2)[-1] == day.floor(NOW)


def test_a_window_of_more_than_200_days_is_refused(client: Client) -> None:
    params: dict[str, Any] = {"symbol": "BTCUSD_PERP", "interval": "1d", "startTime": LISTED}
    assert client.get(KLINES, **params, endTime=LISTED + LONGEST).status == 200
    answer = client.get(KLINES, **params, endTime=LISTED + LONGEST + 1)
    assert (answer.status, answer.json["code"]) == (400, -4088)


@pytest.mark.parametrize(("symbol", "dollars"), [("BTCUSD_PERP", 100), ("ETHUSD_PERP", 10)])
def test_volume_counts_contracts_and_base_coin(client: Client, symbol: str, dollars: int) -> None:
    rows = client.get(KLINES, symbol=symbol, interval="1m", limit=500).json[:-1]
    window = Window(rows[0][0], rows[-1][0] + 1)
    true = market.rows("ohlcv", symbol, Interval.parse("1m"), window).floats()
    for contracts, base, own, quote in ((5, 7, "volume", "quote_volume"), (9, 10, "taker_buy_volume", "")):
        assert [float(row[base]) for row in rows] == true[own].tolist()
        found = np.array([int(row[contracts]) for row in rows])
        assert np.abs(found * dollars - true[quote or "taker_buy_quote_volume"]).max() <= dollars / 2


def test_statistics_belong_to_a_pair_and_a_contract_type(client: Client) -> None:
    asked: dict[str, Any] = {"period": "5m", "limit": 3}
    interest = client.get(
        "/futures/data/openInterestHist", pair="BTCUSD", contractType="PERPETUAL", **asked
    ).json
    window = Window(interest[0]["timestamp"], NOW)
    true = market.rows("open_interest", "BTCUSD_PERP", Interval.parse("5m"), window).floats()
    assert [float(row["sumOpenInterestValue"]) for row in interest] == true["open_interest"].tolist()
    assert [int(row["sumOpenInterest"]) for row in interest] == np.rint(
        true["open_interest_value"] / 100
    ).tolist()
    taker = client.get("/futures/data/takerBuySellVol", pair="BTCUSD", contractType="PERPETUAL", **asked).json
    assert {*taker[0]} >= {"takerBuyVol", "takerSellVol", "takerBuyVolValue", "takerSellVolValue"}
    ratio = client.get("/futures/data/globalLongShortAccountRatio", pair="BTCUSD", **asked).json
    assert {*ratio[0]} == {"pair", "longShortRatio", "longAccount", "shortAccount", "timestamp"}


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("/futures/data/openInterestHist", {"pair": "BTCUSD", "period": "5m"}, -1102),
        ("/futures/data/takerBuySellVol", {"pair": "BTCUSD", "period": "5m", "contractType": "ALL"}, -1130),
        ("/futures/data/openInterestHist", {"period": "5m"}, -1102),
        ("/dapi/v1/fundingRate", {}, -1102),
        ("/dapi/v1/indexPriceKlines", {"pair": "NOUSD", "interval": "1m"}, -1121),
        (KLINES, {"symbol": "BTCUSDT", "interval": "1m"}, -1121),
        (KLINES, {"symbol": "BTCUSD_PERP", "interval": "1m", "limit": 1501}, -1130),
        (KLINES, {"symbol": "BTCUSD_PERP", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
    ],
)
def test_mistakes_have_their_codes(client: Client, path: str, params: dict[str, Any], code: int) -> None:
    answer = client.get(path, **params)
    assert (answer.status, answer.json["code"]) == (400, code)


def test_the_two_hosts_share_the_paths_of_statistics(client: Client) -> None:
    """A symbol means USD-M, a pair COIN-M."""
    path = "/futures/data/globalLongShortAccountRatio"
    asked: dict[str, Any] = {"period": "5m", "limit": 1}
    assert client.get(path, symbol="BTCUSDT", **asked).json[0]["symbol"] == "BTCUSDT"
    assert client.get(path, pair="ETHUSD", **asked).json[0]["pair"] == "ETHUSD"
    assert client.get(path, pair="NOUSD", **asked).json == []


def test_dated_contracts_have_no_funding(client: Client) -> None:
    path = "/dapi/v1/fundingRate"
    assert client.get(path, symbol="BTCUSD_231229").json == []
    events = client.get(path, symbol="BTCUSD_PERP", startTime=0, limit=3).json
    assert len(events) == 3
    assert events[0]["fundingTime"] < LISTED + DAY


def test_each_listing_has_the_contracts_of_its_own_host(client: Client) -> None:
    listed = {entry["symbol"]: entry for entry in client.get("/dapi/v1/exchangeInfo").json["symbols"]}
    assert set(listed) == {"BTCUSD_PERP", "ETHUSD_PERP", "BTCUSD_231229"}
    dated, perpetual = listed["BTCUSD_231229"], listed["BTCUSD_PERP"]
    assert (dated["deliveryDate"], dated["contractStatus"]) == (DELIVERY, "TRADING")
    assert (perpetual["pair"], perpetual["contractSize"], perpetual["marginAsset"]) == ("BTCUSD", 100, "BTC")
    assert listed["ETHUSD_PERP"]["contractSize"] == 10
    for path in ("/fapi/v1/exchangeInfo", "/api/v3/exchangeInfo"):
        assert [entry["symbol"] for entry in client.get(path).json["symbols"]] == ["BTCUSDT"]


def test_weight_and_statistics_have_budgets_of_their_own() -> None:
    rules = LimitRules(futures_weight=12, futures_statistics_calls=1)
    with (
        SimulatedExchange(market, SimulatorOptions(limits=rules, now=lambda: NOW)) as exchange,
        client_of(exchange) as client,
    ):
        asked: dict[str, Any] = {"symbol": "BTCUSD_PERP", "interval": "1m"}
        answers = [client.get(KLINES, **asked, limit=limit) for limit in (499, 1500, 99)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[1].headers["x-mbx-used-weight-1m"] == "12"
        assert "12 requests per minute" in answers[2].json["msg"]
        path = "/futures/data/globalLongShortAccountRatio"
        first, second = (client.get(path, pair="BTCUSD", period="5m") for _ in range(2))
        assert (first.status, second.status) == (200, 429)
        assert "x-mbx-used-weight-1m" not in first.headers
        usdm = client.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1m")
        assert usdm.status == 429, "both hosts count together"
        assert client.get(path, symbol="BTCUSDT", period="5m").status == 429
