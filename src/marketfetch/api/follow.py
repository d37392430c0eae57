"""`follow`: one blocking call that keeps a store up to date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal

from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.api.run_sync import run_sync
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.following.health import SeriesHealth
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink
from marketfetch.redaction import Secret
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.settings import Settings
from marketfetch.values.times import TimeLike

__all__ = ["follow"]


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
) -> tuple[SeriesHealth, ...]:
    """Fill a store from `start` on and keep it up to date until Ctrl-C; return the last health of the series.

    The arguments are those of `fetch` and `Pipeline`; `Pipeline.follow` says what is stored when. Raises
    ConfigurationError for a wrong call, and RestrictedLocation if the exchange refuses this location.

    >>> follow("binance-usdm", "ohlcv", "BTCUSDT", to="memory:", start="2026-06-01", sources="archive")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: sources: files come days late; to follow write sources='auto' or \
'rest'
    """
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
        listeners=listeners,
        board=board,
    )
    last: tuple[SeriesHealth, ...] = ()

    async def run() -> None:
        nonlocal last
        async with pipeline.follow() as following:
            try:
                await following.wait()
            finally:
                last = following.health()

    with suppress(KeyboardInterrupt):
        run_sync(run)
    return last
