"""Before the first page: the server's clock, the listing, and an account for every series wanted."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import attrs

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.instrument_index import InstrumentIndex
from marketfetch.engine.missing import MAX_CLOCK_SKEW
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import RunState, SeriesState
from marketfetch.errors import AdapterError, ConfigurationError, DecodeError, unknown
from marketfetch.events import ClockSkewDetected, Listener, SymbolUnknown
from marketfetch.exchange import Exchange
from marketfetch.planning.adapter_checks import check_instruments, check_requests
from marketfetch.protocols import Sink, Store
from marketfetch.redaction import redact
from marketfetch.values.coverage import Coverage
from marketfetch.values.http import Response
from marketfetch.values.instruments import Instrument
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP

__all__ = [
    "ClockOffset",
    "ResolvedSeries",
    "SeriesResolver",
    "check_query",
    "fetch_instruments",
    "fetch_server_time",
    "read_time",
]


def check_query(query: Query, exchange: Exchange, now: int) -> None:
    """Refuse a query that is certain to fail at an exchange, before anything is sent; ConfigurationError."""
    if query.span(now).end > now + 1000:
        raise ConfigurationError(f"end: {query.end} is in the future; leave it out or write now")
    if isinstance(query.symbols, tuple) and not all(query.symbols):
        raise ConfigurationError("symbols: an empty name is none; leave it out")
    if any(redact(name) != name for name in _names_in(query)):
        raise ConfigurationError("symbols: one of the names is an address with credentials; name symbols")
    if not query.symbols and not query.composites:
        raise ConfigurationError("symbols: none given; name some, or ask for AllSymbols(quote='USDT')")
    if not query.datasets:
        raise ConfigurationError("datasets: none given; name some, such as ohlcv")
    if query.interval.is_event and not all(dataset.event for dataset in query.datasets):
        raise ConfigurationError("interval: 'event' is for datasets of events; write 1m or like it")
    for dataset in query.datasets:
        exchange.endpoint(dataset).check_interval(query.interval)
    _check_composites(query)


def _names_in(query: Query) -> Iterator[str]:
    """Return every name in a query: messages and reports repeat them."""
    yield from [query.symbols.quote or ""] if isinstance(query.symbols, AllSymbols) else query.symbols
    for composite in query.composites:
        yield from (composite.symbol, *composite.members)


def _check_composites(query: Query) -> None:
    names = [composite.symbol for composite in query.composites]
    if names and "ohlcv" not in {dataset.name for dataset in query.datasets}:
        raise ConfigurationError("composites: are made of ohlcv; add it to the datasets")
    if len(set(names)) != len(names):
        raise ConfigurationError("composites: two of them have the same name; rename one")
    for composite in query.composites:
        name, members = composite.symbol, composite.members
        if len(members) < 2 or len(set(members)) != len(members):
            raise ConfigurationError(f"composites: {name} needs two or more different members")
        if name in members or (isinstance(query.symbols, tuple) and name in query.symbols):
            raise ConfigurationError(f"composites: {name} is the name of a symbol; choose another")
        if nested := set(members).intersection(names):
            raise ConfigurationError(
                f"composites: {name} has the composite {min(nested)} as a member; name its members instead"
            )


@attrs.frozen
class ClockOffset:
    """How far the server's clock is ahead of ours (ms, at least), and the seconds a small reply takes."""

    ahead: int = 0
    latency: float = 0.1

    @property
    def offset(self) -> int:
        """What to add to our clock to have the earlier of the two: by it nothing is closed too soon."""
        return min(0, self.ahead)


@attrs.frozen(eq=False)
class ResolvedSeries:
    """Who takes part: accounts of series to fetch and of composites to compute, and their instruments."""

    fetched: Sequence[SeriesState] = ()
    composites: Sequence[tuple[SeriesState, tuple[Series, ...]]] = ()
    instruments: dict[str, Instrument] = attrs.field(factory=dict)


async def fetch_server_time(executor: RequestExecutor) -> ClockOffset:
    """Ask the exchange what time it is; exchanges without a clock are believed to share ours.

    A clock that is minutes away from ours is asked once more: a single server may have told nonsense.
    """
    exchange = executor.exchange
    request = exchange.time_request()
    if request is None:
        return ClockOffset()

    def read(response: Response) -> ClockOffset:
        # The server read its clock at some moment before now. Taking that for now is behind the truth by a
        # reply's way, and never ahead of it: a candle that is still forming must not be taken for closed.
        ahead = read_time(exchange, response.body) - executor.settings.clock()
        return ClockOffset(ahead, (response.received_at - response.sent_at) / 1000)

    told, _ = await executor.send(request, read)
    if abs(told.ahead) > MAX_CLOCK_SKEW:
        again, _ = await executor.send(request, read)
        told = min(told, again, key=lambda each: abs(each.ahead))
    if abs(told.ahead) > MAX_CLOCK_SKEW:
        executor.emit(ClockSkewDetected(told.ahead))
    return told


