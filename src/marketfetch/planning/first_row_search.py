"""Searches the first row of a series in few requests, for exchanges without a request for it.

Pure: a generator yields which window to request next, and takes the times of the rows that came.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import attrs

from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

__all__ = ["PAGE_LENGTH_RATIO", "Question", "search_first_row"]

PAGE_LENGTH_RATIO = 3
"""The longest page of a server / the shortest that it may serve: a server may cut pages short."""


@attrs.frozen
class Question:
    """A window of candles to request; it may have more open times than the `rows` to request at most."""

    span: Span
    rows: int
    interval: Interval


def search_first_row(  # noqa: PLR0913  # independent facts
    interval: Interval,
    span: Span,
    rows: int,
    *,
    anchor: Literal["start", "end"],
    hint: int | None = None,
    coarser: Sequence[Interval] = (),
) -> Generator[Question, Sequence[int], int | None]:
    """Yield windows to request and take the times of the rows that came; return the first row of a span.

    Returns None if the span has no row. `rows` is the size of a page, `anchor` the end of a window from which
    the exchange fills a page, `hint` a time near which the first row may be. `coarser` are longer intervals
    of the same series, ascending.

    1. Pages are filled from the start: one row of the whole span is the first row.
    2. Pages are filled from the end, and a page of coarser candles shows the whole span: its first candle
       shows where to look with finer ones. A year of minutes is four pages: of 1w, 4h, 5m and 1m.
    3. Else windows from the start of the span on, each twice as long as the one before, until one has a row.
       From there on the part that may have an earlier row is halved.

    A server may cut a page short, so the number of its rows proves nothing. The caller has to prove that no
    row lies before the result.

    Example: ten 1m candles from 00:00 on. The newest row is 00:09, so 00:00-00:09 is requested next.

    >>> search = search_first_row(Interval.parse("1m"), Span(0, 600_000), 100, anchor="end")
    >>> next(search)
    Question(span=Span(start=0, end=600000), rows=1, interval=Interval(name='1m'))
    >>> search.send([540_000]).span
    Span(start=0, end=540000)
    """
    if anchor == "start":
        return min((yield Question(span, 1, interval)), default=None)
    part = yield from _narrowed(interval, span, max(1, rows // PAGE_LENGTH_RATIO), coarser)
    times = (yield Question(part, rows, interval)) if part != span else ()
    if times and interval.count(part) <= rows // PAGE_LENGTH_RATIO:
        return min(times)
    if not times:
        part = span  # the coarser candles have shown nothing, or have misled
        times = yield Question(span, 1, interval)
    if not times:
        return None
    # Invariant: the span probably has no row before `low`, and it has one at `high`.
    low, high = part.start, min(times)
    if hint is not None and low < hint < high:
        times = yield Question(Span(low, hint), rows, interval)
        low, high = (low, min(times)) if times else (hint, high)
    width, doubling = rows, True
    while low < high:
        left = interval.count(Span(low, high))
        if not doubling:
            width = max(rows, left // 2)
        stop = min(interval.shift(interval.floor(low), width), high)
        times = yield Question(Span(low, stop), rows, interval)
        if times:
            high, doubling = min(times), False
        else:
            low, width = stop, 2 * width
    return high


def _narrowed(
    interval: Interval, span: Span, rows: int, coarser: Sequence[Interval]
) -> Generator[Question, Sequence[int], Span]:
    """Return the part of a span in which its first row lies by coarser candles; the span if they do not say.

    A coarser candle that began before the span may be one of rows before it, so it is not asked for. A row
    may have the time of its beginning or of its end, so the part reaches a coarser step to both sides.
    """
    while coarser and interval.count(span) > rows:
        # The shortest candles of which a page shows the whole span, or the longest there are.
        step = next((each for each in coarser if each.count(span) <= rows), coarser[-1])
        start, end = step.ceil(span.start), step.ceil(span.end)
        coarser = [each for each in coarser if each.typical < step.typical]
        if start == end:
            continue
        if step.count(span) <= rows:
            first = min((yield Question(Span(start, end), rows, step)), default=None)
        else:
            first = yield from search_first_row(step, Span(start, end), rows, anchor="end")
        if first is None:
            break
        start = max(span.start, interval.ceil(step.shift(first, -1)))
        end = min(span.end, step.shift(first, 1))
        if start < end:
            span = Span(start, end)
    return span
