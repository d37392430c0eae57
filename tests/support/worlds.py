"""Set-ups for tests of whole runs: an exchange, its true rows, and a pipeline that fetches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import attrs
import numpy as np

from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.api.pipeline import Pipeline
from marketfetch.events import Event, Listener
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sink, Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry
from marketfetch.reports import Report
from marketfetch.sinks.merging import merge
from marketfetch.testing import Market, SimulatedExchange, Window
from marketfetch.values.pages import Columns
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from marketfetch.values.times import parse_time

VENUES: dict[str, type[Exchange]] = {
    kind.name: kind for kind in (BinanceUsdm, BinanceSpot, Okx, BinanceCoinm)
}
_IN_DOLLARS = ("quote_volume", "taker_buy_quote_volume", "open_interest_value")
"""Columns that are NULL for coin-margined contracts."""
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def span_of(start: str, end: str) -> Span:
    """Return the span between two dates."""
    return Span(parse_time("start", start, 0), parse_time("end", end, 0))


def truth(market: Market, series: Series, span: Span, symbol: str | None = None) -> Columns:
    """Return the true rows of a series: those that a store should hold after a complete run."""
    table = market.rows(
        series.dataset.name, symbol or series.symbol, series.interval, Window(span.start, span.end)
    )
    columns, nothing = table.floats(), np.full(len(table), np.nan)
    if "special" in columns:
        # The exchange marks special events; in stored rows their rate is a separate column.
        special, rate = columns["special"] == 1, columns["funding_rate"]
        columns["special_funding_rate"] = np.where(special, rate, np.nan)
        columns["funding_rate"] = np.where(special, np.nan, rate)
    if series.exchange == "binance-coinm":
        columns |= dict.fromkeys(_IN_DOLLARS, nothing)
        if "buy_volume" in columns:
            columns["buy_sell_ratio"] = columns["buy_volume"] / columns["sell_volume"]
    values = np.array([columns.get(name, nothing) for name in series.dataset.names])
    rows = Columns(table.times, values.reshape(len(series.dataset.names), len(table)))
    return (
        merge([rows.take(slice(at, at + 1)) for at in range(len(rows))], series.dataset)
        if "special" in columns
        else rows
    )


def assert_same(found: Columns, expected: Columns) -> None:
    """Assert that times and values are equal bit by bit, with NULL where NULL is expected."""
    np.testing.assert_array_equal(found.times, expected.times)
    np.testing.assert_array_equal(found.values, expected.values)


def assert_holds(store: Store, market: Market, series: Series, span: Span) -> None:
    """Assert that a store holds exactly the true rows of a span, and covers all of it."""
    assert_same(store.read(series, span), truth(market, series, span))
    assert not store.coverage([series])[series].missing(span)


@attrs.define
class World:
    """A simulated exchange, and the events of the runs against it."""

    exchange: SimulatedExchange
    venue: str = "binance-usdm"
    settings: Settings = attrs.field(factory=lambda: Settings(concurrency=8))
    events: list[Event] = attrs.field(factory=list)
    listeners: list[Listener] = attrs.field(factory=list)
    registry: Registry | None = None
    """A registry with another clock than that of the machine."""

    def pipeline(self, sink: Sink | None, *, proxies: Sequence[str] = (), **query: Any) -> Pipeline:
        """Return a pipeline from this exchange into a sink; by default it fetches one day of one symbol."""
        asked = {"symbols": ["BTCUSDT"], "interval": "1m", "start": "2026-06-01", "end": "2026-06-02"} | query
        return Pipeline(
            VENUES[self.venue](self.exchange.base_url),
            Query(**asked),
            sink,
            proxies=RotatingProxies(proxies, direct=not proxies, registry=self.registry),
            fetcher=CurlFetcher(certificate=self.exchange.certificate),
            settings=self.settings,
            listeners=[self.events.append, *self.listeners],
        )

    def asked(self, path: str = "") -> int:
        """Return the number of requests whose path ends with `path`."""
        return sum(seen.path.endswith(path) for seen in self.exchange.request_log.latest)

    def events_of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def run(pipeline: Pipeline) -> Report:
    """Run a pipeline on a new event loop: simulators and proxies cannot be started inside one."""
    return anyio.run(pipeline.run)


def at(text: str) -> Callable[[], int]:
    """Return a clock that always shows the same time."""
    now = parse_time("now", text, 0)
    return lambda: now
