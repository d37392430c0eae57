"""What the caller wants and what may be spent on it: Query, Everything, Settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import chain
from math import inf
from typing import Any, Literal

import attrs

from marketfetch.common.name_lists import names_of
from marketfetch.common.type_checks import is_number, is_text, is_whole
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.exchange import Exchange
from marketfetch.ratelimit.backoff import RetryPolicy
from marketfetch.redaction import redact
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Composite
from marketfetch.values.spans import Span
from marketfetch.values.times import (
    Clock,
    TimeLike,
    anchored,
    check_order,
    parse_time,
    plain_time,
    steady_clock,
)

__all__ = ["DEFAULT_BATCH_ROWS", "AllSymbols", "Query", "Settings", "datasets_of"]

DEFAULT_BATCH_ROWS = 8_000
"""The size of batches for sinks that do not say what suits them."""


@attrs.frozen
class AllSymbols:
    """All symbols that an exchange trades now, optionally of one quote currency."""

    quote: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.quote is not None and not isinstance(self.quote, str):
            raise ConfigurationError(f"quote: {self.quote!r} is no name; write one as text, such as 'USDT'")


def _symbols(symbols: object) -> tuple[str, ...] | AllSymbols:
    if symbols is AllSymbols:
        return AllSymbols()
    if symbols is None:
        raise ConfigurationError("symbols: None is no name; name some, or ask for AllSymbols(quote='USDT')")
    return symbols if isinstance(symbols, AllSymbols) else names_of("symbols", symbols)


def datasets_of(names: object) -> tuple[Dataset, ...]:
    """Return the datasets that are named, each once; ConfigurationError for what names none."""
    if names is None:
        raise ConfigurationError("datasets: None is no name; name some, such as ohlcv, or leave them out")
    several = [names] if isinstance(names, str | Dataset) or not isinstance(names, Iterable) else names
    parted = (names_of("datasets", name) if isinstance(name, str) else (name,) for name in several)
    return tuple(dict.fromkeys(map(Dataset.parse, chain.from_iterable(parted))))


def _composites(composites: object) -> tuple[Composite, ...]:
    several = [composites] if isinstance(composites, str | Composite) else composites
    given: list[Composite] = []
    for composite in several if isinstance(several, Iterable) else (several,):
        if not isinstance(composite, Composite):
            raise ConfigurationError(
                f"composites: {redact(repr(composite))} is none; "
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


@attrs.frozen
class Query:
    """What the store should hold when the run is over.

    `symbols` in the exchange's spelling or the unified one (`BTC/USDT:USDT`): one, several, or a text of
    names parted by commas; or AllSymbols(quote="USDT"). `start` and `end` are half-open: an aware datetime, a
    date (midnight UTC), ISO text, `20d` or a timedelta before now, `now`, or UTC milliseconds. With
    `end="now"` the run catches up until nothing closed is missing.

    Raises ConfigurationError for names that do not exist (with near matches) and for times that are none.

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

    def span(self, now: int) -> Span:
        """Return the span that is wanted, in UTC milliseconds; raises ConfigurationError for a wrong one."""
        start, end = parse_time("start", self.start, now), parse_time("end", self.end, now)
        if start < 0:
            raise ConfigurationError("start: is before 1970; write a date such as 2020-01-01")
        check_order(start, end)
        return Span(start, end)

    def check(self, exchange: Exchange, now: int) -> None:
        """Refuse what is certain to fail at this exchange, before anything is sent."""
        if self.span(now).end > now + 1000:
            raise ConfigurationError(f"end: {self.end} is in the future; leave it out or write now")
        if isinstance(self.symbols, tuple) and not all(self.symbols):
            raise ConfigurationError("symbols: an empty name is none; leave it out")
        if any(redact(name) != name for name in self._written()):
            raise ConfigurationError("symbols: one of the names is an address with credentials; name symbols")
        if not self.symbols and not self.composites:
            raise ConfigurationError("symbols: none given; name some, or ask for AllSymbols(quote='USDT')")
        if not self.datasets:
            raise ConfigurationError("datasets: none given; name some, such as ohlcv")
        if self.interval.is_event and not all(dataset.event for dataset in self.datasets):
            raise ConfigurationError("interval: 'event' is for datasets of events; write 1m or like it")
        for dataset in self.datasets:
            exchange.endpoint(dataset).check_interval(self.interval)
        self._check_composites()

    def _written(self) -> Iterator[str]:
        """Return every name in the query: messages and reports repeat them."""
        yield from [self.symbols.quote or ""] if isinstance(self.symbols, AllSymbols) else self.symbols
        for composite in self.composites:
            yield from (composite.symbol, *composite.members)

    def _check_composites(self) -> None:
        if self.composites and "ohlcv" not in {dataset.name for dataset in self.datasets}:
            raise ConfigurationError("composites: are made of ohlcv; add it to the datasets")
        if len({composite.symbol for composite in self.composites}) != len(self.composites):
            raise ConfigurationError("composites: two of them have the same name; rename one")
        for composite in self.composites:
            name, members = composite.symbol, composite.members
            if len(members) < 2 or len(set(members)) != len(members):
                raise ConfigurationError(f"composites: {name} needs two or more different members")
            if name in members or (isinstance(self.symbols, tuple) and name in self.symbols):
                raise ConfigurationError(f"composites: {name} is the name of a symbol; choose another")


