"""Events as measurements: which metrics there are, and what an event adds to them. Pure.

The listeners for Prometheus and OpenTelemetry give the measurements to their libraries. The table of all
metrics for users is `docs/metrics.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Literal

import attrs

from marketfetch.events import (
    BatchWritten,
    Event,
    FileFetched,
    FileRejected,
    Heartbeat,
    PageFetched,
    RequestAnswered,
    RequestFailed,
    RunFinished,
    WaitingForStore,
)
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = ["METRICS", "Measurement", "Measurer", "Metric"]


@attrs.frozen
class Metric:
    """The definition of a metric; the name has no unit and suffix, the unit is in OpenTelemetry's notation.

    A counter is added to, a gauge is set, and a histogram observes.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    description: str

    @property
    def prometheus_name(self) -> str:
        """The name by the rules of Prometheus: the unit in full, and `_total` after a counter.

        >>> Metric("response", "counter", "By", (), "").prometheus_name
        'marketfetch_response_bytes_total'
        """
        unit = {"s": "_seconds", "By": "_bytes"}.get(self.unit, "")
        return f"marketfetch_{self.name}{unit}{'_total' if self.kind == 'counter' else ''}"

    @property
    def opentelemetry_name(self) -> str:
        """The name by the rules of OpenTelemetry: the unit is not a part of it.

        >>> Metric("response", "counter", "By", (), "").opentelemetry_name
        'marketfetch.response'
        """
        return f"marketfetch.{self.name}"


@attrs.frozen
class Measurement:
    """A number for a metric, with the values of its labels."""

    metric: Metric
    value: float
    labels: Mapping[str, str]


_Values = Iterator[tuple[Metric, float, Mapping[str, str]]]
_SERIES = ("exchange", "dataset", "symbol", "interval")
_WHERE = ("exchange", "limit", "egress")
_REQUESTS = Metric("requests", "counter", "{request}", _WHERE, "Requests that were sent")
_WEIGHT = Metric("request_weight", "counter", "{weight}", _WHERE, "Limit weight that was spent")
_BYTES = Metric("response", "counter", "By", ("exchange",), "Bytes of answers, uncompressed")
_LATENCY = Metric("request_duration", "histogram", "s", ("exchange",), "Time from sending to the answer")
_WAIT = Metric(
    "request_wait", "histogram", "s", ("exchange", "limit"), "Time that requests waited for an egress"
)
_FAILURES = Metric(
    "request_failures", "counter", "{failure}", ("exchange", "kind"), "Failed requests by error"
)
_RETRIES = Metric("request_retries", "counter", "{retry}", ("exchange", "kind"), "Repeated requests by error")
_FETCHED = Metric("rows_fetched", "counter", "{row}", ("exchange", "dataset"), "Valid rows that arrived")
_REJECTED = Metric("rows_rejected", "counter", "{row}", ("exchange", "dataset", "reason"), "Rows not stored")
_WRITTEN = Metric("rows_written", "counter", "{row}", ("exchange", "dataset"), "Rows in durable batches")
_BATCHES = Metric("batches_written", "counter", "{batch}", ("exchange", "dataset"), "Durable batches")
_COVERED = Metric(
    "covered_until_timestamp",
    "gauge",
    "s",
    _SERIES,
    "End of the newest batch as a Unix time; now minus it is the lag",
)
_FILES = Metric(
    "files_fetched", "counter", "{file}", ("exchange", "verified"), "Files of archives that were read"
)
_FILES_REJECTED = Metric("files_rejected", "counter", "{file}", ("exchange",), "Files that could not be used")
_STORE_WAITS = Metric("store_waits", "counter", "{wait}", ("exchange",), "Waits for a store that is away")
_EGRESSES = Metric(
    "egresses",
    "gauge",
    "{egress}",
    ("exchange", "state"),
    "Egresses by state, each as the last heartbeat that names it says",
)
_RUNS = Metric("runs", "counter", "{run}", ("exchange", "outcome"), "Finished runs by outcome")
_MISSING = Metric(
    "series_incomplete", "gauge", "{series}", ("exchange",), "Series with missing rows after their last run"
)

METRICS = (
    *(_REQUESTS, _WEIGHT, _BYTES, _LATENCY, _WAIT, _FAILURES, _RETRIES),
    *(_FETCHED, _REJECTED, _WRITTEN, _BATCHES, _COVERED, _FILES, _FILES_REJECTED),
    *(_STORE_WAITS, _EGRESSES, _RUNS, _MISSING),
)
_STATES = ("ready", "waiting", "circuit half-open", "circuit open", "banned")
"""The beginnings of the states of an egress."""


