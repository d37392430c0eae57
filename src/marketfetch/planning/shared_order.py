"""Where a process goes on while others fetch the same series into the same store.

Nothing is agreed on: the store is the arbiter. Each process begins at another place, goes on in the order of
time until it meets what another has stored, and then takes another unfetched span. Two processes fetch the
same rows only where one meets the rows that another has in flight, and the rules below make that rare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, TypeVar

import attrs

from marketfetch.planning.batches import FetchTask
from marketfetch.sharing import ProcessRank
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FileOrder", "Pace", "SharedOrder", "UnfetchedSpan", "unfetched_spans"]

_T = TypeVar("_T")

_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are spread evenly over 0-1, however many there are."""
_MIN_UNCHANGED_SECONDS = 1.0
"""No process works at the start of a span if the start has not moved for at least this time."""
_MIN_DIVIDED_IN_FLIGHT = 4
"""A piece of the line is divided if it has at least (4 + number of other processes) x the rows in flight.

Several processes may divide it at once.
"""
_MIN_UNCHANGED_BATCHES = 2
"""The start of a span must also not move for 2 x the duration of a batch of this process."""


_Beginning = tuple[Series, int, Series | None]


@attrs.frozen
class UnfetchedSpan:
    """Moments of a series that nobody has stored, one after the other; other moments need no request."""

    task: FetchTask
    span: Span

    @property
    def rows(self) -> int:
        """The number of rows; events are counted as one page."""
        task = self.task
        return task.page_size if task.paginator.sequential else task.series.interval.count(self.span)


def unfetched_spans(task: FetchTask, taken: SpanSet) -> Iterator[UnfetchedSpan]:
    """Yield what is left of a task around the moments that are taken: stored, or requested by this process.

    Moments that were never missing divide no span. Example: 1, 3, 5, 7 and 9 are missing, and 5 is taken: the
    unfetched spans are 1-3 and 7-9.
    """
    left = task.missing - taken
    done = [span.start for span in task.missing & taken]
    first: Span | None = None
    last: Span | None = None
    for span in left:
        if first is None or last is None:
            first = span
        elif bisect_left(done, last.end) != bisect_left(done, span.start):
            yield UnfetchedSpan(task, Span(first.start, last.end))
            first = span
        last = span
    if first is not None and last is not None:
        yield UnfetchedSpan(task, Span(first.start, last.end))


@attrs.frozen
class Pace:
    """The time, the seconds in which a batch is seen stored, and the most rows that were not stored yet."""

    now: float
    batch: float
    in_flight: int


