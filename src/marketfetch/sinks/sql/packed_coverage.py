"""Coverage as NumPy arrays, for the footers of Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import edges_of, in_edges
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Edges", "PackedCoverage"]

Edges = NDArray[np.int64]
"""Start and end of each span of a set, alternating: an even number of strictly ascending moments."""

_NO_EDGES: Edges = np.empty(0, np.int64)
_NO_EDGES.setflags(write=False)


@attrs.frozen(eq=False)
class PackedCoverage:
    """The three sets of a coverage, each as Edges: a thousand gaps are one array instead of a thousand Spans.

    >>> stored = PackedCoverage.of(Coverage(SpanSet.of(Span(0, 60), Span(120, 180))))
    >>> stored.united_with(PackedCoverage.of(Coverage(SpanSet.of(Span(60, 120))))).unpack().covered
    SpanSet(spans=(Span(start=0, end=180),))
    """

    covered: Edges = _NO_EDGES
    empty: Edges = _NO_EDGES
    unusable: Edges = _NO_EDGES

    @classmethod
    def of(cls, coverage: Coverage) -> PackedCoverage:
        """Pack a coverage."""
        return cls(*map(edges_of, (coverage.covered, coverage.empty, coverage.unusable)))

    @classmethod
    def join(cls, parts: Iterable[PackedCoverage]) -> PackedCoverage:
        """Unite parts that do not overlap, given in order of time."""
        every = list(parts)
        return cls(*(_chain([part.sets[index] for part in every]) for index in range(3)))

    @classmethod
    def parse(cls, sets: Sequence[object]) -> PackedCoverage:
        """Read the lists of `numbers`; raises ValueError, TypeError or OverflowError for any other value."""
        covered, empty, unusable = map(_parse, sets)
        return cls(covered, empty, unusable)

    def numbers(self) -> list[list[int]]:
        """Return the sets as lists for a file: the first edge, then the distance to each next edge.

        >>> PackedCoverage.of(Coverage(SpanSet.of(Span(600, 660), Span(720, 780)))).numbers()[0]
        [600, 60, 60, 60]
        """
        return [np.diff(edges, prepend=0).tolist() for edges in self.sets]

    def unpack(self) -> Coverage:
        """Return the coverage."""
        return Coverage(*map(_spans, self.sets))

    def within(self, span: Span) -> PackedCoverage:
        """Return the coverage inside a span."""
        return PackedCoverage(*(_part(edges, span) for edges in self.sets))

    def united_with(self, other: PackedCoverage) -> PackedCoverage:
        """Unite with another coverage; Coverage says which verdict wins."""
        if not self or not other:
            return self or other
        edges = np.unique(np.concatenate([*self.sets, *other.sets]))
        (known, empty, wrong), (known2, empty2, wrong2) = (
            [in_edges(edges, one) for one in sets] for sets in (self.sets, other.sets)
        )
        present = (known & ~(empty | wrong)) | (known2 & ~(empty2 | wrong2))
        unusable = (wrong | wrong2) & ~present
        absent = (empty | empty2) & ~(present | unusable)
        return PackedCoverage(*(_changes(edges, one) for one in (known | known2, absent, unusable)))

    def without(self, spans: SpanSet) -> PackedCoverage:
        """Return what is left when the moments of `spans` are forgotten."""
        forgotten = edges_of(spans)
        edges = np.unique(np.concatenate([*self.sets, forgotten]))
        left = ~in_edges(edges, forgotten)
        return PackedCoverage(*(_changes(edges, in_edges(edges, one) & left) for one in self.sets))

    def is_present(self, moment: int) -> bool:
        """Whether a moment is present."""
        covered, empty, unusable = (bool(in_edges(np.array([moment]), edges)[0]) for edges in self.sets)
        return covered and not (empty or unusable)

    def lies_in(self, span: Span) -> bool:
        """Whether nothing is covered outside of a span."""
        return all(not len(edges) or span.start <= edges[0] <= edges[-1] <= span.end for edges in self.sets)

    def equals(self, other: PackedCoverage) -> bool:
        """Whether two coverages are equal."""
        return all(map(np.array_equal, self.sets, other.sets))

    def __bool__(self) -> bool:
        return bool(len(self.covered))

    @property
    def sets(self) -> tuple[Edges, Edges, Edges]:
        """The three sets, in the order of Coverage."""
        return self.covered, self.empty, self.unusable


def _changes(edges: Edges, inside: NDArray[np.bool_]) -> Edges:
    """Return the edges at which `inside` changes."""
    return edges[np.diff(inside, prepend=False)]


def _spans(edges: Edges) -> SpanSet:
    return SpanSet(tuple(map(Span, edges[::2].tolist(), edges[1::2].tolist())))


def _parse(numbers: object) -> Edges:
    if not isinstance(numbers, list) or len(numbers) % 2 or not all(type(one) is int for one in numbers):
        raise ValueError("edges are an even number of whole numbers")
    edges = np.cumsum(np.array(numbers, np.int64))
    if np.any(edges[1:] <= edges[:-1]):
        raise ValueError("edges ascend")
    return edges


def _part(edges: Edges, span: Span) -> Edges:
    # With an odd number of edges before a moment, the moment lies in a span.
    first = int(np.searchsorted(edges, span.start, "left"))
    last = int(np.searchsorted(edges, span.end, "right"))
    start, end = [span.start] * (first % 2), [span.end] * (last % 2)
    return _remove_double_edges(
        np.concatenate([np.array(start, np.int64), edges[first:last], np.array(end, np.int64)])
    )


def _chain(parts: Sequence[Edges]) -> Edges:
    return _remove_double_edges(np.concatenate([_NO_EDGES, *parts]))


def _remove_double_edges(edges: Edges) -> Edges:
    """Remove each edge that occurs twice: a span ends where the next begins, or a span is empty."""
    twice = np.flatnonzero(edges[1:] == edges[:-1])
    if not len(twice):
        return edges
    kept = np.ones(len(edges), np.bool_)
    kept[twice] = kept[twice + 1] = False
    return edges[kept]
