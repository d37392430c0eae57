"""Coverage in segments: a batch reads and writes few of them, however many gaps the coverage has."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from operator import attrgetter

from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import Span, SpanSet

__all__ = ["SEGMENT_SPANS", "hull", "join_segments", "split", "touched_slice", "unite_segments"]

_BY_START = attrgetter("start")

SEGMENT_SPANS = 512
"""The most spans that a segment has, over its three sets together."""


def split(coverage: Coverage) -> list[Coverage]:
    """Cut a coverage into as few segments as hold it, in order of time and about equally full.

    Equally full, since a full segment would be cut again by the next span in it. A cut may go through a
    covered span: one span may have thousands of empty and unusable spans in it.

    >>> minutes = [Span(start, start + 60) for start in range(0, 120_000, 120)]
    >>> [len(segment.covered) for segment in split(Coverage(SpanSet(tuple(minutes))))]
    [500, 500]
    >>> split(Coverage())
    []
    """
    whole = coverage.covered.hull
    if whole is None:
        return []
    begins = sorted(span.start for span in chain(coverage.covered, coverage.empty, coverage.unusable))
    # One less than SEGMENT_SPANS: a cut through a covered span adds a span.
    count = -(-len(begins) // (SEGMENT_SPANS - 1)) if len(begins) > SEGMENT_SPANS else 1
    cuts = {begins[len(begins) * number // count] for number in range(1, count)}
    return _cut(coverage, sorted({whole.start, *cuts, whole.end}))


def hull(segment: Coverage) -> Span:
    """Return the span from the first to the last covered moment of a segment, which has at least one."""
    known = segment.covered.hull
    if known is None:
        raise ValueError("a segment covers at least one moment")
    return known


def join_segments(segments: Iterable[Coverage]) -> Coverage:
    """Unite segments that do not overlap, in one pass.

    >>> join_segments([Coverage(SpanSet.of(Span(5, 9))), Coverage(SpanSet.of(Span(0, 5)))]).covered
    SpanSet(spans=(Span(start=0, end=9),))
    """
    ordered = sorted((one for one in segments if one.covered), key=_start)
    return Coverage(
        _chain(one.covered for one in ordered),
        _chain(one.empty for one in ordered),
        _chain(one.unusable for one in ordered),
    )


def touched_slice(segments: Sequence[Coverage], span: Span) -> slice:
    """Return the slice of the segments, in order of time, that coverage of a new span replaces.

    The slice has the segments that the span overlaps or adjoins, so that spans merge, and the segment before
    the span, so that batches with gaps between them fill a segment instead of starting one each.

    >>> held = [Coverage(SpanSet.of(Span(start, start + 5))) for start in (0, 10, 20, 30)]
    >>> touched_slice(held, Span(12, 20))
    slice(1, 3, None)
    >>> touched_slice(held, Span(40, 50))
    slice(3, 4, None)
    """
    before = bisect_right(segments, span.start, key=_start)
    return slice(max(before - 1, 0), bisect_right(segments, span.end, key=_start))


def unite_segments(before: Sequence[Coverage], new: Coverage) -> list[Coverage]:
    """Return the segments that replace those of `touched_slice` once they are united with new coverage."""
    if not new.covered:
        return split(join_segments(before))
    # Mostly the new coverage follows the known one: to join is faster than the union moment by moment.
    span = hull(new)
    beside = [one for one in before if hull(one).end <= span.start or span.end <= hull(one).start]
    inside = [one for one in before if hull(one).start < span.end and span.start < hull(one).end]
    united = join_segments(inside) | new if inside else new
    return split(join_segments([*beside, united]))


def _start(segment: Coverage) -> int:
    return hull(segment).start


def _cut(coverage: Coverage, bounds: Sequence[int]) -> list[Coverage]:
    parts = (_parts(spans, bounds) for spans in (coverage.covered, coverage.empty, coverage.unusable))
    return [Coverage(*part) for part in zip(*parts, strict=True)]


def _parts(spans: SpanSet, bounds: Sequence[int]) -> Iterator[SpanSet]:
    """Cut spans at ascending bounds; all spans lie between the first and the last bound."""
    whole, first = spans.spans, 0
    for start, end in pairwise(bounds):
        stop = bisect_left(whole, end, lo=first, key=_BY_START)
        part = whole[first:stop]
        if part and part[0].start < start:
            part = (Span(start, part[0].end), *part[1:])
        first = stop
        if part and part[-1].end > end:
            part = (*part[:-1], Span(part[-1].start, end))
            first = stop - 1  # the next part begins with the rest of it
        yield SpanSet(part)


def _chain(sets: Iterable[SpanSet]) -> SpanSet:
    """Unite sets each of which ends where the next begins, or before."""
    spans: list[Span] = []
    for one in sets:
        further = one.spans
        if spans and further and spans[-1].end == further[0].start:
            spans[-1] = Span(spans[-1].start, further[0].end)
            further = further[1:]
        spans += further
    return SpanSet(tuple(spans))
