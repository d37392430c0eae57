"""The built-in transport through proxies and TLS: who is reused, who is to blame, and what stays secret."""

from __future__ import annotations

import base64
import random
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import anyio
import attrs
import pytest
import trustme

from marketfetch.errors import ConfigurationError, FetchError, ProxyError, RequestTimeout, TransportError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.redaction import Secret
from marketfetch.testing import (
    GeneratedMarket,
    LocalProxies,
    LocalProxy,
    ProxyMode,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.http import Cost, Egress, LimitPool, Request
from tests.fetchers.wire import ok, wire

PASSWORD = "hunter2-very-secret"
POOL = LimitPool("test", 1_000_000, 60_000)


def egress(proxy: LocalProxy | str, name: str = "Proxy 7") -> Egress:
    return Egress(name, Secret(proxy if isinstance(proxy, str) else proxy.url))


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange:
        yield exchange


@pytest.fixture
def tls_exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None, tls=True)) as exchange:
        yield exchange


@pytest.fixture
def proxies() -> Iterator[LocalProxies]:
    with LocalProxies(3, credentials=("anna", PASSWORD)) as proxies:
        yield proxies


@pytest.fixture
def many_proxies() -> Iterator[LocalProxies]:
    with LocalProxies(100) as proxies:
        yield proxies


async def switch(proxy: LocalProxy, mode: ProxyMode) -> None:
    await anyio.to_thread.run_sync(setattr, proxy, "mode", mode)


def ping(exchange: SimulatedExchange) -> Request:
    return Request("/api/v3/time", cost=Cost(POOL), base_url=exchange.base_url)


async def test_plain_requests_are_forwarded(exchange: SimulatedExchange, proxies: LocalProxies) -> None:
    fetcher = CurlFetcher()
    async with fetcher.session():
        for _ in range(5):
            for proxy in proxies:
                assert (await fetcher.fetch(ping(exchange), egress(proxy))).status == 200
    assert [proxy.connections for proxy in proxies] == [1, 1, 1]
    assert [exchange.request_log.requests[proxy.source] for proxy in proxies] == [5, 5, 5]


async def test_tls_goes_through_tunnels_that_are_kept(
    tls_exchange: SimulatedExchange, proxies: LocalProxies
) -> None:
    fetcher = CurlFetcher(certificate=tls_exchange.certificate)
    async with fetcher.session():
        for _ in range(5):
            for proxy in proxies:
                response = await fetcher.fetch(ping(tls_exchange), egress(proxy))
                assert response.status == 200
                assert "content-length" in response.headers
    assert [proxy.tunnels for proxy in proxies] == [1, 1, 1]


async def test_random_rotation_over_many_proxies_keeps_connections(
    exchange: SimulatedExchange, many_proxies: LocalProxies
) -> None:
    """The self-check of MAXCONNECTS: without it, four in five of these requests open a connection."""
    fetcher = CurlFetcher()
    egresses = [egress(proxy) for proxy in many_proxies]
    async with fetcher.session():
        for _ in range(10):
            for one in random.sample(egresses, len(egresses)):
                await fetcher.fetch(ping(exchange), one)
    assert sum(proxy.connections for proxy in many_proxies) == 100


async def test_users_of_one_gateway_do_not_share_a_tunnel(
    tls_exchange: SimulatedExchange, many_proxies: LocalProxies
) -> None:
    fetcher = CurlFetcher(certificate=tls_exchange.certificate)
    gateway = many_proxies[0]
    host, port = gateway.address
    async with fetcher.session():
        for user in ("anna:1", "otto:1", "anna:1", "otto:1", "anna:2"):
            await fetcher.fetch(ping(tls_exchange), egress(f"http://{user}@{host}:{port}"))
    assert gateway.tunnels == 3


async def test_a_credential_does_not_travel_to_the_next_egress() -> None:
    fetcher = CurlFetcher()
    async with wire(ok()) as server, wire(ok()) as one, wire(ok()) as other, fetcher.session():
        with_credential = egress(f"http://anna:{PASSWORD}@127.0.0.1:{one.port}")
        without = egress(f"http://127.0.0.1:{other.port}")
        for _ in range(2):
            for leaving in (with_credential, without, Egress("Direct")):
                await fetcher.fetch(server.request(), leaving)
        token = base64.b64encode(f"anna:{PASSWORD}".encode())
        assert all(token in head for head in one.requests)
        assert not any(b"uthorization" in head for head in other.requests + server.requests)
        assert [len(found.requests) for found in (one, other, server)] == [2, 2, 2]


