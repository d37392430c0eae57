"""Events of a run, which listeners receive; the engine prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

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
    "RequestAnswered",
    "RequestEvent",
    "RequestFailed",
    "RoundStarted",
    "RunEvent",
    "RunFinished",
    "SeriesRefused",
    "StoreRecovered",
    "SymbolUnknown",
    "WaitingForStore",
    "of_new_run",
]


@attrs.frozen
class RunEvent:
    """The base class of all events: `run_id` names the run, which is a new one each time a pipeline runs.

    Two events are equal if the same happened, whoever it happened to: both fields are left out of `==`.
    """

    run_id: str = attrs.field(default="", kw_only=True, eq=False)
    exchange: str = attrs.field(default="", kw_only=True, eq=False)


@attrs.frozen
class RequestEvent(RunEvent):
    """The end of one request: each ends as one PageFetched, RequestAnswered or RequestFailed.

    A request that is cancelled, since its run ends or its host refuses everything, has no event.

    `limit` is the name of the limit pool from which `weight` was taken, `wait` the seconds until an egress
    was free, `latency` the seconds from sending to the complete answer, and `size` the bytes of its body,
    uncompressed. Without an answer, `latency` is the time until the failure and `size` is 0.
    """

    limit: str = attrs.field(default="", kw_only=True)
    weight: int = attrs.field(default=0, kw_only=True)
    wait: float = attrs.field(default=0.0, kw_only=True, eq=False)
    latency: float = attrs.field(default=0.0, kw_only=True, eq=False)
    size: int = attrs.field(default=0, kw_only=True)


@attrs.frozen
class RoundStarted(RunEvent):
    """A round begins: `series` series lack `rows` rows in total.

    `events` of these rows are of event datasets: their number is a guess.
    """

    round: int
    series: int
    rows: int
    events: int = 0


@attrs.frozen
class SymbolUnknown(RunEvent):
    """The exchange does not know a symbol; the run goes on with the other symbols."""

    symbol: str
    hint: str


@attrs.frozen
class ClockSkewDetected(RunEvent):
    """The clocks of the exchange and this machine differ by more than five minutes.

    `ahead` are the milliseconds that the exchange is ahead, negative if it is behind. An
    interval is closed only when both clocks have passed its end.
    """

    ahead: int


@attrs.frozen
class PageFetched(RequestEvent):
    """A page arrived through an egress and was decoded."""

    series: Series
    egress: str
    rows: int
    rejected: Mapping[str, int]


@attrs.frozen
class RequestAnswered(RequestEvent):
    """A request was answered that is not for a page: the clock, a listing, a file, a search for rows.

    `series` is None for a request that belongs to no series.
    """

    path: str
    egress: str
    series: Series | None = None


@attrs.frozen
class FileFetched(RunEvent):
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
class FileRejected(RunEvent):
    """A file or a listing of an archive cannot be used; the API is asked for the rows instead."""

    series: Series
    key: str
    reason: str


@attrs.frozen
class RequestFailed(RequestEvent):
    """A request failed; `final` is True if the run will not repeat it.

    `cause` is the name of the error's class, and `error` the error itself. `series` is None for a request
    that belongs to no series, such as that of the clock. `give_up_in` is about how many seconds the request
    is repeated for, if it goes on failing as it did now; 0.0 for the last attempt.
    """

    cause: str
    message: str
    egress: str
    attempt: int
    final: bool
    series: Series | None = None
    error: Exception | None = attrs.field(default=None, eq=False, repr=False)
    give_up_in: float = 0.0


@attrs.frozen
class WaitingForStore(RunEvent):
    """The store is away, or another process holds it; the next attempt is after `wait` seconds."""

    message: str
    attempt: int
    wait: float


@attrs.frozen
class StoreRecovered(RunEvent):
    """The store has answered a call after WaitingForStore."""


@attrs.frozen
class SeriesRefused(RunEvent):
    """The store refuses the rows of a series; the run goes on with the other series."""

    series: Series
    reason: str


@attrs.frozen
class BatchWritten(RunEvent):
    """A batch is in the store, and survives a crash."""

    batch: Batch


@attrs.frozen
class Heartbeat(RunEvent):
    """The progress of the run, every few seconds and at once when a longer wait begins or ends.

    `rows_planned` are the missing rows of all rounds, and those of each composite from the moment when it is
    computed, without `rows_crossed`: the open times in long stretches without a row, each of which was
    decided in a few requests.

    `waiting` is what requests wait for, such as "waiting 21 s for the weight limit of binance-futures (2,388
    of 2,388 used)"; it is empty while requests are served. `seconds_left` is how long the rest takes where
    the limits delay it, with the waits; None where they do not or there are more than 20 egresses: then the
    rate so far is what shows it.
    """

    elapsed: float
    rows_fetched: int
    rows_written: int
    rows_planned: int
    requests: int
    egresses: Sequence[EgressReport]
    waiting: str = ""
    rows_crossed: int = 0
    seconds_left: float | None = None


@attrs.frozen
class RunFinished(RunEvent):
    """The last event of every run that was not cancelled."""

    report: Report


Event = (
    RoundStarted
    | SymbolUnknown
    | ClockSkewDetected
    | WaitingForStore
    | StoreRecovered
    | SeriesRefused
    | PageFetched
    | RequestAnswered
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


def of_new_run(listener: Listener, exchange: str) -> Listener:
    """Return a listener that writes a new run id and the exchange into each event before it passes it on.

    >>> heard: list[Event] = []
    >>> of_new_run(heard.append, "okx")(RoundStarted(1, series=2, rows=3))
    >>> heard[0].exchange, len(heard[0].run_id)
    ('okx', 32)
    """
    run_id = uuid4().hex
    return lambda event: listener(attrs.evolve(event, run_id=run_id, exchange=exchange))
