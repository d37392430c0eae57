"""Series that are computed from others, their inputs: what is known of them, and in which steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

from marketfetch.values.coverage import Coverage
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span, SpanSet

__all__ = ["derived_coverage", "intersect_coverage", "outdated", "split_by_rows"]


def intersect_coverage(inputs: Sequence[Coverage]) -> Coverage:
    """Return what the inputs allow to compute: the moments that are covered in all of them.

    Such a moment is empty if one input is empty there, else unusable if one is unusable, else present.
    """
    covered = reduce(lambda left, right: left & right, [each.covered for each in inputs])
    empty = reduce(lambda left, right: left | right, [each.empty for each in inputs]) & covered
    unusable = reduce(lambda left, right: left | right, [each.unusable for each in inputs])
    return Coverage(covered, empty, unusable & covered - empty)


def outdated(stored: Coverage, known: Coverage) -> SpanSet:
    """Return where a derived series is stored as empty or unusable, and its inputs no longer say so.

    `known` is the intersection of the inputs. Example: input A had no row at 00:05, so the series was stored
    as empty there. A was forgotten and fetched again, and has a row: 00:05 is computed anew, and present
    beats empty.
    """
    return (stored.empty - known.empty) | (stored.unusable - known.unusable)


def derived_coverage(interval: Interval, columns: Columns, step: SpanSet, known: Coverage) -> Coverage:
    """Return what computed rows prove about a step in which all inputs are covered.

    A moment is unusable if all inputs are present there and no row was computed: then an input has a row off
    the grid, which was stored as the exchange sent it.
    """
    empty = known.empty & step
    return Coverage(step, empty, step - empty - interval.cells(columns.times))


def split_by_rows(interval: Interval, spans: SpanSet, rows: int) -> Iterator[SpanSet]:
    """Cut a set into steps; from its first to its last span, a step has at most `rows` open times.

    Short spans with gaps between them share a step, because each step costs one read of every input and
    one transaction.
    """
    step: list[Span] = []
    limit = 0
    for span in spans:
        start = span.start
        while start < span.end:
            if step and start >= limit:
                yield SpanSet(tuple(step))
                step = []
            if not step:
                limit = interval.shift(interval.floor(start), rows)
            stop = min(limit, span.end)
            step.append(Span(start, stop))
            start = stop
    if step:
        yield SpanSet(tuple(step))
