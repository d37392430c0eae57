"""Measures how fast this machine handles requests and rows, on a small sample of the same work.

Machines differ by a factor of three, so plans with fixed seconds are wrong where the processor decides.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from marketfetch.decoding.compiled import COMPILED
from marketfetch.decoding.layouts import RowLayout
from marketfetch.planning.batches import BatchSizing, FetchTask, ProcessingCost, plan_batches
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, Span, SpanSet

__all__ = ["measure_processing_cost"]

_ROUNDS = 25
_PAGES = 48
_ROWS = 1_000 if COMPILED is not None else 100
_REQUEST_IN_SLICES = 108
"""Seconds of a request without its rows = 108 x the seconds of planning a slice; measured once."""
_ROW_IN_DECODINGS = 3.1 if COMPILED is not None else 1.1
"""Seconds of a row = this x the seconds of its decoding, since it is also received. Python mostly decodes."""

_PRICES = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}
_ROW = b'[1609459200000,"29000.10","29000.20","28999.50","29000.00","12.345",1609459259999,"358000.12",123]'


def measure_processing_cost(now: Callable[[], float] = perf_counter) -> ProcessingCost:
    """Return the seconds that this machine takes for a request and for a row of a page.

    It computes for about 7 ms. The fastest of 25 rounds counts: other work may slow a round down. `now`
    returns seconds.

    >>> from itertools import count
    >>> halves = count(step=0.5)
    >>> slow = measure_processing_cost(lambda: next(halves))
    >>> round(slow.request, 3), slow.row > 5e-4
    (1.125, True)
    """
    ohlcv = Dataset.parse("ohlcv")
    layout = RowLayout(_PRICES, width=_ROW.count(b",") + 1)
    page = b"[" + b",".join([_ROW] * _ROWS) + b"]"
    span = SpanSet.of(Span(0, DAY))
    minutes = DAY // 60_000
    task = FetchTask(Series.of("sample", "ohlcv", "A", "1m"), span, TimeWindowPaginator(), minutes // _PAGES)
    sizing = BatchSizing(8 * task.page_size)

    def plan() -> None:
        for _ in plan_batches([task], sizing):
            pass

    slices = _fastest(plan, now) / _PAGES
    rows = _fastest(lambda: layout.decode(page, ohlcv), now) / _ROWS
    return ProcessingCost(_REQUEST_IN_SLICES * slices, _ROW_IN_DECODINGS * rows)


def _fastest(work: Callable[[], object], now: Callable[[], float]) -> float:
    def seconds() -> float:
        started = now()
        work()
        return now() - started

    return min(seconds() for _ in range(_ROUNDS))
