"""The union of many sets that come one by one, for hardly more work than uniting all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import attrs

from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import SpanSet

__all__ = ["RunningUnion", "coverages", "span_sets"]

_T = TypeVar("_T", bound=Any)  # whatever has `|`


@attrs.define(eq=False)
class RunningUnion(Generic[_T]):
    """Unites sets as they come.

    Each new set is united with those of about its own size, as in a merge sort: a thousand pages with a
    thousand holes each are a million spans, and each span is copied some ten times, not a thousand. Pages
    that join seamlessly stay one span.

    >>> from marketfetch.values.spans import Span
    >>> seen = span_sets()
    >>> for start in (20, 0, 10):
    ...     seen.add(SpanSet.of(Span(start, start + 10)))
    >>> seen.value
    SpanSet(spans=(Span(start=0, end=30),))
    """

    _size: Callable[[_T], int]
    _parts: list[_T]
    """Never empty; each is more than twice as large as the next one."""

    def add(self, part: _T) -> None:
        """Take in another set."""
        self._parts.append(part)
        while len(self._parts) > 1 and self._size(self._parts[-2]) <= 2 * self._size(self._parts[-1]):
            self._unite_last()

    @property
    def value(self) -> _T:
        """The union of everything so far."""
        while len(self._parts) > 1:
            self._unite_last()
        return self._parts[0]

    def _unite_last(self) -> None:
        last = self._parts.pop()
        self._parts[-1] = self._parts[-1] | last

    def __iter__(self) -> Iterator[_T]:
        """Return some sets whose union is everything so far."""
        return iter(self._parts)


def span_sets(first: SpanSet | None = None) -> RunningUnion[SpanSet]:
    """Begin to unite sets of spans."""
    return RunningUnion(len, [first or SpanSet()])


def coverages(first: Coverage | None = None) -> RunningUnion[Coverage]:
    """Begin to unite coverages."""
    return RunningUnion(_spans_of, [first or Coverage()])


def _spans_of(coverage: Coverage) -> int:
    return len(coverage.covered) + len(coverage.empty) + len(coverage.unusable)
