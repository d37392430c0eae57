"""The built-in HTTP client: libcurl through curl-cffi, with one connection pool for each event loop.

curl-cffi's own `AsyncSession` sets every option again for each request and wraps the response in objects that
are not needed here. Easy handles that keep their options take half of the CPU time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import anyio
import attrs
from curl_cffi import AsyncCurl, CurlError, CurlHttpVersion, CurlMOpt, CurlOpt, ffi, lib
from curl_cffi.requests.impersonate import resolve_latest_browser_type
from curl_cffi.utils import CurlCffiWarning

from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.local_resources import descriptor_limit, descriptors_used_up, resource_remedy
from marketfetch.common.type_checks import is_number, is_text
from marketfetch.errors import (
    ConfigurationError,
    FetchError,
    LocalResourceError,
    RequestTimeout,
    TransportError,
    unknown,
)
from marketfetch.fetchers.ca_bundle import ca_file
from marketfetch.fetchers.curl_errors import parse_headers, proxy_refusal, translate
from marketfetch.fetchers.easy_handle import EasyHandle
from marketfetch.redaction import redact
from marketfetch.values.http import Egress, Request, Response

__all__ = ["CurlFetcher"]

_HTTP_VERSIONS = {"1.1": CurlHttpVersion.V1_1, "2": CurlHttpVersion.V2TLS}
_IDLE_CONNECTIONS = 500
"""Maximum of idle connections that are kept alive, and never more than half of the file descriptors."""


def _now() -> int:
    return time.time_ns() // 1_000_000


def _certificate(path: object) -> Path | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(
            f"certificate: {type(path).__name__} is not a path; write text such as 'ca.pem'"
        )
    return Path(path)


@attrs.define(kw_only=True, eq=False)
class CurlFetcher:
    """A Fetcher whose TLS and headers look like a browser; it needs an event loop of asyncio.

    `connect_timeout` and `timeout` are seconds; `timeout` includes the last byte of the body. `certificate`
    is a PEM file of authorities to trust besides the usual authorities; certificates are always verified.
    `max_body` is the maximum size of the decompressed body in bytes. Redirects are not followed, cookies are
    not kept, and proxy settings of the environment are ignored. A fetcher may serve several pipelines and
    event loops at the same time.

    >>> CurlFetcher(impersonate="firefox", timeout=20)
    CurlFetcher(impersonate='firefox', http_version='1.1', connect_timeout=10.0, timeout=20, certificate=None,
    max_body=67108864, compression=True)
    """

    impersonate: str = "chrome"
    http_version: Literal["1.1", "2"] = "1.1"
    connect_timeout: float = 10.0
    timeout: float = 30.0
    certificate: Path | None = attrs.field(default=None, converter=_certificate)
    max_body: int = 64 * 1024 * 1024
    compression: bool = True
    _sessions: dict[asyncio.AbstractEventLoop, _Shared] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not is_text(self.http_version) or self.http_version not in _HTTP_VERSIONS:
            raise unknown("http_version", self.http_version, _HTTP_VERSIONS)
        for name in ("connect_timeout", "timeout", "max_body"):
            number = getattr(self, name)
            if not is_number(number) or number <= 0:
                raise ConfigurationError(f"{name}: must be above zero, not {redact(repr(number))}")

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Open the connection pool of the running event loop; leaving the last block closes it.

        Several blocks on one event loop, such as those of several pipelines, share the connections. Raises
        ConfigurationError without an event loop of asyncio, for an unknown browser and for a `certificate`
        that cannot be read.
        """
        loop = asyncio_loop("a CurlFetcher")
        shared = self._sessions.setdefault(loop, _Shared())
        shared.users += 1
        try:
            async with shared.opening:
                if shared.session is None:
                    authorities = await shared.closing.enter_async_context(ca_file(self.certificate))
                    session = _Session(self, authorities)
                    shared.closing.push_async_callback(session.close)
                    session.give_back(session.take())  # raises for an unknown browser, before any request
                    shared.session = session
            yield
        finally:
            shared.users -= 1
            if not shared.users:
                del self._sessions[loop]
                with anyio.CancelScope(shield=True):
                    await shared.closing.aclose()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        """Send the request and return the complete response with any HTTP status.

        Raises ProxyError if the proxy cannot be used or answers instead of the exchange, else RequestTimeout
        or TransportError. Cancelling closes only the connection of this request.
        """
        shared = self._sessions.get(asyncio_loop("a CurlFetcher"))
        session = shared.session if shared else None
        if session is None:
            raise ConfigurationError("fetch inside `async with fetcher.session():` on the same event loop")
        handle = session.take()
        handle.prepare(request, egress)
        sent_at = _now()
        error = await self._perform(session, handle, egress)
        if error is not None:
            raise error  # outside of `except`: the error of libcurl, with the proxy URL, is not its context
        received_at = _now()
        status, headers = parse_headers(handle.lines)
        body = b"".join(handle.body.chunks)
        session.give_back(handle)
        if status == 407 and egress.proxy is not None:
            raise proxy_refusal(egress, status)
        if status == 0:
            raise TransportError(f"{egress.name}: the connection ended before the answer did")
        return Response(status, headers, body, sent_at, received_at)

    async def _perform(self, session: _Session, handle: EasyHandle, egress: Egress) -> FetchError | None:
        """Run the transfer and return its error; a handle whose transfer failed is discarded."""
        complete = False
        try:
            done = session.multi.add_handle(handle.curl)
            # Not libcurl's own timeout: some transfers went on after it.
            timer = asyncio.get_running_loop().call_later(self.timeout, _give_up, done)
            try:
                await done
            finally:
                timer.cancel()
            complete = True
        except TimeoutError:
            return RequestTimeout(f"{egress.name}: no complete answer within {self.timeout:g} s")
        except CurlError as error:
            return translate(handle.failure(error), egress, self.max_body)
        finally:
            if not complete:
                session.discard(handle)
        return None


