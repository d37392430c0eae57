"""Checks of what an adapter declares and returns: each message says what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from marketfetch.archives.listing import ListingRequest
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.common.type_checks import is_whole
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.errors import AdapterError, ConfigurationError, unknown, wrong_kind
from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Burst, Cost, Request, host_url
from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, HOUR, MINUTE

__all__ = [
    "ARCHIVE_RESULTS",
    "check_archive",
    "check_cost",
    "check_endpoint",
    "check_exchange",
    "check_instruments",
    "check_next_request",
    "check_request",
    "check_requests",
]

_SHORTEST = 100
"""No exchange counts in shorter periods (ms): a shorter one was meant to be seconds."""


def _is_several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def check_endpoint(cls: type[Any]) -> None:
    """Refuse an Endpoint class that has an attribute of the wrong kind, such as seconds for milliseconds."""
    _check_dataset(cls)
    _check_numbers(cls)
    _check_paginator(cls, event=Dataset.parse(cls.dataset).event)
    _check_methods(cls, ("cost", "request", "decode", "first_row_request", "native_interval"))


def _check_dataset(cls: type[Any]) -> None:
    name = cls.__name__
    if not isinstance(cls.dataset, str):
        raise wrong_kind(f"{name}.dataset", cls.dataset, "write the name of a dataset, such as 'ohlcv'")
    if not isinstance(cls.intervals, Mapping):
        remedy = "map our names to the exchange's, such as {'1m': '1m', '1h': '60'}"
        raise wrong_kind(f"{name}.intervals", cls.intervals, remedy)
    try:
        kind = Dataset.parse(cls.dataset)
        for interval in cls.intervals:
            Interval.parse(interval)
    except ConfigurationError as error:
        raise AdapterError(f"{name}: {error}") from None
    for interval, theirs in cls.intervals.items():
        if not isinstance(theirs, str):
            remedy = f"write the exchange's name as text, such as {str(theirs)!r}"
            raise wrong_kind(f"{name}.intervals[{interval!r}]", theirs, remedy)
    if not kind.event and not cls.intervals:
        raise AdapterError(f"{name} lacks intervals; map our names to the exchange's, such as {{'1m': '1m'}}")


def _check_numbers(cls: type[Any]) -> None:
    name, sizes = cls.__name__, cls.page_sizes
    if not _is_several(sizes) or not all(map(is_whole, sizes)):
        raise wrong_kind(f"{name}.page_sizes", sizes, "write a tuple of whole numbers, such as (500,)")
    sizes = list(sizes)
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1:
        raise AdapterError(f"{name}.page_sizes: {sizes} must be positive and ascending")
    if not is_whole(cls.publish_delay) or cls.publish_delay < 0 or 0 < cls.publish_delay < 1000:
        remedy = "write milliseconds after the close, such as 60_000 for a minute, or 0"
        raise wrong_kind(f"{name}.publish_delay", cls.publish_delay, remedy)
    if cls.retention is not None and (not is_whole(cls.retention) or cls.retention < HOUR):
        remedy = "write milliseconds, such as 30 * 86_400_000 for 30 days, or None for everything"
        raise wrong_kind(f"{name}.retention", cls.retention, remedy)


def _check_paginator(cls: type[Any], *, event: bool) -> None:
    paginator = cls.paginator
    if isinstance(paginator, type):
        raise AdapterError(
            f"{cls.__name__}.paginator: {paginator.__name__} is a class; write {paginator.__name__}()"
        )
    if not all(hasattr(paginator, member) for member in ("sequential", "split", "outcome")):
        remedy = "write TimeWindowPaginator(), CursorPaginator() or one of yours"
        raise wrong_kind(f"{cls.__name__}.paginator", paginator, remedy)
    if isinstance(paginator, TimeWindowPaginator if event else CursorPaginator):
        remedy = "events have CursorPaginator()" if event else "rows on a grid have TimeWindowPaginator()"
        raise wrong_kind(
            f"{cls.__name__}.paginator", paginator, f"write another one for {cls.dataset}: {remedy}"
        )


def _check_methods(cls: type[Any], names: Iterable[str]) -> None:
    for name in names:
        method = getattr(cls, name)
        if not callable(method):
            raise wrong_kind(f"{cls.__name__}.{name}", method, f"write it as a method: def {name}(self, …)")
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise AdapterError(f"{cls.__name__}.{name} is async: adapters do no I/O; write a plain def")


def check_archive(cls: type[Any]) -> None:
    """Refuse an Archive class that has an attribute of the wrong kind."""
    name = cls.__name__
    _check_dataset(cls)
    _check_layout(f"{name}.layout", cls.layout, Dataset.parse(cls.dataset))
    _check_url(f"{name}.files_url", cls.files_url)
    if cls.listing_url is not None:
        _check_url(f"{name}.listing_url", cls.listing_url)
    for attribute in ("since", "publish_delay"):
        if not is_whole(value := getattr(cls, attribute)) or value < 0:
            raise wrong_kind(f"{name}.{attribute}", value, "write milliseconds, or leave it out")
    if not is_whole(cls.utc_offset) or abs(cls.utc_offset) > DAY or 0 < abs(cls.utc_offset) < MINUTE:
        remedy = "write milliseconds ahead of UTC, such as 8 * 3_600_000"
        raise wrong_kind(f"{name}.utc_offset", cls.utc_offset, remedy)
    _check_methods(cls, ("cost", "folder", "stem", "key", "grains", "symbols_listing", "symbol_of"))


def _check_layout(place: str, layout: object, dataset: Dataset) -> None:
    """Refuse a layout that leaves a column of the dataset NULL by mistake, or reads a field twice."""
    if not isinstance(layout, CsvLayout):
        raise wrong_kind(place, layout, "write CsvLayout({'open': 1, …}, width=12)")
    columns, width, time = _declared(layout)
    if not isinstance(columns, Mapping) or not is_whole(width):
        remedy = "map columns to positions and say the width: CsvLayout({'open': 1}, width=12)"
        raise wrong_kind(place, layout, remedy)
    for column in columns:
        if column not in dataset.names:
            raise AdapterError(f"{place}: {unknown(f'column of {dataset.name}', column, dataset.names)}")
    required = [column.name for column in dataset.columns if not column.optional]
    lacking = [name for name in required if name not in columns]
    if lacking and type(layout) is CsvLayout:  # a subclass may compute them
        raise AdapterError(f"{place} lacks {', '.join(lacking)}; {dataset.name} needs them in every row")
    positions = [time, *columns.values()]
    if not all(is_whole(position) and 0 <= position < width for position in positions):
        raise AdapterError(f"{place}: positions {positions} must be whole numbers from 0 to {width - 1}")
    if len(set(positions)) != len(positions):
        raise AdapterError(f"{place}: positions {positions} name a field twice")


def _declared(layout: CsvLayout) -> tuple[Any, Any, Any]:
    """Return what an author wrote, whose types nothing has checked yet."""
    return layout.columns, layout.width, layout.time


def check_exchange(cls: type[Any], endpoint: type[Any], archive: type[Any]) -> None:
    """Refuse an Exchange class with a wrong or missing part; the others are the base classes of sources."""
    place = cls.__name__
    if not isinstance(cls.name, str) or not cls.name.strip():
        raise wrong_kind(f"{place}.name", cls.name, "write the exchange's name, such as 'my-exchange'")
    _check_url(f"{place}.default_url", cls.default_url)
    _check_sources(cls, endpoint, archive)
    _check_methods(
        cls,
        (
            "raise_for_error",
            "time_request",
            "decode_time",
            "listing_requests",
            "decode_listing",
            "next_listing_request",
            "endpoint",
            "with_base_url",
        ),
    )


def _check_url(place: str, url: object) -> None:
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        remedy = "write its public host with the scheme, such as 'https://api.example.com'"
        raise wrong_kind(place, url, remedy)
    try:
        host_url(place, url, like="https://api.example.com")
    except ConfigurationError as error:
        raise AdapterError(str(error)) from None


def _check_sources(cls: type[Any], endpoint: type[Any], archive: type[Any]) -> None:
    place = f"{cls.__name__}.sources"
    if isinstance(cls.sources, type):
        only = cls.sources.__name__
        raise AdapterError(f"{place}: {only} is one class; write a tuple of classes: ({only},)")
    if not _is_several(cls.sources):
        raise wrong_kind(place, cls.sources, "write a tuple of Endpoint and Archive classes")
    for each in cls.sources:
        if isinstance(each, endpoint | archive):
            kind = type(each).__name__
            raise AdapterError(f"{place}: {kind}() is an object; write the class: {kind}")
        if not isinstance(each, type) or not issubclass(each, endpoint | archive):
            raise wrong_kind(place, each, "write classes that inherit from Endpoint or Archive")
        if not hasattr(each, "dataset") or not hasattr(
            each, "page_sizes" if issubclass(each, endpoint) else "layout"
        ):
            raise AdapterError(f"{place}: {each.__name__} is abstract; write a class made from it")
    served = [each.dataset for each in cls.sources if issubclass(each, endpoint)]
    if len(set(served)) != len(served) or not served:
        raise AdapterError(f"{place} must have one endpoint for each dataset, found {served}")
    filed = [each.dataset for each in cls.sources if issubclass(each, archive)]
    if len(set(filed)) != len(filed) or not set(filed) <= set(served):
        raise AdapterError(
            f"{place} may have one archive for each dataset that has an endpoint, found {filed}"
        )


# --- what methods return ---


def check_cost(place: str, cost: object) -> Cost:
    """Return what a `cost` method returned; AdapterError if it is no Cost that fits into its limit pool."""
    if not isinstance(cost, Cost):
        raise wrong_kind(place, cost, "return a Cost, such as Cost(LimitPool('calls', 10, 1000), 1)")
    capacity, weight = cost.pool.capacity, cost.weight
    if not is_whole(weight) or not is_whole(capacity) or not 0 < weight <= capacity:
        raise AdapterError(f"{place}: a page costs {weight!r} of {capacity!r}; write whole numbers that fit")
    if not is_whole(cost.pool.period) or cost.pool.period < _SHORTEST:
        period = cost.pool.period
        raise AdapterError(
            f"{place}: {cost.pool.name}: its period is {period!r} ms; write milliseconds, 1000 for a second"
        )
    if cost.pool.burst is not None:
        _check_burst(f"{place}: {cost.pool.name}", cost)
    return cost


def _check_burst(place: str, cost: Cost) -> None:
    """Refuse a second limit that is no Burst, or of which one of the two limits has no effect."""
    pool, burst = cost.pool, cost.pool.burst
    if not isinstance(burst, Burst) or not is_whole(burst.capacity) or not is_whole(burst.period):
        raise wrong_kind(f"{place}: burst", burst, "write Burst(10, 1000) for 10 in each second")
    if not _SHORTEST <= burst.period < pool.period:
        raise AdapterError(
            f"{place}: burst: its period is {burst.period} ms; write milliseconds, fewer than {pool.period}"
        )
    if not cost.weight <= burst.capacity < pool.capacity <= burst.capacity * pool.period // burst.period:
        raise AdapterError(
            f"{place}: burst: {burst.capacity} in {burst.period} ms and {pool.capacity} in {pool.period} ms; "
            f"write a capacity from {max(cost.weight, -(-pool.capacity * burst.period // pool.period))} to "
            f"{pool.capacity - 1}, or only the limit that is reached first"
        )


def check_request(place: str, request: object) -> Request:
    """Return a Request; AdapterError for anything else."""
    if not isinstance(request, Request):
        raise wrong_kind(place, request, "return a Request, such as Request('/path', {'symbol': …}, cost=…)")
    return request


def check_next_request(place: str, request: object) -> Request | None:
    """Return a Request or None; AdapterError for anything else, such as a cursor alone."""
    if request is not None and not isinstance(request, Request):
        raise wrong_kind(place, request, "return the Request for the next page, or None after the last one")
    return request


def check_requests(place: str, requests: object) -> Sequence[Request]:
    """Return a sequence of Requests; AdapterError for anything else."""
    if not isinstance(requests, Sequence) or isinstance(requests, str):
        raise wrong_kind(place, requests, "return a tuple of Requests, also for a single one: (Request(…),)")
    return [check_request(place, request) for request in requests]


def check_instruments(place: str, entries: object) -> Iterator[Instrument]:
    """Yield the entries of a listing; AdapterError for one that is no Instrument."""
    if not isinstance(entries, Iterable):
        raise wrong_kind(place, entries, "yield an Instrument for each entry")
    for entry in entries:
        if not isinstance(entry, Instrument):
            raise wrong_kind(
                place, entry, "yield an Instrument for each entry: Instrument(symbol, base, quote)"
            )
        yield entry


def _check_grains(place: str, grains: object) -> object:
    if not isinstance(grains, tuple | list) or not all(grain in ("month", "day") for grain in grains):
        raise wrong_kind(place, grains, "return a tuple of 'month' and 'day', such as ('month', 'day') or ()")
    return grains


def _check_folder(place: str, folder: object) -> object:
    if not isinstance(folder, str) or not folder.endswith("/") or folder.startswith("/"):
        raise wrong_kind(place, folder, "return text that ends with a slash, such as 'daily/BTCUSDT/'")
    return folder


def _check_stem(place: str, stem: object) -> object:
    if not isinstance(stem, str) or "/" in stem:
        raise wrong_kind(place, stem, "return text without a slash, such as 'BTC-1m-'")
    return stem


def _check_symbol(place: str, symbol: object) -> object:
    if not isinstance(symbol, str) or not symbol:
        raise wrong_kind(place, symbol, "return the symbol of the folder as text, such as 'BTCUSDT'")
    return symbol


def _check_listing(place: str, listing: object) -> object:
    if not isinstance(listing, ListingRequest):
        raise wrong_kind(place, listing, "return a ListingRequest, such as ListingRequest('daily/BTCUSDT/')")
    return listing


def _check_symbols_listing(place: str, listing: object) -> object:
    return None if listing is None else _check_listing(place, listing)


def _check_file_request(place: str, request: object) -> object:
    if not check_request(place, request).base_url:
        raise wrong_kind(place, request, "name the host of the files as its base_url")
    return request


def _check_period(place: str, period: object) -> object:
    if period is not None and not isinstance(period, CalendarPeriod):
        raise wrong_kind(place, period, "return a CalendarPeriod, or None for a name of another form")
    return period


def _check_key(place: str, key: object) -> object:
    if not isinstance(key, str) or not key or key.startswith("/") or key.endswith("/"):
        raise wrong_kind(place, key, "return a path below the host, such as 'candles/BTC-2024-01.zip'")
    return key


def _check_checksum_request(place: str, request: object) -> object:
    return None if request is None else _check_file_request(place, request)


ARCHIVE_RESULTS: Mapping[str, Callable[[str, object], object]] = {
    "grains": _check_grains,
    "folder": _check_folder,
    "stem": _check_stem,
    "key": _check_key,
    "cost": check_cost,
    "symbols_listing": _check_symbols_listing,
    "symbol_of": _check_symbol,
    "listing": _check_listing,
    "listing_request": _check_file_request,
    "file_request": _check_file_request,
    "checksum_request": _check_checksum_request,
    "period_of": _check_period,
}
"""The methods of an Archive, each with the check of what it returns."""
