"""Where a process goes on while others fetch the same series into the same store.

Nothing is agreed on: the store is the arbiter. Each process begins at another place, goes on in the order of
time until it meets what another has stored, and then takes another gap. Two processes fetch the same rows
only where one meets the rows that another has in flight, and the rules below make that rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, TypeVar

import attrs

from marketfetch.planning.batches import FetchTask
from marketfetch.sharing import Place
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FileOrder", "Gap", "Pace", "SharedOrder", "gaps_of"]

_T = TypeVar("_T")

_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly over 0-1, however many there are."""
_SETTLED = 1.0
"""Seconds: nobody works at the beginning of a gap that has stayed where it is for so long, or for longer."""
_LONG = 4
"""A piece of the line is divided if it has so many times the rows that this process has in flight, and more
with more processes: several may divide it at once."""
_STEPS = 2
"""So many batches of this process take as long as a gap has to stay where it is."""


_Beginning = tuple[Series, int, Series | None]


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


@attrs.frozen
class Pace:
    """The time, the seconds in which a batch is seen stored, and the most rows that were not stored yet."""

    now: float
    batch: float
    in_flight: int


@attrs.define(eq=False)
class SharedOrder:
    """Chooses where this process works, in so many `parts` at once; see `choose`.

    All gaps, in the order of tasks and time, are a line. A part begins at a point of the line, and goes on
    until it meets what another process has stored. A piece of the line that is shorter than what a process
    has in flight is left to the process that works at its beginning.
    """

    parts: int
    _seen: dict[_Beginning, float] = attrs.field(factory=dict, init=False)
    """Since when a gap has begun at the same place."""
    _begun: int = attrs.field(default=0, init=False)

    def choose(self, gaps: Sequence[Gap], place: Place, pace: Pace) -> Sequence[Gap]:
        """Return the gaps from where another part begins on; none if others work on all that is left.

        If the beginning of a gap has not moved for a while, no process works there. A piece of the line is a
        gap where a process works, together with the gaps after it where no process works.

        1. The first parts: spread over the line, and away from those of other processes.
        2. At the beginning of the longest piece where nobody works. The more processes came before this one,
           the later it does so: of several that look for work, one begins, and the others see that.
        3. About in the middle of a long piece. The process that works at its beginning will end there.
           Several that look for work choose different pieces, and different points of a piece.

        Example: of a year of minutes, this process has fetched July to December. Another one began in
        January, and is in March now: this one begins its next part in the middle of April to June.

        >>> SharedOrder(parts=1).choose([], Place(before=0, others=1), Pace(now=0.0, batch=0.1, in_flight=10))
        ()
        """
        before = place.before
        self._seen = {key: self._seen.get(key, pace.now) for key in _beginnings(gaps)}
        if not gaps:
            return ()
        if self._begun < self.parts:
            number, self._begun = before * self.parts + self._begun, self._begun + 1
            return _rest(gaps, number * _GOLDEN % 1)
        settled = pace.now - max(_SETTLED, _STEPS * pace.batch) * (1 + before / 2)
        pieces: list[list[Gap]] = []
        still: list[list[Gap]] = []
        for gap, since in zip(gaps, self._seen.values(), strict=True):
            if pieces and since <= settled:
                pieces[-1].append(gap)
            else:
                pieces.append([gap])
            if since <= settled and pieces[-1] == [gap]:
                still.append(pieces[-1])
        if still:
            return max(still, key=_rows)
        least = (_LONG + place.others) * pace.in_flight
        long = sorted((piece for piece in pieces if _rows(piece) >= least), key=_rows)
        if not long:
            return ()
        rest = _rest(long[-1 - before % len(long)], 0.35 + 0.3 * ((before * _GOLDEN + 0.5) % 1))
        is_whole = rest[0] in gaps  # a chain, which begins where somebody works
        return rest[1:] if is_whole else rest


class FileOrder(Collection[_T], Generic[_T]):
    """The files of an archive, in the order in which this process takes them; each is taken once.

    A process begins at a place of its own, and goes on from there. Where it meets a file that another
    process has stored, it goes on at the other end of what is left: there the other one arrives last.
    Several files may be on their way meanwhile, so each of them says at which end it was taken.

    Example: the second of two processes begins with the seventh of ten files. The eleventh would be the
    first one, which is stored: it goes back from the sixth, and meets the other process half-way.

    >>> files = iter(order := FileOrder(range(10), before=1))
    >>> [next(files) for _ in range(5)]
    [6, 7, 8, 9, 0]
    >>> order.meet(at_the_end=False)
    >>> list(files)
    [5, 4, 3, 2, 1]
    """

    def __init__(self, files: Sequence[_T], before: int) -> None:
        self._rest = deque(files)
        self._rest.rotate(-int(before * _GOLDEN % 1 * len(files)))
        self.at_the_end = False
        """Whether the last file was taken at the end."""

    def __len__(self) -> int:
        return len(self._rest)

    def __contains__(self, file: object) -> bool:
        return file in self._rest

    def __iter__(self) -> Iterator[_T]:
        while self._rest:
            yield self._rest.pop() if self.at_the_end else self._rest.popleft()

    def meet(self, *, at_the_end: bool) -> None:
        """Go on at the other end: another process has stored a file that was taken at this one."""
        self.at_the_end = not at_the_end


def _beginnings(gaps: Sequence[Gap]) -> Iterator[_Beginning]:
    """Yield what names the beginning of each gap: series, time, and the series of the gap before it.

    A process that has just fetched the end of a series goes on with the next one, of which nothing is stored
    yet. Then the gap before that one is gone.
    """
    before: Series | None = None
    for gap in gaps:
        yield gap.task.series, gap.span.start, before
        before = gap.task.series


def _rows(gaps: Sequence[Gap]) -> int:
    return sum(gap.rows for gap in gaps)


def _rest(gaps: Sequence[Gap], part: float) -> Sequence[Gap]:
    """Return the rest of some gaps, from the point on before which a part of all rows lies."""
    ahead = part * _rows(gaps)
    for number, gap in enumerate(gaps):
        if ahead < gap.rows:
            return [_cut(gap, ahead / gap.rows), *gaps[number + 1 :]]
        ahead -= gap.rows
    return gaps[-1:]


def _cut(gap: Gap, part: float) -> Gap:
    """Return a gap without its first part; a chain of pages is never cut."""
    if gap.task.paginator.sequential:
        return gap
    start = gap.task.series.interval.floor(gap.span.start + int(gap.span.length * part))
    return attrs.evolve(gap, span=Span(max(gap.span.start, start), gap.span.end))