@attrs.define(eq=False)
class Measurer:
    """Turns events into measurements; gauges are about all pipelines of an exchange together.

    It remembers how far each series was written, which series are incomplete, and the state of each egress.

    >>> from marketfetch.events import WaitingForStore
    >>> [found] = Measurer().measure(WaitingForStore("locked", 1, 0.5, exchange="okx"))
    >>> found.metric.name, found.value, found.labels
    ('store_waits', 1, {'exchange': 'okx'})
    """

    _covered_until: dict[Series, int] = attrs.field(factory=dict, init=False)
    _incomplete: set[Series] = attrs.field(factory=set, init=False)
    _states: dict[tuple[str, str], str] = attrs.field(factory=dict, init=False)
    """The state of each egress, by exchange and name; the direct connection of all pools is one egress."""

    def measure(self, event: Event) -> Iterator[Measurement]:
        """Yield what an event adds to the metrics."""
        values = chain(_of_request(event), _of_rows(event))
        match event:
            case BatchWritten():
                values = chain(values, self._of_batch(event.batch))
            case Heartbeat():
                values = chain(values, self._of_egresses(event))
            case RunFinished():
                values = chain(values, self._of_run(event))
            case WaitingForStore():
                values = chain(values, [(_STORE_WAITS, 1, {})])
            case _:
                pass
        for metric, value, labels in values:
            yield Measurement(metric, value, {"exchange": event.exchange, **labels})

    def _of_batch(self, batch: Batch) -> _Values:
        series, covered = batch.series, batch.coverage.covered.hull
        dataset = {"dataset": series.dataset.name}
        yield _BATCHES, 1, dataset
        yield _WRITTEN, batch.rows, dataset
        # A batch that fills an older gap does not move the end back.
        if covered is not None and covered.end > self._covered_until.get(series, 0):
            self._covered_until[series] = covered.end
            names = {"symbol": series.symbol, "interval": series.interval.name}
            yield _COVERED, covered.end / 1000, dataset | names

    def _of_egresses(self, beat: Heartbeat) -> _Values:
        self._states |= {(beat.exchange, egress.name): egress.state for egress in beat.egresses}
        known = [*self._states.items()]  # a pipeline on another thread may add some meanwhile
        states = [state for (exchange, _), state in known if exchange == beat.exchange]
        for beginning in _STATES:
            yield _EGRESSES, sum(state.startswith(beginning) for state in states), {"state": beginning}

    def _of_run(self, event: RunFinished) -> _Values:
        report = event.report
        outcome = "error" if report.error else "complete" if report.complete else "incomplete"
        yield _RUNS, 1, {"outcome": outcome}
        reported = {line.series for line in report.series}
        incomplete = {line.series for line in report.series if line.missing}
        # In place, and read as a copy: a pipeline on another thread may do the same meanwhile.
        self._incomplete -= reported - incomplete
        self._incomplete |= incomplete
        yield _MISSING, sum(series.exchange == event.exchange for series in [*self._incomplete]), {}


def _of_request(event: Event) -> _Values:
    if not isinstance(event, PageFetched | RequestAnswered | RequestFailed):
        return
    if isinstance(event, RequestFailed):
        yield _FAILURES, 1, {"kind": event.cause}
        if not event.final:
            yield _RETRIES, 1, {"kind": event.cause}
        if event.egress == "no egress":
            return  # it was not sent
    where = {"limit": event.limit, "egress": event.egress}
    yield _REQUESTS, 1, where
    yield _WEIGHT, event.weight, where
    yield _BYTES, event.size, {}
    yield _LATENCY, event.latency, {}
    yield _WAIT, event.wait, {"limit": event.limit}


def _of_rows(event: Event) -> _Values:
    match event:
        case PageFetched():
            dataset = {"dataset": event.series.dataset.name}
            yield _FETCHED, event.rows, dataset
            for reason, count in event.rejected.items():
                yield _REJECTED, count, dataset | {"reason": reason}
        case FileFetched():
            yield _FETCHED, event.rows, {"dataset": event.series.dataset.name}
            yield _FILES, 1, {"verified": str(event.verified).lower()}
        case FileRejected():
            yield _FILES_REJECTED, 1, {}
        case _:
            pass
