"""Coverage as arrays of numbers, of which a batch reads and changes only the part that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.values.series import Coverage
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Edges", "PackedCoverage", "in_spans"]

Edges = NDArray[np.int64]
"""Where the spans of a set begin and end, by turns: strictly ascending, an even number of them."""

_NOTHING: Edges = np.empty(0, np.int64)
_NOTHING.setflags(write=False)


@attrs.frozen(eq=False)
class PackedCoverage:
    """The three sets of a coverage, each as edges.

    Learning costs what is inside the hull of what is learnt, and a copy of the arrays: a thousand gaps
    elsewhere make no spans.

    >>> held = PackedCoverage.of(Coverage(SpanSet.of(Span(0, 60), Span(120, 180))))
    >>> held.learnt(Coverage(SpanSet.of(Span(60, 120)))).unpacked().covered
    SpanSet(spans=(Span(start=0, end=180),))
    """

    covered: Edges = _NOTHING
    empty: Edges = _NOTHING
    unusable: Edges = _NOTHING

    @classmethod
    def of(cls, coverage: Coverage) -> PackedCoverage:
        """Pack a coverage."""
        return cls(*map(_edges, (coverage.covered, coverage.empty, coverage.unusable)))

    @classmethod
    def joined(cls, parts: Iterable[PackedCoverage]) -> PackedCoverage:
        """Unite parts that do not overlap, given in order of time."""
        every = list(parts)
        return cls(*(_chained([part.sets[place] for part in every]) for place in range(3)))

    @classmethod
    def parsed(cls, sets: Sequence[object]) -> PackedCoverage:
        """Read what `numbers` returned; raises ValueError, TypeError or OverflowError for anything else."""
        covered, empty, unusable = map(_parsed, sets)
        return cls(covered, empty, unusable)

    def numbers(self) -> list[list[int]]:
        """Return the sets as lists for a file: the first start, then by turns how long it is covered and not.

        >>> PackedCoverage.of(Coverage(SpanSet.of(Span(600, 660), Span(720, 780)))).numbers()[0]
        [600, 60, 60, 60]
        """
        return [np.diff(edges, prepend=0).tolist() for edges in self.sets]

    def unpacked(self) -> Coverage:
        """Return the coverage."""
        return Coverage(*map(_spans, self.sets))

    def within(self, span: Span) -> PackedCoverage:
        """Return what is known inside a span."""
        return PackedCoverage(*(_part(edges, span) for edges in self.sets))

    def learnt(self, other: Coverage) -> PackedCoverage:
        """Unite with another coverage: see Coverage for which verdict wins."""
        hull = other.covered.hull
        if hull is None:
            return self
        return self._with(hull, self.within(hull).unpacked() | other)

    def without(self, spans: SpanSet) -> PackedCoverage:
        """Return what is left when the moments of `spans` are forgotten."""
        hull = spans.hull
        if hull is None:
            return self
        return self._with(hull, self.within(hull).unpacked().without(spans))

    def is_present(self, moment: int) -> bool:
        """Whether a moment is present."""
        covered, empty, unusable = (bool(_inside(edges, moment)) for edges in self.sets)
        return covered and not (empty or unusable)

    def lies_in(self, span: Span) -> bool:
        """Whether nothing is known outside of a span."""
        return all(not len(edges) or span.start <= edges[0] <= edges[-1] <= span.end for edges in self.sets)

    def same(self, other: PackedCoverage) -> bool:
        """Whether two say the same."""
        return all(map(np.array_equal, self.sets, other.sets))

    def __bool__(self) -> bool:
        return bool(len(self.covered))

    @property
    def sets(self) -> tuple[Edges, Edges, Edges]:
        """The three sets, in the order of Coverage."""
        return self.covered, self.empty, self.unusable

    def _with(self, span: Span, inside: Coverage) -> PackedCoverage:
        new = PackedCoverage.of(inside)
        return PackedCoverage(
            *(_replaced(edges, span, other) for edges, other in zip(self.sets, new.sets, strict=True))
        )


def in_spans(times: NDArray[np.int64], spans: SpanSet) -> NDArray[np.bool_]:
    """Tell of each moment whether it lies in a set."""
    return np.equal(_inside(_edges(spans), times), 1)


def _inside(edges: Edges, moments: NDArray[np.int64] | int) -> NDArray[np.intp]:
    """Count the spans that each moment lies in: none or one."""
    return np.asarray(np.searchsorted(edges, moments, "right") % 2)


def _edges(spans: SpanSet) -> Edges:
    ends = chain.from_iterable((span.start, span.end) for span in spans)
    return np.fromiter(ends, np.int64, 2 * len(spans))


def _spans(edges: Edges) -> SpanSet:
    return SpanSet(tuple(map(Span, edges[::2].tolist(), edges[1::2].tolist())))


def _parsed(numbers: object) -> Edges:
    if not isinstance(numbers, list) or len(numbers) % 2 or not all(type(one) is int for one in numbers):
        raise ValueError("edges are an even number of whole numbers")
    edges = np.cumsum(np.array(numbers, np.int64))
    if np.any(edges[1:] <= edges[:-1]):
        raise ValueError("edges ascend")
    return edges


def _cut(edges: Edges, span: Span) -> tuple[Edges, Edges, Edges]:
    """Cut edges in three: before, inside and after a span; a covered span that is cut has an edge in both."""
    # An odd number of edges before a moment means that a span is under way there.
    first = int(np.searchsorted(edges, span.start, "left"))
    last = int(np.searchsorted(edges, span.end, "right"))
    start = [span.start] if first % 2 else []
    end = [span.end] if last % 2 else []
    inside = np.array([*start, *edges[first:last].tolist(), *end], np.int64)
    before = np.array([*edges[:first], *start], np.int64) if start else edges[:first]
    after = np.array([*end, *edges[last:]], np.int64) if end else edges[last:]
    return before, inside, after


def _part(edges: Edges, span: Span) -> Edges:
    return _merged(_cut(edges, span)[1])


def _replaced(edges: Edges, span: Span, inside: Edges) -> Edges:
    before, _, after = _cut(edges, span)
    return _chained([before, inside, after])


def _chained(parts: Sequence[Edges]) -> Edges:
    return _merged(np.concatenate([_NOTHING, *parts]))


def _merged(edges: Edges) -> Edges:
    """Leave out each edge that occurs twice: there one span ends where the next begins, or has no length."""
    twice = np.flatnonzero(edges[1:] == edges[:-1])
    if not len(twice):
        return edges
    kept = np.ones(len(edges), np.bool_)
    kept[twice] = kept[twice + 1] = False
    return edges[kept]
