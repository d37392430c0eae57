"""Find in the exchange's request log which pages a run requested, and which of them a crash wasted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs

from chaos.harness.store_contents import Contents
from marketfetch.protocols import Sink, SupportsBatchSize, SupportsGroupCommit
from marketfetch.testing import FaultKind, LoggedRequest
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "InFlightLimit",
    "RequestedPage",
    "lost_pages",
    "lost_rows",
    "page_requests",
    "refetched_pages",
    "requested_pages",
    "setup_requests",
]

_DATASETS = {
    "/fapi/v1/klines": "ohlcv",
    "/fapi/v1/premiumIndexKlines": "premium_index",
    "/fapi/v1/fundingRate": "funding_rate",
}

_CANDLES, _EVENTS = 1500, 1000
"""Rows of the largest page in each of the two limit pools."""


@attrs.frozen
class RequestedPage:
    """The series and the span of one page request."""

    series: Series
    span: Span

    def inside(self, other: RequestedPage) -> bool:
        """Tell whether the other page contains the whole span of this page."""
        return self.series == other.series and self.span.intersect(other.span) == self.span


def requested_pages(seen: Iterable[LoggedRequest[FaultKind]], interval: str) -> list[RequestedPage]:
    """Return the page requests of a log; a search for the start of a series (no `endTime`) is no page."""
    return [
        RequestedPage(
            Series.of("binance-usdm", _DATASETS[one.path], one.params["symbol"], interval),
            Span(int(one.params["startTime"]), int(one.params["endTime"]) + 1),
        )
        for one in seen
        if _is_page(one)
    ]


def page_requests(seen: Iterable[LoggedRequest[FaultKind]]) -> int:
    """Count the page requests: cheaply, since a caller may wait for the next one."""
    return sum(map(_is_page, seen))


def setup_requests(seen: Iterable[LoggedRequest[FaultKind]]) -> int:
    """Count the requests that are no pages: the clock, the listing, the start of each series."""
    return sum(not _is_page(one) for one in seen)


def _is_page(one: LoggedRequest[FaultKind]) -> bool:
    return one.path in _DATASETS and "endTime" in one.params


def lost_pages(asked: Sequence[RequestedPage], durable: Contents) -> list[RequestedPage]:
    """Return the requested pages that the store does not cover completely.

    A page inside another page is left out: it is the second request for moments without a row (an empty
    answer is confirmed by a second one).
    """
    gone = dict.fromkeys(one for one in asked if SpanSet.of(one.span) - _covered(durable, one.series))
    return [one for one in gone if not any(one != other and one.inside(other) for other in gone)]


def refetched_pages(asked: Iterable[RequestedPage], durable: Contents) -> list[RequestedPage]:
    """Return the requested pages that overlap what the store had already covered."""
    return [one for one in asked if SpanSet.of(one.span) & _covered(durable, one.series)]


def lost_rows(asked: Iterable[RequestedPage], durable: Contents) -> int:
    """Count the candles that were requested and are not covered by the store."""
    spans: Mapping[Series, list[Span]] = defaultdict(list)
    for one in asked:
        if not one.series.interval.is_event:
            spans[one.series].append(one.span)
    return sum(
        series.interval.count(span)
        for series, some in spans.items()
        for span in SpanSet.of(*some) - _covered(durable, series)
    )


def _covered(durable: Contents, series: Series) -> SpanSet:
    held = durable.get(series)
    return SpanSet() if held is None else held.coverage.covered


@attrs.frozen
class InFlightLimit:
    """The most rows and pages that a run may have requested but not yet committed: what a crash may waste.

    Rows: the pages in flight (or one batch if that is more), and for each writer one batch, or where it
    commits several batches together, one transaction that is written and one that waits. Pages: as many
    full ones as hold these rows, and one short page for each batch that is fetched, queued or written.
    """

    rows: int
    pages: int

    @classmethod
    def of(cls, sink: Sink, concurrency: int) -> InFlightLimit:
        """Return the limit for runs that fetch candles and funding rates in pages of the largest size."""
        assert isinstance(sink, SupportsBatchSize)
        together = 2 * sink.transaction_rows if isinstance(sink, SupportsGroupCommit) else 0
        rows = max(concurrency * (_CANDLES + _EVENTS), sink.batch_rows)
        rows += max(sink.batch_rows, together) * sink.max_writers
        return cls(rows, rows // _CANDLES + concurrency * 2 + sink.max_writers * 2)
