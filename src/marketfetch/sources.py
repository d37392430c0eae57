"""The base classes of sources: where rows of a dataset can be had. Declarations and pure functions, no I/O.

An Endpoint is a route of the API, read page by page; its members are in the table of `marketfetch.exchange`.
An Archive is a tree of public files, one for each calendar month or day:

| member | required | what it is |
|---|---|---|
| `Archive.dataset`, `intervals` | yes | which dataset it has; our interval names → those of the files |
| `Archive.layout` | yes | the CsvLayout of the files: which field holds which column |
| `Archive.files_url`, `listing_url` | yes | the host of the files, and the bucket that lists them, or None |
| `Archive.folder(series, grain)` | with a listing | the folder with the files of a series |
| `Archive.key(series, period)` | without a listing | the key of the file of a month or day |
| `Archive.since` | no: 0 | when the oldest file begins, UTC ms |
| `Archive.publish_delay` | no: 0 | how long after its end a month or day has a file, ms |
| `Archive.stem(series)` | yes | how their names begin, before the month or day |
| `Archive.grains(interval)` | no: both | whether there are files for each month, each day, or both |
| `Archive.symbols_listing()`, `symbol_of(folder)` | no | which listing has a folder for each symbol |
| `Archive.utc_offset` | no: UTC | how far the calendar of the files is ahead of UTC, ms |
| `Archive.suffix` | no: `.zip` | how their names end, such as `.csv.gz` |
| `Archive.cost()` | yes | the cost of a file, in a limit pool |

A DerivedSource is not a part of an exchange: its rows follow from those of other series in the store.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import isfunction, signature
from typing import Any, ClassVar

import attrs

from marketfetch.adapter_checks.declarations import check_archive, check_endpoint
from marketfetch.adapter_checks.results import ARCHIVE_RESULTS
from marketfetch.archives.listing import ListingRequest, error_code
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.common.type_checks import plain_int
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.layouts import DecodedRows, excerpt
from marketfetch.errors import (
    AdapterError,
    BadRequest,
    Banned,
    ConfigurationError,
    ExchangeNotAvailable,
    NoSuchFile,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.protocols import Paginator
from marketfetch.ratelimit.backoff import parse_http_date, retry_after
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Cost, Request, Response, host_url
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice

__all__ = ["Archive", "DerivedSource", "Endpoint", "Source", "raise_for_status"]

_REFUSES_LOCATION = re.compile(
    rb"restricted location|block access from your country|your (country|region)", re.IGNORECASE
)
_MAX_WAIT = 30.0
"""Seconds for which a request to an archive waits for an egress, such as for the end of a ban."""
_SLOW_DOWN = 1.0
"""Seconds to wait when a bucket asks to slow down and names no time; it may serve thousands a second."""
_UNCHANGED = {"Accept-Encoding": "identity"}
"""A body that is compressed once more would have another digest."""


class Source:
    """Where rows of a dataset can be had: the common part of Endpoint, Archive and DerivedSource."""

    dataset: ClassVar[str]
    """The name of the dataset, such as `ohlcv`; required."""
    intervals: ClassVar[Mapping[str, str]] = {}
    """Our interval names → those of the exchange; required, except for datasets of events."""

    @property
    def dataset_type(self) -> Dataset:
        """The dataset with its columns."""
        return Dataset.parse(self.dataset)

    def native_interval(self, interval: Interval) -> str:
        """Return the exchange's own name of an interval."""
        return self.intervals[interval.name]


