"""Before the first page: the server's clock, the listing, and an account for every series wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import attrs

from marketfetch.planning.adapter_checks import check_instruments, check_requests
from marketfetch.engine.state import Account, Books
from marketfetch.engine.requester import Asker
from marketfetch.engine.store_retry import Patience
from marketfetch.engine.query import Everything, Query
from marketfetch.engine.instrument_index import Listing
from marketfetch.engine.missing import APART
from marketfetch.errors import AdapterError, ConfigurationError, DecodeError, unknown
from marketfetch.exchange import Exchange
from marketfetch.protocols import Sink, Store
from marketfetch.events import ClockDiffers, Listener, SymbolUnknown
from marketfetch.values.http import Response
from marketfetch.values.series import Coverage, Instrument, Series
from marketfetch.values.spans import BEYOND

__all__ = ["Enrolment", "Roll", "ServerTime", "ask_listing", "ask_time", "read_time"]


@attrs.frozen
class ServerTime:
    """How far the server's clock is ahead of ours (ms, at least), and the seconds a small reply takes."""

    ahead: int = 0
    latency: float = 0.1

    @property
    def offset(self) -> int:
        """What to add to our clock to have the earlier of the two: by it nothing is closed too soon."""
        return min(0, self.ahead)


@attrs.frozen(eq=False)
class Roll:
    """Who takes part: accounts of series to fetch and of composites to compute, and their instruments."""

    fetched: Sequence[Account] = ()
    composites: Sequence[tuple[Account, tuple[Series, ...]]] = ()
    instruments: dict[str, Instrument] = attrs.field(factory=dict)


async def ask_time(asker: Asker) -> ServerTime:
    """Ask the exchange what time it is; exchanges without a clock are believed to share ours.

    A clock that is minutes away from ours is asked once more: a single server may have told nonsense.
    """
    exchange = asker.exchange
    request = exchange.time_request()
    if request is None:
        return ServerTime()

    def read(response: Response) -> ServerTime:
        # The server read its clock at some moment before now. Taking that for now is behind the truth by a
        # reply's way, and never ahead of it: a candle that is still forming must not be taken for closed.
        ahead = read_time(exchange, response.body) - asker.settings.clock()
        return ServerTime(ahead, (response.received_at - response.sent_at) / 1000)

    told, _ = await asker.ask(request, read)
    if abs(told.ahead) > APART:
        again, _ = await asker.ask(request, read)
        told = min(told, again, key=lambda each: abs(each.ahead))
    if abs(told.ahead) > APART:
        asker.emit(ClockDiffers(told.ahead))
    return told


def read_time(exchange: Exchange, body: bytes) -> int:
    """Read the server's clock, UTC milliseconds; DecodeError if it says what no calendar can write."""
    moment: object = exchange.decode_time(body)
    if not isinstance(moment, int):
        raise AdapterError(
            f"{type(exchange).__name__}.decode_time: found {reprlib.repr(moment)} ({type(moment).__name__});"
            " return UTC milliseconds as int"
        )
    if not 0 <= moment < BEYOND:
        shown = reprlib.repr(moment)
        raise DecodeError(f"{exchange.name} says that it is {shown}, which is no time in milliseconds")
    return moment


async def ask_listing(asker: Asker, query: Query) -> Listing:
    """Ask the exchange for its symbols; without a listing every name is believed.

    A listing that may lack symbols is asked for twice, and what either answer holds is listed.
    """
    listing = Listing.of(once := await _ask_listing(asker))
    if not asker.exchange.listing_requests() or _has_all(listing, query):
        return listing
    return Listing.of((*await _ask_listing(asker), *once))


def _has_all(listing: Listing, query: Query) -> bool:
    """Whether a listing knows every name of a query; which are all of them only the listing itself knows."""
    if isinstance(query.symbols, Everything) or not listing.by_symbol:
        return False
    members = chain.from_iterable(composite.members for composite in query.composites)
    return all(listing.find(name) is not None for name in (*query.symbols, *members))


async def _ask_listing(asker: Asker) -> tuple[Instrument, ...]:
    def read(response: Response) -> tuple[Instrument, ...]:
        place = f"{type(asker.exchange).__name__}.decode_listing"
        return tuple(check_instruments(place, asker.exchange.decode_listing(response.body)))

    instruments: list[Instrument] = []
    place = f"{type(asker.exchange).__name__}.listing_requests"
    for request in check_requests(place, asker.exchange.listing_requests()):
        part, _ = await asker.ask(request, read)
        instruments += part
    return tuple(instruments)


@attrs.frozen(eq=False)
class Enrolment:
    """Opens an account for every series that a query wants, with what the sink already knows of it."""

    query: Query
    exchange: Exchange
    sink: Sink
    books: Books
    patience: Patience
    emit: Listener
    retry: bool = False
    """Whether moments that are unusable by what the sink knows are missing all the same."""

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
        books.accounts = {line: Account(line, known, self.retry) for line, known in held.items()}
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
        return await self.patience.wait_for(partial(self.sink.coverage, wanted))
