"""Query: which series and which span the store should hold after a run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import chain
from typing import Literal, get_args

import attrs

from marketfetch.common.keywords import checks_keywords
from marketfetch.common.name_lists import names_of
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import redact
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import KINDS, Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span
from marketfetch.values.times import (
    TimeLike,
    check_order,
    parse_time,
    plain_time,
)

__all__ = ["AllSymbols", "Query", "datasets_of"]

_Sources = Literal["auto", "rest", "archive"]


@attrs.frozen
class AllSymbols:
    """All symbols that an exchange trades now, optionally of one quote currency and of one kind.

    The kinds are `spot`, `perpetual` and `future`.

    With `delisted`, also all symbols of which its archive has files: their rows come from files alone.
    """

    quote: str | None = None
    delisted: bool = attrs.field(default=False, kw_only=True)
    kind: Literal["spot", "perpetual", "future"] | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.delisted, bool):
            raise ConfigurationError(f"delisted: {redact(repr(self.delisted))} is neither True nor False")
        if self.quote is not None and not isinstance(self.quote, str):
            raise ConfigurationError(
                f"quote: {redact(repr(self.quote))} is not a name; write one as text, such as 'USDT'"
            )
        if self.kind is not None and self.kind not in KINDS:
            raise unknown("kind", self.kind, KINDS)


def _symbols(symbols: object) -> tuple[str, ...] | AllSymbols:
    if symbols is AllSymbols:
        return AllSymbols()
    if symbols is None:
        raise ConfigurationError(
            "symbols: None is not a name; name some, or ask for AllSymbols(quote='USDT')"
        )
    if isinstance(symbols, AllSymbols):
        return symbols
    if isinstance(symbols, list | tuple | set) and any(isinstance(each, AllSymbols) for each in symbols):
        raise ConfigurationError("symbols: AllSymbols stands for a list; write it without one")
    return names_of("symbols", symbols)


def datasets_of(names: object) -> tuple[Dataset, ...]:
    """Return the datasets with these names, each once; ConfigurationError for an unknown name or None."""
    if names is None:
        raise ConfigurationError("datasets: None is not a name; name some, such as ohlcv, or leave them out")
    several = [names] if isinstance(names, str | Dataset) or not isinstance(names, Iterable) else names
    parted = (names_of("datasets", name) if isinstance(name, str) else (name,) for name in several)
    return tuple(dict.fromkeys(map(Dataset.parse, chain.from_iterable(parted))))


def _composites(composites: object) -> tuple[Composite, ...]:
    several = [composites] if isinstance(composites, str | Composite) else composites
    given: list[Composite] = []
    for composite in several if isinstance(several, Iterable) else (several,):
        if not isinstance(composite, Composite):
            raise ConfigurationError(
                f"composites: {redact(repr(composite))} is not a Composite; "
                "write Composite('MT', ('ETHUSDT', 'BTCUSDT'))"
            )
        given.append(composite)
    return tuple(given)


def _interval(name: str | timedelta | Interval) -> Interval:
    return Interval.parse(name)


def _start(value: object) -> TimeLike:
    return plain_time("start", value)


def _end(value: object) -> TimeLike:
    return plain_time("end", value)


def _sources(value: str) -> _Sources:
    for each in get_args(_Sources):
        if is_text(value) and value == each:
            known: _Sources = each
            return known
    raise unknown("sources", value, get_args(_Sources))


@checks_keywords
@attrs.frozen
class Query:
    """Which series and which span the store should hold after a run.

    `symbols` in the exchange's spelling or the unified one (`BTC/USDT:USDT`): one, several, or a text of
    names with commas between them; or AllSymbols(quote="USDT"). The span from `start` to `end` is half-open;
    each is an aware datetime, a date (midnight UTC), ISO text, `20d` or a timedelta before now, `now`, or UTC
    milliseconds. With `end="now"` the run goes on until no closed row is missing.

    `sources` says where rows come from: the API (`rest`), public files of the exchange (`archive`), or with
    `auto` from files where those are sooner than the API, and from the API for everything else.

    Raises ConfigurationError for unknown names (with near matches) and for values of a wrong type. When a
    run begins, `span` checks that text is a time, and that the start lies before the end.

    >>> Query(symbols="BTCUSDT", datasets="ohlcv", interval="1m", start="2026-06-01").end
    'now'
    """

    symbols: tuple[str, ...] | AllSymbols = attrs.field(converter=_symbols, kw_only=True)
    datasets: tuple[Dataset, ...] = attrs.field(
        default=(Dataset.parse("ohlcv"),), converter=datasets_of, kw_only=True
    )
    interval: Interval = attrs.field(default=Interval.parse("1m"), converter=_interval, kw_only=True)
    start: TimeLike = attrs.field(converter=_start, kw_only=True)
    end: TimeLike = attrs.field(default="now", converter=_end, kw_only=True)
    composites: tuple[Composite, ...] = attrs.field(default=(), converter=_composites, kw_only=True)
    sources: _Sources = attrs.field(default="auto", converter=_sources, kw_only=True)

    def span(self, now: int) -> Span:
        """Return the wanted span; ConfigurationError if it begins before 1970 or ends before it begins."""
        start, end = parse_time("start", self.start, now), parse_time("end", self.end, now)
        if start < 0:
            raise ConfigurationError("start: is before 1970; write a date such as 2020-01-01")
        check_order(start, end)
        return Span(start, end)
