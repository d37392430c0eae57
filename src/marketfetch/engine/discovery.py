"""Before the first page: check the query, request the server's clock and the listing, name the series."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import attrs

from marketfetch.adapter_checks.results import check_instruments, check_next_request, check_requests
from marketfetch.archives.listing import ListingRequest
from marketfetch.engine.archives.files import list_pages, send_to_archive
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.composites import CompositeOhlcv
from marketfetch.engine.missing import MAX_CLOCK_SKEW
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.session import SessionState
from marketfetch.engine.state import RunState, SeriesState
from marketfetch.errors import (
    AdapterError,
    ConfigurationError,
    DecodeError,
    FetchError,
    PaginationError,
    RestrictedLocation,
    unknown,
)
from marketfetch.events import ClockSkewDetected, Listener, SymbolUnknown
from marketfetch.exchange import Exchange
from marketfetch.planning.instrument_index import InstrumentIndex
from marketfetch.protocols import Sink, Store
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.redaction import redact
from marketfetch.sources import Archive, DerivedSource
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.http import Request, Response
from marketfetch.values.instruments import Instrument
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP

__all__ = [
    "ResolvedSeries",
    "SeriesResolver",
    "check_query",
    "fetch_instrument_index",
    "fetch_instruments",
    "load_instrument_index",
    "read_time",
    "sync_server_clock",
]


_MAX_LISTING_PAGES = 1_000
"""No exchange has a listing of more pages; a cursor that always changes would never end."""
_MAX_EXPECTED_SKEW = 5_000
"""Milliseconds by which two clocks may differ and confirm each other all the same."""


def check_query(query: Query, exchange: Exchange, now: int) -> None:
    """Raise ConfigurationError for a query that is certain to fail, before any request is made."""
    if query.span(now).end > now + 1000:
        raise ConfigurationError(f"end: {query.end} is in the future; leave it out or write now")
    if isinstance(query.symbols, tuple) and not all(query.symbols):
        raise ConfigurationError("symbols: a name is empty; leave it out")
    if any(redact(name) != name for name in _names_in(query)):
        raise ConfigurationError("symbols: one of the names is an address with credentials; name symbols")
    if not query.symbols and not query.composites:
        raise ConfigurationError("symbols: none given; name some, or ask for AllSymbols(quote='USDT')")
    if not query.datasets:
        raise ConfigurationError("datasets: none given; name some, such as ohlcv")
    if query.interval.is_event and not all(dataset.event for dataset in query.datasets):
        raise ConfigurationError("interval: 'event' is for datasets of events; write one such as '1m'")
    for dataset in query.datasets:
        exchange.endpoint(dataset).check_interval(query.interval)
    if isinstance(query.symbols, AllSymbols) and query.symbols.delisted:
        _check_delisted(query, exchange)
    _check_composites(query)


def _check_delisted(query: Query, exchange: Exchange) -> None:
    if query.sources == "rest":
        raise ConfigurationError(
            "delisted: the rows of delisted symbols are in files alone; write sources='auto' or 'archive'"
        )
    if not _symbol_folder_requests(query, exchange):
        datasets = ", ".join(map(str, query.datasets))
        raise ConfigurationError(
            f"delisted: {exchange.name} at {exchange.base_url} has no archive that lists the symbols of"
            f" {datasets}; leave it out{exchange.where_files_are(query.datasets)}"
        )


def _symbol_folder_requests(query: Query, exchange: Exchange) -> dict[ListingRequest, Archive]:
    """Return the listings of symbols in the archives of a query, each once."""
    archives = [archive for dataset in query.datasets if (archive := exchange.archive(dataset))]
    found = ((archive.symbols_listing(), archive) for archive in archives)
    return {listing: archive for listing, archive in found if listing is not None}


def _names_in(query: Query) -> Iterator[str]:
    """Yield every name in a query: messages and reports quote them."""
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


@attrs.frozen(eq=False)
class ResolvedSeries:
    """The series of a run: a derived one comes after all its inputs."""

    states: Sequence[SeriesState] = ()
    instruments: dict[str, Instrument] = attrs.field(factory=dict)
    """By symbol."""

    @property
    def fetched(self) -> Sequence[SeriesState]:
        """The series whose rows the exchange has."""
        return [state for state in self.states if state.derived is None]

    @property
    def derived(self) -> Sequence[tuple[SeriesState, DerivedSource]]:
        """The series whose rows are computed from the store, each with its source."""
        return [(state, state.derived) for state in self.states if state.derived is not None]


async def sync_server_clock(executor: RequestExecutor, clock: ServerClock) -> int:
    """Set the server's clock, and return how many milliseconds it is ahead of the local one, at least.

    The result is negative if it is behind. The time is requested if the clock is not known well enough.
    An exchange without a time request counts as having the local time.

    1. The clock is confirmed and agrees with the local time: no request.
    2. Else one request; a second one if answers contradict each other, or the exchange's time is minutes away
       from the local one, since one server may have a wrong clock.
    3. A third one if the two contradict each other: two of three decide.
    """
    exchange = executor.exchange
    request = exchange.time_request()
    if request is None:
        return 0

    def ahead() -> int:
        return clock.earliest_accepted(clock.local()) - executor.settings.clock()

    for tolerance in (_MAX_EXPECTED_SKEW, MAX_CLOCK_SKEW, MAX_TIMESTAMP):
        if clock.confirmed and abs(ahead()) <= tolerance:
            break
        sent = clock.local()  # a wait for an egress makes the bounds wider, never wrong

        def read(response: Response, sent: int = sent) -> None:
            clock.observe(sent, clock.local(), read_time(exchange, response.body), exact=True)
            clock.latency = (response.received_at - response.sent_at) / 1000

        await executor.send(request, read)
    if abs(ahead()) > MAX_CLOCK_SKEW:
        executor.emit(ClockSkewDetected(ahead()))
    return ahead()


def read_time(exchange: Exchange, body: bytes) -> int:
    """Decode the server's time, UTC milliseconds; DecodeError for a number that is not a time."""
    moment: object = exchange.decode_time(body)
    if not isinstance(moment, int):
        raise AdapterError(
            f"{type(exchange).__name__}.decode_time: found {reprlib.repr(moment)} ({type(moment).__name__});"
            " return UTC milliseconds as int"
        )
    if not 0 <= moment < MAX_TIMESTAMP:
        shown = reprlib.repr(moment)
        raise DecodeError(f"{exchange.name} says that it is {shown}, which is not a time in milliseconds")
    return moment


