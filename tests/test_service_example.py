"""The example service as a process: it follows, serves, ends at SIGTERM, and goes on after SIGKILL."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest

import marketfetch as mf
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import MINUTE, Span
from marketfetch.values.times import parse_time
from tests.support.worlds import assert_holds

SERVICE = Path(__file__).parents[1] / "examples" / "service" / "service.py"
KLINES = "/fapi/v1/klines"

pytestmark = pytest.mark.slow  # a minute of the exchange has to pass, on a machine that may be busy


@cache
def symbols() -> list[str]:
    """Return the symbols of the service; only a worker that runs these tests imports FastAPI."""
    found: list[str] = runpy.run_path(str(SERVICE))["SYMBOLS"]
    return found


@attrs.frozen
class Service:
    """A running service and the file of its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the complete lines of the log; each is a JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if "\n" in line]

    def url(self) -> str | None:
        """Return the address, once the service has one."""
        messages = (line["message"] for line in self.lines() if line["logger"] == "uvicorn.error")
        return next((words.split()[3] for words in messages if words.startswith("Uvicorn running on")), None)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page."""
        while not (url := self.url()):
            self.wait_a_moment()
        connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        """Return the page of the health, whose status agrees with it."""
        status, body = self.get("/health")
        found: dict[str, Any] = json.loads(body)
        assert status == (200 if found["healthy"] else 503)
        return found

    def newest(self, symbol: str) -> list[dict[str, Any]]:
        """Return the newest five candles."""
        status, body = self.get(f"/candles?symbol={symbol}&n=5")
        assert status == 200, body
        rows: list[dict[str, Any]] = json.loads(body)
        return rows

    def wait_until_healthy(self) -> None:
        while not self.health()["healthy"]:
            self.wait_a_moment()

    def wait_a_moment(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        time.sleep(0.05)

    def stop(self) -> list[dict[str, Any]]:
        """End it with SIGTERM; return its log."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0, self.log.read_text()
        return self.lines()


@contextmanager
def service(folder: Path, exchange: SimulatedExchange, *more: str) -> Iterator[Service]:
    """Start the service with an SQLite file of the folder; kill it at the end."""
    log = folder / "log.jsonl"
    command = [sys.executable, str(SERVICE), "--port", "0", "--start", "6h", "--base-url", exchange.base_url]
    environment = {**os.environ, "STORE": f"sqlite:{folder / 'market.sqlite'}"}
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *more], stdout=out, stderr=out, env=environment)
    try:
        yield Service(process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """An exchange whose clock, less than a minute wrong, is ten seconds before a full minute now."""
    ahead = 50_000 - time.time_ns() // 1_000_000 % MINUTE
    options = SimulatorOptions(now=lambda: time.time_ns() // 1_000_000 + ahead)
    with SimulatedExchange(GeneratedMarket(symbols(), seed=4), options) as simulated:
        yield simulated


def series_of(symbol: str) -> Series:
    return Series.of("binance-usdm", "ohlcv", symbol, "1m")


def assert_complete(folder: Path, exchange: SimulatedExchange) -> None:
    """The store has the true rows of all symbols, up to the end of their coverage, and each row once."""
    store = mf.SQLiteSink(folder / "market.sqlite")
    ledger = store.ledger()
    assert sorted(series.symbol for series in ledger) == sorted(symbols())
    for series, known in ledger.items():
        assert known.covered.hull is not None
        assert known.covered.hull.end - known.covered.hull.start >= 5 * 60 * MINUTE
        assert_holds(store, exchange.market, series, known.covered.hull)


def test_it_follows_serves_and_ends_at_sigterm(tmp_path: Path, exchange: SimulatedExchange) -> None:
    with service(tmp_path, exchange) as running:
        running.wait_until_healthy()
        now = exchange.server_time
        while parse_time("open_time", running.newest("btc/usdt")[-1]["open_time"], 0) < now - MINUTE:
            running.wait_a_moment()
        (first, *_, last) = running.newest("BTCUSDT")
        span = Span(*(parse_time("open_time", row["open_time"], 0) for row in (first, last)))
        assert span.end - span.start == 4 * MINUTE
        health = running.health()
        assert health["series"] == 50
        assert health["problems"] == []
        assert health["lag"] < 180
        assert running.get("/candles?symbol=BTCUSD")[0] == 404
        assert running.get("/candles?symbol=BTCUSDT&n=0")[0] == 422
        status, metrics = running.get("/metrics")
        assert status == 200
        assert 'marketfetch_rows_written_total{dataset="ohlcv",exchange="binance-usdm"}' in metrics
        log = running.stop()
    assert {"RoundStarted"} <= {line.get("event") for line in log}
    assert log[-1]["message"] == "stopped"
    assert log[-1]["health"]["series"] == 50
    assert log[-1]["health"]["covered_until"] >= health["covered_until"]
    assert_complete(tmp_path, exchange)


def durable(folder: Path) -> dict[Series, Coverage]:
    return dict(mf.SQLiteSink(folder / "market.sqlite").ledger())


def test_after_sigkill_it_requests_what_is_not_durable(tmp_path: Path, exchange: SimulatedExchange) -> None:
    half = symbols()[:25]

    def no_other_half(request: ServerRequest, reply: ServerReply) -> ServerReply:
        answered = request.path != KLINES or request.params["symbol"] in half
        return reply if answered else attrs.evolve(reply, body=b"[[")

    exchange.edit = no_other_half
    with service(tmp_path, exchange) as running:
        while running.health()["covered_until"] is None:
            running.wait_a_moment()
        running.process.kill()
        assert running.process.wait() == -signal.SIGKILL
    before = durable(tmp_path)
    assert before
    assert before.keys() <= {series_of(symbol) for symbol in half}

    exchange.edit = None
    exchange.request_log.clear()
    with service(tmp_path, exchange) as running:
        running.wait_until_healthy()
        running.stop()
    assert_complete(tmp_path, exchange)
    for seen in exchange.request_log.latest:
        if seen.path == KLINES and (series := series_of(seen.params["symbol"])) in before:
            asked = Span(int(seen.params["startTime"]), int(seen.params["endTime"]) + 1)
            assert not before[series].covered & mf.SpanSet.of(asked), "durable rows are not requested again"


def test_a_follow_that_cannot_go_on_ends_the_service(tmp_path: Path, exchange: SimulatedExchange) -> None:
    with service(tmp_path, exchange) as running:
        running.wait_until_healthy()
        exchange.edit = lambda _, reply: attrs.evolve(
            reply, status=451, body=b"Unavailable For Legal Reasons"
        )
        assert running.process.wait() == 1
        last = running.lines()[-1]
    assert (last["level"], last["message"]) == ("ERROR", "cannot go on")
    assert "RestrictedLocation" in last["traceback"]


@pytest.mark.parametrize("wrong", [("--store", "sqlite:absent/market.sqlite"), ("--start", "absent")])
def test_a_wrong_call_ends_the_service_for_good(
    tmp_path: Path, exchange: SimulatedExchange, wrong: tuple[str, str]
) -> None:
    with service(tmp_path, exchange, *wrong) as running:
        assert running.process.wait() == 2
        assert "absent" in running.lines()[-1]["traceback"]
