"""Turns in probable gaps: one page goes ahead, and the pages after it wait until it has crossed the gap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
from anyio import Event

from marketfetch.engine.requester import RowFinder
from marketfetch.planning.batches import FetchTask
from marketfetch.planning.gap_hints import ProbableGap
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["GapTurns", "is_worth_looking"]

_MANY_PAGES = 25
"""Of a series with more pages, longer candles are asked where it has gaps: that costs a twenty-fifth."""


def is_worth_looking(task: FetchTask, concurrency: int) -> bool:
    """Whether looking for gaps costs little beside the pages, and several of them are in flight."""
    return concurrency > 1 and not task.paginator.sequential and task.rows > _MANY_PAGES * task.page_size


@attrs.frozen(eq=False)
class GapTurns:
    """The probable gaps of long series, and which pages in them have to wait.

    Without it every request in flight may end in a gap before the first of them has shown it.
    """

    finder: RowFinder
    _gaps: defaultdict[Series, dict[ProbableGap, Event | None]] = attrs.field(
        factory=lambda: defaultdict(dict), init=False
    )
    """For each gap the end of its first page; None if no page of it has been requested."""

    async def look(self, task: FetchTask, published: int) -> None:
        """Ask longer candles where a series has gaps before the last published row. Raises Undecided."""
        missing = (task.missing & SpanSet.of(Span(0, published))).hull
        if missing is not None:
            gaps = await self.finder.gaps(task.series, missing, task.page_size)
            self._gaps[task.series] |= dict.fromkeys(gaps)

    @asynccontextmanager
    async def turn(self, part: Slice) -> AsyncIterator[None]:
        """Wait, with a page in a probable gap, for the end of the first page there.

        That page has the gap crossed, or shows that there is none: the others then wait no more.
        """
        gaps = self._gaps[part.series]
        gap = next((gap for gap in gaps if part.span.start in gap.empty), None)
        if gap is None:
            yield
        elif (first := gaps[gap]) is not None:
            await first.wait()
            yield
        else:
            gaps[gap] = done = Event()
            try:
                yield
            finally:
                del gaps[gap]
                done.set()

    def resumption(self, series: Series, stretch: Span) -> Span | None:
        """Return where the rows of a series go on after a stretch begins, by its longer candles."""
        gap = next((gap for gap in self._gaps[series] if stretch.start in gap.empty), None)
        return gap.resumption.intersect(stretch) if gap is not None and gap.resumption else None