async def load_instrument_index(
    session: SessionState, executor: RequestExecutor, query: Query
) -> InstrumentIndex:
    """Return the instruments of the exchange; they are requested if unknown or old, or lack a name."""
    now = executor.settings.clock()
    async with session.cached_instruments(executor.exchange, query, now) as cached:
        if cached.instruments is None or _lacks_name(cached.instruments, query):
            cached.instruments, cached.requested = await fetch_instrument_index(executor, query), now
        return cached.instruments


async def fetch_instrument_index(executor: RequestExecutor, query: Query) -> InstrumentIndex:
    """Request the listing of symbols; it is empty where the exchange publishes none.

    A listing that may lack symbols is requested twice, and the symbols of both responses are united. If a
    name is still unknown, or delisted symbols are wanted, the archive is asked which symbols it has.
    """
    index = InstrumentIndex.of(first := await fetch_instruments(executor))
    everything = isinstance(query.symbols, AllSymbols) or not index.by_symbol
    if not executor.exchange.listing_requests() or not (everything or _lacks_name(index, query)):
        return index
    index = InstrumentIndex.of((*await fetch_instruments(executor), *first))
    wants_delisted = isinstance(query.symbols, AllSymbols) and query.symbols.delisted
    if query.sources != "rest" and (wants_delisted or _lacks_name(index, query)):
        return await _add_archived(executor, query, index)
    return index


def _lacks_name(index: InstrumentIndex, query: Query) -> bool:
    """Whether a query names a symbol that a listing does not have."""
    named = () if isinstance(query.symbols, AllSymbols) else query.symbols
    members = chain.from_iterable(composite.members for composite in query.composites)
    return any(index.find(name) is None for name in (*named, *members))


async def _add_archived(executor: RequestExecutor, query: Query, index: InstrumentIndex) -> InstrumentIndex:
    """Add the symbols of the archives to a listing.

    If they cannot be listed, a name remains unknown with a remark, and a run of all delisted symbols fails.
    One listing may lack symbols, so there are two, as for the exchange.
    """
    folders = _symbol_folder_requests(query, executor.exchange)
    symbols: set[str] = set()
    try:
        for request, archive in 2 * [*folders.items()]:
            async for page in list_pages(partial(send_to_archive, executor), archive, request):
                symbols.update(map(archive.symbol_of, page.prefixes))
    except RestrictedLocation:
        raise
    except (FetchError, PaginationError) as error:
        if isinstance(query.symbols, AllSymbols):
            raise
        return attrs.evolve(index, remark=f" (the archive cannot be asked: {type(error).__name__})")
    quote = query.symbols.quote if isinstance(query.symbols, AllSymbols) else None
    return index.with_archived(symbols, quote)


async def fetch_instruments(executor: RequestExecutor) -> tuple[Instrument, ...]:
    """Request every part of the listing once, and each page that follows it.

    Raises PaginationError for a listing that does not end.
    """
    exchange, kind = executor.exchange, type(executor.exchange).__name__
    instruments: list[Instrument] = []
    for first in check_requests(f"{kind}.listing_requests", exchange.listing_requests()):
        request: Request | None = first
        requested: list[Request] = []
        while request is not None:
            if request in requested or len(requested) == _MAX_LISTING_PAGES:
                raise PaginationError(
                    f"{exchange.name}: its listing does not end: after {len(requested)} pages "
                    f"{kind}.next_listing_request asks for {redact(request.url)}"
                )
            requested.append(request)
            read = partial(_read_listing, exchange, request)
            (part, request), _ = await executor.send(request, read)
            instruments += part
    return tuple(instruments)


