from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.testing import (
    GeneratedMarket,
    LimitRules,
    MarketInstrument,
    SimulatedExchange,
    SimulatorOptions,
    Window,
)
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span
from tests.testing.client import Client, client_of

MINUTE = 60_000
DAY = 86_400_000
LISTED = 1_600_000_020_000
NOW = 1_700_000_000_123
GAP = Span(LISTED + 100 * MINUTE, LISTED + 160 * MINUTE)
KLINES = "/fapi/v1/klines"

market = GeneratedMarket(
    [MarketInstrument.parse("BTCUSDT", LISTED), MarketInstrument.parse("OLDUSDT", LISTED, LISTED + 10 * DAY)],
    gaps=[GAP],
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options = SimulatorOptions(limits=LimitRules(futures_weight=10**9, spot_weight=10**9), now=lambda: NOW)
    with SimulatedExchange(market, options) as exchange, client_of(exchange) as connected:
        yield connected


def klines(client: Client, path: str = KLINES, interval: str = "1m", **params: Any) -> list[list[Any]]:
    answer = client.get(path, symbol="BTCUSDT", interval=interval, **params)
    assert answer.status == 200, answer.body
    rows: list[list[Any]] = answer.json
    return rows


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["1m", "5m", "1h", "1d", "1w", "1M"]),
    st.integers(LISTED - DAY, NOW - 41 * DAY),
    st.integers(1, 1500),
)
def test_served_text_equals_the_oracle(client: Client, interval: str, start: int, limit: int) -> None:
    rows = klines(client, interval=interval, startTime=start, endTime=NOW - 40 * DAY, limit=limit)
    window = Window(start, NOW - 40 * DAY + 1, limit)
    oracle = market.rows("ohlcv", "BTCUSDT", Interval.parse(interval), window)
    assert [row[0] for row in rows] == oracle.times.tolist()
    places = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "quote_volume": 7, "trades": 8}
    places |= {"taker_buy_volume": 9, "taker_buy_quote_volume": 10}
    for name, values in oracle.floats().items():
        assert [float(row[places[name]]) for row in rows] == values.tolist()
    assert all(isinstance(row[1], str) and isinstance(row[8], int) and len(row) == 12 for row in rows)
    step = Interval.parse(interval)
    assert [row[6] for row in rows] == [step.shift(row[0], 1) - 1 for row in rows]


def test_a_window_has_both_its_ends(client: Client) -> None:
    rows = klines(client, startTime=LISTED, endTime=LISTED + 2 * MINUTE)
    assert [row[0] - LISTED for row in rows] == [0, MINUTE, 2 * MINUTE]


def test_a_start_gives_the_oldest_rows_and_no_start_the_newest(client: Client) -> None:
    assert [row[0] for row in klines(client, startTime=0, limit=2)] == [LISTED, LISTED + MINUTE]
    end = LISTED + 50 * MINUTE
    assert [row[0] for row in klines(client, endTime=end, limit=2)] == [end - MINUTE, end]
    newest = klines(client, limit=2)
    assert newest[-1][0] == NOW - NOW % MINUTE
    assert len(klines(client)) == 500


@pytest.mark.parametrize("limit", [5, 120])
def test_a_start_without_a_row_skips_ahead(client: Client, limit: int) -> None:
    rows = klines(client, startTime=GAP.start, limit=limit)
    assert rows[0][0] == GAP.end
    assert len(rows) == limit
    across = klines(client, startTime=GAP.start - MINUTE, limit=limit)
    assert [row[0] for row in across[:2]] == [GAP.start - MINUTE, GAP.end]
    assert len(klines(client, startTime=LISTED - 400 * DAY, limit=limit)) == limit


def test_the_forming_candle_is_last_and_changes() -> None:
    clock = [NOW - NOW % MINUTE + 30_000]
    with (
        SimulatedExchange(market, SimulatorOptions(now=lambda: clock[0])) as exchange,
        client_of(exchange) as client,
    ):
        forming = klines(client, startTime=NOW - 300 * MINUTE, limit=1500)[-1]
        assert forming[0] <= clock[0] <= forming[6]
        clock[0] += MINUTE
        *_, final, _new = klines(client, limit=3)
    assert final[0] == forming[0]
    assert final[1] == forming[1]
    assert final != forming


def test_marks_have_no_volume_and_premiums_may_be_negative(client: Client) -> None:
    for path in ("premiumIndexKlines", "markPriceKlines"):
        rows = klines(client, f"/fapi/v1/{path}", startTime=LISTED, limit=1000)
        assert {tuple(row[5:6] + row[7:]) for row in rows} == {("0", "0", 12, "0", "0", "0")}
    year = klines(client, "/fapi/v1/premiumIndexKlines", "1d", startTime=LISTED)
    assert any(row[3].startswith("-") for row in year)
    index = client.get("/fapi/v1/indexPriceKlines", pair="BTCUSDT", interval="1m", limit=3)
    assert len(index.json) == 3


def test_candles_end_with_the_delisting(client: Client) -> None:
    rows = client.get(KLINES, symbol="OLDUSDT", interval="1h", limit=2).json
    assert rows[-1][6] + 1 == LISTED + 10 * DAY - (LISTED % 3_600_000) + (
        3_600_000 if LISTED % 3_600_000 else 0
    )
    assert (
        client.get(KLINES, symbol="OLDUSDT", interval="1h", startTime=LISTED + 11 * DAY, limit=500).json == []
    )


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"symbol": "NOPE", "interval": "1m"}, -1121),
        ({"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ({"symbol": "BTCUSDT"}, -1102),
        ({"interval": "1m"}, -1102),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "x"}, -1100),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
    ],
)
def test_mistakes_have_their_codes(client: Client, params: dict[str, Any], code: int) -> None:
    answer = client.get(KLINES, **params)
    assert answer.status == 400
    assert answer.json["code"] == code