class Endpoint(Source):
    """One dataset of one exchange: Slice → Request, and the bytes of the response → columns.

    Declare the attributes and write `cost`, `request` and `decode`; the class is checked when it is
    created. A base class of several endpoints is declared with `abstract=True`, and not checked.
    """

    page_sizes: ClassVar[Sequence[int]]
    """Useful page sizes, ascending; the last is the largest that the exchange serves; required."""
    paginator: ClassVar[Paginator] = TimeWindowPaginator()
    """TimeWindowPaginator, CursorPaginator, or your own."""
    publish_delay: ClassVar[int] = 0
    """Milliseconds from the close of a row until it is published and no longer changes."""
    retention: ClassVar[int | None] = None
    """How far back the endpoint serves rows, in milliseconds; None for all of history."""
    event_spacing: ClassVar[int | None] = None
    """Milliseconds between two events, about; only plans use it. None where it cannot be told."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        _check_endpoint(cls)
        # Python's own numbers: a store refuses those of numpy. What is inherited was read already.
        cls.page_sizes = tuple(map(plain_int, cls.page_sizes))
        if "publish_delay" in vars(cls):
            cls.publish_delay = plain_int(cls.publish_delay)
        if "retention" in vars(cls) and cls.retention is not None:
            cls.retention = plain_int(cls.retention)

    def cost(self, rows: int) -> Cost:
        """Return the cost of a page of at most so many rows, and the limit pool that counts it."""
        raise AdapterError(f"{type(self).__name__}: write cost(rows)")

    def request(self, part: Slice) -> Request:
        """Return the request for the rows of `part`, at most `part.rows` of them.

        Raises BadSymbol for a symbol for which the exchange cannot be asked: its series ends.
        """
        raise AdapterError(f"{type(self).__name__}: write request(part)")

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Turn the bytes of a good response into columns; DecodeError if they are something else."""
        raise AdapterError(f"{type(self).__name__}: write decode(body, part)")

    def first_row_request(self, series: Series, start: int) -> Request | None:
        """Return the request for the one oldest row at or after `start`; None if the exchange has none.

        With it a stretch without rows, before, amid or after the rows of a series, costs a few requests.
        """
        return None

    def check_interval(self, interval: Interval) -> None:
        """Raise ConfigurationError, with the served intervals, for an interval that is not served."""
        if not self.dataset_type.event and interval.name not in self.intervals:
            raise ConfigurationError(
                f"interval: {interval.name!r} is not served for {self.dataset};"
                f" choose one of {', '.join(self.intervals)}"
            )


