"""Settings of a run, and RetryPolicy: the number of retries and the exponential backoff between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal

import attrs

from marketfetch.common.type_checks import is_number, is_text, is_whole, plain_int, plain_number
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import redact
from marketfetch.values.times import (
    Clock,
    SteadyClock,
    anchored,
)

__all__ = ["RetryPolicy", "Settings"]


def _whole(least: int, most: float = inf) -> Callable[[object, attrs.Attribute[int], int], None]:
    """Return a validator of whole numbers between two bounds; its message names the argument."""
    bounds = f"at least {least}" if most == inf else f"from {least} to {most:,}"

    def check(_settings: object, argument: attrs.Attribute[int], value: int) -> None:
        if not is_whole(value) or not least <= value <= most:
            raise ConfigurationError(
                f"{argument.name}: must be a whole number, {bounds}, not {redact(repr(value))}"
            )

    return check


def _seconds(_settings: object, argument: attrs.Attribute[float], value: float) -> None:
    if not is_number(value) or value < 0:
        raise ConfigurationError(f"{argument.name}: must be a number of seconds, not {redact(repr(value))}")


@attrs.frozen
class RetryPolicy:
    """How often a request is tried, and the exponential backoff between two tries; times in seconds.

    The backoff begins with `initial`, doubles with each failure up to `cap`, and has jitter. Raises
    ConfigurationError for a number that is of another kind or too small.

    >>> RetryPolicy(initial=0.5, cap=30).wait(3, jitter=1.0)
    2.0
    """

    attempts: int = attrs.field(default=8, converter=plain_int, validator=_whole(1))
    initial: float = attrs.field(default=0.25, converter=plain_number, validator=_seconds)
    cap: float = attrs.field(default=20.0, converter=plain_number, validator=_seconds)

    def wait(self, failures: int, jitter: float) -> float:
        """Return the wait after so many failures; `jitter` 1 gives the whole wait, 0 gives half of it."""
        doublings = min(failures - 1, 1023)  # 2.0**1024 overflows
        full = min(self.cap, self.initial * 2.0**doublings)
        return full * (0.5 + 0.5 * jitter)


def _one_of(*choices: str) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator of texts; its message names the argument and the choices."""

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
            f"retries: {redact(repr(value))} is not a RetryPolicy; write RetryPolicy(attempts={count:d})"
        )


def _clock(_settings: object, _argument: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise ConfigurationError(
            f"clock: {redact(repr(value))} is not a function; give a function that returns UTC milliseconds"
        )


_MAX_CONCURRENCY = 10_000
"""No process has more open connections, and each request in flight is a task in memory."""


@attrs.frozen
class Settings:
    """How a run works; the defaults suit most.

    - `concurrency`: the most requests in flight, for each limit pool.
    - `batch_rows`: rows of one batch; None leaves the number to the sink. A store may commit several batches
      together.
    - `deadline`: the most seconds for one request.
    - `heartbeat`: the seconds between two Heartbeat events.
    - `max_rounds`: how often a run that reads up to now looks for newly closed rows.
    - `clock`: the local time in UTC milliseconds; by default the wall clock as each run finds it, which does
      not jump within a run. A row is closed when both this clock and the exchange's say so.
    - `unusable`: what to do with rows that are wrong in three answers. `"keep"` keeps them beside the ledger
      and goes on without them. `"store"` stores them as they are, if a table can hold them. `"retry"` asks
      again for those that an earlier run kept, and reports them missing if they are still wrong.

    Raises ConfigurationError for a number that is too small or too large, and for a value of another kind.

    Settings can be pickled; a clock of the caller's own then has to be a function of a module, or an object
    that can be pickled.
    """

    concurrency: int = attrs.field(default=20, converter=plain_int, validator=_whole(1, _MAX_CONCURRENCY))
    batch_rows: int | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(plain_int),
        validator=attrs.validators.optional(_whole(1)),
    )
    retries: RetryPolicy = attrs.field(factory=RetryPolicy, validator=_retries)
    deadline: float = attrs.field(default=60.0, converter=plain_number, validator=_above_zero)
    heartbeat: float = attrs.field(default=10.0, converter=plain_number, validator=_above_zero)
    max_rounds: int = attrs.field(default=20, converter=plain_int, validator=_whole(1))
    clock: Clock = attrs.field(factory=SteadyClock, repr=False, validator=_clock)
    unusable: Literal["keep", "store", "retry"] = attrs.field(
        default="keep", validator=_one_of("keep", "store", "retry"), kw_only=True
    )

    def for_one_run(self) -> Settings:
        """Return the settings with a clock that begins with the wall clock as it is now."""
        return attrs.evolve(self, clock=anchored(self.clock))

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields for a pickle; ConfigurationError for a clock that no other process can find."""
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
        return self  # Settings cannot change, and a copy needs no clock that can be pickled

    def __deepcopy__(self, memo: object) -> Settings:
        return self
