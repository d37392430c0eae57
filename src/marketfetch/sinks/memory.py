"""A store in memory: for notebooks and tests, and as the simplest example of a store."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

import attrs
import numpy as np

from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Writer
from marketfetch.redaction import Secret, redact
from marketfetch.sinks.merging import merge
from marketfetch.sinks.provenance import by_span, without_forgotten
from marketfetch.sinks.rejected_rows import batch_hull, still_rejected
from marketfetch.sinks.sql.coverage_segments import (
    SEGMENT_SPANS,
    hull,
    join_segments,
    split,
    touched_slice,
    unite_segments,
)
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow, in_spans
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["MemorySink"]

_MAX_PARTS = 64
"""The most parts of a series that are kept before they are joined; reading joins them, too."""


@attrs.define(eq=False)
class _StoredSeries:
    parts: list[Columns] = attrs.field(factory=list)
    segments: list[Coverage] = attrs.field(factory=list)
    rejected: list[RejectedRow] = attrs.field(factory=list)
    files: dict[str, Provenance] = attrs.field(factory=dict)
    """The provenance of rows, by the key of the file."""

    @property
    def coverage(self) -> Coverage:
        return join_segments(self.segments)

    def add(self, batch: Batch) -> None:
        if batch.provenance is not None:
            self.files[batch.provenance.key] = batch.provenance
        span = batch_hull(batch)
        if span is None:
            return
        if self._follows(span) and len(batch.coverage.covered) + len(batch.coverage.empty) > SEGMENT_SPANS:
            # After everything known there is nothing to unite; in memory a segment may be of any size.
            self.segments.append(batch.coverage)
            if batch.rejected:
                self.rejected += sorted(still_rejected(batch.rejected, batch.coverage.present))
            return
        touched = touched_slice(self.segments, span)
        before = self.segments[touched]
        after = self.segments[touched] = unite_segments(before, batch.coverage)
        if batch.rejected or any(segment.unusable for segment in before):
            rows = self.rejected_inside(span)
            present = join_segments(after).within(span).present
            self.rejected[rows] = sorted(still_rejected({*self.rejected[rows], *batch.rejected}, present))

    def _follows(self, span: Span) -> bool:
        """Whether a span comes after all covered moments."""
        return not self.segments or hull(self.segments[-1]).end <= span.start

    def forget(self, spans: SpanSet) -> None:
        span = spans.hull
        if span is None:
            return
        touched = touched_slice(self.segments, span)
        self.segments[touched] = split(join_segments(self.segments[touched]).without(spans))
        self.rejected = [row for row in self.rejected if row.time not in spans]
        self.files = {entry.key: entry for entry in without_forgotten(self.files.values(), spans)}

    def drop_rows(self, dataset: Dataset, spans: SpanSet) -> None:
        rows = self.join_rows(dataset)
        self.parts = [rows.take(~in_spans(rows.times, spans))]

    def rejected_inside(self, span: Span) -> slice:
        first, end = (bisect_left(self.rejected, moment, key=_time) for moment in (span.start, span.end))
        return slice(first, end)

    def join_rows(self, dataset: Dataset) -> Columns:
        if len(self.parts) != 1:
            self.parts = [merge(self.parts, dataset)]
        return self.parts[0]


class MemorySink:
    """Keeps rows and coverage in memory, merging as every store does; safe to use from several threads.

    >>> store = MemorySink()
    >>> series = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> rows = Columns(np.array([60_000]), np.array([[1.0], [2.0], [0.5], [1.5]]))
    >>> with store.writer() as write:
    ...     write(Batch(series, rows, Coverage(series.interval.cover(rows.times))))
    >>> len(store.read(series, Span(0, 120_000)))
    1
    """

    def __init__(self) -> None:
        self._series: dict[Series, _StoredSeries] = {}
        self._lock = Lock()

    @classmethod
    def from_url(cls, text: str | Secret) -> MemorySink:
        """Make a store for `memory:`; raises ConfigurationError if a place follows."""
        text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
        if text.reveal() != "memory:":
            raise ConfigurationError(
                f"to: {redact(text.reveal())!r} names a place, but memory has none; write memory:"
            )
        return cls()

    @property
    def max_writers(self) -> int:
        """One writer: memory is never waited for."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Do nothing; memory needs no preparation."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer."""
        yield self._write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return the coverage of each of the given series."""
        with self._lock:
            return {line: self._series.get(line, _StoredSeries()).coverage for line in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every stored series."""
        with self._lock:
            return {line: stored.coverage for line, stored in self._series.items() if stored.segments}

    def read(self, series: Series, span: Span) -> Columns:
        """Return a copy of the rows of a series inside a span."""
        with self._lock:
            rows = self._series.get(series, _StoredSeries()).join_rows(series.dataset)
        first, last = np.searchsorted(rows.times, (span.start, span.end))
        return _copy(rows.take(slice(int(first), int(last))))

    def series(self) -> Collection[Series]:
        """Return every stored series that has coverage; see SupportsLatest."""
        with self._lock:
            return [line for line, stored in self._series.items() if stored.segments]

    def latest(self, series: Collection[Series], limit: int) -> Mapping[Series, Columns]:
        """Return a copy of the newest rows of each series; see SupportsLatest."""
        with self._lock:
            newest = {
                line: self._series.get(line, _StoredSeries()).join_rows(line.dataset) for line in series
            }
        return {line: _copy(rows.take(slice(-limit, None))) for line, rows in newest.items()}

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted by time."""
        with self._lock:
            stored = self._series.get(series, _StoredSeries())
            return stored.rejected[stored.rejected_inside(span)]

    def provenance(self, series: Series) -> Sequence[Provenance]:
        """Return the files of archives that rows of a series came from, sorted by span."""
        with self._lock:
            return by_span(self._series.get(series, _StoredSeries()).files.values())

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove the coverage of spans of a series, and with `rows` its rows; see SupportsForget."""
        with self._lock:
            stored = self._series.get(series, _StoredSeries())
            stored.forget(spans)
            if rows:
                stored.drop_rows(series.dataset, spans)

    def _write(self, batch: Batch) -> None:
        with self._lock:
            stored = self._series.setdefault(batch.series, _StoredSeries())
            if batch.rows:
                stored.parts.append(_copy(batch.columns))
            if len(stored.parts) > _MAX_PARTS:
                stored.join_rows(batch.series.dataset)
            stored.add(batch)

    def __repr__(self) -> str:
        return f"MemorySink({len(self._series)} series)"


def _time(row: RejectedRow) -> int:
    return row.time


def _copy(rows: Columns) -> Columns:
    """Copy the arrays, which the caller may change later."""
    return Columns(rows.times.copy(), rows.values.copy())
