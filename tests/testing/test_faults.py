from __future__ import annotations

import gzip
import http.client
import json
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange, SimulatorOptions
from tests.testing.client import Answer, Client, client_of

MINUTE = 60_000
NOW = 1_700_000_000_123
START = NOW - NOW % MINUTE - 200 * MINUTE
PARAMS: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "interval": "1m",
    "startTime": START,
    "endTime": START + 10 * MINUTE - 1,
    "limit": 99,
}
KLINES = "/fapi/v1/klines"
UNSEEN = {FaultKind.SLOW_DRIP, FaultKind.DATE_AHEAD, FaultKind.DATE_BEHIND}
"""What does not change status or body."""


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    options = SimulatorOptions(limits=None, now=lambda: NOW)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), options) as running:
        yield running


def ask(exchange: SimulatedExchange, kind: FaultKind | None, timeout: float = 10) -> Answer:
    exchange.faults = None if kind is None else Faults(rate=1, kinds=(kind,))
    with client_of(exchange, timeout) as client:
        return client.get(KLINES, **PARAMS)


def rows(exchange: SimulatedExchange, kind: FaultKind | None) -> list[list[Any]]:
    answer = ask(exchange, kind)
    assert answer.status == 200
    found: list[list[Any]] = answer.json
    return found


@pytest.mark.parametrize(
    "kind",
    [kind for kind in FaultKind if not kind.startswith("clock_") and kind != FaultKind.SLOW_LORIS],
)
def test_every_kind_hits_once_and_then_the_truth_is_told(
    exchange: SimulatedExchange, kind: FaultKind
) -> None:
    truth = ask(exchange, None)
    exchange.request_log.clear()
    never_ends = kind in {FaultKind.HANG, FaultKind.SLOW_DRIP}
    try:
        broken: Answer | None = ask(exchange, kind, timeout=0.3 if never_ends else 60)
    except (OSError, http.client.HTTPException):
        broken = None
    assert broken is None or kind in UNSEEN or (broken.status, broken.body) != (truth.status, truth.body)
    assert exchange.request_log.faults == {kind: 1}
    with client_of(exchange) as client:
        assert client.get(KLINES, **PARAMS).body == truth.body


@pytest.mark.parametrize(
    ("kind", "status"), [(kind, int(kind.split("_")[1])) for kind in FaultKind if kind.startswith("status_")]
)
def test_refusals(exchange: SimulatedExchange, kind: FaultKind, status: int) -> None:
    answer = ask(exchange, kind)
    assert answer.status == status
    retry_after = answer.headers.get("retry-after")
    expected = {
        FaultKind.STATUS_429: "1",
        FaultKind.STATUS_418: "1",
        FaultKind.STATUS_429_DATE: "Tue, 14 Nov 2023 22:13:22 GMT",
        FaultKind.STATUS_429_PAST: "Tue, 14 Nov 2023 21:13:20 GMT",
        FaultKind.STATUS_429_NEGATIVE: "-30",
        FaultKind.STATUS_429_DAYS: "172800",
        FaultKind.STATUS_429_ABSURD: "1000000000",
        FaultKind.STATUS_429_RUBBISH: "soon",
    }
    assert retry_after == expected.get(kind)
    html = status in {403, 500, 502, 503} or kind == FaultKind.STATUS_451_PAGE
    assert answer.headers["content-type"] == ("text/html" if html else "application/json")
    if kind == FaultKind.STATUS_451:
        assert answer.json["code"] == 0
    if status == 418:
        assert (f"until {NOW + 1000}" in answer.json["msg"]) == (kind != FaultKind.STATUS_418_BARE)


def test_redirects_lead_elsewhere_or_nowhere(exchange: SimulatedExchange) -> None:
    away, loop = ask(exchange, FaultKind.REDIRECT_AWAY), ask(exchange, FaultKind.REDIRECT_LOOP)
    assert (away.status, loop.status) == (302, 301)
    assert away.headers["location"].startswith("http://127.0.0.99:9/fapi/")
    assert loop.headers["location"].startswith(f"{KLINES}?symbol=BTCUSDT")


