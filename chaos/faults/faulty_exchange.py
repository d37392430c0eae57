"""Run a job against an exchange that gives wrong answers, in accelerated time, and check the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import anyio
import attrs
import numpy as np

from chaos.harness.accelerated_time import SPEED, AcceleratedClock, AcceleratedFetcher, run_accelerated
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import MarketfetchError
from marketfetch.events import Event, PageFetched, RequestFailed
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.sources import Endpoint
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LocalProxies,
    MarketInstrument,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.worlds import DAY, HOUR, VENUES, assert_same, truth

__all__ = ["DATASETS", "ExchangeJob", "FaultyExchange", "RunObservation", "faulty_exchange"]

END = parse_time("end", "2026-06-15", 0)
DATASETS = {
    "binance-usdm": ("ohlcv", "premium_index", "funding_rate", "open_interest", "taker_volume"),
    "binance-spot": ("ohlcv",),
    "okx": ("ohlcv", "funding_rate"),
    "binance-coinm": ("ohlcv", "premium_index", "funding_rate", "open_interest", "taker_volume"),
}
_SYMBOLS = {
    "binance-usdm": ("BTCUSDT", "LATEUSDT"),
    "binance-spot": ("BTCUSDT", "LATEUSDT"),
    "okx": ("BTC-USDT-SWAP", "LATE-USDT-SWAP"),
    "binance-coinm": ("BTCUSD_PERP", "LATEUSD_PERP"),
}
_OKX_COLUMNS = {"open", "high", "low", "close", "volume", "quote_volume", "funding_rate"}
_OUTAGES = (Span(END - 5 * DAY, END - 4 * DAY), Span(END - 127 * 60_000, END - 71 * 60_000))
_DEADLINE = 0.5
"""Real seconds until a request that hangs is given up."""
_TIMEOUT = 30.0
"""Real seconds without an answer or an error after which a run counts as hanging."""
_LONGEST = 10 * _TIMEOUT
"""Real seconds after which a run counts as hanging although requests are made."""
_BAN = 600.0
"""Accelerated seconds for which a run waits for a banned egress."""
_EGRESSES = 3


@attrs.frozen(kw_only=True)
class ExchangeJob:
    """The query of a run, its settings, and the faults of the exchange."""

    venue: str
    faults: Faults
    datasets: Sequence[str] = ("ohlcv",)
    interval: str = "5m"
    rows: int = 150
    """Candles of each series; event series have the same span."""
    page: int = 20
    """The most rows of a page."""
    concurrency: int = 8
    egresses: int = 1
    """1 is the direct connection; more are that many proxies."""

    @property
    def span(self) -> Span:
        """The span of the query."""
        return Span(Interval.parse(self.interval).shift(END, -self.rows), END)

    def exchange(self, base_url: str) -> Exchange:
        """The adapter, with small pages."""
        kind = VENUES[self.venue]
        small = tuple(
            type(each.__name__, (each,), {"page_sizes": (self.page,)})
            for each in kind.sources
            if issubclass(each, Endpoint)
        )
        made: Exchange = type(kind.__name__, (kind,), {"sources": small})(base_url)
        return made


@attrs.frozen
class RunObservation:
    """The result of a run."""

    complete: bool
    reasons: frozenset[str]
    """The reasons of missing spans."""
    met: frozenset[FaultKind]
    """The kinds of faults that occurred."""
    requests: int
    unusable: int
    """The number of unusable moments after the first run."""


class _Watchdog:
    """A listener that cancels a run which gets no answer and no error any more.

    A run of 500 requests, one at a time, of which a third are never answered, takes more than a minute and
    does not hang.
    """

    _scope: anyio.CancelScope
    _latest: float

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Cancel what runs in this block once it hangs."""
        self._latest = anyio.current_time() + _LONGEST * SPEED
        with anyio.move_on_after(_TIMEOUT * SPEED) as self._scope:
            yield

    def __call__(self, event: Event) -> None:
        """Put the end off: there is progress."""
        if isinstance(event, PageFetched | RequestFailed):
            self._scope.deadline = min(anyio.current_time() + _TIMEOUT * SPEED, self._latest)


