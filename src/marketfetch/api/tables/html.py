"""HTML of a table for notebooks: the first and last rows, the series, and the missing moments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from marketfetch.api.missing_rows import missing_summary
from marketfetch.common.html import html_list, html_page, html_table
from marketfetch.report_text import moment_text, spans_text
from marketfetch.reports import Report, SeriesReport
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

__all__ = ["table_html"]

_ROWS = 5
"""Rows that are shown from each end."""
_SERIES = 20
"""Series that are shown; the report has all."""
_ALWAYS = 5
"""Columns of the series that are shown even if they say nothing."""


def table_html(title: str, dataset: Dataset, rows: Mapping[Series, Columns], report: Report) -> str:
    """Return HTML with the first and last rows, a line for each series, and what is not there."""
    names = [f"{column.name} " for column in dataset.columns]
    preview = html_table(("symbol", "interval", "open_time (UTC)", *names), _preview(dataset, rows))
    lines = {line.series: line for line in report.series}
    cells = [_series_cells(each, columns, lines.get(each)) for each, columns in list(rows.items())[:_SERIES]]
    header = ("symbol", "interval", "rows ", "from (UTC)", "to", "confirmed empty", "unusable")
    # Most tables have nothing to say in some columns, and are narrower without them.
    shown_columns = [
        place for place in range(len(header)) if place < _ALWAYS or {line[place] for line in cells} != {"–"}
    ]
    series = html_table(
        [header[place] for place in shown_columns],
        [[line[place] for place in shown_columns] for line in cells],
    )
    more = f"<p>and {len(rows) - _SERIES:,} more series</p>" if len(rows) > _SERIES else ""
    # Below the table: in a column it would be cut off where the page is narrow.
    lacks = missing_summary(report, rows) if report.series or report.unknown else ()
    return html_page(title, preview, series, more, html_list("Not there:", lacks))


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
                moment_text(int(columns.times[number])),
                *(_cell(column, value) for column, value in zip(dataset.columns, numbers, strict=True)),
            )


def _cell(column: Column, value: float) -> str:
    if math.isnan(value):
        return "NULL"
    if column.flag:
        return "yes" if value else "no"
    return f"{int(value):,}" if column.integer else f"{value:.10g}"


def _series_cells(series: Series, columns: Columns, line: SeriesReport | None) -> Sequence[str]:
    first, last = (moment_text(int(columns.times[at])) for at in (0, -1)) if len(columns) else ("–", "–")
    # Between two events there is nothing that could be there.
    empty = line.empty if line and not (series.interval.is_event and len(columns)) else SpanSet()
    return (
        series.symbol,
        series.interval.name,
        f"{len(columns):,}",
        first,
        last,
        spans_text(empty),
        spans_text(line.unusable if line else SpanSet()),
    )
