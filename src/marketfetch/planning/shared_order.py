"""Where a process goes on while others fetch the same series into the same store.

Nothing is agreed on: the store is the arbiter. Each process begins at another place, goes on in the order of
time until it meets what another has stored, and then takes another gap. Two processes fetch the same rows
only where one meets the rows that another has in flight, and the rules below make that rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import attrs

from marketfetch.planning.batches import FetchTask
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Gap", "SharedOrder", "gaps_of"]

_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly over 0-1, however many there are."""
_SETTLED = 1.0
"""Seconds: nobody works at the beginning of a gap that has stayed where it is for so long, or for longer."""
_STEPS = 2
"""So many batches of this process take as long as a gap has to stay where it is."""


@attrs.frozen
class Gap:
    """Moments of a series that nobody has stored, one after the other; other moments need no request."""

    task: FetchTask
    span: Span

    @property
    def rows(self) -> int:
        """The number of rows; events are counted as one page."""
        task = self.task
        return task.page_size if task.paginator.sequential else task.series.interval.count(self.span)

    @property
    def key(self) -> tuple[Series, int]:
        """What names the gap while its end moves."""
        return self.task.series, self.span.start


def gaps_of(task: FetchTask, taken: SpanSet) -> Iterator[Gap]:
    """Yield the gaps of a task around the moments that are taken: stored, or requested by this process.

    Moments that were never missing divide no gap. Example: 1, 3, 5, 7 and 9 are missing, and 5 is taken: the
    gaps are 1-3 and 7-9.
    """
    left = task.missing - taken
    done = [span.start for span in task.missing & taken]
    first: Span | None = None
    last: Span | None = None
    for span in left:
        if first is None or last is None:
            first = span
        elif bisect_left(done, last.end) != bisect_left(done, span.start):
            yield Gap(task, Span(first.start, last.end))
            first = span
        last = span
    if first is not None and last is not None:
        yield Gap(task, Span(first.start, last.end))


@attrs.define(eq=False)
class SharedOrder:
    """Chooses gaps for this process, which works on so many `parts` at once.

    `least` is the number of rows of a part that a process may have in flight: a smaller gap is left to the
    process that works at its beginning.
    """

    parts: int
    least: int
    _seen: dict[tuple[Series, int], float] = attrs.field(factory=dict, init=False)
    """Since when a gap has begun at the same place."""
    _chosen: int = attrs.field(default=0, init=False)

    def choose(self, gaps: Sequence[Gap], before: int, now: float, pace: float) -> Gap | None:
        """Return where to begin another part, up to the end of a gap; None if others work on all gaps.

        `before` is the number of processes that came before this one, `pace` the number of seconds that this
        process takes for a batch.

        1. The first parts: spread over all missing rows, and away from those of other processes.
        2. At the beginning of the largest gap whose beginning has not moved for a while.
        3. In the middle of the largest gap. The process that works at its beginning then ends there, and
           chooses another gap.

        >>> SharedOrder(parts=1, least=10).choose([], before=0, now=0.0, pace=0.1) is None
        True
        """
        keys = {gap.key: now for gap in gaps}
        self._seen = keys | {key: since for key, since in self._seen.items() if key in keys}
        if not gaps:
            return None
        number, self._chosen = before * self.parts + self._chosen, self._chosen + 1
        if self._chosen <= self.parts:
            return _at_part(gaps, number * _GOLDEN % 1)
        settled = max(_SETTLED, _STEPS * pace)
        still = [gap for gap in gaps if now - self._seen[gap.key] >= settled]
        if still:
            return max(still, key=_rows)
        largest = max((gap for gap in gaps if not gap.task.paginator.sequential), key=_rows, default=None)
        if largest is None or largest.rows < 2 * self.least:
            return None
        return _from(largest, largest.span.start + largest.span.length // 2)


def _rows(gap: Gap) -> int:
    return gap.rows


def _at_part(gaps: Sequence[Gap], part: float) -> Gap:
    """Return the rest of a gap from the place on before which a part of all rows lies."""
    ahead = part * sum(gap.rows for gap in gaps)
    for gap in gaps:
        if ahead < gap.rows:
            return _from(gap, gap.span.start + int(gap.span.length * ahead / gap.rows))
        ahead -= gap.rows
    return gaps[-1]


def _from(gap: Gap, moment: int) -> Gap:
    """Return the rest of a gap; a chain of pages is never cut."""
    if gap.task.paginator.sequential:
        return gap
    start = max(gap.span.start, gap.task.series.interval.floor(moment))
    return attrs.evolve(gap, span=Span(start, gap.span.end))
