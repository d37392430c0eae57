"""A table as HTML for notebooks: its first and last rows, and what it holds and lacks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from marketfetch.api.shortfalls import missing_summary
from marketfetch.common.html import html_page, html_table
from marketfetch.report_text import spans_text
from marketfetch.reports import Report, SeriesReport
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, format_utc

__all__ = ["table_html"]

_ROWS = 5
"""Rows that are shown from each end."""
_SERIES = 20
"""Series that are shown; the report has all."""


def table_html(title: str, dataset: Dataset, rows: Mapping[Series, Columns], report: Report) -> str:
    """Return HTML with the first and last rows, a line for each series, and what is not there."""
    names = [f"{column.name} " for column in dataset.columns]
    preview = html_table(("symbol", "interval", "open_time", *names), _preview(dataset, rows))
    lines = {line.series: line for line in report.series}
    shown = list(rows)[:_SERIES]
    series = html_table(
        ("symbol", "interval", "rows ", "from", "to", "confirmed empty", "unusable", "missing"),
        [_series_cells(each, rows[each], lines.get(each)) for each in shown],
    )
    more = f"<p>and {len(rows) - _SERIES:,} more series</p>" if len(rows) > _SERIES else ""
    lacks = "".join(f"<li>{escape(each)}</li>" for each in missing_summary(report, rows))
    return html_page(title, preview, series, more, f"<p>Not there:</p><ul>{lacks}</ul>" if lacks else "")


def _preview(dataset: Dataset, rows: Mapping[Series, Columns]) -> Iterator[Sequence[str]]:
    total, before = sum(map(len, rows.values())), 0
    for series, columns in rows.items():
        places = range(before, before + len(columns))
        before += len(columns)
        ends = {*places[: max(_ROWS - places.start, 0)], *places[max(total - _ROWS - places.start, 0) :]}
        for place in sorted(ends):
            if place == total - _ROWS > _ROWS:
                yield ["⋮"] * (3 + len(dataset.columns))
            number = place - places.start
            numbers = columns.values[:, number].tolist()
            yield (
                series.symbol,
                series.interval.name,
                format_utc(int(columns.times[number])),
                *(_cell(column, value) for column, value in zip(dataset.columns, numbers, strict=True)),
            )


def _cell(column: Column, value: float) -> str:
    if math.isnan(value):
        return "NULL"
    if column.flag:
        return "yes" if value else "no"
    return f"{int(value):,}" if column.integer else f"{value:.10g}"


def _series_cells(series: Series, columns: Columns, line: SeriesReport | None) -> Sequence[str]:
    first, last = (format_utc(int(columns.times[at])) for at in (0, -1)) if len(columns) else ("–", "–")
    gaps = "; ".join(f"{spans_text(gap.spans)} ({gap.reason})" for gap in line.missing) if line else ""
    return (
        series.symbol,
        series.interval.name,
        f"{len(columns):,}",
        first,
        last,
        spans_text(line.empty if line else SpanSet()),
        spans_text(line.unusable if line else SpanSet()),
        gaps or "nothing",
    )
