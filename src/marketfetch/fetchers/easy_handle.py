"""Easy handles of libcurl: set up once, then reused for one request after another."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from curl_cffi import Curl, CurlECode, CurlError, CurlInfo, CurlOpt

from marketfetch.common.local_resources import descriptors_used_up
from marketfetch.errors import ConfigurationError, ProxyError
from marketfetch.fetchers.curl_errors import CurlFailure
from marketfetch.redaction import Secret
from marketfetch.values.http import Egress, Request

__all__ = ["EasyHandle"]

_ALWAYS: Mapping[CurlOpt, str | int] = {
    CurlOpt.BUFFERSIZE: 512 * 1024,
    CurlOpt.NOSIGNAL: 1,
    CurlOpt.ACCEPT_ENCODING: "gzip, deflate, br, zstd",  # as browsers send it; libcurl decompresses
    CurlOpt.PROXY: "",  # ignore the proxies of the environment
    CurlOpt.NOPROXY: "",  # ignore no_proxy of the environment
    CurlOpt.PROTOCOLS_STR: "http,https",
    CurlOpt.SUPPRESS_CONNECT_HEADERS: 1,
    CurlOpt.PROXY_CREDENTIAL_NO_REUSE: 1,  # each user of a gateway is an egress
}


class _Lines(list[bytes]):
    """Collects header lines; libcurl calls `write` for each line."""

    write = list.append


class _Body:
    """Collects the decompressed body; libcurl calls `write`, which fails above `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.chunks: list[bytes] = []
        self._left = self._limit = limit

    def write(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise CurlError("too large", CurlECode.FILESIZE_EXCEEDED)
        self.chunks.append(chunk)

    def clear(self) -> None:
        self.chunks.clear()
        self._left = self._limit


class EasyHandle:
    """An easy handle that keeps its options; `prepare` sets the options that differ between requests.

    `browser` is a name of curl-cffi, `authorities` the path of a PEM file, `max_body` a number of bytes;
    `headers` are sent with every request and replace headers of the browser.

    >>> EasyHandle("chrome120", {}, authorities="", max_body=1000).lines
    []
    """

    def __init__(
        self,
        browser: str,
        options: Mapping[CurlOpt, str | int],
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        authorities: str,
        max_body: int,
    ) -> None:
        self.lines = _Lines()
        self.body = _Body(max_body)
        self.curl = Curl(cacert=authorities)
        self._headers = headers
        self._plain = not headers
        self._proxy: Secret | None = None
        if self.curl.impersonate(browser) != 0:
            raise ConfigurationError(f"impersonate: {browser!r} is not a browser that curl-cffi knows")
        for option, content in {**_ALWAYS, CurlOpt.MAXFILESIZE_LARGE: max_body, **options}.items():
            self.curl.setopt(option, content)
        self._attach_body()

    def prepare(self, request: Request, egress: Egress) -> None:
        """Set the request and the proxy; ProxyError for a proxy URL that libcurl does not take."""
        self.curl.setopt(CurlOpt.URL, request.url)
        if egress.proxy != self._proxy:
            if not self._set_proxy(egress.proxy):
                raise ProxyError(f"{egress.name}: libcurl refuses the address of the proxy; check it")
            self._proxy = egress.proxy
        plain = request.method == "GET" and not request.headers
        if not (plain and self._plain):
            self._set_options(request)
        self._plain = plain

    def _set_proxy(self, proxy: Secret | None) -> bool:
        """Return whether libcurl takes the proxy; its error and the frames of that hold the password."""
        try:
            self.curl.setopt(CurlOpt.PROXY, proxy.reveal() if proxy else "")  # "": no proxy
        except (CurlError, ValueError):
            return False
        return True

    def failure(self, error: CurlError) -> CurlFailure:
        """Return the details of a transfer that failed."""
        connect_status = self.curl.getinfo(CurlInfo.HTTP_CONNECTCODE)
        is_new = self.curl.getinfo(CurlInfo.NUM_CONNECTS)
        has_tls = self.curl.getinfo(CurlInfo.APPCONNECT_TIME)
        number = self.curl.getinfo(CurlInfo.OS_ERRNO)
        return CurlFailure(
            error.code,
            str(error),
            connect_status=connect_status if isinstance(connect_status, int) else 0,
            on_setup=bool(is_new and not has_tls),
            number=number if isinstance(number, int) else 0,
            starved=descriptors_used_up(),
        )

    def clear(self) -> None:
        """Free the memory of the last response."""
        self.lines.clear()
        self.body.clear()

    def _set_options(self, request: Request) -> None:
        """Set method, body and headers; nothing of the last request stays."""
        self.curl.clean_handles_and_buffers()  # the only way to clear the list of headers
        self._attach_body()
        lines = [
            f"{name}: {content}".encode() for name, content in {**self._headers, **request.headers}.items()
        ]
        if request.method == "POST":
            body = request.body or b""
            self.curl.setopt(CurlOpt.POST, 1)
            self.curl.setopt(CurlOpt.POSTFIELDSIZE, len(body))
            self.curl.setopt(CurlOpt.POSTFIELDS, body)
            lines.append(b"Expect:")  # do not wait for "100 Continue" before the body
        else:
            self.curl.setopt(CurlOpt.HTTPGET, 1)
        self.curl.setopt(CurlOpt.HTTPHEADER, lines)

    def _attach_body(self) -> None:
        self.curl.setopt(CurlOpt.HEADERDATA, self.lines)
        self.curl.setopt(CurlOpt.WRITEDATA, self.body)