def _whole(least: int, most: float = inf) -> Callable[[object, attrs.Attribute[int], int], None]:
    """Refuse what is no whole number between the two; the message names the argument."""
    bounds = f"at least {least}" if most == inf else f"from {least} to {most:,}"

    def check(_settings: object, argument: attrs.Attribute[int], value: int) -> None:
        if not is_whole(value) or not least <= value <= most:
            raise ConfigurationError(
                f"{argument.name}: must be a whole number, {bounds}, not {redact(repr(value))}"
            )

    return check


def _one_of(*choices: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Refuse what is none of the choices; the message names the argument and them."""

    def check(_settings: object, argument: attrs.Attribute[Any], value: Any) -> None:
        if not is_text(value) or value not in choices:
            raise unknown(argument.name, value, choices)

    return check


def _above_zero(_settings: object, argument: attrs.Attribute[float], value: float) -> None:
    if not is_number(value) or value <= 0:
        raise ConfigurationError(
            f"{argument.name}: must be above zero, a number of seconds, not {redact(repr(value))}"
        )


def _retries(_settings: object, _argument: attrs.Attribute[RetryPolicy], value: object) -> None:
    if not isinstance(value, RetryPolicy):
        count = value if isinstance(value, int) and value > 0 else 8
        raise ConfigurationError(
            f"retries: {redact(repr(value))} is none; write RetryPolicy(attempts={count:d})"
        )


def _clock(_settings: object, _argument: attrs.Attribute[Clock], value: object) -> None:
    if not callable(value):
        raise ConfigurationError(
            f"clock: {redact(repr(value))} is none; give a function that returns UTC milliseconds"
        )


_MOST_AT_ONCE = 10_000
"""No process has more connections open, and each request in flight is a task that is kept."""


@attrs.frozen
class Settings:
    """How a run goes about its work; the defaults suit most.

    `concurrency` requests are in flight at most, for each limit pool. Rows are gathered into batches of
    about `batch_rows`, one transaction each; None leaves it to the sink, which knows best. `deadline` bounds
    one request, `heartbeat` is the pause between Heartbeat events, both in seconds; `max_rounds` bounds how
    many times a run that reads up to now looks for newly closed rows. `clock` is the local time; what is
    closed is decided by the earlier one of it and the exchange's, where that tells. By default it is the wall
    clock as each run finds it, which does not jump within a run.

    `unusable` says what becomes of rows that the exchange has wrong, in one answer as in the next: `"keep"`
    notes them beside the ledger and goes on without them, `"store"` stores them as they are where a table can
    hold them, and `"retry"` asks once more for those that were noted before, and reports them missing where
    they are still wrong.

    Raises ConfigurationError for a number that is too small or too large, and for what is of another kind.

    Settings can be pickled; a clock of the caller's own then has to be a function of a module, or an object
    that can be pickled.
    """

    concurrency: int = attrs.field(default=20, validator=_whole(1, _MOST_AT_ONCE))
    batch_rows: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole(1)))
    retries: RetryPolicy = attrs.field(factory=RetryPolicy, validator=_retries)
    deadline: float = attrs.field(default=60.0, validator=_above_zero)
    heartbeat: float = attrs.field(default=10.0, validator=_above_zero)
    max_rounds: int = attrs.field(default=20, validator=_whole(1))
    clock: Clock = attrs.field(factory=steady_clock, repr=False, validator=_clock)
    unusable: Literal["keep", "store", "retry"] = attrs.field(
        default="keep", validator=_one_of("keep", "store", "retry"), kw_only=True
    )

    def for_one_run(self) -> Settings:
        """Return the settings with a clock that begins with the wall clock as it is now."""
        return attrs.evolve(self, clock=anchored(self.clock))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds; ConfigurationError for a clock that another process cannot find."""
        found = self.clock if hasattr(self.clock, "__qualname__") else type(self.clock)
        if "<" in found.__qualname__:  # <lambda>, or something inside of <locals>
            raise ConfigurationError(
                f"clock: {found.__qualname__} cannot be sent to another process, which would not find it;"
                " write it as a function of a module, or leave it out: each process then has its own"
            )
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __copy__(self) -> Settings:
        return self  # nothing of it can change; copying shall not ask for a clock that can be pickled

    def __deepcopy__(self, memo: object) -> Settings:
        return self
