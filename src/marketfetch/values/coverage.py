"""Coverage: what is known about every moment of a series, and how two coverages are united."""

from __future__ import annotations

from enum import StrEnum

import attrs

from marketfetch.common.text import text_in_ipython
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Coverage", "MissingReason", "Reason"]


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
    >>> print(Coverage(SpanSet.of(Span(0, 60_000))))
    covered [1970-01-01T00:00:00Z, 1970-01-01T00:01:00Z)
    """

    covered: SpanSet = attrs.field(factory=SpanSet)
    empty: SpanSet = attrs.field(factory=SpanSet)
    unusable: SpanSet = attrs.field(factory=SpanSet)

    @property
    def present(self) -> SpanSet:
        """The moments for which rows are stored."""
        return self.covered - self.empty - self.unusable

    @property
    def gaps(self) -> SpanSet:
        """The missing moments between the first and the last covered one."""
        return SpanSet.of(self.covered.hull) - self.covered

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
        # `.spans`, since `if self.empty` would call `__bool__`, and every page unites coverages.
        if not (self.empty.spans or other.empty.spans or self.unusable.spans or other.unusable.spans):
            return Coverage(covered, self.empty, self.unusable)
        present = self.present | other.present
        unusable = (self.unusable | other.unusable) - present
        empty = (self.empty | other.empty) - present - unusable
        return Coverage(covered, empty, unusable)

    def __str__(self) -> str:
        parts = (("covered", self.covered), ("empty", self.empty), ("unusable", self.unusable))
        return ", ".join(f"{name} {spans}" for name, spans in parts if spans) or "nothing covered"

    _repr_pretty_ = text_in_ipython


class MissingReason(StrEnum):
    """Why moments are missing after a run; the values are what JSON has."""

    NOT_REQUESTED = "not_requested"
    """The run ended before a request asked for them."""
    NOT_PUBLISHED = "not_published"
    """The exchange has no final value yet: run again in a few minutes."""
    CLOCKS_DIFFER = "clocks_differ"
    """They are over by one of the two clocks, the exchange's and this machine's."""
    TOO_OLD = "too_old"
    """The exchange no longer serves them."""
    UNPROVEN_ABSENCE = "unproven_absence"
    """Answers had no row, and nothing proves that there is none."""
    CONTRADICTION = "contradiction"
    """One answer of the exchange has a row there, and another one denies it."""
    BAD_ROWS = "bad_rows"
    """The exchange has rows there that cannot be used."""
    REQUEST_FAILED = "request_failed"
    """The last attempt of a request failed."""
    REQUEST_REJECTED = "request_rejected"
    """The exchange rejected a request as wrong."""
    SYMBOL_UNKNOWN = "symbol_unknown"
    """The exchange does not know the symbol, or does not serve it."""
    DELISTED = "delisted"
    """The exchange no longer lists the symbol, and no file has them."""
    NOT_IN_FILES = "not_in_files"
    """No file of the archive has them, and the API was not to be asked."""
    FILE_UNUSABLE = "file_unusable"
    """A file or a listing of the archive could not be used."""
    STORE_REFUSED = "store_refused"
    """The store refuses the rows of the series."""
    INPUT_MISSING = "input_missing"
    """They are missing of an input of a derived series, such as a member of a composite."""


@attrs.frozen
class Reason:
    """Why moments are missing: the kind, for programs, and the detail in words.

    >>> reason = Reason(MissingReason.TOO_OLD, "older than the exchange serves (30 days)")
    >>> reason.kind.value, str(reason)
    ('too_old', 'older than the exchange serves (30 days)')
    """

    kind: MissingReason
    detail: str

    def __str__(self) -> str:
        return self.detail
