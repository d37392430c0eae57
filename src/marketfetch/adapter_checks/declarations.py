"""Checks of what an adapter declares, when its class is made: each message says what to write instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from marketfetch.common.type_checks import is_whole
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.errors import AdapterError, ConfigurationError, unknown, wrong_kind
from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import host_url
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, HOUR, MINUTE

__all__ = ["check_archive", "check_endpoint", "check_exchange"]

_MISSPELT = 0.87
"""From here on two names are alike; `listing_request`, a helper, and `next_listing_request` are not."""
_NAME = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")


def _is_several(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def check_endpoint(cls: type[Any], base: type[Any]) -> None:
    """Refuse a class made from Endpoint, its `base`, that has an attribute of the wrong kind."""
    _check_dataset(cls)
    _check_numbers(cls)
    _check_native_names(cls)
    _check_paginator(cls, event=Dataset.parse(cls.dataset).event)
    _check_methods(cls, base, ("cost", "request", "decode", "first_row_request", "native_interval"))
    _check_spelling(cls, base)


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


def _check_native_names(cls: type[Any]) -> None:
    """Refuse an interval in another spelling than ours, and two intervals that are one at the exchange.

    Days of several zones may have one name: an exchange may take the zone as a parameter of its own, such as
    `interval=1d&timeZone=8`.
    """
    for name in cls.intervals:
        if (ours := Interval.parse(name).name) != name:
            raise AdapterError(f"{cls.__name__}.intervals: {name!r} is another spelling; write {ours!r}")
    names: dict[str, str] = {}
    for ours, theirs in cls.intervals.items():
        if theirs in names and Interval.parse(ours).length != Interval.parse(names[theirs]).length:
            raise AdapterError(
                f"{cls.__name__}.intervals: {names[theirs]!r} and {ours!r} are both {theirs!r}; "
                "write the exchange's own name of each"
            )
        names[theirs] = ours


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


def _check_methods(cls: type[Any], base: type[Any], names: Iterable[str]) -> None:
    for name in names:
        method = getattr(cls, name)
        if not callable(method):
            raise wrong_kind(f"{cls.__name__}.{name}", method, f"write it as a method: def {name}(self, …)")
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise AdapterError(f"{cls.__name__}.{name} is async: adapters do no I/O; write a plain def")
        _check_parameters(cls, name, [*inspect.signature(getattr(base, name)).parameters])


def _check_parameters(cls: type[Any], name: str, wanted: list[str]) -> None:
    """Refuse a method that cannot be called with as many arguments as that of the base class."""
    try:
        signature = inspect.signature(getattr(cls, name))
    except ValueError:
        return  # a function of C need not say what it takes
    written = inspect.getattr_static(cls, name)
    # As an object of the class has it: a function gets the object, a method of another object does not.
    called = written.__get__(object(), cls) if hasattr(written, "__get__") else written
    try:
        inspect.signature(called).bind(*wanted[1:])
    except (TypeError, ValueError):  # ValueError: it does not even take the object
        raise AdapterError(
            f"{cls.__name__}.{name}{signature} has other parameters; write def {name}({', '.join(wanted)})"
        ) from None


def _check_spelling(cls: type[Any], base: type[Any]) -> None:
    """Refuse a name that is nearly that of an optional member: nothing would ever read or call it.

    A value is not taken for a misspelt method, nor a method for a misspelt value: `endpoints`, a table of an
    adapter, is like the method `endpoint`.
    """
    written = {
        name for each in cls.__mro__ if issubclass(each, base) and each is not base for name in vars(each)
    }
    unused = [name for name in dir(base) if not name.startswith("_") and name not in written]
    for name in vars(cls):
        if name.startswith("_") or hasattr(base, name):
            continue
        alike = [each for each in unused if callable(getattr(base, each)) == callable(getattr(cls, name))]
        if near := get_close_matches(name, alike, n=1, cutoff=_MISSPELT):
            remedy = f"write {near[0]!r}, or a name that is less like it"
            raise AdapterError(f"{cls.__name__}.{name} is no member of {base.__name__}; {remedy}")


def check_archive(cls: type[Any], base: type[Any]) -> None:
    """Refuse a class made from Archive, its `base`, that has an attribute of the wrong kind."""
    name = cls.__name__
    _check_dataset(cls)
    _check_layout(f"{name}.layout", cls.layout, Dataset.parse(cls.dataset))
    _check_url(f"{name}.files_url", cls.files_url)
    if cls.listing_url is not None:
        _check_url(f"{name}.listing_url", cls.listing_url)
    suffix: object = cls.suffix
    if not isinstance(suffix, str) or not suffix.startswith(".") or "/" in suffix:
        raise wrong_kind(f"{name}.suffix", suffix, "write the end of the file names, such as '.csv.gz'")
    for attribute in ("since", "publish_delay"):
        if not is_whole(value := getattr(cls, attribute)) or value < 0:
            raise wrong_kind(f"{name}.{attribute}", value, "write milliseconds, or leave it out")
    if not is_whole(cls.utc_offset) or abs(cls.utc_offset) > DAY or 0 < abs(cls.utc_offset) < MINUTE:
        remedy = "write milliseconds ahead of UTC, such as 8 * 3_600_000"
        raise wrong_kind(f"{name}.utc_offset", cls.utc_offset, remedy)
    _check_methods(cls, base, ("cost", "folder", "stem", "key", "grains", "symbols_listing", "symbol_of"))
    _check_spelling(cls, base)


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


def check_exchange(cls: type[Any], base: type[Any], endpoint: type[Any], archive: type[Any]) -> None:
    """Refuse a class made from Exchange, its `base`; the others are the base classes of its sources."""
    place = cls.__name__
    if not isinstance(cls.name, str) or not cls.name.strip():
        raise wrong_kind(f"{place}.name", cls.name, "write the exchange's name, such as 'my-exchange'")
    if not _NAME.fullmatch(cls.name):
        remedy = "write lower case letters and digits, joined by - _ or ., such as 'my-exchange'"
        raise wrong_kind(f"{place}.name", cls.name, remedy)
    _check_url(f"{place}.default_url", cls.default_url)
    _check_sources(cls, endpoint, archive)
    _check_methods(
        cls,
        base,
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
    _check_spelling(cls, base)


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
    with_archive = [each.dataset for each in cls.sources if issubclass(each, archive)]
    if len(set(with_archive)) != len(with_archive) or not set(with_archive) <= set(served):
        raise AdapterError(
            f"{place} may have one archive for each dataset that has an endpoint, found {with_archive}"
        )