def _read_listing(
    exchange: Exchange, request: Request, response: Response
) -> tuple[tuple[Instrument, ...], Request | None]:
    """Return the instruments of a page of the listing, and the request for the next page."""
    kind, body = type(exchange).__name__, response.body
    part = tuple(check_instruments(f"{kind}.decode_listing", exchange.decode_listing(body)))
    following = exchange.next_listing_request(request, body)
    return part, check_next_request(f"{kind}.next_listing_request", following)


@attrs.frozen(eq=False)
class SeriesResolver:
    """Names the series that a query wants, and reads what the sink knows of each."""

    query: Query
    exchange: Exchange
    sink: Sink
    state: RunState
    retrier: StoreRetrier
    emit: Listener
    retry_unusable: bool = False
    """Whether moments that the sink calls unusable are fetched again."""
    stored: dict[Series, Coverage] = attrs.field(factory=dict)
    """What the sink knew of each series when it was first named."""

    async def resolve(self, index: InstrumentIndex) -> ResolvedSeries:
        """Make a new state for every series, by the names that the listing gives to their symbols.

        A name that the listing does not have is reported; its series is stopped. The sink is read only for
        series that were not named before: once for each, however often `resolve` is called.
        """
        query, run_state = self.query, self.state
        instruments: dict[str, Instrument] = {}

        def symbol_of(name: str) -> str:
            instrument = index.find(name)
            if instrument is None:
                self._unknown(name, index.hint(name))
                return name
            instruments[instrument.symbol] = instrument
            return instrument.symbol

        names = self._all(index, query.symbols) if isinstance(query.symbols, AllSymbols) else query.symbols
        wanted = [self._series(dataset.name, symbol_of(name)) for dataset in query.datasets for name in names]
        derived = {
            self._series("ohlcv", composite.symbol): CompositeOhlcv(
                tuple(self._series("ohlcv", symbol_of(name)) for name in composite.members)
            )
            for composite in query.composites
        }
        self._check_composites(index, derived)
        fetched = dict.fromkeys((*wanted, *chain.from_iterable(source.inputs for source in derived.values())))
        await self._read_coverage((*fetched, *derived))

        listed_at = {symbol: instrument.listed_at for symbol, instrument in instruments.items()}
        states = run_state.series = {
            series: SeriesState(
                series,
                self.stored[series],
                self.retry_unusable,
                listed_at=listed_at.get(series.symbol),
                derived=derived.get(series),
            )
            for series in (*fetched, *derived)
        }
        for series in fetched:
            if series.symbol in run_state.unknown:
                states[series].stop(Reason(MissingReason.SYMBOL_UNKNOWN, run_state.unknown[series.symbol]))
            elif series.symbol in index.delisted:
                self._take_from_files(states[series])
        return ResolvedSeries([*states.values()], instruments)

    def _take_from_files(self, state: SeriesState) -> None:
        """Mark the series of a delisted symbol; stop it if the exchange has no files of its dataset."""
        state.delisted = True
        series, archive = state.series, self.exchange.archive(state.series.dataset)
        if archive is None or not archive.grains(series.interval):
            text = f"the exchange no longer lists {series.symbol}, and has no files of {series.dataset}"
            state.stop(Reason(MissingReason.DELISTED, text))

    def _all(self, index: InstrumentIndex, wanted: AllSymbols) -> list[str]:
        names = index.all(wanted)
        if names:
            return names
        if not index.by_symbol:
            raise ConfigurationError(f"symbols: {self.exchange.name} publishes no listing; name some symbols")
        if wanted.quote is not None and wanted.quote not in index.quotes:
            raise unknown("quote", wanted.quote, index.quotes)
        which = f"no {wanted.kind or 'symbol'}" + (f" quoted in {wanted.quote}" if wanted.quote else "")
        raise ConfigurationError(
            f"symbols: {which} trades at {self.exchange.name} now; name some, or try again later"
        )

    def _check_composites(self, index: InstrumentIndex, composites: Mapping[Series, DerivedSource]) -> None:
        """Refuse a composite with the name of a symbol, and one that names a member in two spellings."""
        for series, source in composites.items():
            if index.by_symbol and index.find(series.symbol) is not None:
                raise ConfigurationError(f"composites: {series.symbol} is a symbol of {self.exchange.name}")
            if len(set(source.inputs)) != len(source.inputs):
                raise ConfigurationError(f"composites: {series.symbol} has the same member twice")

    def _series(self, dataset: str, symbol: str) -> Series:
        return Series.of(self.exchange.name, dataset, symbol, self.query.interval)

    def _unknown(self, name: str, hint: str) -> None:
        if name not in self.state.unknown:
            self.state.unknown[name] = hint
            self.emit(SymbolUnknown(name, hint))

    async def _read_coverage(self, named: Sequence[Series]) -> None:
        unread = [series for series in named if series not in self.stored]
        if not isinstance(self.sink, Store):
            self.stored.update((series, Coverage()) for series in unread)
        elif unread:
            self.stored.update(await self.retrier.call_in_thread(partial(self.sink.coverage, unread)))