def read_time(exchange: Exchange, body: bytes) -> int:
    """Read the server's clock, UTC milliseconds; DecodeError if it says what no calendar can write."""
    moment: object = exchange.decode_time(body)
    if not isinstance(moment, int):
        raise AdapterError(
            f"{type(exchange).__name__}.decode_time: found {reprlib.repr(moment)} ({type(moment).__name__});"
            " return UTC milliseconds as int"
        )
    if not 0 <= moment < MAX_TIMESTAMP:
        shown = reprlib.repr(moment)
        raise DecodeError(f"{exchange.name} says that it is {shown}, which is no time in milliseconds")
    return moment


async def fetch_instruments(executor: RequestExecutor, query: Query) -> InstrumentIndex:
    """Ask the exchange for its symbols; without a listing every name is believed.

    A listing that may lack symbols is asked for twice, and what either answer holds is listed.
    """
    listing = InstrumentIndex.of(once := await _fetch_listing_once(executor))
    if not executor.exchange.listing_requests() or _has_all(listing, query):
        return listing
    return InstrumentIndex.of((*await _fetch_listing_once(executor), *once))


def _has_all(listing: InstrumentIndex, query: Query) -> bool:
    """Whether a listing knows every name of a query; which are all of them only the listing itself knows."""
    if isinstance(query.symbols, AllSymbols) or not listing.by_symbol:
        return False
    members = chain.from_iterable(composite.members for composite in query.composites)
    return all(listing.find(name) is not None for name in (*query.symbols, *members))


async def _fetch_listing_once(executor: RequestExecutor) -> tuple[Instrument, ...]:
    def read(response: Response) -> tuple[Instrument, ...]:
        place = f"{type(executor.exchange).__name__}.decode_listing"
        return tuple(check_instruments(place, executor.exchange.decode_listing(response.body)))

    instruments: list[Instrument] = []
    place = f"{type(executor.exchange).__name__}.listing_requests"
    for request in check_requests(place, executor.exchange.listing_requests()):
        part, _ = await executor.send(request, read)
        instruments += part
    return tuple(instruments)


@attrs.frozen(eq=False)
class SeriesResolver:
    """Opens an account for every series that a query wants, with what the sink already knows of it."""

    query: Query
    exchange: Exchange
    sink: Sink
    state: RunState
    retrier: StoreRetrier
    emit: Listener
    retry_unusable: bool = False
    """Whether moments that are unusable by what the sink knows are missing all the same."""

    async def resolve(self, listing: InstrumentIndex) -> ResolvedSeries:
        """Fill the books; symbols that the listing does not know are reported and stand for themselves."""
        query, run_state = self.query, self.state
        instruments: dict[str, Instrument] = {}

        def spell(name: str) -> str:
            instrument = listing.find(name)
            if instrument is None:
                self._unknown(name, listing.hint(name))
                return name
            instruments[instrument.symbol] = instrument
            return instrument.symbol

        names = self._all(listing, query.symbols) if isinstance(query.symbols, AllSymbols) else query.symbols
        wanted = [self._series(dataset.name, spell(name)) for dataset in query.datasets for name in names]
        members = [
            tuple(self._series("ohlcv", spell(name)) for name in each.members) for each in query.composites
        ]
        derived = [self._series("ohlcv", composite.symbol) for composite in query.composites]

        self._check_composites(listing, members)
        fetched = dict.fromkeys((*wanted, *chain.from_iterable(members)))
        held = await self._held((*fetched, *derived))
        run_state.series = {
            line: SeriesState(line, known, self.retry_unusable) for line, known in held.items()
        }
        for series in fetched:
            run_state.series[series].terminal_error = run_state.unknown.get(series.symbol)
        composites = [
            (run_state.series[line], sources) for line, sources in zip(derived, members, strict=True)
        ]
        return ResolvedSeries([run_state.series[series] for series in fetched], composites, instruments)

    def _all(self, listing: InstrumentIndex, wanted: AllSymbols) -> list[str]:
        names = listing.all(wanted)
        if names:
            return names
        if not listing.by_symbol:
            raise ConfigurationError(f"symbols: {self.exchange.name} publishes no listing; name some symbols")
        if wanted.quote is not None and wanted.quote not in listing.quotes:
            raise unknown("quote", wanted.quote, listing.quotes)
        which = f"no symbol quoted in {wanted.quote}" if wanted.quote else "no symbol"
        raise ConfigurationError(
            f"symbols: {which} trades at {self.exchange.name} now; name some, or try again later"
        )

    def _check_composites(self, listing: InstrumentIndex, members: Sequence[tuple[Series, ...]]) -> None:
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
        if name not in self.state.unknown:
            self.state.unknown[name] = hint
            self.emit(SymbolUnknown(name, hint))

    async def _held(self, wanted: Sequence[Series]) -> Mapping[Series, Coverage]:
        if not isinstance(self.sink, Store):
            return {series: Coverage() for series in wanted}
        return await self.retrier.call_in_thread(partial(self.sink.coverage, wanted))