@attrs.define(eq=False)
class SharedOrder:
    """Chooses where this process works, at `shares` points at once; see `choose`.

    All unfetched spans, in the order of tasks and time, are a line. A share of the work begins at a point of
    the line, and goes on until it meets what another process has stored. A piece of the line that is shorter
    than what a process has in flight is left to the process that works at its beginning.
    """

    shares: int
    _seen: dict[_Beginning, float] = attrs.field(factory=dict, init=False)
    """Since when an unfetched span has begun at the same moment."""
    _begun: int = attrs.field(default=0, init=False)

    def choose(
        self, spans: Sequence[UnfetchedSpan], rank: ProcessRank, pace: Pace
    ) -> Sequence[UnfetchedSpan]:
        """Return the spans from where another share begins on; none if others work on all that is left.

        If the beginning of a span has not moved for a while, no process works there. A piece of the line is a
        span where a process works, together with the spans after it where no process works.

        1. The first shares: spread over the line, and away from those of other processes.
        2. At the beginning of the longest piece where nobody works. The more processes came before this one,
           the later it does so: of several that look for work, one begins, and the others see that.
        3. About in the middle of a long piece. The process that works at its beginning will end there.
           Several that look for work choose different pieces, and different points of a piece.

        Example: of a year of minutes, this process has fetched July to December. Another one began in
        January, and is in March now: this one begins its next share in the middle of April to June.

        >>> pace = Pace(now=0.0, batch=0.1, in_flight=10)
        >>> SharedOrder(shares=1).choose([], ProcessRank(before=0, others=1), pace)
        ()
        """
        before = rank.before
        self._seen = {key: self._seen.get(key, pace.now) for key in _beginnings(spans)}
        if not spans:
            return ()
        if self._begun < self.shares:
            number, self._begun = before * self.shares + self._begun, self._begun + 1
            return _remaining_part(spans, number * _GOLDEN % 1)
        unchanged_for = max(_MIN_UNCHANGED_SECONDS, _MIN_UNCHANGED_BATCHES * pace.batch) * (1 + before / 2)
        unchanged_since = pace.now - unchanged_for
        pieces: list[list[UnfetchedSpan]] = []
        abandoned: list[list[UnfetchedSpan]] = []
        for unfetched, since in zip(spans, self._seen.values(), strict=True):
            if pieces and since <= unchanged_since:
                pieces[-1].append(unfetched)
            else:
                pieces.append([unfetched])
            if since <= unchanged_since and pieces[-1] == [unfetched]:
                abandoned.append(pieces[-1])
        if abandoned:
            return max(abandoned, key=_rows)
        least = (_MIN_DIVIDED_IN_FLIGHT + rank.others) * pace.in_flight
        long = sorted((piece for piece in pieces if _rows(piece) >= least), key=_rows)
        if not long:
            return ()
        remaining = _remaining_part(
            long[-1 - before % len(long)], 0.35 + 0.3 * ((before * _GOLDEN + 0.5) % 1)
        )
        is_whole = remaining[0] in spans  # a chain, which begins where somebody works
        return remaining[1:] if is_whole else remaining


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
        self._remaining = deque(files)
        self._remaining.rotate(-int(before * _GOLDEN % 1 * len(files)))
        self.at_the_end = False
        """Whether the last file was taken at the end."""

    def __len__(self) -> int:
        return len(self._remaining)

    def __contains__(self, file: object) -> bool:
        return file in self._remaining

    def __iter__(self) -> Iterator[_T]:
        while self._remaining:
            yield self._remaining.pop() if self.at_the_end else self._remaining.popleft()

    def meet(self, *, at_the_end: bool) -> None:
        """Go on at the other end: another process has stored a file that was taken at this one."""
        self.at_the_end = not at_the_end


def _beginnings(spans: Sequence[UnfetchedSpan]) -> Iterator[_Beginning]:
    """Yield what names the beginning of each span: series, time, and the series of the span before it.

    A process that has just fetched the end of a series goes on with the next one, of which nothing is stored
    yet. Then the span before that one is gone.
    """
    before: Series | None = None
    for unfetched in spans:
        yield unfetched.task.series, unfetched.span.start, before
        before = unfetched.task.series


def _rows(spans: Sequence[UnfetchedSpan]) -> int:
    return sum(unfetched.rows for unfetched in spans)


def _remaining_part(spans: Sequence[UnfetchedSpan], fraction: float) -> Sequence[UnfetchedSpan]:
    """Return what remains of some spans behind the point before which a fraction of all rows lies."""
    ahead = fraction * _rows(spans)
    for number, unfetched in enumerate(spans):
        if ahead < unfetched.rows:
            return [_cut(unfetched, ahead / unfetched.rows), *spans[number + 1 :]]
        ahead -= unfetched.rows
    return spans[-1:]


def _cut(unfetched: UnfetchedSpan, fraction: float) -> UnfetchedSpan:
    """Return a span without its first fraction; a chain of pages is never cut."""
    if unfetched.task.paginator.sequential:
        return unfetched
    start = unfetched.task.series.interval.floor(unfetched.span.start + int(unfetched.span.length * fraction))
    return attrs.evolve(unfetched, span=Span(max(unfetched.span.start, start), unfetched.span.end))
