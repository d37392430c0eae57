"""`fetch`: one blocking call from names to a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marketfetch.engine.query import Everything, Query, Settings
from marketfetch.errors import ConfigurationError
from marketfetch.exchange import Exchange
from marketfetch.face.pipeline import Pipeline
from marketfetch.face.plugins import exchange_from
from marketfetch.face.portal import blocking
from marketfetch.face.tables import Table
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink, Store
from marketfetch.proxies.rotating import RotatingProxies
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.urls import sink_from
from marketfetch.values.datasets import Dataset
from marketfetch.values.events import Listener
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Composite
from marketfetch.values.times import Moment

__all__ = ["fetch"]


def fetch(  # noqa: PLR0913  # the one door for notebooks: every part may be replaced in the call
    exchange: str | Exchange,
    dataset: str | Dataset = "ohlcv",
    symbols: str | Iterable[str] | Everything = (),
    *,
    start: Moment,
    end: Moment = "now",
    interval: str | Interval = "1m",
    to: str | Sink | None = None,
    proxies: ProxyPool | Iterable[str] | str | None = None,
    composites: Iterable[Composite] = (),
    base_url: str | None = None,
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    board: Board | str | None = "auto",
) -> Table:
    """Fetch what is missing and return the rows as a Table; works in scripts and in notebooks.

    `symbols` in the exchange's spelling or the unified one; `start` and `end` are half-open, see `Query`.
    `to` is a store (`"duckdb:market.duckdb"` or a Store object) that keeps the rows: what it holds already
    is not fetched again. Without it rows stay in memory. `proxies` is a pool or a list of URLs, used beside
    the direct connection; what calls before it, or other processes, have spent of the same addresses is known
    (`board`, see `Pipeline`).

    Raises ConfigurationError for a wrong call (nothing was sent), and the MarketfetchError that made going on
    pointless. A table that lacks something is no error: ask `table.report.complete`.

    >>> fetch("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-02", end="2026-06-01")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: start: 2026-06-02T00:00:00Z is not before end 2026-06-01T00:00:00Z
    """
    store, kind = _store(to), Dataset.parse(dataset)
    query = Query(
        symbols=symbols,
        datasets=kind,
        interval=interval,
        start=start,
        end=end,
        composites=composites,
    )
    venue = exchange_from(exchange, base_url)
    urls = (proxies,) if isinstance(proxies, str) else proxies
    pool = RotatingProxies(urls) if isinstance(urls, Iterable) else urls
    pipeline = Pipeline(
        venue,
        query,
        store,
        proxies=pool,
        fetcher=fetcher,
        settings=settings,
        listeners=listeners,
        board=board,
    )
    report = blocking(pipeline.run)
    rows = {line.series: store.read(line.series, line.wanted) for line in report.series}
    return Table(kind, rows, report)


def _store(to: str | Sink | None) -> Store:
    sink = MemorySink() if to is None else sink_from(to) if isinstance(to, str) else to
    if not isinstance(sink, Store):
        raise ConfigurationError(f"to: {type(sink).__name__} cannot be read back; use Pipeline, or a store")
    return sink
