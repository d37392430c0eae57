"""The contract of every exchange adapter, as a class of numbered tests to subclass, without any network.

Needs `marketfetch[testing]`, which has pytest and hypothesis.
"""

from __future__ import annotations

import inspect as introspection
import json
import re
from functools import partial

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.adapter_checks.results import check_cost, check_instruments, check_request
from marketfetch.decoding.validation import validate_page
from marketfetch.errors import ConfigurationError, DecodeError
from marketfetch.exchange import Exchange
from marketfetch.planning.paginators import CursorPaginator
from marketfetch.sources import Archive, Endpoint
from marketfetch.testing.contracts.exchange_cases import (
    FIXED_NOW,
    Recording,
    assert_decodes_or_rejects,
    check_same_rows,
    check_side_request,
    only_decode_errors,
    refuses_garbage,
)
from marketfetch.testing.contracts.exchange_messages import (
    cursor_in_listing,
    naming_raw_errors,
    no_rows_message,
    rejected_message,
    same_values_message,
    swapped_prices_message,
)
from marketfetch.testing.contracts.exchange_paging import PagingContract
from marketfetch.testing.contracts.exchange_refusals import RefusalContract
from marketfetch.testing.contracts.exchange_subject import NEEDS_ANSWERS
from marketfetch.testing.contracts.malformed import (
    NOT_A_PAGE,
    corrupt_one_value,
    each_value_emptied,
    malformed_bodies,
)
from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.slices import Slice
from marketfetch.values.spans import DAY, MINUTE, Span, SpanSet
from marketfetch.values.times import parse_time

__all__ = ["ExchangeContract", "Recording"]

_STAMP = re.compile(r"(?<![\d.])(\d{10}|\d{13})(?:000|000000)?(?![\d.])")
_EARLIEST = 1_000_000_000_000
"""No instrument is older than September 2001: earlier times (ms) are seconds, or say that none is known."""