class Archive(Source):
    """Public files with the rows of one dataset: one CSV, zip, gzip or plain, for each month or day.

    `url` replaces both hosts, for a mirror or a simulated archive; ConfigurationError for what is no URL of a
    host. Declare the attributes and write `folder`, `stem` and `cost`; the class is checked when it is
    created, and what its methods return whenever they are called: AdapterError names the method. The
    `listing_url` of an archive that publishes no listing is None. Its files are requested by name, so `key`
    replaces `folder`.

    A key is folder, stem, label and suffix. Example: of the 1m candles of BTCUSDT, the folder is
    `data/spot/monthly/klines/BTCUSDT/1m/`, the stem `BTCUSDT-1m-`, a label `2024-01` and the suffix `.zip`.
    """

    files_url: ClassVar[str]
    listing_url: ClassVar[str | None]
    layout: ClassVar[CsvLayout]
    suffix: ClassVar[str] = ".zip"
    """How names end. A `.zip` has one CSV of that name; a file of any other suffix is gzip or plain text."""
    utc_offset: ClassVar[int] = 0
    since: ClassVar[int] = 0
    """When the oldest file of all series begins, UTC milliseconds; nothing older is requested."""
    publish_delay: ClassVar[int] = 0
    """Milliseconds from the end of a month or day until its file is published; no sooner is it requested."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            _check_archive(cls)
        for name, check in ARCHIVE_RESULTS.items():
            method = cls.__dict__.get(name)
            if isfunction(method):
                setattr(cls, name, _checking(f"{cls.__name__}.{name}", method, check))

    def __init__(self, url: str | None = None) -> None:
        self._files_url = host_url("url", self.files_url if url is None else url)
        listed = self.listing_url if url is None or self.listing_url is None else url
        self._listing_url = None if listed is None else host_url("url", listed)

    @property
    def is_listed(self) -> bool:
        """Whether the archive says which files it has; otherwise one learns it by requesting them."""
        return self._listing_url is not None

    def grains(self, interval: Interval) -> Sequence[Grain]:
        """Return what the files of an interval cover: months, days, or both."""
        return ("month", "day") if interval.name in self.intervals else ()

    def folder(self, series: Series, grain: Grain) -> str:
        """Return the folder of a series, with a slash at its end."""
        raise AdapterError(f"{type(self).__name__}: write folder(series, grain)")

    def stem(self, series: Series) -> str:
        """Return how the names of the files of a series begin: everything before the label."""
        raise AdapterError(f"{type(self).__name__}: write stem(series)")

    def key(self, series: Series, period: CalendarPeriod) -> str:
        """Return the key of the file of a month or day: its path below the host."""
        return f"{self.folder(series, period.grain)}{self.stem(series)}{period}{self.suffix}"

    def cost(self) -> Cost:
        """Return the cost of one request to the archive, and the limit pool that counts it."""
        raise AdapterError(f"{type(self).__name__}: write cost()")

    def symbols_listing(self) -> ListingRequest | None:
        """Return the listing that has a folder for each symbol, delisted or not; None if there is none.

        Example: `data/spot/monthly/klines/` with the delimiter `/` has the folder
        `data/spot/monthly/klines/BTCUSDT/`.
        """
        return None

    def symbol_of(self, folder: str) -> str:
        """Return the symbol of a folder in that listing: the last part of its path."""
        return folder.rstrip("/").rpartition("/")[2]

    def listing(self, series: Series, first: CalendarPeriod) -> ListingRequest:
        """Return what to list: the files of a series from a period on, those of its grain."""
        folder, stem = self.folder(series, first.grain), self.stem(series)
        return ListingRequest(folder, delimiter="/", version=1, after=f"{folder}{stem}{first}")

    def listing_request(self, listing: ListingRequest) -> Request:
        """Return the request for one page of a listing."""
        if self._listing_url is None:
            raise AdapterError(f"{type(self).__name__}.listing_url is None: there is no listing to ask for")
        return Request(
            "/", listing.parameters, cost=self.cost(), base_url=self._listing_url, max_wait=_MAX_WAIT
        )

    def file_request(self, key: str, *, fresh: bool = False) -> Request:
        """Return the request for a file; `fresh` asks caches on the way to get it anew."""
        headers = _UNCHANGED | {"Cache-Control": "no-cache"} if fresh else _UNCHANGED
        return Request(
            f"/{key}", cost=self.cost(), base_url=self._files_url, headers=headers, max_wait=_MAX_WAIT
        )

    def checksum_request(self, key: str, *, fresh: bool = False) -> Request | None:
        """Return the request for the checksum of a file; None if the archive publishes no checksums."""
        return self.file_request(f"{key}.CHECKSUM", fresh=fresh)

    def entry(self, key: str, response: Response, size: int) -> ArchiveFile:
        """Return what a listing would say of a file of a size, from the headers of its response.

        A response without `Last-Modified` shows that the file had been made when it was received.
        """
        modified = parse_http_date(response.headers.get("last-modified", ""))
        made = response.received_at if modified is None else modified
        return ArchiveFile(key, size, made, response.headers.get("etag", ""))

    def period_of(self, series: Series, name: str) -> CalendarPeriod | None:
        """Return the period of a file by its name; None for a name of another form.

        Example: of the stem `BTCUSDT-1m-`, the file `BTCUSDT-1m-2024-01.zip` is of January 2024, and
        `BTCUSDT-1m-2024-01.zip.CHECKSUM` is not one.
        """
        stem = self.stem(series)
        if not name.startswith(stem) or not name.endswith(self.suffix):
            return None
        try:
            return CalendarPeriod.parse(name[len(stem) : -len(self.suffix)], utc_offset=self.utc_offset)
        except ValueError:
            return None

    def raise_for_error(self, response: Response) -> None:
        """Raise the error that a response of a file host stands for; return if the response is good.

        404 is NoSuchFile, and so is a body in XML with the code NoSuchKey or AccessDenied, the answer of a
        bucket. The code SlowDown is RateLimitExceeded. Any other 403 shuts the address out.
        """
        place = f"the archive of {self.dataset}"
        if response.status in {403, 404, 503}:
            code = error_code(response.body)
            if code in {"NoSuchKey", "AccessDenied"}:
                raise NoSuchFile(f"{place} has no such file ({code})")
            if code == "SlowDown":
                wait = retry_after(response.headers, response.received_at)
                raise RateLimitExceeded(f"{place} asks to slow down", retry_after=wait or _SLOW_DOWN)
        if response.status == 404:
            raise NoSuchFile(f"{place} has no such file (HTTP 404)")
        if 300 <= response.status < 400:
            raise BadRequest(
                f"{place} redirects (HTTP {response.status}), which is not followed; if it has moved, "
                "give its archive_url"
            )
        raise_for_status(place, response)


@attrs.frozen
class DerivedSource(Source, ABC):
    """The rows of other series in the store, its inputs, from which the rows of a series are computed.

    An open time is covered where all inputs are covered. Where one of them is empty, the series is empty;
    else where one of them is unusable, the series is unusable.
    """

    inputs: tuple[Series, ...]

    @abstractmethod
    def combine(self, rows: Sequence[Columns]) -> Columns:
        """Return the rows that follow from those of the inputs, which come in their order.

        There is a row at each open time at which every input has one, and nowhere else.
        """


def raise_for_status(place: str, response: Response, elsewhere: str = "") -> None:
    """Raise the error that an HTTP status stands for; return for 2xx.

    451 and country blocks are RestrictedLocation, 418 and other 403 Banned, 429 RateLimitExceeded, 408, 5xx
    and redirects ExchangeNotAvailable, everything else but 2xx BadRequest. `place` names the host in the
    message, `elsewhere` what to do about a redirect.
    """
    status, text = response.status, excerpt(response.body)
    if 200 <= status < 300:
        return
    if status == 451 or (status == 403 and _REFUSES_LOCATION.search(response.body)):
        raise RestrictedLocation(
            f"{place} refuses this location for legal reasons ({text}); no other address is tried"
        )
    wait = retry_after(response.headers, response.received_at)
    if status in {403, 418}:
        until = None if wait is None else response.received_at + round(wait * 1000)
        raise Banned(f"{place} shut this address out (HTTP {status})", until=until)
    if status == 429:
        raise RateLimitExceeded(f"{place} asks to slow down (HTTP 429)", retry_after=wait)
    if 300 <= status < 400:
        raise ExchangeNotAvailable(f"{place} is not where it should be (HTTP {status}){elsewhere}")
    if status == 408 or status >= 500:
        raise ExchangeNotAvailable(f"{place} is not available (HTTP {status}): {text}")
    raise BadRequest(f"{place} rejects the request (HTTP {status}): {text}")


def _checking(
    place: str, method: Callable[..., object], check: Callable[[str, object], object]
) -> Callable[..., object]:
    """Return a method of an adapter's author with a check of what it returns."""

    @wraps(method)
    def checked(*arguments: object, **named: object) -> object:
        return check(place, method(*arguments, **named))

    return checked


def _check_endpoint(cls: type[Endpoint]) -> None:
    _require(cls, Endpoint, ("dataset", "page_sizes"), ("cost", "request", "decode"))
    check_endpoint(cls, Endpoint)


def _check_archive(cls: type[Archive]) -> None:
    attributes = ("dataset", "layout", "files_url", "listing_url")
    place = "folder" if getattr(cls, "listing_url", "") is not None else "key"
    _require(cls, Archive, attributes, ("cost", "stem", place))
    check_archive(cls, Archive)


def _require(
    cls: type[Source], base: type[Source], attributes: Sequence[str], methods: Sequence[str]
) -> None:
    """Raise AdapterError with the names of what a class lacks, those of methods with their parameters."""
    absent = [f"{name} = …" for name in attributes if not hasattr(cls, name)]
    unwritten = [name for name in methods if getattr(cls, name) is getattr(base, name)]
    absent += [f"def {name}({', '.join(signature(getattr(base, name)).parameters)})" for name in unwritten]
    if absent:
        raise AdapterError(f"{cls.__name__} lacks what every {base.__name__} has; write {', '.join(absent)}")
