"""Turns in probable gaps: one page is requested, and the other pages wait until it has crossed the gap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from anyio import Lock

from marketfetch.engine.pages.row_finder import RowFinder
from marketfetch.engine.state import SeriesState
from marketfetch.planning.batches import FetchTask
from marketfetch.planning.gap_hints import ProbableGap
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["GapTurns", "is_gap_search_worthwhile"]

_MIN_PAGES = 25
"""Longer candles show the gaps of a series if it has more pages than this: they cost about 1 / 25 of them."""
_MAX_TURNS = 3
"""Pages that may fail to cross a gap; after them, the other pages wait no more."""


def is_gap_search_worthwhile(task: FetchTask, concurrency: int) -> bool:
    """Whether a search for gaps costs little beside the pages, and several of them are in flight."""
    return concurrency > 1 and not task.paginator.sequential and task.rows > _MIN_PAGES * task.page_size


@attrs.define(eq=False)
class _Turns:
    """The turns in a gap of one series: the page that holds the lock has its turn."""

    lock: Lock = attrs.field(factory=Lock)
    pages: int = 0
    """How many pages that begin in the gap have had their turn."""


@attrs.frozen(eq=False)
class GapTurns:
    """The probable gaps of long series, and which pages in them have to wait.

    Without it every request in flight may end in a gap before the first of them has shown it.
    """

    finder: RowFinder
    _gaps: defaultdict[Series, dict[ProbableGap, _Turns]] = attrs.field(
        factory=lambda: defaultdict(dict), init=False
    )

    async def find_gaps(self, task: FetchTask, published: int) -> None:
        """Ask longer candles where a series has gaps before the last published row. Raises UndecidedError."""
        missing = (task.missing & SpanSet.of(Span(0, published))).hull
        if missing is not None:
            gaps = await self.finder.find_gaps(task.series, missing, task.page_size)
            self._gaps[task.series] |= {gap: _Turns() for gap in gaps}

    @asynccontextmanager
    async def turn(self, state: SeriesState, part: Slice) -> AsyncIterator[None]:
        """Wait, with a page in a probable gap or just before one, for the turn of the page.

        1. The page in which the gap begins comes first. A page cannot cross the gap while nothing is known
           of the moment before it.
        2. The next page is empty and has the gap crossed: the others then need no request.
        3. It is empty and could not cross the gap: the page after it has the turn, but not for long. Workers
           that wait for a turn do not fetch other series meanwhile.
        4. It has a row, or it failed: there may be no gap, and the others wait no more.
        """
        gaps, page = self._gaps[part.series], part.span
        fitting = (
            gap for gap in reversed(gaps) if page.start < gap.empty.end and page.end >= gap.empty.start
        )
        if (gap := next(fitting, None)) is not None:
            turns = gaps[gap]
            async with turns.lock:
                if gap in gaps:
                    yield
                    turns.pages += page.start in gap.empty
                    had_row = page.start in gap.empty and not state.is_empty_at(page.start)
                    if had_row or turns.pages == _MAX_TURNS:
                        del gaps[gap]
                    return
        yield

    def resumption(self, series: Series, stretch: Span) -> Span | None:
        """Return where the rows of a series go on after a stretch begins, by its longer candles."""
        gap = next((gap for gap in self._gaps[series] if stretch.start in gap.empty), None)
        return gap.resumption.intersect(stretch) if gap is not None and gap.resumption else None
