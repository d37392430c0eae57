"""Header lines as libcurl hands them over, whatever a server puts into them."""

from __future__ import annotations

import pytest

from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.fetchers.curl_errors import parse_headers
from marketfetch.values.http import Egress
from tests.fetchers.wire import ok, wire


@pytest.mark.parametrize("header", [b"HTTP/x: y\r\n", b"HTTP/1.1 451 No: z\r\n", b"http/1.1 200 OK: b\r\n"])
def test_a_header_that_looks_like_a_status_line_is_a_header(header: bytes) -> None:
    status, headers = parse_headers([b"HTTP/1.1 200 OK\r\n", header, b"A: b\r\n", b"\r\n"])
    name = header.decode().partition(":")[0].lower()
    assert (status, list(headers)) == (200, [name, "a"])


@pytest.mark.parametrize(
    "line", [b"HTTP/\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 abc\r\n", b"HTTP/1.1 99999\r\n", b"\xff\r\n"]
)
def test_what_begins_with_no_status_line_is_no_answer(line: bytes) -> None:
    assert parse_headers([line, b"\r\n"])[0] == 0


async def test_odd_headers_do_not_spoil_an_answer() -> None:
    fetcher = CurlFetcher()
    async with wire(ok(b"[1]", "HTTP/x: y\r\n: z\r\n")) as server, fetcher.session():
        response = await fetcher.fetch(server.request(), Egress("Direct"))
    assert (response.status, response.body) == (200, b"[1]")
    assert response.headers["http/x"] == "y"
