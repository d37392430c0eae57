"""What a table of rows lacks, in words: for the warning of `fetch` and for what a notebook shows."""

from __future__ import annotations

from collections.abc import Mapping

from marketfetch.listeners.text import join_limited, span_text
from marketfetch.reports import NOTHING_CLOSED, Report, SeriesReport
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["missing_summary"]

_LINES = 5
_SPANS = 2


def missing_summary(report: Report, rows: Mapping[Series, Columns]) -> list[str]:
    """Say what is not there and why: unknown symbols, missing moments, and whole series without rows.

    >>> missing_summary(Report.empty(), {})
    ['nothing has closed in this span yet: not one interval of it is over']
    """
    said = [f"{symbol}: {hint}" for symbol, hint in report.unknown.items()]
    known = [line for line in report.series if line.series.symbol not in report.unknown]
    if not known and not said:
        said.append(f"{NOTHING_CLOSED}: not one interval of it is over")
    for line in known:
        lacks = _lacks(line, rows.get(line.series))
        if lacks:
            said.append(f"{line.series.symbol}: {lacks}")
    if len(said) > _LINES:
        said[_LINES:] = [f"and {len(said) - _LINES:,} more; .report has them all"]
    return said


def _lacks(line: SeriesReport, rows: Columns | None) -> str:
    if line.missing:
        return "; ".join(
            f"missing {join_limited([span_text(span) for span in gap.spans], _SPANS)} ({gap.reason})"
            for gap in line.missing
        )
    if (rows is not None and len(rows)) or line.series.interval.is_event:
        return ""
    if not line.covered:
        return f"{NOTHING_CLOSED}: not one interval of it is over"
    if line.empty == line.covered:
        return "the exchange has no rows in this span: all of it is confirmed empty"
    return "there are no usable rows in this span"
