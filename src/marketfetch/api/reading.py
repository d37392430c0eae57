"""Read tables out of a store: choose series, read their rows, and report what the store lacks.

Blocking code, without retries. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import attrs

from marketfetch.api.tables.table import Table
from marketfetch.common.text import pluralize
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.planning.held_symbols import series_meant
from marketfetch.protocols import Store, SupportsLatest
from marketfetch.redaction import printable, redact
from marketfetch.report_text import span_text, spans_text
from marketfetch.reports import Missing, Report, SeriesReport, spans_as_list
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet, format_utc
from marketfetch.values.times import SteadyClock, TimeLike, check_order, parse_time
from marketfetch.verification.selection import Selection

__all__ = ["HeldSeries", "RequestedSpan", "chosen_series", "read_latest", "read_tables", "span_report"]

_ABSENT = "not in the store"


@attrs.frozen(repr=False)
class HeldSeries:
    """A series in a store, and what its ledger says: no row is read.

    `first` and `last` are open times of rows, in UTC milliseconds; of events, the ends of what is present.
    They are None if no row is present. `rows` is None for events, which the ledger does not count. `gaps` are
    the moments between the first and the last covered one that are missing.

    >>> hour = Series.of("okx", "ohlcv", "BTC-USDT", "1h")
    >>> held = HeldSeries(hour, Coverage(SpanSet.of(Span(0, 7_200_000), Span(10_800_000, 14_400_000))))
    >>> held.first, held.last, held.rows, held.gaps.spans
    (0, 10800000, 3, (Span(start=7200000, end=10800000),))
    >>> held
    <HeldSeries okx ohlcv BTC-USDT 1h: 3 rows, 1970-01-01T00:00:00Z to 1970-01-01T03:00:00Z, 1 gap>
    >>> print(held)
    okx ohlcv BTC-USDT 1h  1970-01-01 to 1970-01-01 04:00, 3 rows, gaps 1970-01-01 02:00 to 1970-01-01 03:00
    """

    series: Series
    coverage: Coverage

    def __str__(self) -> str:
        present = self.coverage.present.hull
        if present is None:
            return printable(f"{self.series}  no rows")
        rows = "" if self.rows is None else f", {pluralize(self.rows, 'row')}"
        gaps = f", gaps {spans_text(self.gaps)}" if self.gaps else ""
        return printable(f"{self.series}  {span_text(present)}{rows}{gaps}")

    @property
    def first(self) -> int | None:
        """The open time of the first row."""
        hull = self.coverage.present.hull
        return None if hull is None else hull.start

    @property
    def last(self) -> int | None:
        """The open time of the last row."""
        hull = self.coverage.present.hull
        return None if hull is None else self.series.interval.floor(hull.end - 1)

    @property
    def rows(self) -> int | None:
        """The number of rows."""
        interval = self.series.interval
        return None if interval.is_event else interval.count_rows(self.coverage.present)

    @property
    def gaps(self) -> SpanSet:
        """The missing moments between covered ones."""
        return self.coverage.gaps

    def as_dict(self) -> dict[str, Any]:
        """Return the entry in plain types, times as ISO text, for JSON or a table."""
        return {
            **self.series.as_dict(),
            "first": None if self.first is None else format_utc(self.first),
            "last": None if self.last is None else format_utc(self.last),
            "rows": self.rows,
            "gaps": spans_as_list(self.gaps),
        }

    def __repr__(self) -> str:
        rows = "events" if self.rows is None else pluralize(self.rows, "row")
        if self.first is None or self.last is None:
            return f"<HeldSeries {self.series}: no rows>"
        held = f"{format_utc(self.first)} to {format_utc(self.last)}"
        return f"<HeldSeries {self.series}: {rows}, {held}, {pluralize(len(self.gaps), 'gap')}>"


@attrs.frozen
class RequestedSpan:
    """The span that a caller asked for: `start` and `end` are None for the ends of what is held.

    `now` is the time of the call: nothing later is missing. All are UTC milliseconds.
    """

    start: int | None
    end: int | None
    now: int

    @classmethod
    def parse(cls, start: TimeLike | None, end: TimeLike | None) -> RequestedSpan:
        """Read a caller's times; ConfigurationError for what is not a time, and an end before the start."""
        now = SteadyClock()()
        first = None if start is None else parse_time("start", start, now)
        last = None if end is None else parse_time("end", end, now)
        if first is not None and last is not None:
            check_order(first, last)
        return cls(first, last, now)

    def of(self, series: Series, known: Coverage) -> Span:
        """Return the span to read of a series; of a series without stored rows, one step at its given end."""
        hull = known.covered.hull or Span(0, MAX_TIMESTAMP)
        start = hull.start if self.start is None else self.start
        end = hull.end if self.end is None else self.end
        if start < end:
            return Span(start, end)
        if self.end is None:
            return Span(start, series.interval.ceil(start) + 1)
        return Span(series.interval.floor(end - 1), end)


