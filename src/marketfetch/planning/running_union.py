"""The union of many sets that come one by one, in O(n log n) for n spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import attrs

from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import SpanSet

__all__ = ["RunningUnion", "coverages", "span_sets"]

_T = TypeVar("_T", bound=Any)  # a type with the operator `|`


@attrs.define(eq=False)
class RunningUnion(Generic[_T]):
    """Unites sets as they come.

    As in a merge sort, a new set is united only with sets of about its own size. Example: a thousand pages
    with a thousand holes each are a million spans; each span is copied about ten times, not a thousand times.
    Pages without a hole between them stay one span.

    >>> from marketfetch.values.spans import Span
    >>> seen = span_sets()
    >>> for start in (20, 0, 10):
    ...     seen.add(SpanSet.of(Span(start, start + 10)))
    >>> seen.value
    SpanSet(spans=(Span(start=0, end=30),))
    """

    _size: Callable[[_T], int]
    _parts: list[_T]
    """Invariant: at least one set; each is more than twice as large as the next one."""

    def add(self, part: _T) -> None:
        """Add another set."""
        self._parts.append(part)
        while len(self._parts) > 1 and self._size(self._parts[-2]) <= 2 * self._size(self._parts[-1]):
            self._unite_last()

    @property
    def value(self) -> _T:
        """The union of all sets so far."""
        while len(self._parts) > 1:
            self._unite_last()
        return self._parts[0]

    def _unite_last(self) -> None:
        last = self._parts.pop()
        self._parts[-1] = self._parts[-1] | last

    def __iter__(self) -> Iterator[_T]:
        """Yield a few sets whose union is the union of all sets so far."""
        return iter(self._parts)


def span_sets(first: SpanSet | None = None) -> RunningUnion[SpanSet]:
    """Return an empty union of span sets, or one that begins with `first`."""
    return RunningUnion(len, [first or SpanSet()])


def coverages(first: Coverage | None = None) -> RunningUnion[Coverage]:
    """Return an empty union of coverages, or one that begins with `first`."""
    return RunningUnion(_spans_of, [first or Coverage()])


def _spans_of(coverage: Coverage) -> int:
    return len(coverage.covered.spans) + len(coverage.empty.spans) + len(coverage.unusable.spans)
