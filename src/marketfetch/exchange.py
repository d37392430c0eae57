"""The base classes of an adapter: Exchange and Endpoint. Declarations and pure functions, no I/O.

| member | required | what it is |
|---|---|---|
| `Endpoint.dataset` | yes | which dataset it serves, such as `ohlcv` |
| `Endpoint.intervals` | yes, but for event datasets | our interval names → the exchange's |
| `Endpoint.page_sizes` | yes | sensible page sizes, ascending; the last is the most it serves |
| `Endpoint.request(part)` | yes | the Request for one Slice |
| `Endpoint.decode(body, part)` | yes | the answer's bytes → Decoded columns |
| `Endpoint.cost(rows)` | yes | the cost of a page of so many rows, in a limit pool |
| `Endpoint.paginator` | no: windows | `TimeWindowPaginator` or `CursorPaginator`, or your own |
| `Endpoint.first_row_request(series, start)` | no | the Request for the oldest row at or after start |
| `Endpoint.publish_delay`, `Endpoint.retention` | no | publication delay and depth of history, ms |
| `Exchange.name`, `default_url`, `endpoints` | yes | its name, its public host, its Endpoint classes |
| `Exchange.raise_for_error(response)` | no: HTTP status | raises for responses that are errors |
| `Exchange.time_request`, `decode_time` | no | the server's clock |
| `Exchange.listing_requests`, `decode_listing` | no | the symbols there are |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import attrs

from marketfetch.common.type_checks import plain_int
from marketfetch.decoding.layouts import Decoded, excerpt
from marketfetch.errors import (
    AdapterError,
    BadRequest,
    Banned,
    ConfigurationError,
    ExchangeNotAvailable,
    RateLimitExceeded,
    RestrictedLocation,
    unknown,
)
from marketfetch.planning.adapter_checks import (
    check_cost,
    check_decoded,
    check_endpoint,
    check_exchange,
    check_request,
)
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.protocols import Paginator
from marketfetch.ratelimit.backoff import retry_after
from marketfetch.redaction import redact
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Cost, Request, Response, one_spelling
from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice

__all__ = ["Endpoint", "Exchange"]

_PORTS = {"http": 80, "https": 443}
"""The default ports, which a URL need not name."""

_REFUSES_LOCATION = re.compile(
    rb"restricted location|block access from your country|your (country|region)", re.IGNORECASE
)


class Endpoint:
    """One dataset of one exchange: Slice → Request, and the bytes of the response → columns.

    Declare the attributes and write `cost`, `request` and `decode`; the class is checked when it is
    created. A base class of several endpoints is declared with `abstract=True`, and not checked.
    """

    dataset: ClassVar[str]
    intervals: ClassVar[Mapping[str, str]] = {}
    page_sizes: ClassVar[Sequence[int]]
    paginator: ClassVar[Paginator] = TimeWindowPaginator()
    publish_delay: ClassVar[int] = 0
    """Milliseconds from the close of a row until it is published and no longer changes."""
    retention: ClassVar[int | None] = None
    """How far back the endpoint serves rows, in milliseconds; None for all of history."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        _check_endpoint(cls)
        # Python's own numbers: a store refuses those of numpy.
        cls.page_sizes = tuple(map(plain_int, cls.page_sizes))
        cls.publish_delay = plain_int(cls.publish_delay)
        cls.retention = None if cls.retention is None else plain_int(cls.retention)

    @property
    def dataset_type(self) -> Dataset:
        """The dataset with its columns."""
        return Dataset.parse(self.dataset)

    def cost(self, rows: int) -> Cost:
        """Return the cost of a page of at most so many rows, and the limit pool that counts it."""
        raise AdapterError(f"{type(self).__name__}: write cost(rows)")

    def request(self, part: Slice) -> Request:
        """Return the request for the rows of `part`, at most `part.rows` of them."""
        raise AdapterError(f"{type(self).__name__}: write request(part)")

    def decode(self, body: bytes, part: Slice) -> Decoded:
        """Turn the bytes of a good response into columns; DecodeError if they are something else."""
        raise AdapterError(f"{type(self).__name__}: write decode(body, part)")

    def first_row_request(self, series: Series, start: int) -> Request | None:
        """Return the request for the one oldest row at or after `start`; None if the exchange has none.

        With it a stretch without rows, before, amid or after the rows of a series, costs a few requests.
        """
        return None

    def native_interval(self, interval: Interval) -> str:
        """Return the exchange's own name of an interval."""
        return self.intervals[interval.name]

    def check_interval(self, interval: Interval) -> None:
        """Raise ConfigurationError, with the served intervals, for an interval that is not served."""
        if not self.dataset_type.event and interval.name not in self.intervals:
            raise ConfigurationError(
                f"interval: {interval.name!r} is not served for {self.dataset};"
                f" choose one of {', '.join(self.intervals)}"
            )


