"""Where a series probably has no rows, by its longer candles: one question shows the gaps of years.

Pure: a generator yields which window to request next, and takes the times of the candles that came.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise

import attrs

from marketfetch.planning.first_row_search import PAGE_LENGTH_RATIO, Question
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

__all__ = ["ProbableGap", "search_gaps"]

_MIN_GAP_PAGES = 4
"""A gap is a hint only if it is longer than this: its pages cost as little as crossing it."""


@attrs.frozen
class ProbableGap:
    """A stretch in which longer candles show no row. It is a hint for the order of requests, never a proof.

    `resumption` is the longer candle in which the rows go on; None if no candle comes after the stretch.
    """

    empty: Span
    resumption: Span | None


def search_gaps(
    span: Span, page_size: int, rows: int, coarser: Sequence[Interval], interval: Interval
) -> Generator[Question, Sequence[int], list[ProbableGap]]:
    """Yield windows of longer candles to request, take the times of the candles; return the long gaps.

    `rows` is the most candles of one answer, `page_size` that of the pages with which the span will be
    fetched, and `coarser` are longer intervals of the same series, ascending.

    1. The shortest candles of which one answer shows the whole span show the gaps.
    2. Rows may end anywhere in the candle before a gap. Where that candle is longer than a page, shorter
       candles of it are requested: a gap begins less than a page behind its last row.

    The time before the first candle is not a gap: the answer may have been cut there.

    Example: a year of minutes in pages of 500. Of the 1d candles, those from 4 March to 1 August are lacking.
    The last 3m candle of 3 March is that of 06:57: the gap begins at 07:00.

    >>> hours, days = Interval.parse("1h"), Interval.parse("1d")
    >>> day = days.typical
    >>> search = search_gaps(Span(0, 100 * day), 24, 1000, [days], hours)
    >>> next(search).interval
    Interval(name='1d')
    >>> try:
    ...     search.send([0, day, 50 * day])
    ... except StopIteration as found:
    ...     [(gap.empty.start // day, gap.empty.end // day) for gap in found.value]
    [(2, 50), (51, 100)]
    """
    rows = max(1, rows // PAGE_LENGTH_RATIO)
    step = next((each for each in coarser if each.count(span) <= rows), None)
    if step is None or step.ceil(span.start) >= step.ceil(span.end):
        return []
    whole, gaps = Span(step.ceil(span.start), step.ceil(span.end)), list[ProbableGap]()
    times = sorted((yield Question(whole, rows, step)))
    for last, following in pairwise([*times, whole.end]):
        start = step.shift(last, 1)
        if start >= following or interval.count(Span(start, following)) <= _MIN_GAP_PAGES * page_size:
            continue
        part, finer = Span(last, start), step
        while interval.count(part) > page_size:
            shorter = next(each for each in (*coarser, step) if each.count(part) <= rows)
            if shorter.typical >= finer.typical:
                break
            finer, opens = shorter, (yield Question(part, rows, shorter))
            last_open = max(opens, default=part.start)
            part = Span(last_open, finer.shift(last_open, 1))
        resumption = Span(following, step.shift(following, 1)) if following < whole.end else None
        gaps.append(ProbableGap(Span(part.end, following), resumption))
    return gaps
