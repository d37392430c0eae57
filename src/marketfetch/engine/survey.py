"""Before the first page: the server's clock, the listing, and an account for every series wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import attrs
from anyio import to_thread

from marketfetch.engine.account import Account, Books
from marketfetch.engine.asking import Asker
from marketfetch.engine.query import Everything, Query
from marketfetch.engine.symbols import Listing
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.exchange import Exchange
from marketfetch.protocols import Sink, Store
from marketfetch.values.events import Listener, SymbolUnknown
from marketfetch.values.http import Response
from marketfetch.values.series import Coverage, Instrument, Series
from marketfetch.values.spans import SpanSet

__all__ = ["Enrolment", "Roll", "ServerTime", "ask_listing", "ask_time"]


@attrs.frozen
class ServerTime:
    """How far the server's clock is ahead of ours (ms, at least), and the seconds a small reply takes."""

    offset: int = 0
    latency: float = 0.1


@attrs.frozen(eq=False)
class Roll:
    """Who takes part: accounts of series to fetch and of composites to compute, and their instruments."""

    fetched: Sequence[Account] = ()
    composites: Sequence[tuple[Account, tuple[Series, ...]]] = ()
    instruments: dict[str, Instrument] = attrs.field(factory=dict)


async def ask_time(asker: Asker) -> ServerTime:
    """Ask the exchange what time it is; exchanges without a clock are believed to share ours."""
    exchange = asker.exchange
    request = exchange.time_request()
    if request is None:
        return ServerTime()

    def read(response: Response) -> ServerTime:
        # The server read its clock at some moment before now. Taking that for now is behind the truth by a
        # reply's way, and never ahead of it: a candle that is still forming must not be taken for closed.
        offset = exchange.decode_time(response.body) - asker.settings.clock()
        return ServerTime(offset, (response.received_at - response.sent_at) / 1000)

    server_time, _ = await asker.ask(request, read)
    return server_time


async def ask_listing(asker: Asker) -> Listing:
    """Ask the exchange for its symbols; without a listing every name is believed."""

    def read(response: Response) -> tuple[Instrument, ...]:
        return tuple(asker.exchange.decode_listing(response.body))

    instruments: list[Instrument] = []
    for request in asker.exchange.listing_requests():
        part, _ = await asker.ask(request, read)
        instruments += part
    return Listing.of(instruments)


@attrs.frozen(eq=False)
class Enrolment:
    """Opens an account for every series that a query wants, with what the sink already knows of it."""

    query: Query
    exchange: Exchange
    sink: Sink
    books: Books
    emit: Listener

    async def enrol(self, listing: Listing) -> Roll:
        """Fill the books; symbols that the listing does not know are reported and stand for themselves."""
        query, books = self.query, self.books
        instruments: dict[str, Instrument] = {}

        def spell(name: str) -> str:
            instrument = listing.find(name)
            if instrument is None:
                self._unknown(name, listing.hint(name))
                return name
            instruments[instrument.symbol] = instrument
            return instrument.symbol

        names = self._all(listing, query.symbols) if isinstance(query.symbols, Everything) else query.symbols
        wanted = [self._series(dataset.name, spell(name)) for dataset in query.datasets for name in names]
        members = [
            tuple(self._series("ohlcv", spell(name)) for name in each.members) for each in query.composites
        ]
        derived = [self._series("ohlcv", composite.symbol) for composite in query.composites]

        self._check_composites(listing, members)
        fetched = dict.fromkeys((*wanted, *chain.from_iterable(members)))
        held = await self._held((*fetched, *derived))
        books.accounts = {line: Account(line, SpanSet(), known, known) for line, known in held.items()}
        for series in fetched:
            books.accounts[series].failed = books.unknown.get(series.symbol)
        composites = [(books.accounts[line], sources) for line, sources in zip(derived, members, strict=True)]
        return Roll([books.accounts[series] for series in fetched], composites, instruments)

    def _all(self, listing: Listing, wanted: Everything) -> list[str]:
        names = listing.all(wanted)
        if not names and wanted.quote is not None:
            raise unknown("quote", wanted.quote, listing.quotes)
        return names

    def _check_composites(self, listing: Listing, members: Sequence[tuple[Series, ...]]) -> None:
        """Refuse what only the listing shows: a composite that is a symbol, a member that is meant twice."""
        for composite, sources in zip(self.query.composites, members, strict=True):
            if listing.by_symbol and listing.find(composite.symbol) is not None:
                raise ConfigurationError(
                    f"composites: {composite.symbol} is a symbol of {self.exchange.name}"
                )
            if len(set(sources)) != len(sources):
                raise ConfigurationError(f"composites: {composite.symbol} has the same member twice")

    def _series(self, dataset: str, symbol: str) -> Series:
        return Series.of(self.exchange.name, dataset, symbol, self.query.interval)

    def _unknown(self, name: str, hint: str) -> None:
        if name not in self.books.unknown:
            self.books.unknown[name] = hint
            self.emit(SymbolUnknown(name, hint))

    async def _held(self, wanted: Sequence[Series]) -> Mapping[Series, Coverage]:
        if not isinstance(self.sink, Store):
            return {series: Coverage() for series in wanted}
        return await to_thread.run_sync(self.sink.coverage, wanted)
