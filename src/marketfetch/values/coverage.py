"""Coverage: what is known about every moment of a series, and how two coverages are united."""

from __future__ import annotations

import attrs

from marketfetch.values.spans import Span, SpanSet

__all__ = ["Coverage"]


@attrs.frozen
class Coverage:
    """What is known about a series: each moment has one of four verdicts.

    | verdict | `covered` | `empty` | `unusable` | meaning |
    |---|---|---|---|---|
    | missing | no | no | no | nothing is known yet |
    | confirmed empty | yes | yes | no | the exchange has no row there |
    | unusable | yes | no | yes | the exchange has a wrong row there |
    | present | yes | no | no | a row is stored |

    Two coverages are united moment by moment, and the lower verdict of the table wins: a stored row beats a
    wrong row, and a wrong row beats "no row".

    >>> both, first, last = Span(0, 20), Span(0, 10), Span(10, 20)
    >>> known = Coverage(SpanSet.of(both), empty=SpanSet.of(first), unusable=SpanSet.of(last))
    >>> (known | Coverage(SpanSet.of(last))).present
    SpanSet(spans=(Span(start=10, end=20),))
    """

    covered: SpanSet = attrs.field(factory=SpanSet)
    empty: SpanSet = attrs.field(factory=SpanSet)
    unusable: SpanSet = attrs.field(factory=SpanSet)

    @property
    def present(self) -> SpanSet:
        """The moments for which rows are stored."""
        return self.covered - self.empty - self.unusable

    def missing(self, wanted: Span) -> SpanSet:
        """Return the part of a wanted span about which nothing is known yet."""
        return SpanSet.of(wanted) - self.covered

    def within(self, span: Span) -> Coverage:
        """Return the coverage inside a span."""
        inside = SpanSet.of(span)
        return Coverage(self.covered & inside, self.empty & inside, self.unusable & inside)

    def without(self, spans: SpanSet) -> Coverage:
        """Return the coverage without the moments of `spans`: these are missing then."""
        return Coverage(self.covered - spans, self.empty - spans, self.unusable - spans)

    def __or__(self, other: Coverage) -> Coverage:
        """Unite two coverages; the class says which verdict wins."""
        covered = self.covered | other.covered
        if not (self.empty or other.empty or self.unusable or other.unusable):
            return Coverage(covered)
        present = self.present | other.present
        unusable = (self.unusable | other.unusable) - present
        empty = (self.empty | other.empty) - present - unusable
        return Coverage(covered, empty, unusable)
