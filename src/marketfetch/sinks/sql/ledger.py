"""The ledger of an SQL store: which rows of its tables a batch changes. Each database adds the statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from marketfetch.sinks.rejected_rows import batch_hull, still_rejected
from marketfetch.sinks.sql.coverage_segments import hull, join_segments, unite_segments
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Batch, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Ledger", "Names", "SegmentChange", "registered_series"]

_C = TypeVar("_C")

Names = tuple[str, str, str, str]
"""The names of a series, which identify it in a ledger."""


def registered_series(
    found: Iterable[Names], kinds: Collection[Dataset] | None = None
) -> dict[Names, Series]:
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

    def __bool__(self) -> bool:
        return bool(self.gone or self.changed or self.added)


def _change(before: Mapping[int, Coverage], segments: Sequence[Coverage]) -> SegmentChange:
    after = {hull(segment).start: segment for segment in segments}
    return SegmentChange(
        gone=[start for start in before if start not in after],
        changed={start: one for start, one in after.items() if before.get(start, one) != one},
        added={start: one for start, one in after.items() if start not in before},
    )


class Ledger(ABC, Generic[_C]):
    """The coverage of each series, in segments, its rejected rows, and the files that its rows came from.

    A row of the coverage is one segment; see `coverage_segments`. A batch reads and writes only the segments
    that it touches.
    """

    def unite(self, connection: _C, batches: Mapping[int, Batch]) -> None:
        """Unite the stored coverage of series, by their ids, with that of batches, as `Coverage.__or__` does.

        Rejected rows of moments that are present by now are removed, those of the batch are added. The
        provenance of the batch replaces that of the same file.
        """
        spans: dict[int, Span] = {}
        for series_id, batch in batches.items():
            if batch.provenance is not None:
                self._put_file(connection, series_id, batch.provenance)
            if (span := batch_hull(batch)) is not None:
                spans[series_id] = span
        changes: dict[int, SegmentChange] = {}
        for series_id, before in self.segments(connection, spans).items():
            batch = batches[series_id]
            known = [segment for segment in before.values() if segment.covered]  # a user may empty one
            after = unite_segments(known, batch.coverage)
            changes[series_id] = _change(before, after)
            if batch.rejected or any(segment.unusable for segment in known):
                stored = set(self.rejected(connection, series_id, spans[series_id]))
                present = join_segments(after).within(spans[series_id]).present
                kept = still_rejected(stored.union(batch.rejected), present)
                gone = SpanSet(tuple(Span(row.time, row.time + 1) for row in stored - kept))
                self._reject(connection, series_id, gone, sorted(kept - stored))
        self._put(connection, {series_id: change for series_id, change in changes.items() if change})

    def replace(
        self, connection: _C, series_id: int, before: Mapping[int, Coverage], segments: Sequence[Coverage]
    ) -> None:
        """Replace segments by others; a segment that is equal in both is not written."""
        if change := _change(before, segments):
            self._put(connection, {series_id: change})

    @abstractmethod
    def segments(self, connection: _C, spans: Mapping[int, Span]) -> dict[int, dict[int, Coverage]]:
        """Read the segments that spans touch, by their starts; see `touched_slice` of `coverage_segments`.

        There is one span for the id of each series, and a result for each, if it is empty.
        """

    @abstractmethod
    def rejected(self, connection: _C, series_id: int, span: Span) -> list[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted."""

    @abstractmethod
    def _put(self, connection: _C, changes: Mapping[int, SegmentChange]) -> None:
        """Delete, change and add segments of series, by their ids."""

    @abstractmethod
    def _reject(self, connection: _C, series_id: int, gone: SpanSet, new: Sequence[RejectedRow]) -> None:
        """Delete the rejected rows of some moments, and add others."""

    @abstractmethod
    def _put_file(self, connection: _C, series_id: int, entry: Provenance) -> None:
        """Write the entry of a file, which may replace another; an equal one is not written."""