def test_weight_is_told_and_errors_cost_it_too() -> None:
    with SimulatedExchange(market, SimulatorOptions()) as exchange, client_of(exchange) as client:
        used = []
        for limit in (499, 1500, 1501):
            answer = client.get(KLINES, symbol="BTCUSDT", interval="1m", limit=limit)
            used.append(int(answer.headers["x-mbx-used-weight-1m"]))
        assert used == [2, 12, 22]
        assert "x-mbx-used-weight-1m" not in client.get("/fapi/v1/fundingRate").headers
        assert "x-mbx-used-weight-1m" not in client.get("/futures/data/openInterestHist").headers
        spot = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000)
        assert spot.headers["x-mbx-used-weight-1m"] == "2"
        assert exchange.request_log.statuses == {200: 4, 400: 2}
        assert exchange.request_log.weights == {"127.0.0.1": 22 + 2 + 2}
        assert exchange.request_log.connections == {"127.0.0.1": 1}
        assert exchange.request_log.latest[0].params["limit"] == "499"


def test_429_then_418() -> None:
    options = SimulatorOptions(limits=LimitRules(futures_weight=1, ban_after=3), now=lambda: NOW)
    with SimulatedExchange(market, options) as exchange, client_of(exchange) as client:
        answers = [client.get("/fapi/v1/ping") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 429, 429, 418, 418]
    assert int(answers[1].headers["retry-after"]) == -(-(MINUTE - NOW % MINUTE) // 1000)
    assert answers[1].json["code"] == answers[3].json["code"] == -1003
    assert answers[3].headers["retry-after"] == "120"
    assert f"banned until {NOW + 120_000}" in answers[3].json["msg"]


def test_exchange_info_tells_listing_and_delisting(client: Client) -> None:
    info = client.get("/fapi/v1/exchangeInfo").json
    live, old = info["symbols"]
    assert (live["onboardDate"], live["deliveryDate"], live["status"]) == (
        LISTED,
        4_133_404_800_000,
        "TRADING",
    )
    assert (old["deliveryDate"], old["status"]) == (LISTED + 10 * DAY, "SETTLING")
    assert (live["baseAsset"], live["quoteAsset"], live["marginAsset"]) == ("BTC", "USDT", "USDT")
    assert info["rateLimits"][0]["limit"] == 10**9
    assert client.get("/fapi/v1/time").json == {"serverTime": NOW}
    assert "onboardDate" not in client.get("/api/v3/exchangeInfo").json["symbols"][0]


def test_spot_alone_has_candles_of_a_second(client: Client) -> None:
    rows = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1s", limit=3).json
    assert [row[6] - row[0] for row in rows] == [999] * 3
    assert client.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1s").json["code"] == -1120


def test_spot_cuts_the_limit_without_a_word(client: Client) -> None:
    assert len(klines(client, "/api/v3/klines", startTime=LISTED, limit=1500)) == 1000


def test_funding_pages(client: Client) -> None:
    path = "/fapi/v1/fundingRate"
    oldest = client.get(path, symbol="BTCUSDT", startTime=0, limit=3).json
    assert oldest[0]["fundingTime"] < LISTED + DAY
    assert set(oldest[0]) == {"symbol", "fundingTime", "fundingRate", "markPrice", "rateType"}
    newest = client.get(path, symbol="BTCUSDT").json
    assert len(newest) == 100
    assert NOW - newest[-1]["fundingTime"] < DAY
    everything = client.get(path).json
    assert len(everything) == 200
    assert {row["symbol"] for row in everything} == {"BTCUSDT"} | (
        {"OLDUSDT"} & {row["symbol"] for row in everything}
    )
    assert [row["fundingTime"] for row in everything] == sorted(row["fundingTime"] for row in everything)


@pytest.mark.parametrize(
    ("route", "value"),
    [
        ("openInterestHist", "sumOpenInterest"),
        ("globalLongShortAccountRatio", "longShortRatio"),
        ("topLongShortAccountRatio", "longAccount"),
        ("topLongShortPositionRatio", "shortAccount"),
        ("takerlongshortRatio", "buySellRatio"),
    ],
)
def test_statistics_reach_back_thirty_days(client: Client, route: str, value: str) -> None:
    path = f"/futures/data/{route}"
    start = NOW - 29 * DAY
    rows = client.get(
        path, symbol="BTCUSDT", period="5m", startTime=start, endTime=start + 30 * MINUTE, limit=500
    ).json
    assert len(rows) == 6
    assert isinstance(rows[0][value], str)
    assert isinstance(rows[0]["timestamp"], int)
    assert len(client.get(path, symbol="BTCUSDT", period="5m").json) == 30
    late = client.get(path, symbol="BTCUSDT", period="5m", startTime=NOW - 31 * DAY)
    assert (late.status, late.json["code"]) == (400, -1130)
    assert client.get(path, symbol="GONE", period="5m").json == []
    assert client.get(path, symbol="BTCUSDT", period="1m").status == 400
