"""Translation of the results of libcurl: header lines to headers, error codes to errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from http.client import responses

import attrs
from curl_cffi import CurlECode

from marketfetch.common.local_resources import has_no_route, resource_remedy
from marketfetch.errors import FetchError, LocalResourceError, ProxyError, RequestTimeout, TransportError
from marketfetch.redaction import redact
from marketfetch.values.http import Egress

__all__ = ["CurlFailure", "parse_headers", "proxy_refusal", "translate"]

_STATUS = re.compile(rb"HTTP/[\d.]+[ \t]+(\d{3})\b")
_TEXT = re.compile(r"curl: \(\d+\) (?P<text>.*?)\.? See https://curl\.se", re.DOTALL)

# While a connection is set up, the proxy is blamed for these codes. Later they only mean that a connection
# broke, which also happens with a good proxy.
_BROKEN = {
    CurlECode.SSL_CONNECT_ERROR,
    CurlECode.GOT_NOTHING,
    CurlECode.SEND_ERROR,
    CurlECode.RECV_ERROR,
    CurlECode.WEIRD_SERVER_REPLY,
}

# Codes of steps that open a file or socket, which may fail because this machine lacks resources.
_SETTING_UP = {
    CurlECode.COULDNT_CONNECT,
    CurlECode.COULDNT_RESOLVE_HOST,
    CurlECode.COULDNT_RESOLVE_PROXY,
    CurlECode.FAILED_INIT,
    CurlECode.INTERFACE_FAILED,
    CurlECode.OUT_OF_MEMORY,
    CurlECode.SSL_CACERT_BADFILE,
    CurlECode.SSL_CONNECT_ERROR,
}


def parse_headers(lines: Iterable[bytes]) -> tuple[int, dict[str, str]]:
    r"""Return the status and the headers (names in lower case) of the last response in the lines.

    Interim responses (1xx) before it are left out; trailers after it are added to its headers. Repeated
    headers are joined by commas. Only the first line of a block can be a status line. Status 0 means that
    there is no response, or that it ends before the empty line after its headers, which libcurl accepts.

    >>> parse_headers([b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"HTTP/2 200 \r\n", b"Date: now\r\n", b"\r\n"])
    (200, {'date': 'now'})
    """
    status, headers, complete, is_first = 0, dict[str, str](), False, True
    for line in lines:
        found = _STATUS.match(line) if is_first else None
        is_first = not line.strip()
        if found:
            status, headers, complete = int(found[1]), {}, False
            continue
        if is_first:
            complete = True
            continue
        name, colon, content = line.decode("latin-1").partition(":")
        if colon:
            name, content = name.lower(), content.strip()
            headers[name] = f"{headers[name]}, {content}" if name in headers else content
    return status if complete else 0, headers


@attrs.frozen
class CurlFailure:
    """The details of a transfer that failed.

    `connect_status` is the status of the proxy's response to CONNECT, 0 for none. `on_setup` is True if a new
    connection broke before TLS was established. `number` is the errno, 0 if libcurl has none. `starved` is
    True if this process could open no file just after the failure.
    """

    code: int
    text: str
    connect_status: int = 0
    on_setup: bool = False
    number: int = 0
    starved: bool = False


def proxy_refusal(egress: Egress, status: int) -> ProxyError:
    """Make the error for a proxy that answered instead of forwarding the request.

    >>> print(proxy_refusal(Egress("Proxy 3"), 407))
    Proxy 3: the proxy answered 407 Proxy Authentication Required: check its user and password
    """
    phrase = responses.get(status, "")
    remedy = {
        402: "check that its subscription is paid",
        403: "check that it allows this address and this host",
        407: "check its user and password",
        429: "it limits its clients; use fewer requests or more proxies",
    }.get(status, "it cannot reach the exchange")
    return ProxyError(f"{egress.name}: the proxy answered {status} {phrase}: {remedy}")


def translate(failure: CurlFailure, egress: Egress, max_body: int) -> FetchError:
    """Make the error to raise; it has no credential of the egress.

    >>> translate(CurlFailure(18, "curl: (18) 5 bytes missing. See https://curl.se"), Egress("Direct"), 1)
    TransportError('Direct: the body ended too early (5 bytes missing)')
    """
    code, name = failure.code, egress.name
    found = _TEXT.search(failure.text)  # without the link that curl-cffi adds
    text = redact(found["text"]) if found else f"libcurl error {code}"
    if code in _SETTING_UP and (missing := _missing_resource(failure, text)):
        return LocalResourceError(f"{name}: {missing}")
    if egress.proxy is not None:
        error = _proxy_error(failure, egress, text)
        if error is not None:
            return error
    if code == CurlECode.OPERATION_TIMEDOUT:
        return RequestTimeout(f"{name}: {text}")
    meaning = _meaning(failure, text, max_body)
    return TransportError(f"{name}: {meaning} ({text})" if meaning else f"{name}: {text}")


def _meaning(failure: CurlFailure, text: str, max_body: int) -> str:
    """Return what a failure means; empty if the text of libcurl says it."""
    match failure.code:
        case CurlECode.COULDNT_RESOLVE_HOST:
            return "the name of the exchange cannot be resolved"
        case CurlECode.PARTIAL_FILE:
            return "the body ended too early"
        case CurlECode.BAD_CONTENT_ENCODING:
            return "the body cannot be decompressed"
        case CurlECode.FILESIZE_EXCEEDED:
            return f"the body is larger than max_body = {max_body} bytes"
        case CurlECode.PEER_FAILED_VERIFICATION:
            return "the certificate is not trusted; hand an own CA over as certificate="
        case CurlECode.COULDNT_CONNECT if has_no_route(failure.number, text):
            return "this machine has no route to the exchange; check its network"
        case _:
            return ""


def _missing_resource(failure: CurlFailure, text: str) -> str | None:
    """Return the resource that this machine lacks, if the connection failed for that reason."""
    if failure.code == CurlECode.OUT_OF_MEMORY:
        return resource_remedy(errno.ENOMEM)
    if remedy := resource_remedy(failure.number, text):
        return remedy
    # libcurl does not tell that it could not open the file of names or certificates.
    return resource_remedy(errno.EMFILE) if failure.starved else None


def _proxy_error(failure: CurlFailure, egress: Egress, text: str) -> ProxyError | None:
    """Return the error if the proxy is to blame, without the text of libcurl where that may hold its URL."""
    code, name = failure.code, egress.name
    if failure.connect_status >= 300:
        return proxy_refusal(egress, failure.connect_status)
    if code == CurlECode.COULDNT_RESOLVE_PROXY:
        return ProxyError(f"{name}: the proxy's host name cannot be resolved; check its address")
    if code == CurlECode.PROXY:
        return ProxyError(f"{name}: the SOCKS proxy refused ({text}); check its user, password and rules")
    if code == CurlECode.PEER_FAILED_VERIFICATION:
        return ProxyError(
            f"{name}: a certificate is not trusted ({text}); if the proxy opens TLS, hand its CA over as "
            "certificate="
        )
    if code == CurlECode.COULDNT_CONNECT and has_no_route(failure.number, text):
        return ProxyError(f"{name}: no route to the proxy ({text}); check this machine's network")
    if code == CurlECode.COULDNT_CONNECT or (code in _BROKEN and failure.on_setup):
        return ProxyError(f"{name}: no connection through the proxy ({text}); check that it is up")
    return None
