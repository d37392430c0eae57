"""`refetch` fetches rows again that a store has, and says which rows have changed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import anyio
import attrs

from marketfetch.api.maintenance import forget
from marketfetch.api.run_sync import run_sync
from marketfetch.api.store_calls import listeners_of_call
from marketfetch.api.upkeep.jobs import JobOptions, StoreJobs
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.html import html_table
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.text import pluralize, text_in_ipython
from marketfetch.errors import ConfigurationError
from marketfetch.listeners.progress import progress_here
from marketfetch.planning.archive_periods import difference
from marketfetch.planning.derivation import split_by_rows
from marketfetch.protocols import Sink, Store, SupportsForget
from marketfetch.redaction import Secret, printable, redact
from marketfetch.report_text import report_html, spans_text
from marketfetch.reports import Report, spans_as_list
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet
from marketfetch.values.times import TimeLike, parse_time

__all__ = ["Refetch", "RefetchResult", "SeriesChange", "refetch"]

_MAX_COMPARED = 1_000_000
"""Rows that are kept in memory to be compared; of more, the new values are not counted."""
_STEP = 100_000
"""Rows of one read."""


@attrs.frozen
class SeriesChange:
    """What fetching again changed in the rows of a series.

    `spans` were fetched again. `fields` counts the values that changed, by column, and `new_rows` the rows
    that the store did not have; both are None if there were too many rows to compare. `removed_rows` are rows
    that the exchange no longer has.
    """

    series: Series
    spans: SpanSet
    fields: Mapping[str, int] | None
    new_rows: int | None
    removed_rows: int

    @property
    def summary(self) -> str:
        """What has changed in words, such as `2 close, 1 new row`; empty if nothing has, or is not known."""
        counts = [f"{count:,} {field}" for field, count in (self.fields or {}).items()]
        counts += [pluralize(self.new_rows, "new row")] if self.new_rows else []
        counts += [pluralize(self.removed_rows, "removed row")] if self.removed_rows else []
        return ", ".join(counts)

    def __str__(self) -> str:
        return printable("  ".join(_cells(self)))

    _repr_pretty_ = text_in_ipython

    def as_dict(self) -> dict[str, Any]:
        """Return the entry in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "spans": spans_as_list(self.spans),
            "fields": None if self.fields is None else dict(self.fields),
            "new_rows": self.new_rows,
            "removed_rows": self.removed_rows,
        }


def _cells(change: SeriesChange) -> tuple[str, str, str]:
    """Return the series, the spans and what has changed, in words."""
    same = "too many rows to compare" if change.fields is None else "the same rows as before"
    return str(change.series), spans_text(change.spans), change.summary or same