class ExchangeContract(RefusalContract, PagingContract):
    """Subclass it as `TestMyExchange`, set `exchange` and `symbol`, and provide real answers.

    Real answers are most of the test. Set `answers_folder`, where they are kept: run the test once with
    MARKETFETCH_RECORD=1 in the environment, and it fetches those that are not there. Or override `answer`,
    which returns the body for any Request. With `recordings` alone, one for each dataset, the tests that need
    answers to several windows are skipped. The exchange must list `symbol`, which must have traded at `start`
    (UTC) and for a page after it. `time_body` and `listing_body` are answers to the requests for the server
    time and the listing; they are needed if the adapter has these requests and there is no other answer.
    `error_bodies` are errors with HTTP 200, each with the class of the exception that `raise_for_error` must
    raise.

    Override `file` if the exchange has archives: it returns the bytes for a key, also for that of a checksum.
    """

    # --- declarations ---

    def test_01_name_and_host_are_usable(self) -> None:
        exchange = self.exchange()
        name = exchange.name
        assert re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", name), f"{name!r}: lower case, no spaces"
        moved = self.exchange("http://127.0.0.1:1/").base_url
        assert moved == "http://127.0.0.1:1", f"base_url has to replace the host, which is still {moved}"
        with pytest.raises(ConfigurationError):
            self.exchange("ftp://127.0.0.1")

    def test_02_intervals_have_our_names(self, endpoint: Endpoint) -> None:
        for name in endpoint.intervals:
            assert Interval.parse(name).name == name, f"{name!r} is not the name of an Interval"
            assert endpoint.native_interval(Interval.parse(name)) == endpoint.intervals[name]
        theirs = list(endpoint.intervals.values())
        assert len(set(theirs)) == len(theirs), f"two intervals have the same native name: {theirs}"

    def test_03_costs_fit_their_limit_and_grow(self, endpoint: Endpoint) -> None:
        sizes = range(1, endpoint.page_sizes[-1] + 1)
        costs = [check_cost(f"{type(endpoint).__name__}.cost({rows})", endpoint.cost(rows)) for rows in sizes]
        assert len({cost.pool for cost in costs}) == 1, "an endpoint draws from one limit pool"
        weights = [cost.weight for cost in costs]
        assert weights[0] >= 1, f"a page of one row costs {weights[0]}"
        assert weights == sorted(weights), "a larger page must not cost less than a smaller one"
        pool = costs[0].pool
        most = f"a page costs {weights[-1]}, more than the {pool.capacity} of {pool.name}"
        assert weights[-1] <= pool.capacity, most
        seconds = f"{pool.name}: the period is in milliseconds; {pool.period} s are {pool.period}_000"
        assert pool.period >= 1000, seconds

    def test_04_delay_and_retention_are_milliseconds(self, endpoint: Endpoint) -> None:
        assert endpoint.publish_delay >= 0, "publish_delay: milliseconds after the close"
        assert endpoint.retention is None or endpoint.retention > 60_000, (
            "retention: milliseconds, None for everything"
        )
        grid = not endpoint.dataset_type.event
        assert not (grid and isinstance(endpoint.paginator, CursorPaginator)), (
            "paginator: CursorPaginator() is for events; rows on a grid have TimeWindowPaginator()"
        )

    # --- requests ---

    def test_05_a_request_is_a_plain_value(self, endpoint: Endpoint) -> None:
        for size in endpoint.page_sizes:
            part = self.slice(endpoint, size)
            request = self.request(endpoint, part)
            assert request == endpoint.request(part), "the same slice has to give the same request"
            assert request.path.startswith("/"), f"path {request.path!r}: the host is added by the exchange"
            assert not request.base_url, "base_url is filled in by the exchange"
            assert request.cost == endpoint.cost(part.rows), "a request costs what cost(rows) says"
            assert all(isinstance(value, str | int) for value in request.params.values()), f"{request.params}"

    def test_06_requests_are_not_asynchronous(self, endpoint: Endpoint) -> None:
        for holder in (endpoint, self.exchange()):
            for name, method in introspection.getmembers(holder, callable):
                assert not introspection.iscoroutinefunction(method), f"{name} is async: adapters do no I/O"

    def test_07_a_request_names_its_window_and_no_other(self, endpoint: Endpoint) -> None:
        for pages in (0, 1, 7):
            part = self.slice(endpoint, endpoint.page_sizes[-1], pages=pages)
            step = max(part.series.interval.typical, 1000)
            request = self.request(endpoint, part)
            text = f"{request.path} {dict(request.params)} {(request.body or b'').decode()}"
            for found in _STAMP.findall(text):
                stamp = int(found) * (1000 if len(found) == 10 else 1)
                near = part.span.start - step <= stamp <= part.span.end + 999  # whole seconds, rounded up
                assert near, (
                    f"{type(endpoint).__name__}.request: {found} is outside of {part.span}, which was asked "
                    f"for: send the ends of part.span, and read no clock: {text}"
                )
        requests = [self.request(endpoint, self.slice(endpoint, 10, pages=pages)) for pages in range(3)]
        different = {request.url + str(request.body) for request in requests}
        assert len(different) == 3, "windows differ, requests do not: send the ends of part.span"

    # --- answers ---

    def test_08_a_recording_is_decoded(self, endpoint: Endpoint) -> None:
        for case in self.cases(endpoint):
            try:
                decoded = self.decode(endpoint, case.body, case.part)
            except DecodeError as error:
                pytest.fail(
                    f"{type(endpoint).__name__}.decode refuses a good answer for {case.part}: {error}"
                )
            columns, kind = decoded.columns, endpoint.dataset_type
            shape = columns.values.shape
            assert columns.times.dtype == np.int64, f"times are {columns.times.dtype}, not int64"
            assert columns.values.dtype == np.float64, f"values are {columns.values.dtype}, not float64"
            assert shape == (len(kind.columns), len(columns.times)), f"values of shape {shape}"
            assert len(columns), no_rows_message(case.part, self.request(endpoint, case.part))
            for message in (rejected_message, same_values_message, swapped_prices_message):
                fault = message(decoded, case.part)
                assert fault is None, fault
            page = validate_page(decoded, case.part)
            assert page.columns.is_sorted
            raw = decoded.raw(0) if decoded.raw is not None else "{}"
            assert isinstance(raw, str), f"raw() returned {raw!r}: it is the text of a row, see raw_text"
            for column, line in zip(kind.columns, page.columns.values, strict=True):
                assert column.optional or not np.isnan(line).any(), f"{column.name} lacks values"

    def test_08_each_interval_has_its_candles(self, endpoint: Endpoint) -> None:
        whole = not getattr(endpoint.paginator, "skips_empty_candles", False)
        for name in endpoint.intervals:
            part = self.slice(endpoint, min(10, endpoint.page_sizes[-1]), interval=name)
            if not MINUTE <= part.series.interval.typical <= DAY:
                continue  # seconds may not be kept, and weeks after `start` may not be over
            page = self.page_of(endpoint, part)
            if page is None:
                pytest.skip(NEEDS_ANSWERS)
            found = f"{len(page.columns)} of {part.rows} candles came"
            assert len(page.columns) == part.rows or (len(page.columns) and not whole), (
                f"{type(endpoint).__name__}.intervals[{name!r}]: {found} for {part.span}: "
                f"is {endpoint.intervals[name]!r} its name at the exchange?"
            )

    def test_09_decoding_is_stateless(self, endpoint: Endpoint) -> None:
        for case in self.cases(endpoint):
            one, two = (self.decode(endpoint, case.body, case.part).columns for _ in range(2))
            assert one.times.tobytes() == two.times.tobytes()
            assert one.values.tobytes() == two.values.tobytes()

    def test_10_neighbours_share_no_row(self, endpoint: Endpoint) -> None:
        most = endpoint.page_sizes[-1]
        parts = [self.slice(endpoint, min(20, most), pages=pages) for pages in range(3)]
        # Also request more rows than the window has: otherwise the limit could hide surplus rows.
        parts += [attrs.evolve(part, rows=min(40, most)) for part in parts if part.rows < most]
        pages = [self.page_of(endpoint, part) for part in parts]
        for part, page in zip(parts, pages, strict=True):
            if page is None:
                pytest.skip(NEEDS_ANSWERS)
            if not endpoint.dataset_type.event:
                there = part.series.interval.cover(page.columns.times)
                assert there == SpanSet.of(part.span), (
                    f"asked for {part.span}, got {there}: is one of its ends exclusive at the exchange?"
                )

    def test_11_garbage_is_refused(self, endpoint: Endpoint) -> None:
        for case in self.cases(endpoint):
            cuts = [case.body[:at] for at in range(0, len(case.body) - 1, max(1, len(case.body) // 40))]
            for body in (*NOT_A_PAGE, *cuts, case.body[:-1], case.body + case.body):
                with pytest.raises(DecodeError):
                    pytest.fail(
                        f"{body[:60]!r} became {len(self.decode(endpoint, body, case.part).columns)} rows"
                    )

    def test_12_malformed_bodies_raise_no_other_error(self, endpoint: Endpoint) -> None:
        case = self.cases(endpoint)[0]

        @settings(max_examples=40, deadline=None)
        @given(malformed_bodies())
        def check(body: bytes) -> None:
            assert_decodes_or_rejects(endpoint, body, case.part)

        check()

    def test_13_a_wrong_value_affects_no_other_row(self, endpoint: Endpoint) -> None:
        case = self.cases(endpoint)[0]
        content = json.loads(case.body)
        for body in each_value_emptied(content):
            assert_decodes_or_rejects(endpoint, body, case.part)

        @settings(max_examples=40, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            assert_decodes_or_rejects(endpoint, corrupt_one_value(content, data.draw), case.part)

        check()

    # --- server time, listing, first row ---

    def test_17_the_clock_is_read(self) -> None:
        exchange = self.exchange()
        request = exchange.time_request()
        if request is None:
            written = type(exchange).decode_time is not Exchange.decode_time
            assert not written, "decode_time is written, but time_request() returned None"
            pytest.skip("the exchange has no clock: the local one decides what is closed")
        check_side_request(check_request("time_request", request))
        for body in self.bodies("time", [request]):
            with naming_raw_errors("decode_time", body, "read the body with decode_errors_as"):
                stamp = exchange.decode_time(body)
            assert isinstance(stamp, int), f"decode_time returned {stamp!r}; return UTC milliseconds as int"
            assert _EARLIEST < stamp < 10 * _EARLIEST, (
                f"decode_time returned {stamp}, which is no time in milliseconds: multiply seconds by 1000"
            )
        refuses_garbage("decode_time", exchange.decode_time)

    def test_18_the_listing_is_read(self) -> None:
        exchange = self.exchange()
        if not exchange.listing_requests():
            pytest.skip("the exchange has no listing: every symbol is believed")
        pages = self.listing()
        if type(exchange).next_listing_request is Exchange.next_listing_request:
            for request, body in pages:
                cursor = cursor_in_listing(body)
                assert cursor is None, (
                    f"{request.path} has a next page ({cursor}): write next_listing_request"
                )
        entries = [each for _, body in pages for each in self._instruments(body)]
        listed = {each.symbol: each for each in entries}
        assert self.symbol in listed, f"{self.symbol} is not among {sorted(listed)[:5]}…"
        found = listed[self.symbol]
        assert found.base, "an Instrument has a base currency"
        assert found.quote, "an Instrument has a quote currency"
        started = parse_time("start", self.start, FIXED_NOW)
        for each in entries:
            for moment in {each.listed_at, each.delisted_at} - {None}:
                assert (moment or 0) > _EARLIEST, (
                    f"{each.symbol}: {moment} as listed_at or delisted_at: "
                    "write UTC milliseconds, or None where the exchange says nothing"
                )
            ended = each.delisted_at is not None and each.delisted_at <= started
            assert not (ended and each.active), (
                f"{each.symbol} was delisted before {self.start} and is active: write active=False"
            )
        refuses_garbage("decode_listing", self._instruments)
        first, content = pages[0][0], json.loads(pages[0][1])

        def refuses_with_one_error(body: bytes) -> None:
            only_decode_errors("decode_listing", self._instruments, body)
            following = partial(exchange.next_listing_request, first)
            only_decode_errors("next_listing_request", following, body)

        for body in each_value_emptied(content):
            refuses_with_one_error(body)

        @settings(max_examples=40, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            refuses_with_one_error(corrupt_one_value(content, data.draw))

        check()

    def _instruments(self, body: bytes) -> list[Instrument]:
        with naming_raw_errors("decode_listing", body, "read the body with decode_errors_as"):
            return list(check_instruments("decode_listing", self.exchange().decode_listing(body)))

    def test_19_the_first_row_is_found(self, endpoint: Endpoint) -> None:
        series = self.series(endpoint)
        start = series.interval.ceil(parse_time("start", self.start, FIXED_NOW))
        request = endpoint.first_row_request(series, start)
        check_request(f"{type(endpoint).__name__}.first_row_request", request)
        assert request is not None
        assert request == endpoint.first_row_request(series, start)
        body = self.answer(self.exchange().with_base_url(request))
        if body is None:
            pytest.skip(NEEDS_ANSWERS)
        times = self.decode(endpoint, body, Slice(series, Span(0, 1), rows=1)).columns.times
        assert len(times) == 1, f"{len(times)} rows instead of the oldest one"
        # The time of the next event is unknown; a month without an event would be strange.
        latest = start + 30 * 86_400_000 if endpoint.dataset_type.event else start
        found = int(times[0])
        assert start <= found <= latest, f"the symbol is traded at {start}, but the first row is of {found}"

    # --- archives ---

    def test_22_a_file_has_the_rows_of_the_api(self, archive: Archive) -> None:
        cases = self.cases(self.exchange().endpoint(archive.dataset))
        compared = [check_same_rows(archive, case, self.file) for case in cases]
        if not any(compared):
            pytest.skip("needs `file`, with the file in which the rows of a recording or `start` lie")