def test_clocks_that_are_wrong(exchange: SimulatedExchange) -> None:
    def faulty_answer(kind: FaultKind, path: str) -> Answer:
        exchange.faults = Faults(rate=1, kinds=(kind,))
        with client_of(exchange) as client:
            return client.get(path)

    hours = 2 * 60 * MINUTE
    assert faulty_answer(FaultKind.CLOCK_HOURS_AHEAD, "/fapi/v1/time").json == {"serverTime": NOW + hours}
    assert faulty_answer(FaultKind.CLOCK_HOURS_BEHIND, "/api/v5/public/time").json["data"][0]["ts"] == str(
        NOW - hours
    )
    assert faulty_answer(FaultKind.CLOCK_YEARS_AHEAD, "/api/v3/time").json["serverTime"] > 2_000_000_000_000
    assert faulty_answer(FaultKind.CLOCK_YEARS_BEHIND, "/api/v3/time").json["serverTime"] < 1_400_000_000_000
    assert "2024" in faulty_answer(FaultKind.DATE_AHEAD, "/api/v3/time").headers["date"]
    assert "2022" in faulty_answer(FaultKind.DATE_BEHIND, "/api/v3/time").headers["date"]
    assert faulty_answer(FaultKind.CLOCK_HOURS_AHEAD, "/api/v3/exchangeInfo").status == 200
    assert exchange.request_log.latest[-1].fault is None, "other routes tell no time"


def test_bodies_without_measure(exchange: SimulatedExchange) -> None:
    truth = ask(exchange, None)
    for kind in (FaultKind.HUGE_BODY, FaultKind.HUGE_CHUNKED_BODY):
        huge = ask(exchange, kind)
        assert huge.body.rstrip() == truth.body
        assert len(huge.body) == len(truth.body) + 100 * 2**20
    bomb = ask(exchange, FaultKind.GZIP_BOMB)
    assert len(bomb.body) < 200_000
    assert len(zlib.decompressobj(31).decompress(bomb.body)) == len(truth.body) + 100 * 2**20


def test_compressed_bodies_that_are_broken(exchange: SimulatedExchange) -> None:
    for kind in (FaultKind.CUT_GZIP, FaultKind.DAMAGED_GZIP):
        answer = ask(exchange, kind)
        assert answer.headers["content-encoding"] == "gzip"
        with pytest.raises((OSError, EOFError, zlib.error)):
            gzip.decompress(answer.body)


def test_a_client_that_does_not_read_costs_the_server_no_memory(exchange: SimulatedExchange) -> None:
    exchange.faults = Faults(rate=1, kinds=(FaultKind.HUGE_BODY,), paths=[KLINES])
    tracemalloc.start()
    try:
        with client_of(exchange) as idle, client_of(exchange) as other:
            idle.connection.request("GET", KLINES)
            other.get("/fapi/v1/ping")  # answered although the first one reads nothing
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_bodies_that_are_no_rows(exchange: SimulatedExchange) -> None:
    assert ask(exchange, FaultKind.ERROR_IN_200).json["code"] == -1003
    assert ask(exchange, FaultKind.EMPTY_BODY).body == b""
    assert ask(exchange, FaultKind.NULL).json is None
    assert isinstance(ask(exchange, FaultKind.OBJECT_INSTEAD_OF_LIST).json, dict)
    cut = ask(exchange, FaultKind.TRUNCATED_JSON)
    assert int(cut.headers["content-length"]) == len(cut.body)
    assert cut.body.endswith(b"]")
    with pytest.raises(json.JSONDecodeError):
        cut.json  # noqa: B018


def test_rows_that_are_not_true(exchange: SimulatedExchange) -> None:
    truth = rows(exchange, None)
    times = [row[0] for row in truth]
    assert rows(exchange, FaultKind.REVERSED_ORDER) == truth[::-1]
    assert rows(exchange, FaultKind.SHORT_PAGE) == truth[:5]
    assert rows(exchange, FaultKind.EMPTY_PAGE) == []
    assert len(rows(exchange, FaultKind.REPEATED_ROWS)) == 12
    unsorted = rows(exchange, FaultKind.UNSORTED_ROWS)
    assert unsorted != truth
    assert sorted(unsorted) == truth
    assert rows(exchange, FaultKind.OFF_GRID_ROW)[-1][0] == times[-1] + 1
    assert rows(exchange, FaultKind.OUT_OF_RANGE_ROW)[-1][0] > NOW
    assert any(float(row[2]) < float(row[3]) for row in rows(exchange, FaultKind.IMPOSSIBLE_ROW))
    assert any(float(row[5]) < 0 for row in rows(exchange, FaultKind.NEGATIVE_VOLUME))
    assert any("NaN" in row for row in rows(exchange, FaultKind.NAN_TEXT))
    assert any("1e400" in row for row in rows(exchange, FaultKind.HUGE_NUMBER))
    assert rows(exchange, FaultKind.PLAIN_NUMBERS)[0][1] == float(truth[0][1])
    assert not set(times) & {row[0] for row in rows(exchange, FaultKind.WRONG_WINDOW)}
    assert [row[0] for row in rows(exchange, FaultKind.REPEATED_PAGE)] == [
        time - 10 * MINUTE for time in times
    ]
    assert rows(exchange, FaultKind.SINCE_IGNORED)[-1][0] == NOW - NOW % MINUTE