def chosen_series(store: Store, chosen: Selection) -> dict[Dataset, list[Series]]:
    """Return the series of a store that are chosen, by dataset.

    Raises ConfigurationError for a store that does not exist or is empty, for names that it does not hold,
    with near matches, and for ambiguous names.
    """
    held = store.series() if isinstance(store, SupportsLatest) else store.ledger().keys()
    if not held:
        raise ConfigurationError(f"store: {redact(repr(store))} holds no series; fetch into it first")
    kinds = {series.dataset.name: series.dataset for series in held}
    for dataset in chosen.datasets:
        if dataset.name not in kinds:
            raise unknown("dataset", dataset.name, kinds, "is not held")
    return {dataset: _of_dataset(dataset, held, chosen) for dataset in chosen.datasets or kinds.values()}


def _of_dataset(dataset: Dataset, held: Collection[Series], chosen: Selection) -> list[Series]:
    candidates = [series for series in held if series.dataset == dataset]
    exchanges = {series.exchange for series in candidates}
    if chosen.exchange is not None:
        if chosen.exchange not in exchanges:
            raise unknown("exchange", chosen.exchange, exchanges, "is not held")
        candidates = [series for series in candidates if series.exchange == chosen.exchange]
    return series_meant(chosen.symbols, candidates, chosen.interval)


def read_tables(store: Store, chosen: Selection, window: RequestedSpan) -> dict[str, Table]:
    """Return a table for each chosen dataset, with the rows inside the window."""
    tables = {}
    for dataset, series in chosen_series(store, chosen).items():
        known = store.coverage(series)
        spans = {one: window.of(one, known[one]) for one in series}
        rows = {one: store.read(one, span) for one, span in spans.items()}
        lines = [span_report(one, known[one], span, window.now) for one, span in spans.items()]
        tables[dataset.name] = Table(dataset, rows, _report(lines))
    return tables


def read_latest(store: Store, chosen: Selection, limit: int) -> Table:
    """Return a table with the newest `limit` rows of each series of the one chosen dataset."""
    ((dataset, series),) = chosen_series(store, chosen).items()
    if isinstance(store, SupportsLatest):
        rows = dict(store.latest(series, limit))
    else:
        ever = Span(0, MAX_TIMESTAMP)
        rows = {one: store.read(one, ever).take(slice(-limit, None)) for one in series}
    return Table(dataset, rows, _report([_latest_line(store, one, rows[one]) for one in series]))


def span_report(series: Series, known: Coverage, asked: Span, now: int) -> SeriesReport:
    """Report what the store knows of a span of a series, and which closed rows it does not know."""
    start = series.interval.ceil(asked.start)
    end = min(series.interval.ceil(asked.end), max(series.interval.floor(now), start))
    if start >= end:
        return SeriesReport(series, asked, 0, SpanSet(), SpanSet(), nothing_closed=True)
    wanted = Span(start, end)
    inside, missing = known.within(wanted), known.missing(wanted)
    gaps = (Missing(missing, _ABSENT),) if missing else ()
    return SeriesReport(series, wanted, 0, inside.covered, inside.empty, gaps, unusable=inside.unusable)


def _latest_line(store: Store, series: Series, rows: Columns) -> SeriesReport:
    """Report on the span of the newest rows; the ledger is read only if they leave steps of the grid out."""
    steps = SpanSet() if series.interval.is_event else series.interval.cells(rows.times)
    if len(steps) == 1:
        return SeriesReport(series, steps.spans[0], 0, steps, SpanSet())
    known = store.coverage([series])[series]
    start, end = (int(rows.times[0]), int(rows.times[-1]) + 1) if len(rows) else (None, None)
    return span_report(
        series, known, RequestedSpan(start, end, MAX_TIMESTAMP).of(series, known), MAX_TIMESTAMP
    )


def _report(lines: Sequence[SeriesReport]) -> Report:
    return attrs.evolve(Report.empty(), series=tuple(lines))
