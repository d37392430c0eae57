"""A server that answers incompletely and wrongly, and a loop that fetches all of its rows."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.decoding.layouts import Decoded
from marketfetch.decoding.validation import validate_page
from marketfetch.protocols import Paginator
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Columns, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet

__all__ = ["AdversarialServer", "FetchedAll", "fetch_all"]


@attrs.define(eq=False)
class FetchedAll:
    """The result of `fetch_all`."""

    columns: Columns
    coverage: Coverage
    lost: SpanSet
    requests: int


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
    return FetchedAll(Columns.join(pages), coverage, lost - coverage.covered, requests)


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
        return validate_page(Decoded(_columns(part, lie(part, inside, given))), part)

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
