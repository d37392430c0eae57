"""Reports and ledgers as documents for people; ledgers as plain values for --json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from marketfetch.cli.documents import MAX_ROWS, Document, TextTable
from marketfetch.listeners.text import (
    format_counts,
    headline,
    join_limited,
    pluralize,
    span_text,
    spans_text,
)
from marketfetch.report_text import decoder_notes
from marketfetch.reports import (
    NOTHING_CLOSED,
    EgressReport,
    Report,
    SeriesReport,
    spans_as_list,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet, format_utc

__all__ = [
    "coverage_page",
    "dataset_text",
    "ledger_as_list",
    "report_page",
    "sorted_by_series",
]

_T = TypeVar("_T")
_K = TypeVar("_K")

_MAX_SINGLE = 6
"""Complete series of a dataset that have a line each; if there are more, they share one line."""
_MAX_NAMES = 5
_MAX_RAW = 60
"""Characters of a rejected row that are shown; --json prints the row as it was stored."""


def report_page(report: Report) -> Document:
    """Return the page of a report; many complete series share one line."""
    lines = [line for line in report.series if line.series.symbol not in report.unknown]
    notes = [f"{symbol}: {hint}" for symbol, hint in {**report.unknown, **report.unlisted}.items()]
    rejected: dict[str, int] = {}
    for line in lines:
        for reason, count in line.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    if moments := report.unusable_moments:
        are = "are" if moments > 1 else "is"
        notes.append(
            f"{pluralize(moments, 'moment')} {are} unusable: the exchange has rows there, and they are wrong;"
            " `marketfetch coverage` shows them, --unusable retry asks for them again"
        )
    if rejected:
        notes.append(f"Rejected rows: {format_counts(rejected)}")
    if failed := report.archive.rejected:
        notes.append(
            f"{pluralize(failed, 'file')} or listings of the archive could not be used: --verbose shows why"
        )
    if report.retries:
        notes.append(f"Repeated requests: {format_counts(report.retries)}")
    notes += decoder_notes(report)
    tables = [_series(lines), _gaps(lines), _egresses(report.egresses)]
    return Document(headline(report), [table for table in tables if table.rows], notes)


def coverage_page(
    ledger: Mapping[Series, Coverage], rejected: Mapping[Series, Sequence[RejectedRow]] | None = None
) -> Document:
    """Return the page of a ledger: spans that are present, confirmed empty, unusable or missing.

    `rejected` are the rows at the unusable times, if the store keeps them.
    """
    rows = [
        (
            series.exchange,
            dataset_text(series),
            series.symbol,
            spans_text(coverage.present),
            spans_text(coverage.empty),
            spans_text(coverage.unusable),
            spans_text(coverage.gaps),
        )
        for series, coverage in sorted_by_series(ledger)
    ]
    broken = sum(bool(coverage.gaps) for coverage in ledger.values())
    verdict = f"{broken} of them with holes" if broken else "without holes"
    header = ("exchange", "dataset", "symbol", "present (UTC)", "confirmed empty", "unusable", "missing")
    held = _without_blank(TextTable("Held", header, rows), "unusable")
    tables = [table for table in (held, _rejected(rejected or {})) if table.rows]
    return Document(f"{pluralize(len(ledger), 'series')}, {verdict}", tables)


def _without_blank(table: TextTable, name: str) -> TextTable:
    """Leave out a column without a value in any row, to save room on a narrow terminal."""
    place = table.header.index(name)
    if any(row[place] != "–" for row in table.rows):
        return table
    rows = [row[:place] + row[place + 1 :] for row in table.rows]
    return attrs.evolve(table, header=table.header[:place] + table.header[place + 1 :], rows=rows)


def _rejected(rejected: Mapping[Series, Sequence[RejectedRow]]) -> TextTable:
    rows = [
        (dataset_text(series), series.symbol, format_utc(row.time), row.reason, row.raw[:_MAX_RAW])
        for series, several in rejected.items()
        for row in several
    ]
    header = ("dataset", "symbol", "time (UTC)", "why", "row")
    return TextTable.limited("Unusable rows of the exchange", header, rows)


def ledger_as_list(
    ledger: Mapping[Series, Coverage], rejected: Mapping[Series, Sequence[RejectedRow]] | None = None
) -> list[dict[str, Any]]:
    """Return a ledger in plain types, times as ISO text, for JSON."""
    return [
        {
            **series.as_dict(),
            "present": spans_as_list(coverage.present),
            "empty": spans_as_list(coverage.empty),
            "unusable": spans_as_list(coverage.unusable),
            "missing": spans_as_list(coverage.gaps),
        }
        | _plain_rejected((rejected or {}).get(series, ()))
        for series, coverage in sorted_by_series(ledger)
    ]


def _plain_rejected(rows: Sequence[RejectedRow]) -> dict[str, Any]:
    plain_rows = [{"time": format_utc(row.time), "reason": row.reason, "raw": row.raw} for row in rows]
    return {"rejected": plain_rows} if plain_rows else {}


def sorted_by_series(found: Mapping[Series, _T]) -> list[tuple[Series, _T]]:
    """Return the items, ordered by the names of the series."""
    return sorted(found.items(), key=lambda item: str(item[0]))


def _series(lines: Sequence[SeriesReport]) -> TextTable:
    rows: list[tuple[str, ...]] = []
    for kind, group in _grouped(lines, lambda line: dataset_text(line.series)):
        complete = [line for line in group if not line.missing and not line.nothing_closed]
        waiting = [line for line in group if line.nothing_closed]
        lacking = [line for line in group if line.missing]
        for several in (complete, waiting):
            rows += _series_rows(kind, several, _MAX_SINGLE if len(several) <= _MAX_SINGLE else 0)
        rows += _series_rows(kind, lacking, MAX_ROWS)
    return TextTable(
        "Series", ("dataset", "symbol", "wanted (UTC)", "covered ", "written ", "rejected "), rows
    )


def _series_rows(kind: str, lines: Sequence[SeriesReport], single: int) -> list[tuple[str, ...]]:
    """Return a row for each of the first `single` series, and one row for the series after them."""
    groups = [[line] for line in lines[:single]] + [lines[single:]]
    return [_series_row(kind, group) for group in groups if group]


def _series_row(kind: str, lines: Sequence[SeriesReport]) -> tuple[str, ...]:
    hull = Span(min(line.wanted.start for line in lines), max(line.wanted.end for line in lines))
    wanted = sum(line.wanted.length for line in lines)
    missing = sum(gap.spans.length for line in lines for gap in line.missing)
    # Rounded down: 99.96 % must not be shown as 100.0 %.
    covered = "100 %" if not missing else f"{(wanted - missing) * 1000 // wanted / 10:.1f} %"
    if all(line.nothing_closed for line in lines):
        covered = "–"
    return (
        kind,
        lines[0].series.symbol if len(lines) == 1 else f"{len(lines):,} symbols",
        span_text(hull),
        covered,
        f"{sum(line.rows for line in lines):,}",
        f"{sum(sum(line.rejected.values()) for line in lines):,}",
    )


def _gaps(lines: Sequence[SeriesReport]) -> TextTable:
    """Return a table of the spans without rows and why, missing spans first; a line for each reason."""
    missing = [(line.series, gap.spans, gap.reason) for line in lines for gap in line.missing]
    empty = [(line.series, line.empty, "confirmed empty") for line in lines if line.empty]
    # With Settings(unusable="retry") an unusable time is not covered, and is in `missing` already.
    wrong = [(line.series, line.unusable & line.covered, "unusable rows") for line in lines]
    unusable = [gap for gap in wrong if gap[1]]
    waiting = [
        (line.series, SpanSet.of(line.wanted), NOTHING_CLOSED) for line in lines if line.nothing_closed
    ]
    rows: list[tuple[str, ...]] = []
    for gaps in (missing, empty, unusable, waiting):
        groups = _grouped(gaps, lambda gap: (dataset_text(gap[0]), gap[2]))
        for (kind, reason), group in sorted(groups, key=lambda each: -len(each[1])):
            names = [series.symbol for series, _, _ in group]
            count = sum(map(_count, group))
            where = _where([spans for _, spans, _ in group])
            rows.append(
                (kind, join_limited(names, _MAX_NAMES), where, f"{count:,}" if count else "–", reason)
            )
    return TextTable.limited("Without rows", ("dataset", "symbol", "where (UTC)", "rows ", "why"), rows)


def _count(gap: tuple[Series, SpanSet, str]) -> int:
    series, spans, _ = gap
    return 0 if series.interval.is_event else sum(map(series.interval.count, spans))


def _where(spans: Sequence[SpanSet]) -> str:
    if all(each == spans[0] for each in spans):
        return spans_text(spans[0])
    hulls = [each.hull for each in spans if each.hull]
    return "within " + span_text(Span(min(hull.start for hull in hulls), max(hull.end for hull in hulls)))


def _egresses(egresses: Sequence[EgressReport]) -> TextTable:
    rows = [
        (
            egress.name,
            f"{egress.requests:,}",
            f"{egress.weight:,}",
            f"{egress.rows:,}",
            f"{egress.failures:,}",
            egress.state,
        )
        for egress in egresses
    ]
    header = ("egress", "requests ", "weight ", "rows ", "failures ", "state")
    return TextTable.limited("Egresses", header, rows)


def dataset_text(series: Series) -> str:
    """Write the dataset and the interval of a series, for a cell of a table."""
    return f"{series.dataset.name} {series.interval.name}"


def _grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """Group items by key, in the order in which each key is met first."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())
