"""The adapter under test, and the answers that its author provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

from marketfetch.adapter_checks.results import check_request
from marketfetch.decoding.layouts import Decoded, check_decoded
from marketfetch.errors import FetchError
from marketfetch.exchange import Exchange
from marketfetch.sources import Archive, Endpoint
from marketfetch.testing.contracts.exchange_cases import FIXED_NOW, DecodeCase, Recording, usual_intervals
from marketfetch.values.http import Request
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span
from marketfetch.values.times import TimeLike, parse_time

__all__ = ["ExchangeUnderTest"]


class ExchangeUnderTest:
    """An adapter and its answers; see `ExchangeContract` for the attributes to set."""

    exchange: ClassVar[type[Exchange]]
    symbol: ClassVar[str]
    start: ClassVar[TimeLike] = "2026-06-01"
    recordings: ClassVar[Sequence[Recording]] = ()
    time_body: ClassVar[bytes | None] = None
    listing_body: ClassVar[bytes | None] = None
    error_bodies: ClassVar[Mapping[bytes, type[FetchError]]] = {}

    def answer(self, request: Request) -> bytes | None:
        """Return the response body of a request; None if only recordings are available."""
        return None

    def file(self, key: str) -> bytes | None:
        """Return the bytes that the archive has under a key; None if there is no such file at hand."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test with an `endpoint` or `archive` argument once for each of them."""
        if "archive" in metafunc.fixturenames:
            archives = [kind() for kind in self.exchange.sources if issubclass(kind, Archive)]
            metafunc.parametrize("archive", archives, ids=[archive.dataset for archive in archives])
        if "endpoint" in metafunc.fixturenames:
            endpoints = [kind() for kind in self.exchange.sources if issubclass(kind, Endpoint)]
            if "windows" in metafunc.function.__name__:  # a sequential paginator knows one page at a time
                endpoints = [endpoint for endpoint in endpoints if not endpoint.paginator.sequential]
            if "first_row" in metafunc.function.__name__:  # optional
                endpoints = [
                    each
                    for each in endpoints
                    if each.first_row_request(self.series(each), FIXED_NOW) is not None
                ]
            metafunc.parametrize("endpoint", endpoints, ids=[endpoint.dataset for endpoint in endpoints])

    def series(self, endpoint: Endpoint, interval: str | Interval | None = None) -> Series:
        """Return a series of the endpoint, by default of 1m candles."""
        chosen = EVENT if endpoint.dataset_type.event else interval or usual_intervals(endpoint)[0]
        return Series.of(self.exchange.name, endpoint.dataset_type, self.symbol, chosen)

    def slice(self, endpoint: Endpoint, rows: int, *, pages: int = 0, interval: str | None = None) -> Slice:
        """Return the slice `pages` pages after the start; a page of events is one day."""
        series = self.series(endpoint, interval)
        first = series.interval.ceil(parse_time("start", self.start, FIXED_NOW))
        if endpoint.dataset_type.event:
            day = 86_400_000
            return Slice(series, Span(first + pages * day, first + (pages + 1) * day), rows)
        opens = [series.interval.shift(first, (pages + more) * rows) for more in (0, 1)]
        return Slice(series, Span(*opens), rows)

    def cases(self, endpoint: Endpoint) -> list[DecodeCase]:
        """Return all answers for an endpoint; fails if there is none."""
        made = []
        for each in self.recordings:
            if each.dataset == endpoint.dataset:
                symbol = each.symbol or self.symbol
                series = Series.of(self.exchange.name, endpoint.dataset_type, symbol, each.interval)
                span = Span(
                    parse_time("start", each.start, FIXED_NOW), parse_time("end", each.end, FIXED_NOW)
                )
                made.append(DecodeCase(endpoint, Slice(series, span, endpoint.page_sizes[-1]), each.body))
        for interval in usual_intervals(endpoint):
            part = self.slice(endpoint, min(10, endpoint.page_sizes[-1]), interval=interval)
            body = self.answer(self.exchange().with_base_url(self.request(endpoint, part)))
            if body is not None:
                made.append(DecodeCase(endpoint, part, body))
        assert made, f"no answer for {endpoint.dataset}: add a Recording to it, or override `answer`"
        return made

    def bodies(self, kind: str, requests: Sequence[Request]) -> list[bytes]:
        """Return the answers to the requests for the server time or for the listing."""
        given = {"time": self.time_body, "listing": self.listing_body}[kind]
        made = [self.answer(self.exchange().with_base_url(request)) for request in requests]
        found = [body for body in ([given] if given is not None else made) if body is not None]
        assert found, f"no answer for the {kind}: set `{kind}_body`, or override `answer`"
        return found

    def request(self, endpoint: Endpoint, part: Slice) -> Request:
        """Return the endpoint's request; AdapterError if it is no Request."""
        return check_request(f"{type(endpoint).__name__}.request", endpoint.request(part))

    def decode(self, endpoint: Endpoint, body: bytes, part: Slice) -> Decoded:
        """Return the decoded answer; AdapterError if its columns are not those of the dataset."""
        place = f"{type(endpoint).__name__}.decode"
        return check_decoded(place, endpoint.decode(body, part), endpoint.dataset_type)