def _give_up(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())


def _idle_connections() -> int:
    limit = descriptor_limit()
    return _IDLE_CONNECTIONS if limit is None else max(1, min(_IDLE_CONNECTIONS, limit // 2))


@attrs.define(eq=False)
class _Shared:
    """The session of one event loop, the number of its users, and what the last user closes."""

    users: int = 0
    session: _Session | None = None
    opening: anyio.Lock = attrs.field(factory=anyio.Lock)
    closing: AsyncExitStack = attrs.field(factory=AsyncExitStack)


class _Session:
    """The multi handle of one event loop, which has the connection pool, and the idle easy handles."""

    def __init__(self, fetcher: CurlFetcher, authorities: str) -> None:
        self._browser: str = resolve_latest_browser_type(fetcher.impersonate)  # type: ignore[no-untyped-call]
        self._options: dict[CurlOpt, str | int] = {
            CurlOpt.HTTP_VERSION: _HTTP_VERSIONS[fetcher.http_version],
            CurlOpt.PIPEWAIT: int(fetcher.http_version == "2"),  # share a connection that is being made
            CurlOpt.CONNECTTIMEOUT_MS: round(fetcher.connect_timeout * 1000),
        }
        self._headers = {} if fetcher.compression else {"Accept-Encoding": "identity"}
        self._authorities, self._max_body = authorities, fetcher.max_body
        self._idle: list[EasyHandle] = []
        self._open = True
        try:
            self.multi = AsyncCurl(cacert=authorities)
        except CurlCffiWarning as error:  # where warnings are errors
            raise ConfigurationError(
                "the event loop: libcurl needs one that watches sockets, and Proactor does not; call "
                "marketfetch.fetch(...), or use asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
            ) from error
        if self.multi._curlm == ffi.NULL:  # noqa: SLF001  # curl-cffi does not check it
            lacking = (
                resource_remedy(errno.EMFILE) if descriptors_used_up() else resource_remedy(errno.ENOMEM)
            )
            raise LocalResourceError(f"libcurl cannot begin: {lacking}")
        # Not AsyncCurl.setopt, which passes a pointer instead of the number, so the option has no effect.
        # libcurl would then keep four connections per running transfer, and rotating proxies would reconnect.
        lib.curl_multi_setopt(
            self.multi._curlm,  # noqa: SLF001
            CurlMOpt.MAXCONNECTS,
            ffi.cast("void*", _idle_connections()),
        )

    def take(self) -> EasyHandle:
        if self._idle:
            return self._idle.pop()
        return EasyHandle(
            self._browser,
            self._options,
            self._headers,
            authorities=self._authorities,
            max_body=self._max_body,
        )

    def give_back(self, handle: EasyHandle) -> None:
        handle.clear()
        self._idle.append(handle)

    def discard(self, handle: EasyHandle) -> None:
        if self._open:
            self.multi.remove_handle(handle.curl)
        handle.curl.close()

    async def close(self) -> None:
        self._open = False
        await self.multi.close()  # type: ignore[no-untyped-call]
        for handle in self._idle:
            handle.curl.close()
