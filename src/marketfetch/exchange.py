"""The base class of an adapter: Exchange, with its sources. Declarations and pure functions, no I/O.

| member | required | what it is |
|---|---|---|
| `Endpoint.dataset` | yes | which dataset it serves, such as `ohlcv` |
| `Endpoint.intervals` | yes, but for event datasets | our interval names → the exchange's |
| `Endpoint.page_sizes` | yes | sensible page sizes, ascending; the last is the most it serves |
| `Endpoint.request(part)` | yes | the Request for one Slice |
| `Endpoint.decode(body, part)` | yes | the answer's bytes → DecodedRows columns |
| `Endpoint.cost(rows)` | yes | the cost of a page of so many rows, in a limit pool |
| `Endpoint.paginator` | no: windows | `TimeWindowPaginator` or `CursorPaginator`, or your own |
| `Endpoint.first_row_request(series, start)` | no | the Request for the oldest row at or after start |
| `Endpoint.publish_delay`, `Endpoint.retention` | no | publication delay and depth of history, ms |
| `Endpoint.event_spacing` | no | milliseconds between two events, about; for plans |
| `Exchange.name`, `default_url`, `sources` | yes | its name, public host, and classes of sources |
| `Exchange.raise_for_error(response)` | no: HTTP status | raises for responses that are errors |
| `Exchange.time_request`, `decode_time` | no | the server's clock |
| `Exchange.listing_requests`, `decode_listing` | no | the symbols there are |
| `Exchange.symbol_examples`, `quirks` | no | for the page about the exchange: spellings, and what to know |
| `Exchange.next_listing_request(request, body)` | no | the request for the next page of the listing |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import attrs

from marketfetch.adapter_checks.declarations import check_exchange
from marketfetch.adapter_checks.results import check_cost, check_request
from marketfetch.decoding.layouts import DecodedRows, check_decoded
from marketfetch.errors import AdapterError, ConfigurationError, unknown
from marketfetch.sources import Archive, Endpoint, Source, raise_for_status
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Request, Response, host_url
from marketfetch.values.instruments import Instrument
from marketfetch.values.slices import Slice

__all__ = ["Exchange"]


class Exchange:
    """An exchange declares a host, sources, errors, a clock and a listing.

    `base_url` replaces the public host of the API, for a mirror, a gateway or a simulated exchange, and
    `archive_url` the hosts of the archive. With `base_url` alone, no archive is used: the public files are
    not those of a simulated exchange. Raises ConfigurationError for a URL that is not http(s), has a space, a
    control character, credentials, a query or a fragment, or a port that is not a number from 1 to 65535.
    """

    name: ClassVar[str]
    """Its name in lower case, such as `binance-usdm`; required."""
    default_url: ClassVar[str]
    """Its public host with the scheme; required."""
    sources: ClassVar[Sequence[type[Source]]]
    """The classes of its endpoints and archives, as a tuple; required."""
    symbol_examples: ClassVar[Mapping[str, str]] = {}
    """Unified names of a few instruments → how the exchange spells them."""
    quirks: ClassVar[str] = ""
    """What its users should know, as a list in Markdown; the page has the lists of its base classes, too."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            _check_exchange(cls)

    def __init__(self, base_url: str | None = None, *, archive_url: str | None = None) -> None:
        given = self.default_url if base_url is None else base_url
        self.base_url = host_url("base_url", given, like=self.default_url)
        mirror = None if archive_url is None else host_url("archive_url", archive_url)
        self._endpoints: dict[str, Endpoint] = {}
        self._archives: dict[str, Archive] = {}
        for kind in self.sources:
            if issubclass(kind, Endpoint):
                self._endpoints[kind.dataset] = kind()
            elif issubclass(kind, Archive) and (base_url is None or archive_url is not None):
                self._archives[kind.dataset] = kind(mirror)
        if archive_url is not None and not self._archives:
            raise ConfigurationError(f"archive_url: {self.name} has no archive; leave it out")
        for each in self._endpoints.values():
            largest = each.page_sizes[-1]
            check_cost(f"{type(each).__name__}.cost({largest})", each.cost(largest))
        for archive in self._archives.values():
            check_cost(f"{type(archive).__name__}.cost()", archive.cost())

    def endpoint(self, dataset: str | Dataset) -> Endpoint:
        """Return the endpoint of a dataset; ConfigurationError, with what is served, if there is none."""
        name = Dataset.parse(dataset).name
        if name not in self._endpoints:
            raise unknown(f"dataset of {self.name}", name, self._endpoints)
        return self._endpoints[name]

    @property
    def has_archive(self) -> bool:
        """Whether an archive of any dataset is used."""
        return bool(self._archives)

    def where_files_are(self, datasets: Iterable[Dataset]) -> str:
        """Say for a message that files can be used with an archive_url, if this exchange has some.

        With a base_url alone no archive is used.
        """
        with_archive = {kind.dataset for kind in self.sources if issubclass(kind, Archive)}
        unused = with_archive & {dataset.name for dataset in datasets} - self._archives.keys()
        return ", or give an archive_url" if unused else ""

    def archive(self, dataset: Dataset) -> Archive | None:
        """Return the archive of a dataset; None if there is none, or none is used."""
        return self._archives.get(dataset.name)

    def with_base_url(self, request: Request) -> Request:
        """Return a request with the base URL of this exchange, unless it names a host of its own.

        Raises AdapterError for anything but a Request.
        """
        check_request(f"{self.name}: a request", request)
        return request if request.base_url else attrs.evolve(request, base_url=self.base_url)

    def raise_for_error(self, response: Response) -> None:
        """Raise the error that a response stands for; return if the response is good.

        By HTTP status: 451 and country blocks are RestrictedLocation, 418 and other 403 Banned, 429
        RateLimitExceeded, 408, 5xx and redirects ExchangeNotAvailable, everything else but 2xx BadRequest. An
        exchange with error codes of its own overrides this method, and calls
        `super().raise_for_error(response)` at the end.
        """
        raise_for_status(self.name, response, self._redirect_remedy(response))

    def _redirect_remedy(self, response: Response) -> str:
        """Name the host to which a redirect leads; the rest of the URL may have a credential in it."""
        try:
            host = urlsplit(urljoin(f"{self.base_url}/", response.headers.get("location", ""))).hostname
        except ValueError:
            host = None
        return f": a redirect to {host or 'nowhere'} is not followed; if it has moved, give its base_url"

    def time_request(self) -> Request | None:
        """Return the request for the server's time; None: the local clock decides what is closed."""
        return None

    def decode_time(self, body: bytes) -> int:
        """Read the server's time, UTC milliseconds."""
        raise AdapterError(f"{type(self).__name__}: write decode_time(body) to go with time_request")

    def listing_requests(self) -> Sequence[Request]:
        """Return the requests for the listing of symbols; none if the exchange publishes no listing."""
        return ()

    def next_listing_request(self, request: Request, body: bytes) -> Request | None:
        """Return the request for the page of the listing that follows `body`, the response to `request`.

        For a listing by cursor, whose next request is known only after a response. None after the last page.
        """
        return None

    def decode_listing(self, body: bytes) -> Iterable[Instrument]:
        """Read one part of the listing."""
        raise AdapterError(f"{type(self).__name__}: write decode_listing(body) to go with listing_requests")

    def decoded(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode a response; AdapterError if the endpoint's `decode` returns anything but columns."""
        endpoint = self.endpoint(part.series.dataset)
        place = f"{type(endpoint).__name__}.decode"
        return check_decoded(place, endpoint.decode(body, part), part.series.dataset)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"


_PAIRS = (("time_request", "decode_time"), ("listing_requests", "decode_listing"))


def _check_exchange(cls: type[Exchange]) -> None:
    absent = [name for name in ("name", "default_url", "sources") if not hasattr(cls, name)]
    if absent:
        declared = ", ".join(f"{name} = …" for name in absent)
        raise AdapterError(f"{cls.__name__} lacks what every Exchange has; write {declared}")
    check_exchange(cls, Exchange, Endpoint, Archive)
    for pair in _PAIRS:
        lacking = [name for name in pair if getattr(cls, name) is getattr(Exchange, name)]
        if len(lacking) == 1:
            (written,) = {*pair} - {*lacking}
            raise AdapterError(f"{cls.__name__} has {written} and lacks {lacking[0]}; write both, or neither")
    follows = cls.next_listing_request is not Exchange.next_listing_request
    if follows and cls.listing_requests is Exchange.listing_requests:
        raise AdapterError(
            f"{cls.__name__} has next_listing_request and lacks listing_requests; "
            "write the request for the first page there"
        )