@attrs.frozen(eq=False)
class FaultyExchange:
    """An exchange in accelerated time, with outages and a late listing, behind proxies."""

    exchange: SimulatedExchange
    market: GeneratedMarket
    proxies: LocalProxies
    clock: AcceleratedClock

    def try_out(self, job: ExchangeJob) -> RunObservation:
        """Run a job with faults and again without; AssertionError unless the store is right both times.

        The second run retries unusable moments: a wrong row that the exchange repeats unchanged is recorded
        as unusable.
        """
        store = MemorySink()
        report = self.run(job, store, job.faults)
        met = frozenset(self.exchange.request_log.faults)
        self.assert_right(job, store, report)
        again = self.run(job, store, None, unusable="retry")
        self.assert_right(job, store, again)
        assert again.complete, f"told the truth, the second run still lacks {_reasons(again)}"
        assert not again.unusable_moments, "told the truth, the second run still has unusable rows"
        return RunObservation(
            report.complete, _reasons(report), met, report.requests, report.unusable_moments
        )

    def run(
        self,
        job: ExchangeJob,
        store: Store,
        faults: Faults | None,
        *,
        unusable: Literal["keep", "retry"] = "keep",
    ) -> Report:
        """Run a job into a store and return the report, also that of a run ended by a documented error."""
        self.clock.restart()
        self.exchange.faults = faults
        self.exchange.request_log.clear()
        proxies = self.proxies.urls[: job.egresses] if job.egresses > 1 else []
        hanging = _Watchdog()
        pipeline = Pipeline(
            job.exchange(self.exchange.base_url),
            Query(
                symbols=_SYMBOLS[job.venue],
                datasets=job.datasets,
                interval=job.interval,
                start=job.span.start,
                end=job.span.end,
            ),
            store,
            proxies=RotatingProxies(proxies, direct=not proxies, now=self.clock, max_wait=_BAN),
            fetcher=AcceleratedFetcher(self.clock, CurlFetcher(max_body=200_000, timeout=_TIMEOUT * SPEED)),
            settings=Settings(
                concurrency=job.concurrency,
                batch_rows=50,
                deadline=_DEADLINE * SPEED,
                heartbeat=_TIMEOUT * SPEED,
                clock=self.clock,
                unusable=unusable,
            ),
            listeners=[hanging],
        )

        async def work() -> Report:
            report = None
            with hanging.watch():
                report = await pipeline
            assert report is not None, f"the run hangs: {pipeline.report().as_dict()}"
            return report

        try:
            return run_accelerated(work)
        except MarketfetchError as error:
            if error.report is None:
                raise AssertionError(f"{error!r} ended the run and carries no report") from error
            return error.report

    def assert_right(self, job: ExchangeJob, store: Store, report: Report) -> None:
        """Fail unless each series has the true rows where it is covered, and a reason for all other spans."""
        wanted = {
            Series.of(job.venue, dataset, symbol, job.interval)
            for dataset in job.datasets
            for symbol in _SYMBOLS[job.venue]
        }
        assert {line.series for line in report.series} == wanted
        for line in report.series:
            _assert_line(line, job.span, store, _expected(self.market, line.series, job.span))
        lacking = report.error is not None or any(line.missing for line in report.series)
        assert report.complete != lacking, "a report is complete if nothing is missing, and only then"


@contextmanager
def faulty_exchange() -> Iterator[FaultyExchange]:
    """Start the exchange and its proxies."""
    late = [MarketInstrument.parse(name, END - 10 * HOUR) for name in ("LATEUSDT", "LATEUSD_PERP")]
    market = GeneratedMarket(["BTCUSDT", "BTCUSD_PERP", *late], seed=11, gaps=_OUTAGES)
    clock = AcceleratedClock(END + DAY)
    options = SimulatorOptions(limits=None, now=clock, log_size=1)
    with SimulatedExchange(market, options) as exchange, LocalProxies(_EGRESSES) as proxies:
        yield FaultyExchange(exchange, market, proxies, clock)


def _assert_line(line: SeriesReport, span: Span, store: Store, truth: Columns) -> None:
    name = str(line.series)
    assert line.wanted == span, f"{name}: {span} was asked for, {line.wanted} is reported"
    missing = SpanSet(tuple(each for gap in line.missing for each in gap.spans))
    assert all(gap.reason for gap in line.missing), f"{name}: no reason for {line.missing}"
    assert not line.covered & missing, f"{name}: {line.covered & missing} is covered and missing"
    assert line.covered | missing == SpanSet.of(span), f"{name}: covered and missing are not all"
    known = store.coverage([line.series])[line.series]
    assert known.covered == line.covered, f"{name}: the report and the ledger differ"
    assert known.unusable == line.unusable, f"{name}: the report and the ledger differ in what is unusable"
    # The exchange has a row for each unusable moment: it is neither empty nor stored.
    wrong = truth.within(line.unusable)
    assert line.series.interval.cells(wrong.times) == line.unusable, f"{name}: unusable without a row"
    held = store.read(line.series, Span(0, 2 * END))
    assert not len(held.within(line.unusable)), f"{name}: a row is stored that is said to be wrong"
    covered = truth.within(line.covered - line.unusable)
    assert_same(held.within(line.covered), covered)
    # True rows of moments that are not covered may be stored.
    assert_same(held, truth.take(np.isin(truth.times, held.times)))


def _expected(market: GeneratedMarket, series: Series, span: Span) -> Columns:
    """Return the rows that a store should hold, with NaN in columns that the venue does not serve."""
    symbol = series.symbol.removesuffix("-SWAP").replace("-", "")
    rows = truth(market, series, span, symbol)
    if series.exchange == "okx":
        for at, column in enumerate(series.dataset.names):
            if column not in _OKX_COLUMNS:
                rows.values[at] = np.nan
    return rows


def _reasons(report: Report) -> frozenset[str]:
    reasons = {gap.reason for line in report.series for gap in line.missing}
    return frozenset(reasons | ({report.error} if report.error else set()))
