"""The ledger of an SQL store: which rows of its tables a batch changes. Each database adds the statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from marketfetch.sinks.rejected_rows import reach, still_rejected
from marketfetch.sinks.sql.coverage_segments import changed, hull, joined
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Batch, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Ledger", "Names", "SegmentChange", "names", "registered"]

_C = TypeVar("_C")

Names = tuple[str, str, str, str]
"""Exchange, dataset, symbol and interval: the identity of a series in a ledger."""


def names(series: Series) -> Names:
    """Return the identity of a series in a ledger."""
    return series.exchange, series.dataset.name, series.symbol, series.interval.name


def registered(found: Iterable[Names], kinds: Collection[Dataset] | None = None) -> dict[Names, Series]:
    """Return the series of names, without those of other datasets; None stands for all registered ones."""
    known = {kind.name: kind for kind in (datasets().values() if kinds is None else kinds)}
    return {
        (exchange, dataset, symbol, interval): Series.of(exchange, known[dataset], symbol, interval)
        for exchange, dataset, symbol, interval in found
        if dataset in known
    }


@attrs.frozen
class SegmentChange:
    """The starts of segments that are gone, and segments that are changed or added, by their starts."""

    gone: Sequence[int]
    changed: Mapping[int, Coverage]
    added: Mapping[int, Coverage]


class Ledger(ABC, Generic[_C]):
    """The coverage of each series, in segments, its rejected rows, and the files that its rows came from.

    A row of the coverage is one segment; see `coverage_segments`. A batch reads and writes only the segments
    that it touches.
    """

    def unite(self, connection: _C, series_id: int, batch: Batch) -> None:
        """Unite the stored coverage of a series with that of a batch, as `Coverage.__or__` does.

        Rejected rows of moments that are present by now are removed, those of the batch are added. The
        provenance of the batch replaces that of the same file.
        """
        if batch.provenance is not None:
            self._put_file(connection, series_id, batch.provenance)
        span = reach(batch)
        if span is None:
            return
        before = self.segments(connection, series_id, span)
        known = [segment for segment in before.values() if segment.covered]  # a user may empty one by hand
        after = changed(known, batch.coverage)
        self.replace(connection, series_id, before, after)
        if batch.rejected or any(segment.unusable for segment in known):
            held = set(self.rejected(connection, series_id, span))
            kept = still_rejected(held.union(batch.rejected), joined(after).within(span).present)
            gone = SpanSet(tuple(Span(row.time, row.time + 1) for row in held - kept))
            self._reject(connection, series_id, gone, sorted(kept - held))

    def replace(
        self, connection: _C, series_id: int, before: Mapping[int, Coverage], segments: Sequence[Coverage]
    ) -> None:
        """Replace segments by others; a segment that is equal in both is not written."""
        after = {hull(segment).start: segment for segment in segments}
        change = SegmentChange(
            gone=[start for start in before if start not in after],
            changed={start: one for start, one in after.items() if before.get(start, one) != one},
            added={start: one for start, one in after.items() if start not in before},
        )
        if change.gone or change.changed or change.added:
            self._put(connection, series_id, change)

    @abstractmethod
    def segments(self, connection: _C, series_id: int, span: Span) -> dict[int, Coverage]:
        """Read the segments that a span touches, by their starts; see `touched` of `coverage_segments`."""

    @abstractmethod
    def rejected(self, connection: _C, series_id: int, span: Span) -> list[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted."""

    @abstractmethod
    def _put(self, connection: _C, series_id: int, change: SegmentChange) -> None:
        """Delete, change and add segments of a series."""

    @abstractmethod
    def _reject(self, connection: _C, series_id: int, gone: SpanSet, new: Sequence[RejectedRow]) -> None:
        """Delete the rejected rows of some moments, and add others."""

    @abstractmethod
    def _put_file(self, connection: _C, series_id: int, entry: Provenance) -> None:
        """Write the entry of a file, which may replace another; an equal one is not written."""
