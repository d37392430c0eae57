from __future__ import annotations

import gzip
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from tests.testing.client import client_of

market = GeneratedMarket(["BTCUSDT"])
KLINES = "/fapi/v1/klines"


def test_nothing_is_left_behind() -> None:
    # Sets, not counts: a thread of an earlier test may end meanwhile.
    before = set(threading.enumerate())
    exchange = SimulatedExchange(market)
    for _ in range(2):
        with exchange, client_of(exchange) as client:
            assert client.get("/fapi/v1/ping").status == 200
            assert len(set(threading.enumerate()) - before) == 1
        assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="not running"):
        exchange.base_url  # noqa: B018


def test_a_taken_port_is_reported_and_leaves_nothing() -> None:
    before = set(threading.enumerate())
    with SimulatedExchange(market) as first:
        second = SimulatedExchange(market, SimulatorOptions(port=first.address[1]))
        with pytest.raises(OSError, match="in use"):
            second.__enter__()
    assert set(threading.enumerate()) <= before


def test_certificates_are_verified() -> None:
    with SimulatedExchange(market, SimulatorOptions(tls=True)) as exchange:
        assert exchange.base_url.startswith("https://127.0.0.1:")
        with client_of(exchange) as client:
            assert client.get("/fapi/v1/ping").status == 200
        with pytest.raises(urllib.error.URLError) as refused:
            urllib.request.urlopen(f"{exchange.base_url}/fapi/v1/ping", timeout=5)
        assert isinstance(refused.value.reason, ssl.SSLCertVerificationError)
        certificate = exchange.certificate
    assert certificate is not None
    assert not certificate.exists()


def test_gzip_only_for_those_who_accept_it() -> None:
    with SimulatedExchange(market, SimulatorOptions(gzip=True)) as exchange, client_of(exchange) as client:
        plain = client.get(KLINES, symbol="BTCUSDT", interval="1d", startTime=0, limit=100)
        headers = {"Accept-Encoding": "gzip, br"}
        packed = client.get(KLINES, headers, symbol="BTCUSDT", interval="1d", startTime=0, limit=100)
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body)


def test_latency_clock_and_skew_can_be_changed_while_running() -> None:
    options = SimulatorOptions(now=lambda: 1_700_000_000_000, clock_skew=5000)
    with SimulatedExchange(market, options) as exchange, client_of(exchange) as client:
        answer = client.get("/fapi/v1/time")
        assert answer.json == {"serverTime": 1_700_000_005_000}
        assert answer.headers["date"] == "Tue, 14 Nov 2023 22:13:25 GMT"
        exchange.now = lambda: 1_600_000_000_000
        assert client.get("/fapi/v1/time").json == {"serverTime": 1_600_000_005_000}
        exchange.latency = 0.1
        began = time.perf_counter()
        client.get("/fapi/v1/time")
        assert time.perf_counter() - began >= 0.1


def test_unknown_paths_and_broken_requests() -> None:
    with SimulatedExchange(market) as exchange, client_of(exchange) as client:
        assert client.get("/nothing").status == 404
        assert exchange.request_log.latest[-1].weight == 0
        client.connection.sock.sendall(b"\0\0\r\n\r\n")
        assert client.connection.sock.recv(100).startswith(b"HTTP/1.1 400")


def test_pipelined_requests_are_answered_in_order() -> None:
    with SimulatedExchange(market, SimulatorOptions(latency=0.02)) as exchange, client_of(exchange) as client:
        client.connection.connect()
        sock = client.connection.sock
        sock.sendall(b"GET /fapi/v1/ping HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
        received = b""
        while data := sock.recv(1000):
            received += data
        assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404"]


def test_the_log_is_bounded_and_the_counters_are_not() -> None:
    with SimulatedExchange(market, SimulatorOptions(log_size=3)) as exchange, client_of(exchange) as client:
        for _ in range(5):
            client.get("/fapi/v1/ping")
        assert len(exchange.request_log.latest) == 3
        assert exchange.request_log.total == exchange.request_log.requests["127.0.0.1"] == 5
        exchange.request_log.clear()
        assert exchange.request_log.total == 0


def test_it_runs_in_a_process_of_its_own() -> None:
    command = [
        sys.executable,
        "-m",
        "marketfetch.testing",
        "--symbols",
        "BTCUSDT",
        "--proxies",
        "2",
        "--no-limits",
        "--archive",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['base_url']}/fapi/v1/ping", timeout=60) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{ready['archive']}/?delimiter=/", timeout=60) as answer:
            assert b"<CommonPrefixes><Prefix>data/</Prefix>" in answer.read()
        assert len(ready["proxies"]) == 2
        assert ready["certificate"] is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(250) == 0