def test_connections_that_fail(exchange: SimulatedExchange) -> None:
    with pytest.raises(json.JSONDecodeError):
        ask(exchange, FaultKind.LONG_BODY).json  # noqa: B018
    with pytest.raises(http.client.HTTPException):  # it reads no line as long, and no more than 100
        ask(exchange, FaultKind.ENDLESS_HEADERS)
    for kind in (FaultKind.CUT_BODY, FaultKind.CUT_CHUNKS):
        with pytest.raises(http.client.IncompleteRead):
            ask(exchange, kind)
    with pytest.raises(ConnectionResetError):
        ask(exchange, FaultKind.RESET)
    with pytest.raises(TimeoutError):
        ask(exchange, FaultKind.HANG, timeout=0.2)
    with pytest.raises(TimeoutError):
        ask(exchange, FaultKind.SLOW_DRIP, timeout=0.05)


def test_bytes_that_trickle(exchange: SimulatedExchange) -> None:
    exchange.faults = Faults(rate=1, kinds=(FaultKind.SLOW_LORIS,))
    with socket.create_connection(exchange.address, timeout=10) as connection:
        connection.sendall(f"GET {KLINES} HTTP/1.1\r\n\r\n".encode())
        pieces = [connection.recv(100) for _ in range(5)]
    assert b"".join(pieces).startswith(b"HTTP/")
    assert max(map(len, pieces)) < 100, "as many as came meanwhile"


def test_faults_of_objects_and_envelopes(exchange: SimulatedExchange) -> None:
    def broken(kind: FaultKind, path: str, **params: Any) -> Any:
        exchange.faults = Faults(rate=1, kinds=(kind,))
        with client_of(exchange) as client:
            return client.get(path, **params).json

    candles = "/api/v5/market/candles"
    times = [
        int(row[0]) for row in broken(FaultKind.REVERSED_ORDER, candles, instId="BTC-USDT", limit=5)["data"]
    ]
    assert times == sorted(times)
    assert broken(FaultKind.ERROR_IN_200, candles, instId="BTC-USDT")["code"] == "50011"
    moved = broken(FaultKind.OFF_GRID_ROW, candles, instId="BTC-USDT", limit=5)["data"]
    assert int(moved[-1][0]) % MINUTE == 1
    funding = broken(FaultKind.NAN_TEXT, "/fapi/v1/fundingRate", symbol="BTCUSDT")
    assert any("NaN" in row.values() for row in funding)
    assert broken(FaultKind.IMPOSSIBLE_ROW, "/fapi/v1/time") == {"serverTime": NOW}
    assert exchange.request_log.latest[-1].fault is None, "a fault that cannot happen is not counted"


def requests_of(client: Client, starts: list[int]) -> dict[int, int]:
    return {start: client.get(KLINES, **{**PARAMS, "startTime": start}).status for start in starts}


def test_faults_follow_the_request_and_not_the_order(exchange: SimulatedExchange) -> None:
    starts = [START - MINUTE * n for n in range(60)]
    faults = Faults(rate=0.3, kinds=(FaultKind.STATUS_500, FaultKind.STATUS_451), seed=5)
    with client_of(exchange) as client:
        exchange.faults = faults
        forwards = requests_of(client, starts)
        exchange.faults = faults
        backwards = requests_of(client, starts[::-1])
        assert forwards == backwards
        assert 5 < sum(status != 200 for status in forwards.values()) < 35
        assert set(requests_of(client, starts).values()) == {200}
        exchange.faults = Faults(rate=1, kinds=(FaultKind.STATUS_500,), times=2)
        assert [requests_of(client, starts[:1])[START] for _ in range(3)] == [500, 500, 200]
        exchange.faults = Faults(rate=1, paths=["/fapi/v1/ping"])
        assert requests_of(client, starts[:1])[START] == 200


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="rate"):
        Faults(rate=1.5)
    with pytest.raises(ValueError, match="no_such_fault"):
        Faults(kinds=["no_such_fault"])
    assert Faults(rate=1, kinds=[]).choose("/", "/", 0) is None
