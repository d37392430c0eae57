"""Compare the ledger of a store with its rows.

A series is read in pieces, so that memory does not grow with its history. The comparison of one piece is a
pure function of the coverage, the piece and its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.decoding.validation import plausible
from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.protocols import Store, SupportsPartitions
from marketfetch.reports import Finding, Problem, Verification
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Columns, edges_of, in_edges
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, MAX_TIMESTAMP, Span, SpanSet

__all__ = ["LedgerEntry", "compare", "verify_store"]

_STEPS = 100_000
"""How many open times of a grid are read and compared at once."""
_EVENT_PIECE = 30 * DAY
"""How many milliseconds of an event series are read at once; the number of rows is not known."""

_Times = NDArray[np.int64]


@attrs.frozen(eq=False)
class LedgerEntry:
    """The coverage of a series, prepared for comparison with many pieces of it: the edges of each verdict."""

    series: Series
    hull: Span | None
    present: _Times
    empty: _Times
    unusable: _Times

    @classmethod
    def of(cls, series: Series, known: Coverage) -> LedgerEntry:
        """Prepare a coverage for comparisons."""
        return cls(series, known.covered.hull, *map(edges_of, (known.present, known.empty, known.unusable)))


def compare(entry: LedgerEntry, piece: Span, rows: Columns) -> dict[Problem, _Times]:
    """Return the times of each problem in a piece: wrong rows, and contradictions with the entry.

    Example: the ledger calls 00:00 to 00:03 present and 00:03 to 00:04 confirmed empty, and there are rows at
    00:00, 00:02 and 00:03. MISSING is 00:01, NOT_EMPTY is 00:03. In an event series a present span says only
    that it was fetched, so a lost row is not noticed.
    """
    interval, times = entry.series.interval, rows.times
    found: dict[Problem, _Times] = {}

    def note(problem: Problem, where: _Times) -> None:
        if len(where):
            found[problem] = where

    order = np.argsort(times, kind="stable")
    note(Problem.UNSORTED, times[1:][times[1:] < times[:-1]])
    times = times[order]
    again = times[1:] == times[:-1]
    note(Problem.REPEATED, times[1:][again])
    aligned = interval.aligned(times)
    note(Problem.OFF_GRID, times[~aligned])
    note(Problem.IMPOSSIBLE, times[~plausible(entry.series.dataset, rows.values[:, order])])
    times = np.unique(times)
    is_empty, is_unusable = in_edges(times, entry.empty), in_edges(times, entry.unusable)
    note(Problem.NOT_EMPTY, times[is_empty])
    note(Problem.NOT_UNUSABLE, times[is_unusable])
    note(Problem.NOT_COVERED, times[~(is_empty | is_unusable | in_edges(times, entry.present))])
    if not interval.is_event:
        opens = interval.grid(piece)
        opens = opens[in_edges(opens, entry.present)]
        # A row off the grid is reported only as off the grid, its cell not as missing.
        cells = interval.floors(times[~interval.aligned(times)])
        note(Problem.MISSING, np.setdiff1d(opens, np.union1d(times, cells), assume_unique=True))
    return found


def verify_store(store: Store, held: Mapping[Series, Coverage]) -> Verification:
    """Compare the ledger of a store with its rows; nothing is written.

    A piece that the store cannot read is a finding with the store's message, and the other pieces are
    compared. Raises SinkUnavailable if the store is unavailable. Rows that another process writes meanwhile
    may be reported as not covered.
    """
    counts, findings = dict[Series, int](), list[Finding]()
    for series in sorted(held, key=str):
        check = _Check(store, LedgerEntry.of(series, held[series]))
        check.run()
        counts[series] = check.rows
        findings += check.findings()
    return Verification(counts, tuple(findings))


@attrs.define(eq=False)
class _Check:
    """The comparison of one series, piece by piece."""

    _store: Store
    _entry: LedgerEntry
    rows: int = 0
    _found: dict[Problem, list[_Times]] = attrs.field(factory=dict)
    _unreadable: dict[str, list[Span]] = attrs.field(factory=dict)

    def run(self) -> None:
        hull = self._entry.hull
        if hull is None:
            return
        for piece in _forward(self._entry.series, hull, self._store):
            self._compare(piece)
        # Rows before and after the covered span: on each side until the first piece without rows.
        for pieces in (self._backward(hull.start), self._onward(hull.end)):
            for piece in pieces:
                if not self._compare(piece):
                    break

    def findings(self) -> list[Finding]:
        series = self._entry.series
        findings: list[Finding] = []
        for message, pieces in self._unreadable.items():
            spans = SpanSet(tuple(pieces))
            count = series.interval.count_rows(spans)
            findings.append(Finding(series, Problem.UNREADABLE, spans, count, message))
        for problem, parts in self._found.items():
            times = np.concatenate(parts)
            findings.append(Finding(series, problem, series.interval.cells(times), len(times)))
        return findings

    def _compare(self, piece: Span) -> int:
        """Read and compare a piece; return the number of its rows."""
        try:
            rows = self._store.read(self._entry.series, piece)
        except SinkUnavailable:
            raise
        except SinkError as error:
            hull = self._entry.hull
            is_covered = hull is not None and piece.intersect(hull) is not None
            # An uncovered piece may lie in a file that is reported already.
            if is_covered or str(error) not in self._unreadable:
                self._unreadable.setdefault(str(error), []).append(piece)
            return 0
        self.rows += len(rows)
        for problem, where in compare(self._entry, piece, rows).items():
            self._found.setdefault(problem, []).append(where)
        return len(rows)

    def _backward(self, end: int) -> Iterator[Span]:
        series = self._entry.series
        while end > 0:
            start = max(0, end - _EVENT_PIECE if series.interval.is_event else _shifted(series, end, -_STEPS))
            yield Span(start, end)
            end = start

    def _onward(self, start: int) -> Iterator[Span]:
        return _forward(self._entry.series, Span(start, MAX_TIMESTAMP), self._store)


def _forward(series: Series, span: Span, store: Store) -> Iterator[Span]:
    """Cut a span into pieces with a limited number of open times; no piece crosses a partition border."""
    start = span.start
    while start < span.end:
        end = start + _EVENT_PIECE if series.interval.is_event else _shifted(series, start, _STEPS)
        if isinstance(store, SupportsPartitions):
            end = min(end, store.partition(series, start).end)
        yield Span(start, min(end, span.end))
        start = end


def _shifted(series: Series, moment: int, steps: int) -> int:
    interval = series.interval
    if interval.length is None:  # a century of months is enough for one piece
        steps = max(-1200, min(1200, steps))
    return interval.shift(interval.floor(moment), steps)
