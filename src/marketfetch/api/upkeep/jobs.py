"""Runs that fetch spans of many series into one store: one query after the other, and one report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

import attrs

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import fetcher_of, pool_of, settings_of, store_of
from marketfetch.api.plugins import exchange_from, exchanges
from marketfetch.engine.blocking import StoreRetrier, run_in_thread
from marketfetch.engine.run import Run
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.session import SessionState
from marketfetch.errors import ConfigurationError, FetchError
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.listeners.dispatch import Listeners
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink, Store
from marketfetch.redaction import Secret, redact
from marketfetch.reports import Report
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, format_utc
from marketfetch.verification.selection import Selection

__all__ = ["JobOptions", "StoreJobs"]

_T = TypeVar("_T")


class JobOptions(TypedDict, total=False):
    """How the runs get to the exchanges: the parts of a Pipeline, with the same defaults."""

    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None
    fetcher: Fetcher | None
    settings: Settings | None
    listeners: Sequence[Listener]
    base_url: str | None
    archive_url: str | None
    sources: Literal["auto", "rest", "archive"]
    board: Board | str | Secret | None


class StoreJobs:
    """A store, and the parts with which series of it are fetched.

    The queries of different exchanges, intervals and sets of datasets run one after the other. An exchange
    that is not installed, or whose run fails, is named in the report, and the others go on.
    """

    def __init__(  # noqa: PLR0913  # the parts of a pipeline
        self,
        store: str | Path | Secret | Sink,
        purpose: str,
        *,
        proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
        fetcher: Fetcher | None = None,
        settings: Settings | None = None,
        listeners: Sequence[Listener] = (),
        base_url: str | None = None,
        archive_url: str | None = None,
        sources: Literal["auto", "rest", "archive"] = "auto",
        board: Board | str | Secret | None = "auto",
    ) -> None:
        self.settings, client = settings_of(settings), fetcher_of(fetcher)
        self.store: Store = store_of("store", store, purpose)
        # A name that is not a source is refused before the store is read.
        self._sources = Query(symbols="ANY", start=0, sources=sources).sources
        self._hosts = (base_url, archive_url)
        emit = Listeners(listeners).emit
        self._retrier = StoreRetrier(self.settings.retries, emit)
        self._parts = (pool_of(proxies), client)
        self._sharing = sharing_of(board, self.store)
        self._config = partial(
            RunConfig,
            sink=self.store,
            settings=self.settings,
            emit=emit,
            sharing=self._sharing,
        )
        self._done: list[Report] = []
        self._current: Run | None = None

    async def call_store(self, work: Callable[[], _T]) -> _T:
        """Call blocking code that uses the store on a thread, again while the store is unavailable."""
        return await self._retrier.call_in_thread(work)

    async def held(self, chosen: Selection) -> dict[Series, Coverage]:
        """Return the chosen series that the store covers.

        Raises ConfigurationError if there are none, and for a host that would serve several exchanges.
        """
        found = await self.call_store(partial(chosen.held, self.store))
        ledger = {series: known for series, known in found.items() if known.covered}
        if not ledger:
            raise ConfigurationError(
                f"store: {redact(repr(self.store))} holds nothing of that kind yet; fetch into it first, as"
                " `marketfetch backfill` does"
            )
        exchanges = sorted({series.exchange for series in ledger})
        for name, url in zip(("base_url", "archive_url"), self._hosts, strict=True):
            if url is not None and len(exchanges) > 1:
                raise ConfigurationError(
                    f"{name}: the store holds {' and '.join(exchanges)}; choose the exchange whose host it is"
                )
        return ledger

    async def installed(self, names: Collection[str]) -> dict[str, Exchange]:
        """Return those of the named exchanges whose adapters are installed."""

        def find() -> dict[str, Exchange]:
            return {name: exchange_from(name, *self._hosts) for name in exchanges() if name in names}

        return await run_in_thread(find)  # it reads the files of installed packages

    async def run(
        self,
        spans: Mapping[Series, Span],
        composites: Sequence[Composite] = (),
        retired: Collection[str] = (),
    ) -> Report:
        """Fetch what is missing in a span of each series; a span that ends in the future ends now.

        A series whose symbol is that of a composite is computed after the others. `retired` symbols, such as
        `okx LUNA-USDT`, are not missed if their exchange does not list them.
        """
        self._done, self._current = [], None
        installed = await self.installed({series.exchange for series in spans})
        for name in sorted({series.exchange for series in spans} - installed.keys()):
            count = sum(series.exchange == name for series in spans)
            hint = f"its adapter is not installed; {count:,} series of the store stay as they are"
            self._done.append(attrs.evolve(Report.empty(), unknown={name: hint}))
        known = {series: span for series, span in spans.items() if series.exchange in installed}
        # One session, so that the listing of an exchange is requested once.
        session = SessionState(*self._parts, persistent=True)
        async with session.open(self._sharing):
            for job in _grouped(known, composites, self.settings.clock()):
                await self._run_one(job, installed[job.exchange], session, known, retired)
        return self.report()

    def report(self) -> Report:
        """Return the report of all runs so far; also after they were cancelled."""
        current = [] if self._current is None else [self._current.report()]
        return Report.merged([*self._done, *current])

    async def _run_one(
        self,
        job: _Job,
        exchange: Exchange,
        session: SessionState,
        spans: Mapping[Series, Span],
        retired: Collection[str],
    ) -> None:
        query = attrs.evolve(job.query, sources=self._sources)
        try:
            self._current = Run(self._config(exchange=exchange, query=query, session=session, spans=spans))
            report = await self._current.execute()
        except (ConfigurationError, FetchError) as error:
            # The other exchanges and datasets go on.
            failed = error.report if error.report is not None else Report.empty()
            report = attrs.evolve(failed, error=f"{job}: {error}")
        unknown = {
            f"{job.exchange} {symbol}": f"{hint}; the store keeps what it has (a composite has to be defined)"
            for symbol, hint in report.unknown.items()
        }
        unlisted = {name: unknown.pop(name) for name in retired if name in unknown}
        lines = [line for line in report.series if f"{job.exchange} {line.series.symbol}" not in unlisted]
        self._done.append(attrs.evolve(report, series=tuple(lines), unknown=unknown, unlisted=unlisted))
        self._current = None


@attrs.frozen
class _Job:
    exchange: str
    query: Query

    def __str__(self) -> str:
        datasets = "+".join(dataset.name for dataset in self.query.datasets)
        return f"{self.exchange} {datasets} {self.query.interval}"


def _grouped(spans: Mapping[Series, Span], composites: Sequence[Composite], now: int) -> list[_Job]:
    """Return a query for each exchange, interval and set of datasets; those of composites come last.

    Example: two symbols with candles of 1m, one of them also with mark prices, are two queries.
    """
    derived = {composite.symbol: composite for composite in composites}
    datasets: dict[tuple[bool, str, Interval, str], list[Dataset]] = {}
    for series in spans:
        of_symbol = (series.symbol in derived, series.exchange, series.interval, series.symbol)
        datasets.setdefault(of_symbol, []).append(series.dataset)
    groups: dict[tuple[bool, str, Interval, tuple[Dataset, ...]], list[str]] = {}
    for (is_derived, exchange, interval, symbol), several in datasets.items():
        ordered = tuple(sorted(several, key=lambda kind: kind.name))
        groups.setdefault((is_derived, exchange, interval, ordered), []).append(symbol)
    jobs = []
    # False is sorted before True, and the members of a composite have to be there before it.
    for key, symbols in sorted(groups.items(), key=lambda group: group[0][0]):
        is_derived, exchange, interval, kinds = key
        wanted = [spans[Series(exchange, kind, symbol, interval)] for kind in kinds for symbol in symbols]
        start, end = min(span.start for span in wanted), max(span.end for span in wanted)
        query = Query(
            symbols=() if is_derived else symbols,
            datasets=kinds,
            interval=interval,
            start=format_utc(start),
            end="now" if end >= now else format_utc(end),
            composites=[derived[symbol] for symbol in symbols] if is_derived else (),
        )
        jobs.append(_Job(exchange, query))
    return jobs