@attrs.frozen
class RefetchResult:
    """The report of a refetch, and what it changed, series by series.

    >>> from marketfetch.values.spans import Span
    >>> hour, day = Series.of("okx", "ohlcv", "BTC-USDT", "1h"), SpanSet.of(Span(0, 86_400_000))
    >>> print(RefetchResult(Report.empty(), (SeriesChange(hour, day, {"close": 2}, 1, 0),)))
    Complete: 0 rows written in 0.0 s, 0 requests of weight 0
      okx ohlcv BTC-USDT 1h  1970-01-01 to 1970-01-02  2 close, 1 new row
    """

    report: Report
    changes: tuple[SeriesChange, ...]

    def __str__(self) -> str:
        return "\n  ".join([str(self.report), *map(str, self.changes)])

    _repr_pretty_ = text_in_ipython

    def _repr_html_(self) -> str:
        changes = html_table(("series", "fetched again (UTC)", "changed"), map(_cells, self.changes))
        return report_html(self.report, changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain types, as `--json` prints it, with the `changes`."""
        return {**self.report.as_dict(), "changes": [change.as_dict() for change in self.changes]}


class Refetch:
    """A refetch of a store, ready to run once; the arguments are those of `refetch`.

    `await` runs it on asyncio and returns the Report; `changes` are there when it has ended.

    >>> Refetch("sqlite:market.sqlite", symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")
    <Refetch SQLiteSink('market.sqlite')>
    """

    def __init__(  # noqa: PLR0913  # which series, which span, and the parts of a pipeline
        self,
        store: str | Path | Secret | Sink,
        *,
        symbols: str | Iterable[str] | AllSymbols | None = None,
        datasets: str | Dataset | Iterable[str | Dataset] | None = None,
        interval: str | timedelta | Interval | None = None,
        exchange: str | None = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        composites: Iterable[Composite] = (),
        **options: Unpack[JobOptions],
    ) -> None:
        self._jobs = StoreJobs(store, "refetch needs", **options)
        self._composites = Query(symbols=(), start=0, composites=composites).composites
        self._find = partial(
            forget,
            self._jobs.store,
            symbols=symbols,
            datasets=datasets,
            interval=interval,
            exchange=exchange,
            dry_run=True,
        )
        self._span = (start, end)
        self.changes: tuple[SeriesChange, ...] = ()

    def __await__(self) -> Generator[Any, None, Report]:
        return self.run().__await__()

    async def run(self) -> Report:
        """Run and return the report; `refetch` lists the errors."""
        asyncio_loop("a Refetch")
        now = self._jobs.settings.clock()
        start, end = (
            None if each is None else parse_time(name, each, now)
            for name, each in zip(("start", "end"), self._span, strict=True)
        )
        spans = await self._jobs.call_store(partial(self._find, start=start, end=end))
        if not spans:
            raise ConfigurationError(
                f"store: {redact(repr(self._jobs.store))} covers nothing of that; there is nothing to "
                "refetch: an ordinary run fetches what is missing"
            )
        installed = await self._jobs.installed({series.exchange for series in spans})
        again = {series: each for series, each in spans.items() if series.exchange in installed}
        before = await self._jobs.call_store(partial(self._forget, again))
        hulls = {series: hull for series, each in spans.items() if (hull := each.hull) is not None}
        try:
            return await self._jobs.run(hulls, self._composites)
        finally:
            with anyio.CancelScope(shield=True):
                self.changes = await self._jobs.call_store(partial(self._restore_and_compare, again, before))

    def report(self) -> Report:
        """Return the report so far; also after the refetch was cancelled."""
        return self._jobs.report()

    def _forget(self, spans: Mapping[Series, SpanSet]) -> _StateBefore:
        """Remove the coverage; the rows stay until others replace them."""
        store = self._jobs.store
        assert isinstance(store, SupportsForget), "`forget` has refused any other store"
        known = {series: _inside(each, spans[series]) for series, each in store.coverage(spans).items()}
        count = sum(series.interval.count_rows(each.present) for series, each in known.items())
        rows = None if count > _MAX_COMPARED else _read_all(store, spans)
        for series, each in spans.items():
            store.forget(series, each)
        return _StateBefore(known, rows)

    def _restore_and_compare(
        self, spans: Mapping[Series, SpanSet], before: _StateBefore
    ) -> tuple[SeriesChange, ...]:
        """Give back what could not be fetched, remove rows that the exchange no longer has, and compare."""
        store = self._jobs.store
        changes = []
        for series, each in spans.items():
            known = before.coverage[series]
            # The rejected rows of unusable moments are gone: those are asked for again.
            kept = known.without(store.coverage([series])[series].covered | known.unusable)
            if kept.covered:
                _write(store, Batch.of_coverage(series, kept))
            removed = _remove_empty(store, series, each)
            if before.rows is None:
                changes.append(SeriesChange(series, each, None, None, removed))
                continue
            found = difference(before.rows[series], _read(store, series, each), series.dataset)
            changes.append(SeriesChange(series, each, found.fields, len(found.new), removed))
        return tuple(changes)

    def __repr__(self) -> str:
        return f"<Refetch {self._jobs.store!r}>"


@attrs.frozen
class _StateBefore:
    """What a store knew before its coverage was forgotten; `rows` is None if there were too many."""

    coverage: Mapping[Series, Coverage]
    rows: Mapping[Series, Columns] | None


@partial(checks_keywords, more=JobOptions.__annotations__)
def refetch(  # noqa: PLR0913  # which series, which span, and the parts of a pipeline
    store: str | Path | Secret | Sink,
    *,
    symbols: str | Iterable[str] | AllSymbols | None = None,
    datasets: str | Dataset | Iterable[str | Dataset] | None = None,
    interval: str | timedelta | Interval | None = None,
    exchange: str | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    composites: Iterable[Composite] = (),
    progress: bool | None = None,
    **options: Unpack[JobOptions],
) -> RefetchResult:
    """Fetch again what a store covers of some series, and say what has changed.

    The series and the half-open span are chosen as for `forget`; by default the span is all that is covered.
    First the coverage is removed, then the span is fetched. A stored row stays until a fetched row replaces
    the stored one, or until the exchange has shown that there is no row. What could not be
    fetched is as before, and missing in the report; only a process that is killed leaves moments without
    coverage, which the next `fetch` requests.
    `composites`, `progress` and `options` are those of `update`.

    Raises ConfigurationError if no series is chosen, if the store covers nothing of the span, and for a store
    that cannot forget; SinkError if the store cannot be used. What goes wrong at an exchange is in
    `report.error`.

    >>> refetch("memory:", symbols="BTCUSDT")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: store: holds nothing yet; fetch into it first, or name ...
    """
    display = progress_here(progress)
    options["listeners"] = listeners_of_call(options.get("listeners", ()), display)
    job = Refetch(
        store,
        symbols=symbols,
        datasets=datasets,
        interval=interval,
        exchange=exchange,
        start=start,
        end=end,
        composites=composites,
        **options,
    )
    with display or nullcontext():
        return RefetchResult(run_sync(job.run), job.changes)


def _inside(known: Coverage, spans: SpanSet) -> Coverage:
    return known.without(known.covered - spans)


def _read_all(store: Store, spans: Mapping[Series, SpanSet]) -> dict[Series, Columns]:
    return {series: _read(store, series, each) for series, each in spans.items()}


def _read(store: Store, series: Series, spans: SpanSet) -> Columns:
    hull = spans.hull
    return Columns.empty(series.dataset) if hull is None else store.read(series, hull).within(spans)


def _remove_empty(store: Store, series: Series, spans: SpanSet) -> int:
    """Delete the rows of moments that are confirmed empty now, and return how many there were."""
    assert isinstance(store, SupportsForget)
    empty = store.coverage([series])[series].empty & spans
    removed = 0
    for step in split_by_rows(series.interval, empty, _STEP):
        rows = _read(store, series, step)
        if not len(rows):
            continue
        gone = series.interval.cover(rows.times)
        store.forget(series, gone, rows=True)
        _write(store, Batch.of_coverage(series, Coverage(gone, empty=gone)))
        removed += len(rows)
    return removed


def _write(store: Store, batch: Batch) -> None:
    with store.writer() as write:
        write(batch)