class Exchange:
    """An exchange declares a host, endpoints, errors, a clock and a listing.

    `base_url` replaces the public host, for a mirror, a gateway or a simulated exchange. Raises
    ConfigurationError if it is not an http(s) URL, or has credentials, a query or a fragment.
    """

    name: ClassVar[str]
    default_url: ClassVar[str]
    endpoints: ClassVar[Sequence[type[Endpoint]]]

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            _check_exchange(cls)

    def __init__(self, base_url: str | None = None) -> None:
        if base_url is not None and not isinstance(base_url, str):
            raise ConfigurationError(
                f"base_url: {type(base_url).__name__} is no URL; write text such as {self.default_url!r}"
            )
        url = self.default_url if base_url is None else base_url
        self.base_url = _one_url(url.strip().rstrip("/"), self.default_url)
        self._endpoints = {kind.dataset: kind() for kind in self.endpoints}
        for each in self._endpoints.values():
            largest = each.page_sizes[-1]
            check_cost(f"{type(each).__name__}.cost({largest})", each.cost(largest))

    def endpoint(self, dataset: str | Dataset) -> Endpoint:
        """Return the endpoint of a dataset; ConfigurationError, with what is served, if there is none."""
        name = Dataset.parse(dataset).name
        if name not in self._endpoints:
            raise unknown(f"dataset of {self.name}", name, self._endpoints)
        return self._endpoints[name]

    def with_base_url(self, request: Request) -> Request:
        """Return a request with the base URL of this exchange; AdapterError for anything but a Request."""
        check_request(f"{self.name}: a request", request)
        return attrs.evolve(request, base_url=self.base_url)

    def raise_for_error(self, response: Response) -> None:
        """Raise the error that a response stands for; return if the response is good.

        By HTTP status: 451 and country blocks RestrictedLocation, 418 and other 403 Banned, 429
        RateLimitExceeded, 408, 5xx and redirects ExchangeNotAvailable, everything else but 2xx BadRequest.
        An exchange with error codes of its own overrides this method, and calls
        `super().raise_for_error(response)` at the end.
        """
        status, text = response.status, excerpt(response.body)
        if 200 <= status < 300:
            return
        if status == 451 or (status == 403 and _REFUSES_LOCATION.search(response.body)):
            raise RestrictedLocation(
                f"{self.name} refuses this location for legal reasons ({text});"
                " it will not be asked from elsewhere"
            )
        wait = retry_after(response.headers, response.received_at)
        if status in {403, 418}:
            until = None if wait is None else response.received_at + round(wait * 1000)
            raise Banned(f"{self.name} shut this address out (HTTP {status})", until=until)
        if status == 429:
            raise RateLimitExceeded(f"{self.name} asks to slow down (HTTP 429)", retry_after=wait)
        if 300 <= status < 400:
            raise ExchangeNotAvailable(
                f"{self.name} is not where it should be (HTTP {status}): {self._elsewhere(response)}"
            )
        if status == 408 or status >= 500:
            raise ExchangeNotAvailable(f"{self.name} is not available (HTTP {status}): {text}")
        raise BadRequest(f"{self.name} rejects the request (HTTP {status}): {text}")

    def _elsewhere(self, response: Response) -> str:
        """Name the host to which a redirect leads; the rest of the URL may have a credential in it."""
        try:
            host = urlsplit(urljoin(f"{self.base_url}/", response.headers.get("location", ""))).hostname
        except ValueError:
            host = None
        return f"a redirect to {host or 'nowhere'} is not followed; if it has moved, give its base_url"

    def time_request(self) -> Request | None:
        """Return the request for the server's time; None: the local clock decides what is closed."""
        return None

    def decode_time(self, body: bytes) -> int:
        """Read the server's time, UTC milliseconds."""
        raise AdapterError(f"{type(self).__name__}: write decode_time(body) to go with time_request")

    def listing_requests(self) -> Sequence[Request]:
        """Return the requests for the listing of symbols; none if the exchange publishes no listing."""
        return ()

    def decode_listing(self, body: bytes) -> Iterable[Instrument]:
        """Read one part of the listing."""
        raise AdapterError(f"{type(self).__name__}: write decode_listing(body) to go with listing_requests")

    def decoded(self, body: bytes, part: Slice) -> Decoded:
        """Decode a response; AdapterError if the endpoint's `decode` returns anything but columns."""
        endpoint = self.endpoint(part.series.dataset)
        place = f"{type(endpoint).__name__}.decode"
        return check_decoded(place, endpoint.decode(body, part), part.series.dataset)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"


