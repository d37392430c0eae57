"""`update`: bring everything that a store holds up to now."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from marketfetch.api.inputs import check_flag
from marketfetch.api.run_sync import run_sync
from marketfetch.api.store_calls import listeners_of_call
from marketfetch.api.upkeep.jobs import JobOptions, StoreJobs
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.keywords import checks_keywords
from marketfetch.engine.missing import PUBLISH_GRACE
from marketfetch.errors import unknown
from marketfetch.listeners.progress import progress_here
from marketfetch.protocols import Sink
from marketfetch.redaction import Secret
from marketfetch.reports import Report
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, MAX_TIMESTAMP, Span
from marketfetch.verification.selection import Selection

__all__ = ["Update", "update"]

_EVENTS_PAUSE = 2 * PUBLISH_GRACE
"""Milliseconds after the end of what is covered of events, before they are asked for again: they come hours
apart, and each question costs a request."""


class Update:
    """An update of a store, ready to run; the arguments are those of `update`.

    `await` runs it on asyncio and returns the Report. It may be run again.

    >>> Update("sqlite:market.sqlite", exchange="okx")
    <Update SQLiteSink('market.sqlite')>
    """

    def __init__(  # noqa: PLR0913  # which series, and the parts of a pipeline
        self,
        store: str | Path | Secret | Sink,
        *,
        symbols: str | Iterable[str] | AllSymbols | None = None,
        datasets: str | Dataset | Iterable[str | Dataset] | None = None,
        interval: str | timedelta | Interval | None = None,
        exchange: str | None = None,
        gaps: bool = True,
        composites: Iterable[Composite] = (),
        **options: Unpack[JobOptions],
    ) -> None:
        check_flag("gaps", gaps)
        self._chosen = Selection.of(symbols=symbols, datasets=datasets, interval=interval, exchange=exchange)
        self._jobs = StoreJobs(store, "update needs", **options)
        self._gaps = gaps
        self._composites = Query(symbols=(), start=0, composites=composites).composites

    def __await__(self) -> Generator[Any, None, Report]:
        return self.run().__await__()

    async def run(self) -> Report:
        """Run and return the report; `update` lists the errors."""
        asyncio_loop("an Update")
        ledger = await self._jobs.held(self._chosen)
        symbols = {series.symbol for series in ledger}
        composites = [each for each in self._composites if each.symbol in symbols]
        if len(composites) < len(self._composites):
            await self._check_held(self._composites)
        now = self._jobs.settings.clock()
        spans = {series: _span(series, known, now, gaps=self._gaps) for series, known in ledger.items()}
        return await self._jobs.run(spans, composites, _without_recent_rows(ledger, now))

    async def _check_held(self, composites: Iterable[Composite]) -> None:
        """Raise ConfigurationError for a composite that the store does not hold.

        One that the filters leave out is no mistake: a file of presets defines all composites of a store.
        """
        held = {series.symbol for series in await self._jobs.held(Selection())}
        for composite in composites:
            if composite.symbol not in held:
                raise unknown("composites", composite.symbol, held, "is not held")

    def report(self) -> Report:
        """Return the report of the last run so far; also after it was cancelled."""
        return self._jobs.report()

    def __repr__(self) -> str:
        return f"<Update {self._jobs.store!r}>"


@partial(checks_keywords, more=JobOptions.__annotations__)
def update(  # noqa: PLR0913  # which series, and the parts of a pipeline
    store: str | Path | Secret | Sink,
    *,
    symbols: str | Iterable[str] | AllSymbols | None = None,
    datasets: str | Dataset | Iterable[str | Dataset] | None = None,
    interval: str | timedelta | Interval | None = None,
    exchange: str | None = None,
    gaps: bool = True,
    composites: Iterable[Composite] = (),
    progress: bool | None = None,
    **options: Unpack[JobOptions],
) -> Report:
    """Fetch the rows of every series that have closed since the store was filled; return one report.

    Each series goes on where its coverage ends; gaps inside are filled too, unless `gaps` is False. A filter
    that is left out selects all series. `options` are `proxies`, `fetcher`, `settings`, `listeners`,
    `base_url`, `archive_url`, `sources` and `board`, as of a Pipeline. `composites` defines composites that
    the store holds: they are recomputed. A held symbol that is neither defined nor listed is reported in
    `unknown`, as is an exchange whose adapter is not installed; the others are updated. Once its newest row
    is more than a week old, such a symbol is in `unlisted`, and the report may be complete. A run that has
    nothing to fetch sends no request. Events are asked for when ten minutes have passed. `progress` is shown
    as by `fetch`.

    Raises ConfigurationError if the store holds nothing, and for names that it does not hold, with near
    matches; and SinkError if the store cannot be used. What goes wrong at an exchange is in `report.error`.

    >>> update("memory:")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: store: MemorySink(0 series) holds nothing of that ...
    """
    display = progress_here(progress)
    options["listeners"] = listeners_of_call(options.get("listeners", ()), display)
    job = Update(
        store,
        symbols=symbols,
        datasets=datasets,
        interval=interval,
        exchange=exchange,
        gaps=gaps,
        composites=composites,
        **options,
    )
    with display or nullcontext():
        return run_sync(job.run)


def _without_recent_rows(ledger: Mapping[Series, Coverage], now: int) -> set[str]:
    """Return the symbols that lack the rows of a week and more, each with its exchange.

    A row of a long interval counts until the next one would close: a month is not retired on its 8th day.
    """
    due = {
        series: hull.end + series.interval.typical
        for series, known in ledger.items()
        if (hull := known.covered.hull)
    }
    fresh = {(each.exchange, each.symbol) for each, end in due.items() if end > now - 7 * DAY}
    return {f"{each.exchange} {each.symbol}" for each in due if (each.exchange, each.symbol) not in fresh}


def _span(series: Series, known: Coverage, now: int, *, gaps: bool) -> Span:
    """Return the span that an update fetches: up to now, or the covered span where nothing newer can be.

    >>> from marketfetch.values.spans import SpanSet
    >>> day = Series.of("okx", "ohlcv", "BTC-USDT", "1h"), Coverage(SpanSet.of(Span(0, 3_600_000)))
    >>> _span(*day, 10_000_000, gaps=False).start, _span(*day, 10_000_000, gaps=True).start
    (3600000, 0)
    """
    hull = known.covered.hull
    assert hull is not None, "a series that is held is covered"
    start = hull.start if gaps else hull.end
    pause = _EVENTS_PAUSE if series.interval.is_event else 0
    return Span(start, MAX_TIMESTAMP) if hull.end + pause < now else hull
