"""Numbers, times and events as text for people."""

from __future__ import annotations

from marketfetch.common.text import (
    clock_text,
    format_counts,
    format_crossed,
    format_duration,
    format_rate,
    join_limited,
    pluralize,
    time_left,
)
from marketfetch.events import (
    BatchWritten,
    ClockSkewDetected,
    Event,
    FileFetched,
    FileRejected,
    Heartbeat,
    PageFetched,
    RequestAnswered,
    RequestFailed,
    RoundStarted,
    RunFinished,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.redaction import printable
from marketfetch.report_text import headline, span_text, spans_text
from marketfetch.reports import EgressReport

__all__ = [
    "clock_text",
    "describe_event",
    "format_counts",
    "format_crossed",
    "format_duration",
    "format_rate",
    "headline",
    "join_limited",
    "pluralize",
    "span_text",
    "spans_text",
    "time_left",
]

_MAX_EGRESSES = 6
"""Egresses that fit into one line."""


def describe_event(event: Event) -> str:
    """Describe an event in one line, without control characters that a server may have sent.

    >>> describe_event(RoundStarted(round=1, series=2, rows=40_320))
    'round 1: 40,320 rows of 2 series are missing'
    >>> describe_event(RoundStarted(round=1, series=3, rows=40_415, events=95))
    'round 1: about 40,415 rows of 3 series are missing'
    >>> describe_event(RoundStarted(round=1, series=1, rows=95, events=95))
    'round 1: events of 1 series are missing'
    """
    return printable(_description(event))


def _description(event: Event) -> str:
    match event:
        case RoundStarted():
            return f"round {event.round}: {_missing(event)} missing"
        case PageFetched():
            rejected = f", rejected: {format_counts(event.rejected)}" if event.rejected else ""
            return f"{event.series}: {pluralize(event.rows, 'row')} through {event.egress}{rejected}"
        case RequestAnswered():
            return f"{event.path}: answered through {event.egress} in {event.latency:.3f} s"
        case FileFetched():
            unverified = "" if event.verified else ", without a checksum"
            return f"{event.series}: {pluralize(event.rows, 'row')} of {event.key}{unverified}"
        case RequestFailed():
            last = ", given up" if event.final else ""
            of = f"{event.series}: " if event.series else ""
            return f"{of}{event.cause} through {event.egress}, attempt {event.attempt}{last}: {event.message}"
        case BatchWritten():
            kept = (
                f", {pluralize(len(wrong), 'unusable row')} kept" if (wrong := event.batch.rejected) else ""
            )
            return f"{event.batch.series}: {pluralize(event.batch.rows, 'row')} written{kept}"
        case Heartbeat():
            return _heartbeat(event)
        case RunFinished():
            return headline(event.report)
        case _:
            return _notice(event)


def _missing(event: RoundStarted) -> str:
    """Say what is missing; the number of events is a guess, so it is not given alone."""
    of = pluralize(event.series, "series")
    if event.events == event.rows > 0:
        return f"events of {of} are"
    about = "about " if event.events else ""
    return f"{about}{pluralize(event.rows, 'row')} of {of} {'is' if event.rows == 1 else 'are'}"


def _notice(
    event: SymbolUnknown
    | ClockSkewDetected
    | WaitingForStore
    | StoreRecovered
    | SeriesRefused
    | FileRejected,
) -> str:
    match event:
        case FileRejected():
            return f"{event.series}: {event.key} is not used, the API is asked instead: {event.reason}"
        case SymbolUnknown():
            return f"{event.symbol}: {event.hint}"
        case ClockSkewDetected():
            apart = (
                f"{format_duration(abs(event.ahead) / 1000)} {'ahead of' if event.ahead > 0 else 'behind'}"
            )
            return f"the exchange's clock is {apart} this machine's: one of them is wrong"
        case WaitingForStore():
            return f"waiting for the store, {event.wait:.1f} s more: {event.message}"
        case StoreRecovered():
            return "the store answers again"
        case SeriesRefused():
            return f"{event.series} is given up, the others go on: {event.reason}"


def _heartbeat(beat: Heartbeat) -> str:
    progress = "requesting clock and symbol list"
    if beat.rows_planned:
        # It may be above 100 %: the plan of events is an estimate.
        share = min(1.0, beat.rows_written / beat.rows_planned)
        progress = (
            f"{beat.rows_written:,} of {pluralize(beat.rows_planned, 'row')} written ({share:.0%}),"
            f" {format_rate(beat.rows_written, beat.elapsed)}"
        )
    if beat.rows_crossed:
        progress += f", {format_crossed(beat.rows_crossed)}"
    lines = [_egress(egress) for egress in beat.egresses]
    waiting = f"; {beat.waiting}" if beat.waiting else ""
    return f"{beat.elapsed:.0f} s: {progress}{waiting}; {join_limited(lines, _MAX_EGRESSES)}"


def _egress(egress: EgressReport) -> str:
    state = "" if egress.state == "ready" else f", {egress.state}"
    return f"{egress.name}: {pluralize(egress.rows, 'row')}{state}"
