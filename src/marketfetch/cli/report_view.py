"""Reports, coverage and ledgers as documents for people, and as plain values for --json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from marketfetch.cli.documents import Document, TextTable
from marketfetch.listeners.text import format_counts, headline, join_limited, pluralize, span_text
from marketfetch.reports import EgressReport, Report, SeriesReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet, format_utc

__all__ = [
    "coverage_page",
    "internal_gaps",
    "ledger_as_list",
    "report_page",
]

_T = TypeVar("_T")
_K = TypeVar("_K")

_SINGLY = 6
"""So many complete series of a dataset are listed one by one; more share a line."""
_LINES = 20
"""So many lines has a long list at most; --json has everything."""
_NAMES = 5
_SPANS = 2
_WAITING = "nothing has closed in this span yet"
_RAW = 60
"""So many characters of a rejected row are shown; --json has all that was kept."""


def report_page(report: Report) -> Document:
    """Say what a run did: series by series while they are few, together where they are many and complete."""
    lines = [line for line in report.series if line.series.symbol not in report.unknown]
    notes = [f"{symbol}: {hint}" for symbol, hint in report.unknown.items()]
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
    if report.retries:
        notes.append(f"Repeated requests: {format_counts(report.retries)}")
    grids = [_series(lines), _gaps(lines), _egresses(report.egresses)]
    return Document(headline(report), [grid for grid in grids if grid.rows], notes, report.complete)


def coverage_page(
    ledger: Mapping[Series, Coverage], rejected: Mapping[Series, Sequence[RejectedRow]] | None = None
) -> Document:
    """Say what a store holds: present, confirmed empty, unusable, and the holes in between.

    `rejected` are the rows behind what is unusable, where the store keeps them.
    """
    rows = [
        (
            series.exchange,
            _kind(series),
            series.symbol,
            _some(coverage.present),
            _some(coverage.empty),
            _some(coverage.unusable),
            _some(internal_gaps(coverage)),
        )
        for series, coverage in _sorted(ledger)
    ]
    broken = sum(bool(internal_gaps(coverage)) for coverage in ledger.values())
    verdict = f"{broken} of them with holes" if broken else "without holes"
    header = ("exchange", "dataset", "symbol", "present (UTC)", "confirmed empty", "unusable", "missing")
    held = _without_blank(TextTable("Held", header, rows), "unusable")
    grids = [grid for grid in (held, _rejected(rejected or {})) if grid.rows]
    return Document(f"{pluralize(len(ledger), 'series')}, {verdict}", grids, good=not broken)


def _without_blank(grid: TextTable, name: str) -> TextTable:
    """Leave out a column that says nothing in any row: a narrow terminal has no room for it."""
    place = grid.header.index(name)
    if any(row[place] != "–" for row in grid.rows):
        return grid
    rows = [row[:place] + row[place + 1 :] for row in grid.rows]
    return attrs.evolve(grid, header=grid.header[:place] + grid.header[place + 1 :], rows=rows)


def _rejected(rejected: Mapping[Series, Sequence[RejectedRow]]) -> TextTable:
    rows = [
        (_kind(series), series.symbol, format_utc(row.time), row.reason, row.raw[:_RAW])
        for series, several in rejected.items()
        for row in several
    ]
    if len(rows) > _LINES:
        rows[_LINES:] = [(f"{len(rows) - _LINES:,} more", "", "", "", "--json lists them all")]
    return TextTable("Unusable rows of the exchange", ("dataset", "symbol", "time (UTC)", "why", "row"), rows)


def ledger_as_list(
    ledger: Mapping[Series, Coverage], rejected: Mapping[Series, Sequence[RejectedRow]] | None = None
) -> list[dict[str, Any]]:
    """Return what a store holds in plain types, times as ISO text, for JSON."""
    return [
        {
            "exchange": series.exchange,
            "dataset": series.dataset.name,
            "symbol": series.symbol,
            "interval": series.interval.name,
            "present": _plain_spans(coverage.present),
            "empty": _plain_spans(coverage.empty),
            "unusable": _plain_spans(coverage.unusable),
            "missing": _plain_spans(internal_gaps(coverage)),
        }
        | _plain_rejected((rejected or {}).get(series, ()))
        for series, coverage in _sorted(ledger)
    ]


def _plain_rejected(rows: Sequence[RejectedRow]) -> dict[str, Any]:
    plain_rows = [{"time": format_utc(row.time), "reason": row.reason, "raw": row.raw} for row in rows]
    return {"rejected": plain_rows} if plain_rows else {}


def _plain_spans(spans: SpanSet) -> list[dict[str, str]]:
    return [{"start": format_utc(span.start), "end": format_utc(span.end)} for span in spans]


def _sorted(ledger: Mapping[Series, Coverage]) -> list[tuple[Series, Coverage]]:
    return sorted(ledger.items(), key=lambda item: str(item[0]))


def internal_gaps(coverage: Coverage) -> SpanSet:
    """Return what is missing between the first and the last moment that is known."""
    hull = coverage.covered.hull
    return coverage.missing(hull) if hull else SpanSet()


def _series(lines: Sequence[SeriesReport]) -> TextTable:
    rows: list[tuple[str, ...]] = []
    for kind, group in _grouped(lines, lambda line: _kind(line.series)):
        complete = [line for line in group if not line.missing and not line.nothing_closed]
        waiting = [line for line in group if line.nothing_closed]
        lacking = [line for line in group if line.missing]
        rows += _series_rows(kind, complete, _SINGLY if len(complete) <= _SINGLY else 0)
        rows += _series_rows(kind, waiting, _SINGLY if len(waiting) <= _SINGLY else 0)
        rows += _series_rows(kind, lacking, _LINES)
    return TextTable(
        "Series", ("dataset", "symbol", "wanted (UTC)", "covered ", "written ", "rejected "), rows
    )


def _series_rows(kind: str, lines: Sequence[SeriesReport], singly: int) -> list[tuple[str, ...]]:
    """List so many series one by one, and the others together."""
    groups = [[line] for line in lines[:singly]] + [lines[singly:]]
    return [_series_row(kind, group) for group in groups if group]


def _series_row(kind: str, lines: Sequence[SeriesReport]) -> tuple[str, ...]:
    hull = Span(min(line.wanted.start for line in lines), max(line.wanted.end for line in lines))
    wanted = sum(line.wanted.length for line in lines)
    missing = sum(gap.spans.length for line in lines for gap in line.missing)
    # Rounded down: what is not complete must not look complete.
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
    """Say what has no rows and why, missing first; the same reason makes one line."""
    missing = [(line.series, gap.spans, gap.reason) for line in lines for gap in line.missing]
    empty = [(line.series, line.empty, "confirmed empty") for line in lines if line.empty]
    # What was asked for once more and is still wrong is among the missing.
    wrong = [(line.series, line.unusable & line.covered, "unusable rows") for line in lines]
    unusable = [gap for gap in wrong if gap[1]]
    waiting = [(line.series, SpanSet.of(line.wanted), _WAITING) for line in lines if line.nothing_closed]
    rows: list[tuple[str, ...]] = []
    for gaps in (missing, empty, unusable, waiting):
        groups = _grouped(gaps, lambda gap: (_kind(gap[0]), gap[2]))
        for (kind, reason), group in sorted(groups, key=lambda each: -len(each[1])):
            names = [series.symbol for series, _, _ in group]
            count = sum(map(_count, group))
            where = _where([spans for _, spans, _ in group])
            rows.append((kind, join_limited(names, _NAMES), where, f"{count:,}" if count else "–", reason))
    if len(rows) > _LINES:
        rows[_LINES:] = [(f"{len(rows) - _LINES:,} more", "", "", "", "--json lists them all")]
    return TextTable("Without rows", ("dataset", "symbol", "where (UTC)", "rows ", "why"), rows)


def _count(gap: tuple[Series, SpanSet, str]) -> int:
    series, spans, _ = gap
    return 0 if series.interval.is_event else sum(map(series.interval.count, spans))


def _where(spans: Sequence[SpanSet]) -> str:
    if all(each == spans[0] for each in spans):
        return _some(spans[0])
    hulls = [each.hull for each in spans if each.hull]
    return "within " + span_text(Span(min(hull.start for hull in hulls), max(hull.end for hull in hulls)))


def _some(spans: SpanSet) -> str:
    return join_limited([span_text(span) for span in spans], _SPANS) or "–"


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
    if len(rows) > _LINES:
        rows[_LINES:] = [(f"{len(rows) - _LINES:,} more", "", "", "", "", "--json lists them all")]
    return TextTable("Egresses", ("egress", "requests ", "weight ", "rows ", "failures ", "state"), rows)


def _kind(series: Series) -> str:
    return f"{series.dataset.name} {series.interval.name}"


def _grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """Group items that need not be next to each other, in the order in which the groups appear."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())
