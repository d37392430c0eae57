"""Searches the first row of a series by bisection, for exchanges without a request for it.

Pure: a generator yields which window to request next, and takes the times of the rows that came.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import attrs

from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

__all__ = ["Question", "seek_first"]


@attrs.frozen
class Question:
    """A window to request; it may have more open times than the `rows` to request at most."""

    span: Span
    rows: int


def seek_first(
    interval: Interval,
    span: Span,
    rows: int,
    *,
    anchor: Literal["start", "end"],
    hint: int | None = None,
) -> Generator[Question, Sequence[int], int | None]:
    """Yield windows to request and take the times of the rows that came; return the first row of a span.

    Returns None if the span has no row. `rows` is the size of a page, `anchor` the end of a window from which
    the exchange fills a page, `hint` a time near which the first row may be.

    1. Pages are filled from the start: one row of the whole span is the first row.
    2. Pages are filled from the end: windows from the start of the span on, each twice as long as the one
       before, until one has a row. From there on the part that may have an earlier row is halved.

    A server may cut a page short, so the number of its rows proves nothing. The caller has to prove that no
    row lies before the result.

    Example: ten 1m candles from 00:00 on. The newest row is 00:09, so 00:00-00:09 is requested next.

    >>> seeking = seek_first(Interval.parse("1m"), Span(0, 600_000), 100, anchor="end")
    >>> next(seeking)
    Question(span=Span(start=0, end=600000), rows=1)
    >>> seeking.send([540_000])
    Question(span=Span(start=0, end=540000), rows=100)
    """
    if anchor == "start":
        return min((yield Question(span, 1)), default=None)
    times = yield Question(span, 1)
    if not times:
        return None
    # Invariant: the span has no row before `low`, and it has one at `high`.
    low, high = span.start, min(times)
    if hint is not None and low < hint < high:
        times = yield Question(Span(low, hint), rows)
        low, high = (low, min(times)) if times else (hint, high)
    width, doubling = rows, True
    while low < high:
        left = interval.count(Span(low, high))
        if not doubling:
            width = max(rows, left // 2)
        stop = min(interval.shift(interval.floor(low), width), high)
        times = yield Question(Span(low, stop), rows)
        if times:
            high, doubling = min(times), False
        else:
            low, width = stop, 2 * width
    return high
