"""Half-open spans of time, and sets of spans with union, intersection and difference."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import attrgetter, lt

import attrs

from marketfetch.common.text import text_in_ipython
from marketfetch.common.type_checks import is_whole
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact

__all__ = [
    "DAY",
    "HOUR",
    "MAX_TIMESTAMP",
    "MINUTE",
    "SECOND",
    "Span",
    "SpanSet",
    "format_utc",
    "spans_as_list",
]

SECOND = 1000
"""Milliseconds of a second; MINUTE, HOUR and DAY likewise."""
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MAX_TIMESTAMP = 253_402_300_800_000
"""The year 10000, which no calendar function can write. No exchange has a time so late."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_utc(ms: int) -> str:
    """Write UTC milliseconds as ISO text; without the milliseconds if they are 0.

    >>> format_utc(1_780_272_000_000)
    '2026-06-01T00:00:00Z'
    """
    try:
        text = (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{ms}ms"
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


@attrs.frozen(order=True)
class Span:
    """A half-open stretch of time `[start, end)` in UTC milliseconds; never empty.

    Raises ConfigurationError for a time that is no whole number, such as text, and ValueError for an end that
    is not after the start.

    >>> Span(0, 60_000).length
    60000
    """

    start: int
    end: int

    def __attrs_post_init__(self) -> None:
        if not type(self.start) is type(self.end) is int:  # quick: a run makes millions of spans
            _check_whole("start", self.start)
            _check_whole("end", self.end)
        if self.start >= self.end:
            raise ValueError(f"a span must end after it starts: [{self.start}, {self.end})")

    @property
    def length(self) -> int:
        """Milliseconds between start and end."""
        return self.end - self.start

    def intersect(self, other: Span) -> Span | None:
        """Return the common part of two spans, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Span(start, end) if start < end else None

    def __contains__(self, ms: int) -> bool:
        return self.start <= ms < self.end

    def __str__(self) -> str:
        return f"[{format_utc(self.start)}, {format_utc(self.end)})"

    _repr_pretty_ = text_in_ipython


def _check_whole(argument: str, value: object) -> None:
    if not is_whole(value):
        raise ConfigurationError(
            f"{argument}: {redact(repr(value))} is not a UTC time in whole milliseconds; "
            "write round(1000 * datetime(2026, 6, 1, tzinfo=UTC).timestamp())"
        )


_START, _END = attrgetter("start"), attrgetter("end")


def _normalised(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sort and merge spans; spans that are sorted and apart already are returned as they are."""
    found = spans if isinstance(spans, tuple) else tuple(spans)
    # Every result of a set operation is checked here: most have one span or none, and the loop over many
    # runs in C.
    if len(found) < 2 or all(map(lt, map(_END, found), map(_START, islice(found, 1, None)))):
        return found
    return _merged(found)


def _merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    # `a.spans + b.spans` is two sorted runs, which `sorted` merges in one pass.
    for span in sorted(spans, key=_START):
        if merged and span.start <= merged[-1].end:
            if span.end > merged[-1].end:
                merged[-1] = Span(merged[-1].start, span.end)
        else:
            merged.append(span)
    return tuple(merged)


@attrs.frozen
class SpanSet:
    """A set of moments, kept as sorted spans that neither overlap nor touch.

    Immutable; every operation returns a new set. Intersection and difference look only at spans inside the
    hulls of both sets: with a small set they cost the same however large the other set is.

    >>> held = SpanSet.of(Span(0, 10), Span(10, 20))
    >>> held
    SpanSet(spans=(Span(start=0, end=20),))
    >>> SpanSet.of(Span(5, 30)) - held
    SpanSet(spans=(Span(start=20, end=30),))
    """

    spans: tuple[Span, ...] = attrs.field(default=(), converter=_normalised)

    @classmethod
    def of(cls, *spans: Span | None) -> SpanSet:
        """Make a set of spans; each None is left out."""
        return cls(tuple(filter(None, spans)))

    def __or__(self, other: SpanSet) -> SpanSet:
        if not other.spans:
            return self
        if not self.spans:
            return other
        return SpanSet(self.spans + other.spans)

    def __and__(self, other: SpanSet) -> SpanSet:
        if not self.spans:
            return self
        if not other.spans:
            return other
        these, those = self._near(other), other._near(self)
        common: list[Span] = []
        left, right = 0, 0
        while left < len(these) and right < len(those):
            one, two = these[left], those[right]
            both = one.intersect(two)
            if both is not None:
                common.append(both)
            if one.end <= two.end:
                left += 1
            else:
                right += 1
        return SpanSet(tuple(common))

    def __sub__(self, other: SpanSet) -> SpanSet:
        near = other._near(self)
        if not near:
            return self
        rest: list[Span] = []
        holes = iter(near)
        hole = next(holes, None)
        for span in self.spans:
            start = span.start
            while hole is not None and hole.end <= start:
                hole = next(holes, None)
            while hole is not None and hole.start < span.end:
                if start < hole.start:
                    rest.append(Span(start, hole.start))
                start = max(start, hole.end)
                if hole.end >= span.end:
                    break
                hole = next(holes, None)
            if start < span.end:
                rest.append(Span(start, span.end))
        return SpanSet(tuple(rest))

    def _near(self, other: SpanSet) -> tuple[Span, ...]:
        """Return the spans of this set that overlap the hull of another set."""
        if not self.spans or not other.spans:
            return ()
        start, end = other.spans[0].start, other.spans[-1].end
        first = bisect_right(self.spans, start, key=_END)
        return self.spans[first : bisect_left(self.spans, end, lo=first, key=_START)]

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __contains__(self, ms: int) -> bool:
        before = bisect_right(self.spans, ms, key=_START)
        return before > 0 and ms < self.spans[before - 1].end

    @property
    def length(self) -> int:
        """Milliseconds covered by all spans together."""
        return sum(span.length for span in self.spans)

    @property
    def hull(self) -> Span | None:
        """The smallest span that holds the whole set, or None for the empty set."""
        return Span(self.spans[0].start, self.spans[-1].end) if self.spans else None

    def __str__(self) -> str:
        return " ".join(map(str, self.spans)) or "nothing"

    _repr_pretty_ = text_in_ipython


def spans_as_list(spans: Iterable[Span]) -> list[dict[str, str]]:
    """Return spans in plain types, times as ISO text, for JSON.

    >>> spans_as_list([Span(0, 3_600_000)])
    [{'start': '1970-01-01T00:00:00Z', 'end': '1970-01-01T01:00:00Z'}]
    """
    return [{"start": format_utc(span.start), "end": format_utc(span.end)} for span in spans]
