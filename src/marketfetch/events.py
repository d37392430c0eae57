"""What happens during a run, as values that listeners receive; the engine itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from marketfetch.reports import EgressReport, Report
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = [
    "BatchWritten",
    "ClockSkewDetected",
    "Event",
    "Heartbeat",
    "Listener",
    "PageFetched",
    "RequestFailed",
    "RoundStarted",
    "RunFinished",
    "SeriesRefused",
    "SymbolUnknown",
    "WaitingForStore",
]


@attrs.frozen
class RoundStarted:
    """A round begins: so many series lack so many rows (an estimate for event datasets)."""

    round: int
    series: int
    rows: int


@attrs.frozen
class SymbolUnknown:
    """The exchange does not know a symbol; the others go on."""

    symbol: str
    hint: str


@attrs.frozen
class ClockSkewDetected:
    """The exchange's clock is minutes or more away from ours: `ahead` milliseconds, negative if behind.

    One of the two is wrong. What is closed is decided by the earlier one.
    """

    ahead: int


@attrs.frozen
class PageFetched:
    """A page arrived through an egress and was decoded."""

    series: Series
    egress: str
    rows: int
    rejected: Mapping[str, int]


@attrs.frozen
class RequestFailed:
    """A request failed; `final` tells that it is not repeated any more."""

    cause: str
    message: str
    egress: str
    attempt: int
    final: bool


@attrs.frozen
class WaitingForStore:
    """The store is away, or another process holds it: it is tried again after `wait` seconds."""

    message: str
    attempt: int
    wait: float


@attrs.frozen
class SeriesRefused:
    """The store refuses the rows of a series for good; the other series go on."""

    series: Series
    reason: str


@attrs.frozen
class BatchWritten:
    """A batch is durable."""

    batch: Batch


@attrs.frozen
class Heartbeat:
    """Sent every few seconds, and at once when a longer wait begins or ends: how far the run is.

    `waiting` says in words what requests wait for, such as "waiting 21 s for the weight limit of binance-usdm
    (2,388 of 2,388 used)"; it is empty while they are served.
    """

    elapsed: float
    rows_fetched: int
    rows_written: int
    rows_planned: int
    requests: int
    egresses: Sequence[EgressReport]
    waiting: str = ""


@attrs.frozen
class RunFinished:
    """The last event of every run that was not cancelled."""

    report: Report


Event = (
    RoundStarted
    | SymbolUnknown
    | ClockSkewDetected
    | WaitingForStore
    | SeriesRefused
    | PageFetched
    | RequestFailed
    | BatchWritten
    | Heartbeat
    | RunFinished
)
Listener = Callable[[Event], None]
"""Called on the event loop: a plain function that returns at once. One that raises is logged and left out."""
