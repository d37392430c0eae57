"""Checks of what the methods of an adapter return: each message says what to return instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from marketfetch.archives.listing import ListingRequest
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.common.type_checks import is_whole
from marketfetch.errors import AdapterError, wrong_kind
from marketfetch.values.http import Burst, Cost, LimitPool, Request
from marketfetch.values.instruments import Instrument

__all__ = [
    "ARCHIVE_RESULTS",
    "check_cost",
    "check_instruments",
    "check_next_request",
    "check_request",
    "check_requests",
]

_SHORTEST = 100
"""No exchange counts in shorter periods (ms): a shorter one was meant to be seconds."""


def check_cost(place: str, cost: object) -> Cost:
    """Return what a `cost` method returned; AdapterError if it is no Cost that fits into its limit pool."""
    if not isinstance(cost, Cost):
        raise wrong_kind(place, cost, "return a Cost, such as Cost(LimitPool('calls', 10, 1000), 1)")
    pool: object = cost.pool
    if not isinstance(pool, LimitPool):
        raise wrong_kind(f"{place}: pool", pool, "write a LimitPool, such as LimitPool('calls', 10, 1000)")
    hosts: object = pool.hosts
    if not isinstance(hosts, tuple) or not all(isinstance(host, str) for host in hosts):
        remedy = "write a tuple of URLs, such as ('https://a.org', 'https://b.org')"
        raise wrong_kind(f"{place}: {pool.name}: hosts", hosts, remedy)
    if pool.window not in {"clock", "sliding"}:
        raise wrong_kind(f"{place}: {pool.name}: window", pool.window, "write 'clock' or 'sliding'")
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
    if not isinstance(burst, Burst):
        raise wrong_kind(f"{place}: burst", burst, "write Burst(10, 1000) for 10 in each second")
    if not is_whole(burst.capacity) or not is_whole(burst.period):
        raise wrong_kind(f"{place}: burst", burst, "write whole numbers, such as Burst(10, 1000)")
    if not _SHORTEST <= burst.period < pool.period:
        raise AdapterError(
            f"{place}: burst: its period is {burst.period} ms; write milliseconds, fewer than {pool.period}"
        )
    if pool.window == "clock" and pool.period % burst.period:
        raise AdapterError(
            f"{place}: burst: its period is {burst.period} ms; write one that divides {pool.period}, so that "
            "both windows of the clock end together"
        )
    if not cost.weight <= burst.capacity < pool.capacity <= burst.capacity * pool.period // burst.period:
        raise AdapterError(
            f"{place}: burst: {burst.capacity} in {burst.period} ms and {pool.capacity} in {pool.period} ms; "
            f"write a capacity from {max(cost.weight, -(-pool.capacity * burst.period // pool.period))} to "
            f"{pool.capacity - 1}, or only the limit that is reached first"
        )


def check_request(place: str, request: object) -> Request:
    """Return a Request; AdapterError for anything else, and for a part of it that cannot be sent."""
    if not isinstance(request, Request):
        raise wrong_kind(place, request, "return a Request, such as Request('/path', {'symbol': …}, cost=…)")
    path: object = request.path
    if not isinstance(path, str) or not path.startswith("/"):
        raise wrong_kind(f"{place}: path", path, "write the path alone, such as '/v1/candles'")
    _check_texts(f"{place}: params", request.params, whole=True)
    _check_texts(f"{place}: headers", request.headers, whole=False)
    if request.method not in {"GET", "POST"}:
        raise wrong_kind(f"{place}: method", request.method, "write 'GET' or 'POST'")
    if request.body is not None and not isinstance(request.body, bytes):
        raise wrong_kind(f"{place}: body", request.body, "write bytes, such as json.dumps(…).encode()")
    if request.body is not None and request.method == "GET":
        raise wrong_kind(f"{place}: body", request.body, "write method='POST' beside it: GET has no body")
    if not isinstance(request.cost, Cost):
        raise wrong_kind(f"{place}: cost", request.cost, "write Cost(LimitPool('calls', 10, 1000))")
    return request


def _check_texts(place: str, found: object, *, whole: bool) -> None:
    if not isinstance(found, Mapping):
        raise wrong_kind(place, found, "write a dict of names and values")
    for name, value in found.items():
        if not isinstance(name, str):
            raise wrong_kind(place, name, "write names as text")
        if not isinstance(value, str) and not (whole and is_whole(value)):
            remedy = "write text or a whole number, or leave it out" if whole else "write text"
            raise wrong_kind(f"{place}[{name!r}]", value, remedy)


def check_next_request(place: str, request: object) -> Request | None:
    """Return a Request or None; AdapterError for anything else, such as a cursor alone."""
    if request is None:
        return None
    if not isinstance(request, Request):
        raise wrong_kind(place, request, "return the Request for the next page, or None after the last one")
    return check_request(place, request)


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
