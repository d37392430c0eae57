"""Reports and spans as text and HTML for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from marketfetch.common.html import html_list, html_page, html_table
from marketfetch.common.text import (
    format_counts,
    format_crossed,
    format_duration,
    format_rate,
    join_limited,
    pluralize,
)
from marketfetch.redaction import printable
from marketfetch.values.spans import Span, format_utc

if TYPE_CHECKING:  # a higher layer, which is not needed at run time
    from marketfetch.reports import Report, SeriesReport

__all__ = [
    "NOTHING_CLOSED",
    "decoder_notes",
    "gap_lines",
    "headline",
    "moment_text",
    "report_html",
    "report_text",
    "span_text",
    "spans_text",
]

NOTHING_CLOSED = "nothing has closed in this span yet"
"""What is said of a series without a final row: of 1d candles, for example, when today was requested."""
_WRONG_FOR_GOOD = ("off the grid", "impossible", "undecodable")
"""The reasons for which rows make their moments unusable; all others may pass."""
_MAX_SPANS = 2
"""Spans that fit into a cell of a table."""
_MAX_SERIES = 20
"""Series that are shown; `.series` has all of them."""


def moment_text(ms: int) -> str:
    """Write UTC milliseconds, without seconds if they are zero.

    >>> moment_text(1_780_272_000_000), moment_text(1_780_272_000_015)
    ('2026-06-01 00:00', '2026-06-01 00:00:00.015')
    """
    return format_utc(ms).removesuffix("Z").replace("T", " ").removesuffix(":00")


def span_text(span: Span) -> str:
    """Write a span, without a time of day that is zero.

    >>> span_text(Span(1_780_272_000_000, 1_780_358_460_000))
    '2026-06-01 to 2026-06-02 00:01'
    """
    start, end = (moment_text(each).removesuffix(" 00:00") for each in (span.start, span.end))
    return f"{start} to {end}"


def spans_text(spans: Iterable[Span]) -> str:
    """Write the first two spans and how many more there are; "–" for none.

    >>> spans_text([Span(0, 86_400_000)]), spans_text([])
    ('1970-01-01 to 1970-01-02', '–')
    """
    return join_limited([span_text(span) for span in spans], _MAX_SPANS) or "–"


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


def gap_lines(line: SeriesReport) -> list[str]:
    """Describe the moments of a series without a row, and why: missing, confirmed empty, unusable."""
    if line.nothing_closed:
        return [NOTHING_CLOSED]
    lines = [f"missing {spans_text(gap.spans)}: {gap.reason}" for gap in line.missing]
    if line.empty:
        lines.append(f"confirmed empty {spans_text(line.empty)}")
    if wrong := line.unusable & line.covered:
        # A run that did not ask for the rows again does not know what is wrong with them.
        why = " or ".join(reason for reason in _WRONG_FOR_GOOD if line.rejected.get(reason))
        lines.append(f"unusable {spans_text(wrong)}" + (f": the exchange's rows are {why}" if why else ""))
    return lines


def decoder_notes(report: Report) -> list[str]:
    """Say that rows were decoded in Python; nothing is said of the compiled decoder."""
    if report.decoder == "C" or not report.rows_written:
        return []
    return [f"decoded in {report.decoder}, which takes longer: no compiled decoder works here"]


def report_text(report: Report) -> str:
    """Write a report in lines: the headline, each series with its gaps, and what went wrong on the way."""
    lines = [headline(report)]
    for series, wanted, rows, gaps in _series_cells(report):
        lines.append(f"  {series}  {wanted}  {rows}")
        lines += [f"    {gap}" for gap in gaps]
    return printable("\n".join([*lines, *(f"  {note}" for note in _notes(report))]), keep="\n")


def report_html(report: Report, *parts: str) -> str:
    """Write a report as HTML, which follows the colours of the notebook; `parts` are HTML for its end."""
    cells = _series_cells(report)
    header = ("series", "written ", "wanted (UTC)")
    table = html_table(header, [(series, rows, wanted) for series, wanted, rows, _ in cells])
    # Below the table: in a column it would be cut off where the page is narrow.
    lacks = [f"{series}: {'; '.join(gaps)}" for series, _, _, gaps in cells if gaps]
    notes = html_table((), [(note,) for note in _notes(report)])
    return html_page(headline(report), table, html_list("Without rows:", lacks), notes, *parts)


def _series_cells(report: Report) -> list[tuple[str, str, str, list[str]]]:
    """Return name, span, rows and gaps of each series to show; those with gaps come first."""
    lines = sorted(report.series, key=lambda line: not (line.missing or line.unusable))[:_MAX_SERIES]
    return [
        (str(line.series), span_text(line.wanted), pluralize(line.rows, "row"), gap_lines(line))
        for line in lines
    ]


def _notes(report: Report) -> list[str]:
    notes = [f"{symbol}: {hint}" for symbol, hint in {**report.unknown, **report.unlisted}.items()]
    if (left := len(report.series) - _MAX_SERIES) > 0:
        notes.insert(0, f"and {left:,} more series; .series has all of them")
    if report.error is not None:
        notes.append(f"ended early: {report.error}")
    if report.retries:
        notes.append(f"repeated requests: {format_counts(report.retries)}")
    if failed := report.archive.rejected:
        notes.append(f"{pluralize(failed, 'file')} or listings of the archive could not be used")
    notes += decoder_notes(report)
    used = [
        f"{egress.name} {pluralize(egress.requests, 'request')}, {pluralize(egress.failures, 'failure')}"
        for egress in report.egresses
        if egress.requests
    ]
    return [*notes, *([f"egresses: {join_limited(used, _MAX_SERIES)}"] if used else [])]
