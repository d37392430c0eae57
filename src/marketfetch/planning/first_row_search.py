"""Seeking the first row of a series where the exchange has no request for it. Pure: it says what to ask."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import attrs

from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

__all__ = ["Question", "seek_first"]


@attrs.frozen
class Question:
    """A window to ask for, which may have more open times than the `rows` that are asked for at most."""

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
    """Yield questions, take the times of each answer's rows; return the first row in a span, None for none.

    `rows` is the size of a page, `anchor` the end of a window from which a page is filled. An exchange that
    fills pages from the start gives the first row at once. Elsewhere windows that begin where the first row
    may be are doubled until one has a row, and halved from there; `hint` says where to begin. A page may be
    cut shorter than asked for, so that the number of its rows proves nothing.

    The answer is as good as the answers were: it is for the caller to prove that nothing lies before it.

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