def _one_url(url: str, like: str) -> str:
    """Return the canonical form of a base URL, which is the key of the exchange's budgets."""
    wrong = f"is not an http(s) URL; write {like!r} or like it"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host = one_spelling(f"[{host}]" if ":" in host else host)
    except ValueError:  # the text of the error may have a credential in it
        raise ConfigurationError(f"base_url: what was given {wrong}") from None
    if parts.username or parts.password:
        raise ConfigurationError("base_url: credentials have no place in it; public endpoints need none")
    if parts.query or parts.fragment:  # it may have a key in it: the message does not repeat the text
        raise ConfigurationError(f"base_url: a query or fragment (? or #) has no place in it; write {like!r}")
    if not host or parts.scheme not in _PORTS:
        raise ConfigurationError(f"base_url: {redact(repr(url))} {wrong}")
    shown = "" if port in {None, _PORTS[parts.scheme]} else f":{port}"
    return parts._replace(netloc=f"{host}{shown}").geturl()


def _check_endpoint(cls: type[Endpoint]) -> None:
    absent = [name for name in ("dataset", "page_sizes") if not hasattr(cls, name)]
    absent += [
        name for name in ("cost", "request", "decode") if getattr(cls, name) is getattr(Endpoint, name)
    ]
    if absent:
        raise AdapterError(f"{cls.__name__} lacks {', '.join(absent)}; see the table in marketfetch.exchange")
    check_endpoint(cls)


_PAIRS = (("time_request", "decode_time"), ("listing_requests", "decode_listing"))


def _check_exchange(cls: type[Exchange]) -> None:
    absent = [name for name in ("name", "default_url", "endpoints") if not hasattr(cls, name)]
    if absent:
        raise AdapterError(f"{cls.__name__} lacks {', '.join(absent)}; see the table in marketfetch.exchange")
    check_exchange(cls, Endpoint)
    for pair in _PAIRS:
        lacking = [name for name in pair if getattr(cls, name) is getattr(Exchange, name)]
        if len(lacking) == 1:
            (written,) = {*pair} - {*lacking}
            raise AdapterError(f"{cls.__name__} has {written} and lacks {lacking[0]}; write both, or neither")
