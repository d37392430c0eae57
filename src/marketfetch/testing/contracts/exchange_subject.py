"""The adapter under test, and the answers that its author provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from marketfetch.adapter_checks.results import check_next_request, check_request, check_requests
from marketfetch.decoding.layouts import DecodedRows
from marketfetch.decoding.validation import validate_page
from marketfetch.errors import AdapterError, FetchError, wrong_kind
from marketfetch.exchange import Exchange
from marketfetch.sources import Archive, Endpoint
from marketfetch.testing.contracts.exchange_answers import recorded_answer
from marketfetch.testing.contracts.exchange_cases import (
    FIXED_NOW,
    DecodeCase,
    Recording,
    check_side_request,
    decode_with,
    usual_intervals,
)
from marketfetch.testing.contracts.exchange_messages import (
    naming_raw_errors,
    no_rows_message,
    rejected_message,
)
from marketfetch.values.http import Request
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.pages import Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span
from marketfetch.values.times import TimeLike, parse_time

__all__ = ["NEEDS_ANSWERS", "ExchangeUnderTest"]


NEEDS_ANSWERS = (
    "set `answers_folder`, or override `answer`: a recording answers one window, and this asks for others"
)
_READ_THE_CURSOR = "read the cursor of the body, and return None after the last page"


class ExchangeUnderTest:
    """An adapter and its answers; see `ExchangeContract` for the attributes to set."""

    exchange: ClassVar[type[Exchange]]
    symbol: ClassVar[str]
    start: ClassVar[TimeLike] = "2026-06-01"
    recordings: ClassVar[Sequence[Recording]] = ()
    time_body: ClassVar[bytes | None] = None
    listing_body: ClassVar[bytes | None] = None
    error_bodies: ClassVar[Mapping[bytes, type[FetchError]]] = {}
    answers_folder: ClassVar[str | Path | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_subject(cls)

    def answer(self, request: Request) -> bytes | None:
        """Return the response body of a request; None if only recordings are available.

        Reads `answers_folder`, if there is one.
        """
        return (
            None
            if self.answers_folder is None
            else recorded_answer(self.exchange, Path(self.answers_folder), request)
        )

    def file(self, key: str) -> bytes | None:
        """Return the bytes that the archive has under a key; None if there is no such file at hand."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test with an `endpoint` or `archive` argument once for each of them."""
        for name, example in (("exchange", "Tidebit"), ("symbol", "'BTC_USD'")):
            if not hasattr(self, name):
                raise AdapterError(f"{type(self).__name__} lacks {name}; write {name} = {example}")
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
        place = f"{type(endpoint).__name__}.request"
        with naming_raw_errors(place, part, "it has part.series, part.span and part.rows; see help(Slice)"):
            return check_request(place, endpoint.request(part))

    def decode(self, endpoint: Endpoint, body: bytes, part: Slice) -> DecodedRows:
        """Return the decoded answer; AdapterError if its columns are not those of the dataset."""
        return decode_with(endpoint, body, part)

    def page_of(self, endpoint: Endpoint, part: Slice) -> Page | None:
        """Return the validated page that answers a slice; None if only recordings are available.

        Fails if a good row was rejected or no candle came: what the page lacks would be no news then.
        """
        request = self.request(endpoint, part)
        body = self.answer(self.exchange().with_base_url(request))
        if body is None:
            return None
        decoded = self.decode(endpoint, body, part)
        fault = rejected_message(decoded, part)
        assert fault is None, fault
        assert len(decoded.columns) or part.series.interval.is_event, no_rows_message(part, request)
        return validate_page(decoded, part)

    def listing(self) -> list[tuple[Request, bytes]]:
        """Return the requests for the listing with their answers, and the pages that follow each."""
        exchange = self.exchange()
        place = f"{type(exchange).__name__}.next_listing_request"
        found: list[tuple[Request, bytes]] = []
        for first in check_requests("listing_requests", exchange.listing_requests()):
            request: Request | None = first
            while request is not None:
                check_side_request(request)
                body = self.answer(exchange.with_base_url(request)) or self.listing_body
                assert body is not None, "no answer for the listing: set `listing_body`, or override `answer`"
                found.append((request, body))
                with naming_raw_errors(place, body, _READ_THE_CURSOR):
                    request = check_next_request(place, exchange.next_listing_request(request, body))
                asked = [earlier for earlier, _ in found]
                assert request not in asked, f"{place} asks for the same page again: {_READ_THE_CURSOR}"
                if self.listing_body is not None and body == self.listing_body:
                    break  # there is an answer for the first page alone
        return found


def _check_subject(cls: type[ExchangeUnderTest]) -> None:
    """Refuse a test class with an attribute of another kind, such as one Recording for a tuple of them."""
    name = cls.__name__
    given: dict[str, Any] = {each: getattr(cls, each, None) for each in ExchangeUnderTest.__annotations__}
    exchange, recordings, errors = given["exchange"], given["recordings"], given["error_bodies"]
    if exchange is not None and not (isinstance(exchange, type) and issubclass(exchange, Exchange)):
        raise wrong_kind(f"{name}.exchange", exchange, "write the class of the exchange, such as Tidebit")
    if isinstance(recordings, Recording):
        raise wrong_kind(f"{name}.recordings", recordings, "write a tuple of them: (Recording(…),)")
    if not isinstance(recordings, Sequence) or not all(isinstance(each, Recording) for each in recordings):
        raise wrong_kind(f"{name}.recordings", recordings, "write a tuple of Recording(…)")
    if not isinstance(errors, Mapping) or not all(isinstance(body, bytes) for body in errors):
        remedy = "map each body to the error it stands for: {b'{\"code\":5}': BadSymbol}"
        raise wrong_kind(f"{name}.error_bodies", errors, remedy)
    for error in errors.values():
        if not (isinstance(error, type) and issubclass(error, FetchError)):
            raise wrong_kind(f"{name}.error_bodies", error, "write the class of an error, such as BadSymbol")
    for body in ("time_body", "listing_body"):
        if given[body] is not None and not isinstance(given[body], bytes):
            raise wrong_kind(f"{name}.{body}", given[body], "write the bytes of the answer")
    if given["answers_folder"] is not None and not isinstance(given["answers_folder"], str | Path):
        raise wrong_kind(f"{name}.answers_folder", given["answers_folder"], "write the path of a folder")
