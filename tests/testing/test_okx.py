from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marketfetch.adapters.okx import Okx
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions, Window
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span
from tests.testing.client import Client, client_of

HOUR = 3_600_000
DAY = 24 * HOUR
LISTED = 1_600_000_020_000
NOW = 1_700_000_000_123
CANDLES = "/api/v5/market/candles"
HISTORY = "/api/v5/market/history-candles"

market = GeneratedMarket(["BTCUSDT"], listed_at=LISTED)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    options = SimulatorOptions(limits=None, now=lambda: NOW, okx_history_limit=300)
    with SimulatedExchange(market, options) as exchange, client_of(exchange) as connected:
        yield connected


def data(client: Client, path: str = HISTORY, **params: Any) -> list[Any]:
    answer = client.get(path, **{"instId": "BTC-USDT", "bar": "1H", **params})
    assert answer.status == 200
    assert answer.json["code"] == "0"
    rows: list[Any] = answer.json["data"]
    return rows


def test_rows_are_newest_first_and_equal_the_oracle(client: Client) -> None:
    start = NOW - 400 * DAY
    rows = data(client, after=start + 5 * HOUR, before=start)
    oracle = market.rows(
        "ohlcv", "BTCUSDT", Interval.parse("1h"), Window(start, start + 5 * HOUR)
    ).newest_first()
    assert [int(row[0]) for row in rows] == oracle.times.tolist()
    values = oracle.floats()
    assert [float(row[4]) for row in rows] == values["close"].tolist()
    assert [float(row[5]) for row in rows] == values["volume"].tolist()
    assert [row[6] for row in rows] == [row[7] for row in rows]
    assert {row[8] for row in rows} == {"1"}


def test_after_and_before_are_exclusive_and_before_alone_starts_at_the_newest(client: Client) -> None:
    hour = NOW - NOW % HOUR
    assert [int(row[0]) for row in data(client, after=hour, before=hour - 3 * HOUR)] == [
        hour - HOUR,
        hour - 2 * HOUR,
    ]
    assert int(data(client, before=LISTED + DAY, limit=2)[0][0]) == hour


def test_the_forming_candle_is_first_and_marked(client: Client) -> None:
    assert [row[8] for row in data(client, CANDLES, limit=3)] == ["0", "1", "1"]


def test_page_sizes_and_reach(client: Client) -> None:
    assert len(data(client)) == 100
    assert len(data(client, limit=1000)) == 300
    assert len(data(client, CANDLES, limit=300)) == 300
    assert data(client, CANDLES, after=NOW - 1441 * HOUR) == []
    assert len(data(client, after=NOW - 1441 * HOUR)) == 100


def test_swaps_count_contracts(client: Client) -> None:
    swap = data(client, instId="BTC-USDT-SWAP", after=NOW - 2 * DAY, limit=1)[0]
    spot = data(client, after=NOW - 2 * DAY, limit=1)[0]
    assert float(swap[5]) == pytest.approx(float(spot[5]) * 100)
    assert swap[6:8] == spot[5:7]


@pytest.mark.parametrize(("bar", "hour"), [("1D", 16), ("1Dutc", 0), ("6H", 4), ("1W", 16), ("1Mutc", 0)])
def test_long_bars_open_in_hong_kong_unless_told_otherwise(client: Client, bar: str, hour: int) -> None:
    opened = int(data(client, bar=bar, limit=2)[1][0])
    assert opened % (6 * HOUR if bar == "6H" else DAY) == hour * HOUR
    if bar == "1W":
        assert opened // DAY % 7 == 3, "Sunday in UTC"


def test_funding(client: Client) -> None:
    rows = data(client, "/api/v5/public/funding-rate-history", instId="BTC-USDT-SWAP")
    # The rate that was paid differs from the forecast: an adapter that reads the wrong one is found out.
    assert all(row["realizedRate"] != row["fundingRate"] for row in rows)
    times = [int(row["fundingTime"]) for row in rows]
    assert times == sorted(set(times), reverse=True)
    assert len(rows) == 100
    assert rows[0]["realizedRate"]
    answer = client.get("/api/v5/public/funding-rate-history", instId="BTC-USDT-SWAP", after=NOW - 91 * DAY)
    assert answer.json["data"] == []
    assert client.get("/api/v5/public/funding-rate-history", instId="BTC-USDT").json["code"] == "51001"


def test_the_adapter_reads_the_rate_that_was_paid(client: Client) -> None:
    answer = client.get("/api/v5/public/funding-rate-history", instId="BTC-USDT-SWAP", limit=3)
    series = Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event")
    page = Okx().endpoint("funding_rate").decode(answer.body, Slice(series, Span(NOW - 2 * DAY, NOW), 100))
    paid = [float(row["realizedRate"]) for row in reversed(answer.json["data"])]
    assert sorted(page.columns.values[0].tolist()) == sorted(paid)


def test_instruments_and_time(client: Client) -> None:
    swap = client.get("/api/v5/public/instruments", instType="SWAP").json["data"][0]
    assert (swap["instId"], swap["listTime"], swap["expTime"]) == ("BTC-USDT-SWAP", str(LISTED), "")
    assert client.get("/api/v5/public/instruments", instType="SPOT").json["data"][0]["instId"] == "BTC-USDT"
    assert client.get("/api/v5/public/instruments", instType="SWAP", instId="X").json["code"] == "51001"
    assert client.get("/api/v5/public/instruments").json["code"] == "51000"
    assert client.get("/api/v5/public/time").json["data"] == [{"ts": str(NOW)}]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"instId": "X-USDT"}, "51001"),
        ({"instId": "BTC-USDT", "bar": "8H"}, "51000"),
        ({"instId": "BTC-USDT", "after": "x"}, "51000"),
        ({}, "50014"),
    ],
)
def test_errors_come_with_status_200(client: Client, params: dict[str, Any], code: str) -> None:
    answer = client.get(CANDLES, **params)
    assert (answer.status, answer.json["code"], answer.json["data"]) == (200, code, [])


def test_too_many_requests_are_refused_without_retry_after() -> None:
    with (
        SimulatedExchange(market, SimulatorOptions(now=lambda: NOW)) as exchange,
        client_of(exchange) as client,
    ):
        answers = [client.get(HISTORY, instId="BTC-USDT") for _ in range(21)]
    assert [answer.status for answer in answers] == [200] * 20 + [429]
    assert answers[-1].json["code"] == "50011"
    assert "retry-after" not in answers[-1].headers
