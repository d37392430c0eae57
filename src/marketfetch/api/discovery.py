"""Discovery: which instruments, datasets and intervals an exchange has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import fetcher_of, pool_of, settings_of
from marketfetch.api.pipeline import NullSink
from marketfetch.api.plugins import exchange_from
from marketfetch.api.run_sync import run_sync
from marketfetch.common.html import html_page, html_table
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.text import pluralize
from marketfetch.common.type_checks import is_text
from marketfetch.engine.discovery import fetch_instruments
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.session import SessionState
from marketfetch.engine.state import RunState
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.listeners.dispatch import Listeners
from marketfetch.protocols import Board, Fetcher, ProxyPool
from marketfetch.redaction import Secret, redact
from marketfetch.sources import Endpoint
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import KINDS, Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.settings import Settings
from marketfetch.values.spans import format_utc

__all__ = ["Instruments", "datasets", "instruments", "intervals"]

_HEAD = ("symbol", "unified", "kind", "active", "listed", "last day")
_MAX_SHOWN = 20


class Instruments(tuple[Instrument, ...]):
    """A list of instruments, sorted by symbol; it is shown as a table.

    >>> found = Instruments([Instrument("ETHUSDT", "ETH", "USDT"), Instrument("BTCUSDT", "BTC", "USDT")])
    >>> found.symbols
    ['BTCUSDT', 'ETHUSDT']
    >>> found
    symbol   unified   kind  active  listed  last day
    BTCUSDT  BTC/USDT  spot  yes     –       –
    ETHUSDT  ETH/USDT  spot  yes     –       –
    """

    __slots__ = ()

    def __new__(cls, found: Iterable[Instrument]) -> Self:
        """Sort the instruments by symbol."""
        return super().__new__(cls, sorted(found, key=lambda each: each.symbol))

    @property
    def symbols(self) -> list[str]:
        """The exchange symbols, which `fetch` and `Query` take."""
        return [each.symbol for each in self]

    def as_list(self) -> list[dict[str, Any]]:
        """Return the instruments in plain types, times as ISO text or None, for JSON and DataFrames."""
        return [
            {
                "symbol": each.symbol,
                "unified": each.unified,
                "base": each.base,
                "quote": each.quote,
                "settle": each.settle,
                "kind": each.kind,
                "active": each.active,
                "listed_at": None if each.listed_at is None else format_utc(each.listed_at),
                "delisted_at": None if each.delisted_at is None else format_utc(each.delisted_at),
            }
            for each in self
        ]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table: symbol, unified, kind, active, first day, last day."""
        return [
            (
                each.symbol,
                each.unified,
                each.kind,
                "yes" if each.active else "no",
                *(
                    format_utc(at)[:10] if at is not None else "–"
                    for at in (each.listed_at, each.delisted_at)
                ),
            )
            for each in self
        ]

    def __repr__(self) -> str:
        lines = [_HEAD, *self.rows()[:_MAX_SHOWN]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*text, *([f"… {len(self):,} instruments"] if len(self) > _MAX_SHOWN else [])])

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        first = f", of which these are the first {_MAX_SHOWN}" if len(self) > _MAX_SHOWN else ""
        table = html_table(_HEAD, self.rows()[:_MAX_SHOWN])
        return html_page(pluralize(len(self), "instrument") + first, table)


def datasets(exchange: str | Exchange | type[Exchange]) -> list[str]:
    """Return the names of the datasets that an exchange serves, sorted; no request is made.

    Raises ConfigurationError, with near matches, for an unknown exchange.

    >>> datasets("binance-spot")
    ['ohlcv']
    """
    return sorted(_endpoints(exchange))


def intervals(exchange: str | Exchange | type[Exchange], dataset: str | Dataset = "ohlcv") -> list[str]:
    """Return the names of the intervals in which an exchange serves a dataset, shortest first.

    No request is made. An event dataset, such as `funding_rate`, has the one interval `event`. Raises
    ConfigurationError, with near matches, for a dataset that the exchange does not serve.

    >>> intervals("okx", "funding_rate"), intervals("okx")[:3]
    (['event'], ['1s', '1m', '3m'])
    """
    served = _endpoints(exchange)
    name = Dataset.parse(dataset).name
    if name not in served:
        raise unknown(f"dataset of {exchange_from(exchange).name}", name, served)
    if Dataset.parse(name).event:
        return ["event"]
    return sorted(served[name].intervals, key=lambda each: Interval.parse(each).typical)


@checks_keywords
def instruments(  # noqa: PLR0913  # the filters, and the parts of a pipeline that send a request
    exchange: str | Exchange | type[Exchange],
    *,
    quote: str | None = None,
    kind: Literal["spot", "perpetual", "future"] | None = None,
    active: bool | None = True,
    pattern: str | None = None,
    base_url: str | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    board: Board | str | None = "auto",
) -> Instruments:
    """Request the listing of an exchange once and return its instruments, sorted by symbol.

    `quote` selects a quote currency, `kind` spot pairs, perpetual contracts or futures with a last day.
    `active=True` selects what is traded now, False the rest, None both. `pattern` is a glob such as `BTC*`,
    compared with the exchange symbol and the unified name in any case. The other arguments are those of
    `Pipeline`. Blocks; works in scripts and notebooks.

    Raises ConfigurationError, with near matches, for a filter that cannot mean anything (before a request),
    for a quote currency that the listing does not have, and for an exchange that publishes no listing; a
    FetchError if the listing cannot be fetched.

    >>> from marketfetch.testing import GeneratedMarket, SimulatedExchange
    >>> with SimulatedExchange(GeneratedMarket(["ETHUSDT", "BTCUSDT", "BTCUSDC"])) as simulated:
    ...     instruments("binance-usdm", pattern="btc*", base_url=simulated.base_url).symbols
    ['BTCUSDC', 'BTCUSDT']
    """
    _check_filters(quote, kind, active, pattern)
    client, used = fetcher_of(fetcher), settings_of(settings)
    venue = exchange_from(exchange, base_url)
    if not venue.listing_requests():
        raise ConfigurationError(f"exchange: {venue.name} publishes no listing of instruments")
    executor = RequestExecutor(
        venue,
        client,
        pool_of(proxies),
        used,
        RunState(),
        Listeners(listeners).emit,
    )
    sharing = sharing_of(board, NullSink())

    async def ask() -> tuple[Instrument, ...]:
        async with SessionState(executor.pool, executor.fetcher).connected(sharing):
            return await fetch_instruments(executor)

    found = run_sync(ask)
    quotes = {each.quote for each in found}
    if quote is not None and quote not in quotes:
        raise unknown("quote", quote, quotes)
    glob = None if pattern is None else pattern.upper()
    return Instruments(
        each
        for each in found
        if quote in {None, each.quote}
        and kind in {None, each.kind}
        and active in {None, each.active}
        and (glob is None or any(fnmatchcase(name.upper(), glob) for name in (each.symbol, each.unified)))
    )


def _endpoints(exchange: str | Exchange | type[Exchange]) -> dict[str, type[Endpoint]]:
    sources = exchange_from(exchange).sources
    return {kind.dataset: kind for kind in sources if issubclass(kind, Endpoint)}


def _check_filters(quote: object, kind: object, active: object, pattern: object) -> None:
    for name, value, like in (("quote", quote, "'USDT'"), ("pattern", pattern, "'BTC*'")):
        if value is not None and not (is_text(value) and value):
            raise ConfigurationError(f"{name}: must be text such as {like}, not {redact(repr(value))}")
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if active is not None and not isinstance(active, bool):
        raise ConfigurationError(f"active: {redact(repr(active))} is neither True, False nor None")
