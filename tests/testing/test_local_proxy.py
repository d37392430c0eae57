from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from curl_cffi import CurlError, requests

from marketfetch.testing import (
    GeneratedMarket,
    LocalProxies,
    LocalProxy,
    ProxyMode,
    SimulatedExchange,
    SimulatorOptions,
)

market = GeneratedMarket(["BTCUSDT"])
KLINES = "/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime=1600000020000&limit=1500"


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session[requests.Response]]:
    with requests.Session() as opened:
        yield opened


def get(
    session: requests.Session[requests.Response], url: str, proxy: str, timeout: float = 5
) -> requests.Response:
    return session.get(url, proxy=proxy, timeout=timeout)


def test_requests_are_forwarded_from_the_proxys_own_address(
    exchange: SimulatedExchange, session: requests.Session[requests.Response]
) -> None:
    exchange.request_log.clear()
    direct = session.get(exchange.base_url + KLINES).content
    with LocalProxies(3) as proxies:
        assert [proxy.source for proxy in proxies] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        for proxy in proxies:
            for _ in range(4):
                assert get(session, exchange.base_url + KLINES, proxy.url).content == direct
        assert [(proxy.connections, proxy.requests, proxy.tunnels) for proxy in proxies] == [(1, 4, 0)] * 3
    assert {name: exchange.request_log.requests[name] for name in ("127.0.0.2", "127.0.0.4")} == {
        "127.0.0.2": 4,
        "127.0.0.4": 4,
    }
    assert exchange.request_log.connections["127.0.0.3"] == 1, "the connection to the exchange is kept alive"


def test_tunnels_carry_tls(session: requests.Session[requests.Response]) -> None:
    with (
        SimulatedExchange(market, SimulatorOptions(tls=True)) as exchange,
        LocalProxy(source="127.0.0.9") as proxy,
    ):
        # The annotation of `verify` forgets that it may be the file of an authority.
        trusted: Any = str(exchange.certificate)
        for _ in range(3):
            answer = session.get(exchange.base_url + KLINES, proxy=proxy.url, verify=trusted)
            assert answer.status_code == 200
            assert len(json.loads(answer.content)) == 1500
        assert (proxy.connections, proxy.tunnels, proxy.requests) == (1, 1, 0)
        assert exchange.request_log.requests == {"127.0.0.9": 3}


def test_credentials(exchange: SimulatedExchange, session: requests.Session[requests.Response]) -> None:
    with LocalProxy(credentials=("user", "secret")) as proxy:
        host, port = proxy.address
        assert proxy.url == f"http://user:secret@{host}:{port}"
        assert "secret" not in repr(proxy)
        assert get(session, exchange.base_url + KLINES, proxy.url).status_code == 200
        assert get(session, exchange.base_url + KLINES, f"http://{host}:{port}").status_code == 407
        assert get(session, exchange.base_url + KLINES, f"http://user:wrong@{host}:{port}").status_code == 407


def test_what_was_meant_for_the_proxy_stays_there(exchange: SimulatedExchange) -> None:
    with (
        LocalProxy() as proxy,
        contextlib.closing(http.client.HTTPConnection(*proxy.address, timeout=60)) as connection,
    ):
        headers = {"Proxy-Authorization": "Basic x", "Content-Length": "3"}
        connection.request("GET", f"{exchange.base_url}/fapi/v1/ping", b"abc", headers)
        assert connection.getresponse().read() == b"{}"
        connection.request("GET", "/relative")
        assert connection.getresponse().status == 400


def test_an_exchange_that_is_away_is_a_bad_gateway(session: requests.Session[requests.Response]) -> None:
    with SimulatedExchange(market) as gone:
        url = gone.base_url
    with LocalProxy() as proxy:
        assert get(session, url + KLINES, proxy.url).status_code == 502
        with pytest.raises(CurlError):
            get(session, url.replace("http", "https"), proxy.url)


def test_every_mode_and_back(
    exchange: SimulatedExchange, session: requests.Session[requests.Response]
) -> None:
    url = exchange.base_url + KLINES
    with LocalProxy() as proxy:
        truth = get(session, url, proxy.url).content
        for mode in (ProxyMode.REFUSE, ProxyMode.HANG, ProxyMode.RESET, ProxyMode.DIE_MIDWAY, ProxyMode.SLOW):
            proxy.mode = mode
            with pytest.raises(CurlError):
                get(session, url, proxy.url, timeout=0.3)
            proxy.mode = ProxyMode.FORWARD
            assert get(session, url, proxy.url).content == truth
        proxy.mode = ProxyMode.DEMAND_CREDENTIALS
        assert get(session, url, proxy.url).status_code == 407
        proxy.mode = ProxyMode.REFUSE
        proxy.mode = ProxyMode.REFUSE


def test_who_hangs_goes_on_when_the_proxy_comes_back(
    exchange: SimulatedExchange, session: requests.Session[requests.Response]
) -> None:
    with LocalProxy() as proxy:
        proxy.mode = ProxyMode.HANG
        timer = threading.Timer(0.2, lambda: setattr(proxy, "mode", ProxyMode.FORWARD))
        timer.start()
        assert get(session, exchange.base_url + KLINES, proxy.url).status_code == 200
        timer.join()


def test_nothing_is_left_behind() -> None:
    # Sets, not counts: a thread of an earlier test may end meanwhile.
    before = set(threading.enumerate())
    with LocalProxies(50) as proxies:
        assert len(set(threading.enumerate()) - before) == 1
        assert len(set(proxies.urls)) == len(proxies) == 50
        assert [proxy.name for proxy in proxies[:2]] == ["proxy-1", "proxy-2"]
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="not running"):
        proxies[0].url  # noqa: B018


def test_there_are_addresses_for_many_proxies() -> None:
    proxies = LocalProxies(600)
    sources = [proxy.source for proxy in proxies]
    assert len(set(sources)) == 600
    assert not any(source.endswith((".0", ".255")) or source == "127.0.0.1" for source in sources)
    with pytest.raises(ValueError, match=r"60,000"):
        LocalProxies(10**6)
