"""Numbers, times and events as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.redaction import printable
from marketfetch.reports import NOTHING_CLOSED, EgressReport, Report
from marketfetch.values.spans import Span, format_utc

__all__ = [
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
_MAX_SPANS = 2
"""Spans that fit into a cell of a table."""


def pluralize(number: int, thing: str) -> str:
    """Write a number with a noun.

    >>> pluralize(1, "row"), pluralize(1200, "row"), pluralize(2, "series")
    ('1 row', '1,200 rows', '2 series')
    """
    return f"{number:,} {thing}{'' if number == 1 or thing.endswith('s') else 's'}"


def format_duration(seconds: float) -> str:
    """Write a duration in seconds, minutes, hours or days.

    >>> format_duration(9.96), format_duration(75), format_duration(3720), format_duration(360_000)
    ('10.0 s', '1 min 15 s', '1 h 02 min', '4 d 04 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} d {minutes // 60 % 24:02} h"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def format_rate(rows: int, seconds: float) -> str:
    """Write the number of rows per second.

    >>> format_rate(3000, 1.5)
    '2,000 rows/s'
    """
    return f"{rows / max(seconds, 0.001):,.0f} rows/s"


def time_left(done: int, total: int, elapsed: float) -> str:
    """Write how long the rest takes at the average rate since the start, waits included.

    The rate of the last seconds would be wrong: a run spends the rate limit of a minute in a few seconds,
    then waits.

    >>> time_left(600, 1800, elapsed=60.0), time_left(0, 1800, elapsed=60.0), time_left(1, 100, elapsed=60.0)
    ('02:00', '--:--', '1:39:00')
    """
    if not done:
        return "--:--"
    minutes, seconds = divmod(round(elapsed * max(0, total - done) / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _moment(ms: int) -> str:
    """Write UTC milliseconds without seconds or a time of day that are zero.

    >>> _moment(1_780_272_000_000), _moment(1_780_272_060_000)
    ('2026-06-01', '2026-06-01 00:01')
    """
    text = format_utc(ms).removesuffix("Z").replace("T", " ")
    return text.removesuffix(":00").removesuffix(" 00:00")


def span_text(span: Span) -> str:
    """Write a span.

    >>> span_text(Span(1_780_272_000_000, 1_780_358_400_000))
    '2026-06-01 to 2026-06-02'
    """
    return f"{_moment(span.start)} to {_moment(span.end)}"


def spans_text(spans: Iterable[Span]) -> str:
    """Write the first two spans and how many more there are; "–" for none.

    >>> spans_text([Span(0, 86_400_000)]), spans_text([])
    ('1970-01-01 to 1970-01-02', '–')
    """
    return join_limited([span_text(span) for span in spans], _MAX_SPANS) or "–"


def join_limited(names: Sequence[str], limit: int) -> str:
    """Write at most `limit` names, and how many more there are.

    >>> join_limited(["A", "B", "C"], 2)
    'A, B and 1 more'
    """
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def format_counts(counts: Mapping[str, int]) -> str:
    """Write the count of each cause, the most frequent first.

    >>> format_counts({"Banned": 1, "TransportError": 12})
    '12 TransportError, 1 Banned'
    """
    frequent = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {cause}" for cause, count in frequent)


def format_crossed(rows: int) -> str:
    """Write how many open times were found empty in long stretches.

    >>> format_crossed(525_600)
    '525,600 rows crossed as empty'
    """
    return f"{pluralize(rows, 'row')} crossed as empty"


def headline(report: Report) -> str:
    """Write a report in one line."""
    verdict = "Complete" if report.complete else "Incomplete"
    if moments := report.unusable_moments:
        verdict += f", {pluralize(moments, 'moment')} unusable"
    if report.series and all(line.nothing_closed for line in report.series):
        verdict += f", {NOTHING_CLOSED}"
    files = ""
    if report.archive.files:
        share = "all" if report.archive.rows == report.rows_written else f"{report.archive.rows:,}"
        files = f", {share} of them from {pluralize(report.archive.files, 'file')}"
    speed = f" ({format_rate(report.rows_written, report.duration)})" if report.rows_written else ""
    rows, duration = pluralize(report.rows_written, "row"), format_duration(report.duration)
    crossed = f" {format_crossed(report.rows_crossed)}," if report.rows_crossed else ""
    return (
        f"{verdict}: {rows} written in {duration}{speed}{files},{crossed}"
        f" {pluralize(report.requests, 'request')} of weight {report.weight:,}"
    )


def describe_event(event: Event) -> str:
    """Describe an event in one line, without control characters that a server may have sent.

    >>> describe_event(RoundStarted(round=1, series=2, rows=40_320))
    'round 1: 40,320 rows of 2 series are missing'
    """
    return printable(_description(event))


def _description(event: Event) -> str:
    match event:
        case RoundStarted():
            missing = f"{pluralize(event.rows, 'row')} of {pluralize(event.series, 'series')}"
            return f"round {event.round}: {missing} {'is' if event.rows == 1 else 'are'} missing"
        case SymbolUnknown() | ClockSkewDetected() | WaitingForStore() | SeriesRefused() | FileRejected():
            return _warning(event)
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


def _warning(
    event: SymbolUnknown | ClockSkewDetected | WaitingForStore | SeriesRefused | FileRejected,
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
        case SeriesRefused():
            return f"{event.series} is given up, the others go on: {event.reason}"


def _heartbeat(beat: Heartbeat) -> str:
    progress = "asking what there is"
    if beat.rows_planned:
        # It may be above 100 %: the plan of events is an estimate, and composites are not in the plan.
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
