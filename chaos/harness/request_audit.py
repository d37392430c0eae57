"""What a run asked for, as the exchange saw it, and how much of that a crash may cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import attrs

from chaos.harness.store_contents import Contents
from marketfetch.protocols import Sink, SupportsBatchSize
from marketfetch.testing import LoggedRequest
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "InFlightLimit",
    "RequestedPage",
    "lost_pages",
    "lost_rows",
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
"""Rows of a page, of each of the two limit pools."""


@attrs.frozen
class RequestedPage:
    """A page that was asked for."""

    series: Series
    span: Span

    def inside(self, other: RequestedPage) -> bool:
        """Tell whether another page has all of this one."""
        return self.series == other.series and self.span.intersect(other.span) == self.span


def requested_pages(seen: Iterable[LoggedRequest], interval: str) -> list[RequestedPage]:
    """Return the pages among requests; asking for where a series begins is none."""
    return [
        RequestedPage(
            Series.of("binance-usdm", _DATASETS[one.path], one.params["symbol"], interval),
            Span(int(one.params["startTime"]), int(one.params["endTime"]) + 1),
        )
        for one in seen
        if one.path in _DATASETS and "endTime" in one.params
    ]


def setup_requests(seen: Iterable[LoggedRequest]) -> int:
    """Count the requests that a start costs beside pages: the clock, the listing, where series begin."""
    return sum(one.path not in _DATASETS or "endTime" not in one.params for one in seen)


def lost_pages(asked: Sequence[RequestedPage], durable: Contents) -> list[RequestedPage]:
    """Return the pages of which something is not in the store; what was asked of them once more is no page.

    (The exchange is asked twice before it is believed that it has no row.)
    """
    gone = dict.fromkeys(one for one in asked if SpanSet.of(one.span) - _covered(durable, one.series))
    return [one for one in gone if not any(one != other and one.inside(other) for other in gone)]


def refetched_pages(asked: Iterable[RequestedPage], durable: Contents) -> list[RequestedPage]:
    """Return the pages that had something which was in the store already."""
    return [one for one in asked if SpanSet.of(one.span) & _covered(durable, one.series)]


def lost_rows(asked: Iterable[RequestedPage], durable: Contents) -> int:
    """Count the rows of grids that were asked for and are not in the store."""
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
    """What may be in flight: asked for, and not yet durable.

    A run holds as many rows as its pages in flight need, or one batch if that is more, and a batch for each
    writer: whole pages fill that. The last page of a batch may be a short one: one of each batch that is
    being fetched, waits or is being written.
    """

    rows: int
    pages: int

    @classmethod
    def of(cls, sink: Sink, concurrency: int) -> InFlightLimit:
        """Return the bound of runs that ask for candles and for funding, in pages of the largest size."""
        assert isinstance(sink, SupportsBatchSize)
        rows = max(concurrency * (_CANDLES + _EVENTS), sink.batch_rows) + sink.batch_rows * sink.max_writers
        return cls(rows, rows // _CANDLES + concurrency * 2 + sink.max_writers * 2)
