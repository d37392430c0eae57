"""Describe what a table lacks, for the warning of `fetch` and for the display in a notebook."""

from __future__ import annotations

from collections.abc import Mapping

from marketfetch.listeners.text import join_limited, span_text
from marketfetch.redaction import printable
from marketfetch.reports import NOTHING_CLOSED, Report, SeriesReport
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["missing_summary"]

_MAX_LINES = 5
_MAX_SPANS = 2


def missing_summary(report: Report, rows: Mapping[Series, Columns]) -> list[str]:
    """Describe what is missing and why: unknown symbols, missing moments, and series without rows.

    >>> missing_summary(Report.empty(), {})
    ['nothing has closed in this span yet: not one interval of it is over']
    """
    lines = [f"{symbol}: {hint}" for symbol, hint in report.unknown.items()]
    known = [line for line in report.series if line.series.symbol not in report.unknown]
    if not known and not lines:
        lines.append(f"{NOTHING_CLOSED}: not one interval of it is over")
    for line in known:
        lacks = _lacks(line, rows.get(line.series))
        if lacks:
            lines.append(f"{line.series.symbol}: {lacks}")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES:,} more; .report has them all"]
    return list(map(printable, lines))


def _lacks(line: SeriesReport, rows: Columns | None) -> str:
    if line.missing:
        return "; ".join(
            f"missing {join_limited([span_text(span) for span in gap.spans], _MAX_SPANS)} ({gap.reason})"
            for gap in line.missing
        )
    if (rows is not None and len(rows)) or line.series.interval.is_event:
        return ""
    if not line.covered:
        return "nothing has closed in this span yet: not one interval of it is over"
    if line.empty == line.covered:
        return "the exchange has no rows in this span: all of it is confirmed empty"
    return "there are no usable rows in this span"
