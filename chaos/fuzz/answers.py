"""Fuzz targets other than pages: status and headers, answers, proxy addresses, Parquet metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import attrs

from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.archives.downloads import FilePart
from marketfetch.decoding.layouts import decode_errors_as
from marketfetch.errors import Banned, ConfigurationError, FetchError, RateLimitExceeded, SinkError
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl_errors import parse_headers
from marketfetch.proxies.parsing import parse_proxy
from marketfetch.ratelimit.backoff import parse_http_date, retry_after, used_weight
from marketfetch.redaction import redact
from marketfetch.sinks.parquet.footers import FileNote, LedgerNote
from marketfetch.sinks.parquet.format1 import read_format1_ledger
from marketfetch.sources import Archive
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Response
from marketfetch.values.series import Series

__all__ = ["check", "readers"]

_NOW = 1_780_272_000_000
_LONGEST_MESSAGE = 1_000
_CREDENTIALS = re.compile(r"[a-z]://[^\s/@:]*:[^\s/@]+@")


def readers() -> Mapping[str, tuple[str, Callable[[bytes], str]]]:
    """Return the targets that belong to no exchange, each with the name of its corpus."""
    return {
        "headers": ("answers", _headers),
        "used weight": ("answers", _used),
        "answer of a file host": ("answers", partial(_file_answer, _archive())),
        "retry-after": ("dates", _retry_after),
        "proxy addresses": ("proxies", _proxy),
        "redaction": ("proxies", _redaction),
        "ledger of format 1": ("ledger", _ledger),
        "note of a file": ("notes", _note),
    }


def _archive() -> Archive:
    archive = BinanceSpot().archive(Dataset.parse("ohlcv"))
    assert archive is not None
    return archive


def check(exchange: Exchange, raw: bytes) -> str:
    """Parse a raw HTTP answer and check it: it is good, or `raise_for_error` raises one FetchError."""
    response = _response(raw)
    if response.status == 0:
        return "refused"  # no status line: the fetcher raises TransportError
    try:
        with decode_errors_as("an answer"):
            exchange.raise_for_error(response)
    except FetchError as error:
        _sound_refusal(error)
        return "refused"
    assert response.status < 300, f"status {response.status} was taken for a good answer"
    return "read"


def _response(raw: bytes) -> Response:
    head, _, body = raw.partition(b"\r\n\r\n")
    status, headers = parse_headers([*head.splitlines(keepends=True), b"\r\n"])
    return Response(status, headers, body, sent_at=_NOW - 100, received_at=_NOW)


def _sound_refusal(error: FetchError) -> None:
    """Assert that the message is neither empty nor too long, and that a wait is finite."""
    assert 0 < len(str(error)) <= _LONGEST_MESSAGE, f"a message of {len(str(error))} characters"
    if isinstance(error, RateLimitExceeded) and error.retry_after is not None:
        assert 0 <= error.retry_after < math.inf
    if isinstance(error, Banned):
        assert error.until is None or type(error.until) is int


def _headers(raw: bytes) -> str:
    lines = raw.splitlines(keepends=True)
    status, headers = parse_headers(lines)
    assert type(status) is int
    assert 0 <= status <= 999
    assert all(name == name.lower() for name in headers)
    return "read" if status else "refused"


def _used(raw: bytes) -> str:
    used = used_weight(_response(raw).headers, "X-MBX-USED-WEIGHT-1M")
    assert used is None or 0 <= used < 10**15
    return "refused" if used is None else "read"


def _file_answer(archive: Archive, raw: bytes) -> str:
    """Read the answers to requests for the first part of a file and for a later one."""
    response = _response(raw)
    verdict = "refused"
    for start in (0, 4):
        try:
            archive.raise_for_error(response)
            part = FilePart.of(response, start)
        except FetchError as error:
            _sound_refusal(error)
            continue
        assert part.start == start
        assert part.size >= start + len(part.body)
        file = archive.entry("key", response, part.size)
        assert type(file.modified) is int
        verdict = "read"
    return verdict


def _retry_after(raw: bytes) -> str:
    """Read `Retry-After`, and after a line break `Date`, as header fields are: Latin-1."""
    text, _, date = raw.decode("latin-1").partition("\n")
    wait = retry_after({"retry-after": text, "date": date}, now=_NOW)
    assert wait is None or 0 <= wait < math.inf
    moment = parse_http_date(text)
    assert moment is None or type(moment) is int
    return "refused" if wait is None else "read"


def _proxy(raw: bytes) -> str:
    """Parse an address as from the command line, where Python turns invalid UTF-8 into surrogates."""
    try:
        secret = parse_proxy(raw.decode("utf-8", "surrogateescape"), "entry 1")
    except ConfigurationError:
        return "refused"
    parts = secret.split()
    assert parts.scheme in {"http", "https", "socks5", "socks5h"}
    assert parts.hostname
    assert parts.port
    assert parse_proxy(secret.reveal(), "entry 1").reveal() == secret.reveal(), "what was made is not read"
    if parts.password:
        assert f":{parts.password}@" not in str(secret), "the password is shown"
    return "read"


def _redaction(raw: bytes) -> str:
    # No message is longer (see `check`), and the patterns need quadratic time.
    text = redact(raw[:_LONGEST_MESSAGE].decode("utf-8", "surrogateescape"))
    assert not _CREDENTIALS.search(text), f"credentials are shown: {text!r}"
    return "read"


@attrs.frozen
class _File:
    """A ledger file in memory, so that no time is lost on the disk."""

    content: bytes = attrs.field(repr=False)

    def read_bytes(self) -> bytes:
        return self.content


def _ledger(raw: bytes) -> str:
    try:
        names, coverage = read_format1_ledger(cast("Any", _File(raw)))
    except SinkError:
        return "refused"
    assert len(names) == 4
    assert all(type(name) is str for name in names)
    for spans in (coverage.covered, coverage.empty):
        for span in spans:
            assert type(span.start) is type(span.end) is int
    return "read"


def _note(raw: bytes) -> str:
    series = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
    verdict = "refused"
    for kind in (FileNote, LedgerNote):
        try:
            note = kind.parse(raw, series, "2026-06.parquet")
        except (SinkError, ValueError):
            continue
        again = kind.parse(note.dump(series), series, "2026-06.parquet")
        assert again.dump(series) == note.dump(series), "a note does not survive being written"
        verdict = "read"
    return verdict
