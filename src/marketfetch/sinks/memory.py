"""The store that forgets when the process ends: for notebooks, tests, and as the plainest example of one."""

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
from marketfetch.sinks.rejected_rows import reach, still_rejected
from marketfetch.sinks.sql.coverage_segments import SEGMENT_SPANS, changed, hull, joined, split, touched
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["MemorySink"]

_FEW = 64
"""Parts of a series are joined when there are more than this many, and when they are read."""


@attrs.define(eq=False)
class _StoredSeries:
    parts: list[Columns] = attrs.field(factory=list)
    segments: list[Coverage] = attrs.field(factory=list)
    rejected: list[RejectedRow] = attrs.field(factory=list)

    @property
    def coverage(self) -> Coverage:
        return joined(self.segments)

    def learn(self, batch: Batch) -> None:
        span = reach(batch)
        if span is None:
            return
        if self._follows(span) and len(batch.coverage.covered) + len(batch.coverage.empty) > SEGMENT_SPANS:
            # Nothing to unite, and nobody to write it for: it is as good a segment as it is.
            self.segments.append(batch.coverage)
            if batch.rejected:
                self.rejected += sorted(still_rejected(batch.rejected, batch.coverage.present))
            return
        place = touched(self.segments, span)
        before = self.segments[place]
        after = self.segments[place] = changed(before, batch.coverage)
        if batch.rejected or any(segment.unusable for segment in before):
            rows = self.rejected_inside(span)
            present = joined(after).within(span).present
            self.rejected[rows] = sorted(still_rejected({*self.rejected[rows], *batch.rejected}, present))

    def _follows(self, span: Span) -> bool:
        """Whether a span comes after everything that is known."""
        return not self.segments or hull(self.segments[-1]).end <= span.start

    def forget(self, spans: SpanSet) -> None:
        span = spans.hull
        if span is None:
            return
        place = touched(self.segments, span)
        self.segments[place] = split(joined(self.segments[place]).without(spans))
        self.rejected = [row for row in self.rejected if row.time not in spans]

    def drop_rows(self, dataset: Dataset, spans: SpanSet) -> None:
        rows = self.joined(dataset)
        kept = np.ones(len(rows), np.bool_)
        for span in spans:
            first, end = np.searchsorted(rows.times, (span.start, span.end))
            kept[first:end] = False
        self.parts = [rows.take(kept)]

    def rejected_inside(self, span: Span) -> slice:
        first, end = (bisect_left(self.rejected, moment, key=_time) for moment in (span.start, span.end))
        return slice(first, end)

    def joined(self, dataset: Dataset) -> Columns:
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
        self._shelves: dict[Series, _StoredSeries] = {}
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
        """One writer: there is nothing to wait for."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Nothing is needed."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer."""
        yield self._write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return what is known of each of the given series."""
        with self._lock:
            return {line: self._shelves.get(line, _StoredSeries()).coverage for line in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held."""
        with self._lock:
            return {line: shelf.coverage for line, shelf in self._shelves.items() if shelf.segments}

    def read(self, series: Series, span: Span) -> Columns:
        """Return a copy of the rows of a series inside a span."""
        with self._lock:
            held = self._shelves.get(series, _StoredSeries()).joined(series.dataset)
        first, last = np.searchsorted(held.times, (span.start, span.end))
        return _copied(held.take(slice(int(first), int(last))))

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted by time."""
        with self._lock:
            shelf = self._shelves.get(series, _StoredSeries())
            return shelf.rejected[shelf.rejected_inside(span)]

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove what is known of these moments of a series, and with `rows` its rows; see SupportsForget."""
        with self._lock:
            shelf = self._shelves.get(series, _StoredSeries())
            shelf.forget(spans)
            if rows:
                shelf.drop_rows(series.dataset, spans)

    def _write(self, batch: Batch) -> None:
        with self._lock:
            shelf = self._shelves.setdefault(batch.series, _StoredSeries())
            if batch.rows:
                shelf.parts.append(_copied(batch.columns))
            if len(shelf.parts) > _FEW:
                shelf.joined(batch.series.dataset)
            shelf.learn(batch)

    def __repr__(self) -> str:
        return f"MemorySink({len(self._shelves)} series)"


def _time(row: RejectedRow) -> int:
    return row.time


def _copied(rows: Columns) -> Columns:
    """Part with the caller's arrays, who may go on to change them."""
    return Columns(rows.times.copy(), rows.values.copy())