async def test_no_proxy_of_the_environment_is_not_heeded(
    exchange: SimulatedExchange, proxies: LocalProxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,*")
    fetcher = CurlFetcher()
    async with fetcher.session():
        await fetcher.fetch(ping(exchange), egress(proxies[0]))
    assert proxies[0].requests == 1


async def caught(fetcher: CurlFetcher, request: Request, leaving: Egress) -> FetchError:
    """Return the error, after making sure that nothing of it shows the credential."""
    async with fetcher.session():
        with pytest.raises(FetchError) as found:
            await fetcher.fetch(request, leaving)
    error: BaseException | None = found.value
    shown = "".join(traceback.format_exception(error))
    while error is not None:
        shown += repr(error) + str(error.args)
        error = error.__cause__ or error.__context__
    assert PASSWORD not in shown
    assert leaving.name in str(found.value)
    return found.value


MODES = {
    ProxyMode.REFUSE: (ProxyError, "check that it is up"),
    ProxyMode.HANG: (RequestTimeout, "within 0.3 s"),
    ProxyMode.DEMAND_CREDENTIALS: (ProxyError, "407 Proxy Authentication Required: check its user"),
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_trouble_with_a_proxy_is_named(
    mode: ProxyMode,
    tls: bool,
    exchange: SimulatedExchange,
    tls_exchange: SimulatedExchange,
    proxies: LocalProxies,
) -> None:
    target = tls_exchange if tls else exchange
    # Of the others an answer has to come.
    fetcher = CurlFetcher(certificate=target.certificate, timeout=0.3 if mode is ProxyMode.HANG else 20.0)
    kind, message = MODES[mode]
    await switch(proxies[0], mode)
    error = await caught(fetcher, ping(target), egress(proxies[0]))
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.parametrize(
    ("tls", "mode", "kind"),
    [
        (False, ProxyMode.RESET, ProxyError),
        (True, ProxyMode.RESET, ProxyError),
        (False, ProxyMode.DIE_MIDWAY, TransportError),  # half of the headers, then the end
        (True, ProxyMode.DIE_MIDWAY, ProxyError),  # half of the TLS handshake
    ],
)
async def test_a_proxy_that_resets_or_dies(
    *,
    tls: bool,
    mode: ProxyMode,
    kind: type[FetchError],
    exchange: SimulatedExchange,
    tls_exchange: SimulatedExchange,
    proxies: LocalProxies,
) -> None:
    target = tls_exchange if tls else exchange
    await switch(proxies[0], mode)
    error = await caught(CurlFetcher(certificate=target.certificate), ping(target), egress(proxies[0]))
    assert type(error) is kind


async def test_wrong_user_or_password(
    tls_exchange: SimulatedExchange, exchange: SimulatedExchange, proxies: LocalProxies
) -> None:
    host, port = proxies[0].address
    wrong = egress(f"http://otto:{PASSWORD}@{host}:{port}")
    for target in (exchange, tls_exchange):
        error = await caught(CurlFetcher(certificate=target.certificate), ping(target), wrong)
        assert isinstance(error, ProxyError)
        assert "407" in str(error)


@pytest.mark.parametrize(
    ("status", "remedy"), [(402, "paid"), (403, "allows"), (502, "cannot reach"), (599, "599")]
)
async def test_a_proxy_that_refuses_the_tunnel(
    status: int, remedy: str, tls_exchange: SimulatedExchange
) -> None:
    answer = f"HTTP/1.1 {status} Sorry\r\nContent-Length: 0\r\n\r\n".encode()
    async with wire(answer) as proxy:
        fetcher = CurlFetcher(certificate=tls_exchange.certificate)
        leaving = egress(f"http://anna:{PASSWORD}@127.0.0.1:{proxy.port}")
        error = await caught(fetcher, ping(tls_exchange), leaving)
    assert isinstance(error, ProxyError)
    assert str(status) in str(error)
    assert remedy in str(error)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "https"])
async def test_a_proxy_that_is_of_another_kind(scheme: str, exchange: SimulatedExchange) -> None:
    async with wire(b"HTTP/1.1 400 Bad Request\r\n\r\n") as proxy:
        leaving = egress(f"{scheme}://anna:{PASSWORD}@127.0.0.1:{proxy.port}")
        error = await caught(CurlFetcher(timeout=2), ping(exchange), leaving)
    assert isinstance(error, ProxyError | RequestTimeout)


async def test_a_proxy_whose_name_is_unknown(exchange: SimulatedExchange) -> None:
    leaving = egress(f"http://anna:{PASSWORD}@no-such-host.invalid:3128")
    error = await caught(CurlFetcher(), ping(exchange), leaving)
    assert isinstance(error, ProxyError)
    assert "resolved" in str(error)


async def test_an_exchange_whose_name_is_unknown() -> None:
    request = Request("/", cost=Cost(POOL), base_url="http://no-such-host.invalid")
    error = await caught(CurlFetcher(), request, Egress("Direct"))
    assert type(error) is TransportError
    assert "name of the exchange" in str(error)


async def test_certificates_are_verified(tls_exchange: SimulatedExchange, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for certificate in (None, other):
        error = await caught(CurlFetcher(certificate=certificate), ping(tls_exchange), Egress("Direct"))
        assert type(error) is TransportError
        assert "certificate=" in str(error)


async def test_a_certificate_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("absent.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match=f"certificate: .*{name}"):
            async with CurlFetcher(certificate=tmp_path / name).session():
                pass


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_the_bundle_is_removed(
    tls_exchange: SimulatedExchange, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with CurlFetcher(certificate=tls_exchange.certificate).session():
        assert files(tmp_path)
    assert not files(tmp_path)


async def test_a_connection_nobody_accepts_times_out() -> None:
    """A listener whose queue is full drops further connections, as a black hole does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        request = Request("/", cost=Cost(POOL), base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        error = await caught(CurlFetcher(connect_timeout=0.3), request, Egress("Direct"))
        for filler in fillers:
            filler.close()
    assert isinstance(error, RequestTimeout)


async def test_http_2_shares_one_connection(tls_exchange: SimulatedExchange) -> None:
    """The simulator speaks HTTP/1.1 only: asking for HTTP/2 has to fall back quietly."""
    fetcher = CurlFetcher(http_version="2", certificate=tls_exchange.certificate)
    async with fetcher.session(), anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(fetcher.fetch, ping(tls_exchange), Egress("Direct"))
    assert tls_exchange.request_log.total == 10


def test_nothing_shows_a_credential() -> None:
    leaving = egress(f"http://anna:{PASSWORD}@10.0.0.1:3128")
    assert PASSWORD not in repr(leaving)
    assert PASSWORD not in repr(attrs.asdict(leaving, recurse=False))
