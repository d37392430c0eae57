"""Describe what a table lacks, for warnings and errors, and for the display in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args
from warnings import warn

from marketfetch.common.callers import caller_stacklevel
from marketfetch.common.type_checks import is_text
from marketfetch.errors import IncompleteError, IncompleteWarning, unknown
from marketfetch.listeners.text import spans_text
from marketfetch.redaction import printable
from marketfetch.reports import NOTHING_CLOSED, Report, SeriesReport
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["OnMissing", "check_on_missing", "missing_summary", "warn_or_raise_missing"]

OnMissing = Literal["warn", "raise", "ignore"]

_MAX_LINES = 5
_NOTHING_OVER = f"{NOTHING_CLOSED}: not one interval of it is over"


def missing_summary(report: Report, rows: Mapping[Series, Columns]) -> list[str]:
    """Describe what is missing and why: unknown symbols, missing moments, and series without rows.

    >>> missing_summary(Report.empty(), {})
    ['nothing has closed in this span yet: not one interval of it is over']
    """
    lines = [f"{symbol}: {hint}" for symbol, hint in report.unknown.items()]
    known = [line for line in report.series if line.series.symbol not in report.unknown]
    if not known and not lines:
        lines.append(_NOTHING_OVER)
    for line in known:
        lacks = _lacks(line, rows.get(line.series))
        if lacks:
            lines.append(f"{line.series.symbol}: {lacks}")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES:,} more; .report has them all"]
    return list(map(printable, lines))


def check_on_missing(value: object) -> None:
    """Raise ConfigurationError for a value that is not one of OnMissing."""
    if not is_text(value) or value not in get_args(OnMissing):
        raise unknown("on_missing", value, get_args(OnMissing))


def warn_or_raise_missing(
    source: str, report: Report, rows: Mapping[Series, Columns], on_missing: OnMissing
) -> None:
    """Tell what the rows of a source lack: by an IncompleteWarning, by an IncompleteError, or not at all."""
    if on_missing == "ignore" or not (lacks := missing_summary(report, rows)):
        return
    message = f"{source}: {'; '.join(lacks)}"
    if on_missing == "raise":
        error = IncompleteError(message)
        error.report = report
        raise error
    warn(message, IncompleteWarning, stacklevel=caller_stacklevel())


def _lacks(line: SeriesReport, rows: Columns | None) -> str:
    if line.missing:
        return "; ".join(f"missing {spans_text(gap.spans)} ({gap.reason})" for gap in line.missing)
    if (rows is not None and len(rows)) or line.series.interval.is_event:
        return ""
    if not line.covered:
        return _NOTHING_OVER
    if line.empty == line.covered:
        return "the exchange has no rows in this span: all of it is confirmed empty"
    return "there are no usable rows in this span"
