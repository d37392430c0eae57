"""The part of the exchange contract about pages: from which end, how large, and without a row left out."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from marketfetch.decoding.layouts import DecodedRows
from marketfetch.decoding.validation import validate_page
from marketfetch.protocols import Paginator
from marketfetch.sources import Endpoint
from marketfetch.testing.contracts.exchange_cases import FIXED_NOW
from marketfetch.testing.contracts.exchange_messages import few_rows_message, wrong_end_message
from marketfetch.testing.contracts.exchange_subject import NEEDS_ANSWERS, ExchangeUnderTest
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Columns, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time

__all__ = ["AdversarialServer", "FetchedAll", "PagingContract", "fetch_all"]


@attrs.define(eq=False)
class FetchedAll:
    """The result of `fetch_all`."""

    columns: Columns
    coverage: Coverage
    lost: SpanSet


def fetch_all(
    paginator: Paginator, whole: Slice, answer: Callable[[Slice], Page], *, limit: int = 10_000
) -> FetchedAll:
    """Fetch a slice and all remaining slices of its page outcomes, as the engine does.

    Raises AssertionError after `limit` requests, far more than needed.
    """
    pages, coverage, lost, requests = [Columns.empty(whole.series.dataset)], Coverage(), SpanSet(), 0
    pending = list(paginator.split(whole))
    while pending:
        requests += 1
        assert requests <= limit, f"{requests} requests, and still to ask: {', '.join(map(str, pending))}"
        part = pending.pop()
        page = answer(part)
        settled = paginator.outcome(part, page)
        pages.append(page.columns)
        coverage |= settled.coverage
        lost |= settled.given_up
        pending += settled.remaining
    return FetchedAll(Columns.join(pages), coverage, lost - coverage.covered)


@attrs.define(eq=False)
class AdversarialServer:
    """Has rows at the given times and answers each slice with some of them.

    A page has at most `cap` rows. In addition pages are cut short, lack rows, are empty, shuffled, repeated
    or of another window; `choose(n)` decides by returning a number below n. Each row is denied at most once
    and at most two pages are of another window: after more, no paginator could find the truth.
    """

    times: NDArray[np.int64]
    paginator: Paginator
    cap: int
    choose: Callable[[int], int]
    _denied: set[int] = attrs.field(factory=set, init=False)
    _useless: int = attrs.field(default=0, init=False)

    @property
    def newest(self) -> bool:
        """Whether a page holds the newest rows of a window with more rows than a page."""
        if self.paginator.sequential:
            return bool(getattr(self.paginator, "newest_first", False))
        return getattr(self.paginator, "anchor", "start") == "end"

    def page(self, part: Slice) -> Page:
        """Return the validated page that answers a slice."""
        inside = self.times[(self.times >= part.span.start) & (self.times < part.span.end)]
        most = min(self.cap, part.rows)
        given = inside[-most:] if self.newest else inside[:most]
        lie = (self._cut, self._empty, self._hole, self._useless_answer, self._mixed)[self.choose(5)]
        return validate_page(DecodedRows(_columns(part, lie(part, inside, given))), part)

    def _cut(self, part: Slice, inside: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.int64]:
        kept = 1 + self.choose(max(1, len(given)))
        given = given[-kept:] if self.newest else given[:kept]
        if self.paginator.sequential:
            self._denied.update(set(inside.tolist()) - set(given.tolist()))
        return given

    def _empty(self, part: Slice, inside: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._may_deny(inside):
            return self._cut(part, inside, given)
        return given[:0]

    def _hole(self, part: Slice, inside: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.int64]:
        # Events have no grid: a paginator cannot notice a row missing between two others.
        if self.paginator.sequential or len(given) < 3:
            return self._cut(part, inside, given)
        at = 1 + self.choose(len(given) - 2)
        return np.delete(given, at) if self._may_deny(given[at : at + 1]) else given

    def _useless_answer(
        self, part: Slice, inside: NDArray[np.int64], given: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        if self._useless == 2:
            return self._cut(part, inside, given)
        self._useless += 1
        step = part.series.interval.typical
        strays = np.arange(part.span.end, part.span.end + 3 * step, step)
        # The page may also contain rows of the window, but not those at the end that comes first.
        kept = self.choose(len(inside) + 1)
        return np.concatenate([inside[:kept] if self.newest else inside[len(inside) - kept :], strays])

    def _mixed(self, part: Slice, inside: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.int64]:
        given = self._cut(part, inside, given)
        return np.concatenate([given[::-1], given[: self.choose(3)]])

    def _may_deny(self, times: NDArray[np.int64]) -> bool:
        """Return whether these rows may be denied, and if so, record that they are."""
        asked = set(times.tolist())
        if asked & self._denied or getattr(self.paginator, "skips_empty_candles", False):
            return False
        self._denied |= asked
        return True


def _columns(part: Slice, times: NDArray[np.int64]) -> Columns:
    """Return rows whose values depend on their times, so that a test notices a misplaced row."""
    line = (times % 1_000_003).astype(np.float64)
    return Columns(times, np.tile(line, (len(part.series.dataset.columns), 1)))


class PagingContract(ExchangeUnderTest):
    """Pages are as the paginator declares them, and all rows are fetched whatever the server does."""

    def test_20_pages_are_filled_from_the_declared_end(self, endpoint: Endpoint) -> None:
        """The paginator's anchor tells which rows of a window with more rows than the limit come."""
        whole = self.slice(endpoint, min(20, endpoint.page_sizes[-1]))
        everything = self.page_of(endpoint, whole)
        if everything is None or whole.rows == 1:
            pytest.skip(NEEDS_ANSWERS)
        there = everything.columns.times.tolist()
        few = attrs.evolve(whole, rows=max(1, min(whole.rows // 4, len(there) // 2)))
        page = self.page_of(endpoint, few)
        fault = wrong_end_message(endpoint, page.columns.times.tolist(), there) if page else None
        assert fault is None, fault
        if page is None or page.cursor is None or len(page.columns) == len(there):
            return
        following, name = attrs.evolve(few, cursor=page.cursor), type(endpoint).__name__
        ignored = f"{name}.decode returns cursor={page.cursor!r}, and request does not send part.cursor"
        assert self.request(endpoint, following) != self.request(endpoint, few), ignored
        after = self.page_of(endpoint, following)
        again = f"{name}.decode: cursor={page.cursor!r} leads to the same rows again, not to those behind"
        assert after is None or after.columns.times.tolist() != page.columns.times.tolist(), again

    def test_20_pages_hold_as_many_rows_as_declared(self, endpoint: Endpoint) -> None:
        """A page size that the exchange does not serve costs a second request for each window."""
        if endpoint.dataset_type.event or getattr(endpoint.paginator, "skips_empty_candles", False):
            pytest.skip("nobody knows how many rows the window has")
        part = next(iter(endpoint.paginator.split(self.slice(endpoint, endpoint.page_sizes[-1]))))
        page = self.page_of(endpoint, part)
        if page is None:
            pytest.skip(NEEDS_ANSWERS)
        fault = few_rows_message(endpoint, part, page.columns.times)
        assert fault is None, fault

    def test_20_windows_cover_a_span_once(self, endpoint: Endpoint) -> None:
        @settings(max_examples=50, deadline=None)
        @given(st.integers(0, 500), st.integers(1, 500), st.sampled_from(sorted(endpoint.intervals)))
        def check(skip: int, length: int, name: str) -> None:
            series = self.series(endpoint, name)
            first = series.interval.shift(
                series.interval.ceil(parse_time("start", self.start, FIXED_NOW)), skip
            )
            span = Span(first, series.interval.shift(first, length))
            parts = list(endpoint.paginator.split(Slice(series, span, rows=endpoint.page_sizes[0])))
            assert SpanSet(tuple(part.span for part in parts)) == SpanSet.of(span), (
                "windows leave something out"
            )
            assert sum(part.span.length for part in parts) == span.length, "windows overlap"
            for part in parts:
                assert part.rows >= series.interval.count(part.span), f"{part} exceeds its page"

        check()

    def test_21_all_rows_of_any_server_are_fetched(self, endpoint: Endpoint) -> None:
        whole = self.slice(endpoint, 24)

        @settings(max_examples=25, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            grid = np.arange(whole.span.start, whole.span.end, 3_600_000)
            if not endpoint.dataset_type.event:
                grid = whole.series.interval.grid(whole.span)
            there = st.lists(st.booleans(), min_size=len(grid), max_size=len(grid))
            times = grid[np.array(data.draw(there))]
            assume(len(times))
            asked = attrs.evolve(whole, rows=data.draw(st.integers(1, 9)))
            choose: Callable[[int], int] = lambda count: data.draw(st.integers(0, count - 1))  # noqa: E731
            server = AdversarialServer(times, endpoint.paginator, data.draw(st.integers(1, 9)), choose)
            drained = fetch_all(endpoint.paginator, asked, server.page, limit=500)
            assert drained.columns.times.tolist() == times.tolist(), "not the rows that the server has"
            assert drained.coverage.covered == SpanSet.of(whole.span), (
                "moments of which nothing is known remain"
            )

        check()
