"""Wrong rows: which of them several answers had alike, and which can be stored with unusable="store"."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import numpy as np

from marketfetch.protocols import PageOutcome
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns, Page
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet

__all__ = ["cells_of", "repeated_rows", "store_unusable"]


def cells_of(rows: Iterable[RejectedRow], interval: Interval) -> SpanSet:
    """Return the grid steps in which rows lie."""
    return interval.cells(np.array([row.time for row in rows], np.int64))


def repeated_rows(part: Slice, page: Page) -> tuple[RejectedRow, ...]:
    """Return the wrong rows of a page that all answers before it had, the same to the letter.

    All wrong rows of one grid step are compared together. A row that is different in each answer was damaged
    on its way. A page with rows outside the window repeats nothing: it may be the answer to another request.

    Example: the first answer has `[0]` for 00:00 and `[60000]` for 00:01, the second one `[0,1]` and
    `[60000]`: only the row of 00:01 is repeated.

    >>> from marketfetch.values.series import Series
    >>> from marketfetch.values.spans import Span
    >>> early, late = RejectedRow(0, "impossible", "[0]"), RejectedRow(60_000, "impossible", "[60000]")
    >>> changed = attrs.evolve(early, raw="[0,1]")
    >>> part = Slice(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), Span(0, 120_000), rows=2)
    >>> part = attrs.evolve(part, bad_answers=1, invalid_rows=(early, late))
    >>> empty = Columns.empty(part.series.dataset)
    >>> repeated_rows(part, Page(empty, invalid=(changed, late))) == (late,)
    True
    """
    if page.has_rows_outside:
        return ()
    if not part.bad_answers:
        return page.invalid
    before, now = (_by_cell(rows, part.series.interval) for rows in (part.invalid_rows, page.invalid))
    return tuple(row for cell, rows in now.items() if before.get(cell) == rows for row in rows)


def _by_cell(rows: Iterable[RejectedRow], interval: Interval) -> dict[int, list[RejectedRow]]:
    cells: dict[int, list[RejectedRow]] = {}
    for row in sorted(rows):
        cells.setdefault(interval.floor(row.time), []).append(row)
    return cells


def store_unusable(page: Page, outcome: PageOutcome, interval: Interval) -> tuple[Page, PageOutcome]:
    """Make unusable moments present if their rows can be stored as they are.

    The rows keep their own times, on the grid or off it. A moment stays unusable if no table can hold one of
    its rows, such as a row with text for a number.
    """
    if not outcome.unusable or page.storable is None:
        return page, outcome
    times = page.storable.times
    storable = frozenset(times.tolist())
    unstorable = [row for row in outcome.rejected if row.time not in storable]
    stored = outcome.unusable & interval.cells(times) - cells_of(unstorable, interval)
    taken = page.storable.take(np.array([int(time) in stored for time in times], np.bool_))
    not_stored = outcome.unusable - stored
    return attrs.evolve(page, columns=Columns.join([page.columns, taken])), attrs.evolve(
        outcome,
        present=outcome.present | stored,
        unusable=not_stored,
        rejected=tuple(row for row in outcome.rejected if row.time in not_stored),
        reason=outcome.reason if not_stored or outcome.given_up else "",
    )
