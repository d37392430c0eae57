"""Blocking calls from names: `fetch` to tables, `plan` what that would request, `follow` until Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal, overload

import anyio
import attrs

from marketfetch.api.inputs import pool_of, store_of
from marketfetch.api.missing_rows import OnMissing, check_on_missing, warn_or_raise_missing
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.api.run_sync import run_sync
from marketfetch.api.store_calls import call_store, listeners_of_call, with_listeners
from marketfetch.api.table_keys import TableKeys, Tables
from marketfetch.api.tables.table import Table
from marketfetch.common.event_loop import repeating
from marketfetch.common.keywords import checks_keywords
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.following.following import Following
from marketfetch.listeners.follow_status import FollowStatus
from marketfetch.listeners.notebook import NotebookFollow
from marketfetch.listeners.progress import follow_status_here, progress_here
from marketfetch.plans import Plan
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink
from marketfetch.redaction import Secret
from marketfetch.reports import SeriesHealth
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.settings import Settings
from marketfetch.values.times import TimeLike

__all__ = ["fetch", "follow", "plan"]

_PURPOSE = "use Pipeline, or name"
"""What to do with a sink that `fetch` cannot read back."""


@overload
def fetch(  # type: ignore[overload-overlap]  # a text is an iterable of texts
    exchange: str | Exchange,
    dataset: str | Dataset = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: str | timedelta | Interval = "1m",
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    on_missing: OnMissing = "warn",
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> Table: ...


@overload
def fetch(  # type: ignore[overload-overlap]  # as above
    exchange: str | Exchange,
    dataset: Iterable[str | Dataset],
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: str | timedelta | Interval = "1m",
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    on_missing: OnMissing = "warn",
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> dict[str, Table]: ...


@overload
def fetch(  # type: ignore[overload-overlap]  # as above
    exchange: str | Exchange,
    dataset: str | Dataset = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: Iterable[str | timedelta | Interval],
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    on_missing: OnMissing = "warn",
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> dict[str, Table]: ...


@overload
def fetch(
    exchange: str | Exchange,
    dataset: Iterable[str | Dataset],
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: Iterable[str | timedelta | Interval],
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    on_missing: OnMissing = "warn",
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> dict[tuple[str, str], Table]: ...


@checks_keywords
def fetch(  # noqa: PLR0913  # the one call for notebooks: every part may be replaced in it
    exchange: str | Exchange,
    dataset: str | Dataset | Iterable[str | Dataset] = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: str | timedelta | Interval | Iterable[str | timedelta | Interval] = "1m",
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    on_missing: OnMissing = "warn",
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> Tables:
    """Fetch what is missing and return the rows as a Table; works in scripts and in notebooks.

    `symbols` are exchange symbols or unified names; the span from `start` to `end` is half-open, see `Query`,
    which also explains `sources`. Of a list of datasets `fetch` returns a dictionary of tables by the name of
    the dataset, of a list of intervals by the name of the interval, and of two lists by both names, such as
    `("ohlcv", "1h")`. The interval of an event dataset is `event`.

    `to` is a store (`"duckdb:market.duckdb"` or a Store object) that keeps the rows: what it holds already
    is not fetched again. Without it the rows stay in memory. `proxies` is a pool or a list of URLs, used in
    addition to the direct connection. `board` shares the rate limits with earlier calls and with other
    processes, see `Pipeline`. `progress` is shown in notebooks and on terminals (None), also in a log (True),
    or nowhere (False).

    An IncompleteWarning tells what a table lacks: symbols that do not exist, rows that could not be
    fetched, or rows of a span in which nothing has closed yet. With `on_missing="raise"` an IncompleteError
    is raised instead; with "ignore" only `table.report` tells it. While another program holds the store, a
    RuntimeWarning tells that the call waits.

    Raises ConfigurationError for a wrong call (no request was made), and the MarketfetchError that ended the
    run early.

    >>> fetch("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-02", end="2026-06-01")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: start: 2026-06-02T00:00:00Z is not before end 2026-06-01T00:00:00Z
    """
    check_on_missing(on_missing)
    display = progress_here(progress)
    store = MemorySink() if to is None else store_of("to", to, _PURPOSE)
    keys = TableKeys.of(dataset, interval)
    query = Query(
        symbols=symbols,
        datasets=keys.datasets,
        interval=keys.intervals[0],
        start=start,
        end=end,
        composites=composites,
        sources=sources,
    )
    venue = exchange_from(exchange, base_url, archive_url)
    pool = None if proxies is None else pool_of(proxies)
    queries = keys.queries(query)
    pipelines = [
        Pipeline(
            venue,
            each,
            store,
            proxies=pool,
            fetcher=fetcher,
            settings=settings,
            listeners=listeners_of_call(listeners, display),
            board=board,
        )
        for each in queries
    ]
    with display or nullcontext():
        reports = [run_sync(pipeline.run) for pipeline in pipelines]
    retries = (settings or Settings()).retries
    tables = {}
    for each, whole in zip(queries, reports, strict=True):
        for kind in each.datasets:
            lines = tuple(line for line in whole.series if line.series.dataset == kind)
            report = attrs.evolve(whole, series=lines)
            rows = {
                line.series: call_store(partial(store.read, line.series, line.wanted), retries)
                for line in lines
            }
            warn_or_raise_missing(f"{venue.name} {kind.name}", report, rows, on_missing)
            tables[kind, EVENT if kind.event else each.interval] = Table(kind, rows, report)
    return keys.arrange(tables)


@checks_keywords
def plan(  # noqa: PLR0913  # the arguments of fetch
    exchange: str | Exchange,
    dataset: str | Dataset | Iterable[str | Dataset] = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    start: TimeLike,
    end: TimeLike = "now",
    interval: str | timedelta | Interval = "1m",
    to: str | Path | Sink | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest", "archive"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    board: Board | str | None = "auto",
) -> Plan:
    """Return what `fetch` with the same arguments would request, and how long it would take.

    There is one interval, and no `progress` and no `on_missing`. Only the exchange's clock, its listing and
    listings of its archive are requested, and nothing is written. Several datasets may be given, as for a
    Pipeline. Raises the errors of `fetch`.

    >>> plan("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-02", end="2026-06-01")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: start: 2026-06-02T00:00:00Z is not before end 2026-06-01T00:00:00Z
    """
    query = Query(
        symbols=symbols,
        datasets=dataset,
        interval=interval,
        start=start,
        end=end,
        composites=composites,
        sources=sources,
    )
    pipeline = Pipeline(
        exchange_from(exchange, base_url, archive_url),
        query,
        MemorySink() if to is None else store_of("to", to, _PURPOSE),
        proxies=proxies,
        fetcher=fetcher,
        settings=settings,
        listeners=listeners_of_call(listeners, None),
        board=board,
    )
    return run_sync(pipeline.plan)


@checks_keywords
def follow(  # noqa: PLR0913  # the one call for scripts: every part may be replaced in it
    exchange: str | Exchange,
    datasets: str | Dataset | Iterable[str | Dataset] = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols = (),
    *,
    to: str | Path | Sink,
    start: TimeLike,
    interval: str | timedelta | Interval = "1m",
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    sources: Literal["auto", "rest"] = "auto",
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    board: Board | str | None = "auto",
    progress: bool | None = None,
) -> tuple[SeriesHealth, ...]:
    """Fill a store from `start` on and keep it up to date until Ctrl-C; return the last health of the series.

    The arguments are those of `fetch` and `Pipeline`; `Pipeline.follow` says what is stored when. In a
    notebook and on a terminal a line shows the lag and the rows written meanwhile; with `progress=True` a
    script without a terminal writes lines to stderr, and with `progress=False` nothing is shown. Raises
    ConfigurationError for a wrong call, and RestrictedLocation if the exchange refuses this location.

    >>> follow("binance-usdm", "ohlcv", "BTCUSDT", to="memory:", start="2026-06-01", sources="archive")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: sources: files come days late; to follow write sources='auto' or \
'rest'
    """
    status = follow_status_here(progress)
    query = Query(
        symbols=symbols,
        datasets=datasets,
        interval=interval,
        start=start,
        composites=composites,
        sources=sources,
    )
    pipeline = Pipeline(
        exchange_from(exchange, base_url, archive_url),
        query,
        to,
        proxies=proxies,
        fetcher=fetcher,
        settings=settings,
        listeners=with_listeners(listeners, status),
        board=board,
    )
    last: tuple[SeriesHealth, ...] = ()

    async def run() -> None:
        nonlocal last
        async with pipeline.follow() as following:
            try:
                async with _shown(following, status):
                    await following.wait()
            finally:
                last = following.health()

    with status or nullcontext(), suppress(KeyboardInterrupt):
        run_sync(run)
    return last


def _shown(
    following: Following, status: FollowStatus | NotebookFollow | None
) -> AbstractAsyncContextManager[None]:
    """Show the health of a follow again and again until the block is left."""
    if status is None:
        return nullcontext()
    return repeating(lambda: status.show(following.health()), status.period, anyio.sleep_forever)
