"""Planning of files: what is missing in each calendar period, and whether two sources agree. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.archives.periods import CalendarPeriod, Grain, periods
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns, same_values
from marketfetch.values.spans import SpanSet

__all__ = ["Difference", "NeededPeriod", "difference", "needed_periods"]

_MIN_WANTED_PER_GAP_ROW = 24
"""A gap is short if 24 x its rows < the wanted rows of the period."""


@attrs.frozen
class NeededPeriod:
    """A calendar period, the moments of it that are missing, and how many rows they are."""

    period: CalendarPeriod
    missing: SpanSet
    rows: int

    def is_short_gap(self, wanted: SpanSet, interval: Interval) -> bool:
        """Whether few rows are missing, and none at the start or end of what is wanted of the period.

        If the file was read before, it lacks these rows, and to read it again is useless. Few are less than a
        twenty-fourth of the wanted rows. Where the first or last wanted row is missing, the others may be of
        another source, and the file may never have been read.

        >>> from marketfetch.values.spans import DAY, HOUR, Span
        >>> day, minutes = Span(0, DAY), Interval.parse("1m")
        >>> (gap,) = needed_periods(SpanSet.of(Span(HOUR, 2 * HOUR - 60_000)), minutes, "day")
        >>> gap.rows, gap.is_short_gap(SpanSet.of(day), minutes)
        (59, True)
        """
        inside = wanted & SpanSet.of(self.period.span)
        if inside.hull is None or self.missing.hull is None:
            return False
        at_edge = self.missing.hull.start == inside.hull.start or self.missing.hull.end == inside.hull.end
        return not at_edge and _MIN_WANTED_PER_GAP_ROW * self.rows < interval.count_rows(inside)


@attrs.frozen(eq=False)
class Difference:
    """How rows of one source differ from those of another.

    `times` are the moments at which both have a row, with other values; `fields` counts these values by
    column. `new` are the moments at which only the second source has a row.
    """

    times: NDArray[np.int64]
    fields: Mapping[str, int]
    new: NDArray[np.int64]


def difference(one: Columns, other: Columns, dataset: Dataset) -> Difference:
    """Compare rows of two sources; NULL is equal to NULL, and a column that `one` does not have is left out.

    >>> dataset = Dataset.parse("mark_price")
    >>> file = Columns(np.array([0]), np.array([[1.0], [2.0], [1.0], [1.0]]))
    >>> page = Columns(np.array([0, 60_000]), np.array([[1.0, 1.5], [2.0, 2.0], [1.0, 1.0], [2.0, 1.5]]))
    >>> found = difference(file, page, dataset)
    >>> found.times, found.fields, found.new
    (array([0]), {'close': 1}, array([60000]))
    """
    common, here, there = np.intersect1d(one.times, other.times, assume_unique=True, return_indices=True)
    differs = ~same_values(one.values[:, here], other.values[:, there])
    differs[np.isnan(one.values).all(axis=1)] = False
    counts = zip(dataset.names, np.count_nonzero(differs, axis=1), strict=True)
    return Difference(
        common[differs.any(axis=0)],
        {name: int(count) for name, count in counts if count},
        np.setdiff1d(other.times, one.times, assume_unique=True),
    )


def needed_periods(
    missing: SpanSet, interval: Interval, grain: Grain, *, utc_offset: int = 0
) -> Iterator[NeededPeriod]:
    """Yield the periods in which something is missing, in order.

    A candle belongs to the period in which it opens. Example: the candles of 1d of 10 January to 4 February
    are missing: 22 rows of January and 4 of February.

    >>> from marketfetch.values.spans import DAY, Span
    >>> january = 1_704_067_200_000
    >>> wanted = SpanSet.of(Span(january + 9 * DAY, january + 35 * DAY))
    >>> [(str(need.period), need.rows) for need in needed_periods(wanted, Interval.parse("1d"), "month")]
    [('2024-01', 22), ('2024-02', 4)]
    """
    after = None
    for span in missing:
        for period in periods(span, grain, utc_offset=utc_offset):
            if after is not None and period <= after:
                continue  # an earlier span began in it
            after = period
            inside = missing & SpanSet.of(period.span)
            rows = interval.count_rows(inside)
            if rows:
                yield NeededPeriod(period, inside, rows)
