"""Events of a run, which listeners receive; the engine prints nothing."""

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
    "FileFetched",
    "FileRejected",
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
    """A round begins: `series` series lack `rows` rows in total, an estimate for event datasets."""

    round: int
    series: int
    rows: int


@attrs.frozen
class SymbolUnknown:
    """The exchange does not know a symbol; the run goes on with the other symbols."""

    symbol: str
    hint: str


@attrs.frozen
class ClockSkewDetected:
    """The clocks of the exchange and this machine differ by more than five minutes.

    `ahead` are the milliseconds that the exchange is ahead, negative if it is behind. An
    interval is closed only when both clocks have passed its end.
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
class FileFetched:
    """A file of an archive arrived through an egress and was decoded.

    `rows` is the number of rows that were missing and are stored now, `size` the number of bytes of the file.
    `verified` tells whether the archive published a checksum, which agreed.
    """

    series: Series
    egress: str
    key: str
    rows: int
    size: int
    verified: bool = attrs.field(kw_only=True)


@attrs.frozen
class FileRejected:
    """A file or a listing of an archive cannot be used; the API is asked for the rows instead."""

    series: Series
    key: str
    reason: str


@attrs.frozen
class RequestFailed:
    """A request failed; `final` is True if the run will not repeat it."""

    cause: str
    message: str
    egress: str
    attempt: int
    final: bool


@attrs.frozen
class WaitingForStore:
    """The store is away, or another process holds it; the next attempt is after `wait` seconds."""

    message: str
    attempt: int
    wait: float


@attrs.frozen
class SeriesRefused:
    """The store refuses the rows of a series; the run goes on with the other series."""

    series: Series
    reason: str


@attrs.frozen
class BatchWritten:
    """A batch is in the store, and survives a crash."""

    batch: Batch


@attrs.frozen
class Heartbeat:
    """The progress of the run, every few seconds and at once when a longer wait begins or ends.

    `rows_planned` are the missing rows of all rounds, without `rows_crossed`: the open times in long
    stretches without a row, each of which was decided in a few requests.

    `waiting` is what requests wait for, such as "waiting 21 s for the weight limit of binance-usdm (2,388 of
    2,388 used)"; it is empty while requests are served.
    """

    elapsed: float
    rows_fetched: int
    rows_written: int
    rows_planned: int
    requests: int
    egresses: Sequence[EgressReport]
    waiting: str = ""
    rows_crossed: int = 0


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
    | FileFetched
    | FileRejected
    | RequestFailed
    | BatchWritten
    | Heartbeat
    | RunFinished
)
Listener = Callable[[Event], None]
"""A function that a run calls on the event loop; it must return at once.

If it raises, the run logs the error and calls it no more.
"""
