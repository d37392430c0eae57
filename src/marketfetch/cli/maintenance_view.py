"""What `marketfetch verify` and `marketfetch forget` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketfetch.cli.documents import Document, TextTable
from marketfetch.listeners.text import join_limited, pluralize, span_text
from marketfetch.reports import Finding, Verification
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, format_utc

__all__ = ["forgotten_as_list", "forgotten_page", "verification_page"]

_LINES = 20
_SPANS = 2


def verification_page(verification: Verification) -> Document:
    """Say what was compared and what is wrong, each finding with the commands that mend it."""
    series, rows = len(verification.rows), sum(verification.rows.values())
    broken = len({finding.series for finding in verification.findings if finding.problem.harmful})
    verdict = f"{pluralize(broken, 'series')} with problems" if broken else "nothing wrong"
    headline = (
        f"{pluralize(rows, 'row')} of {pluralize(series, 'series')} compared with the ledger: {verdict}"
    )
    findings = sorted(verification.findings, key=lambda finding: not finding.problem.harmful)
    lines = [_line(finding) for finding in findings[:_LINES]]
    if len(findings) > _LINES:
        lines.append((f"{len(findings) - _LINES:,} more", "", "", "", "--json lists them all"))
    grids = (
        [TextTable("Found", ("dataset", "symbol", "where (UTC)", "rows ", "what"), lines)] if lines else []
    )
    remedies = [finding.remedy for finding in findings[:_LINES] if finding.problem.harmful]
    notes = ["To mend it:", *(f"  {remedy}" for remedy in remedies)] if remedies else []
    return Document(headline, grids, notes, verification.ok)


def forgotten_page(forgotten: Mapping[Series, SpanSet], *, rows: bool, dry_run: bool) -> Document:
    """Say what was forgotten, or would be."""
    what = "coverage and rows" if rows else "coverage"
    verdict = f"{'Would forget' if dry_run else 'Forgot'} {what} of {pluralize(len(forgotten), 'series')}"
    lines = [
        (series.exchange, f"{series.dataset.name} {series.interval.name}", series.symbol, _some(spans))
        for series, spans in sorted(forgotten.items(), key=lambda item: str(item[0]))
    ]
    if len(lines) > _LINES:
        lines[_LINES:] = [(f"{len(lines) - _LINES:,} more", "", "", "--json lists them all")]
    header = ("exchange", "dataset", "symbol", "forgotten (UTC)")
    return Document(verdict, [TextTable("", header, lines)] if lines else [])


def forgotten_as_list(forgotten: Mapping[Series, SpanSet]) -> list[dict[str, Any]]:
    """Return what was forgotten in plain types, times as ISO text, for JSON."""
    return [
        {
            "exchange": series.exchange,
            "dataset": series.dataset.name,
            "symbol": series.symbol,
            "interval": series.interval.name,
            "forgotten": [{"start": format_utc(span.start), "end": format_utc(span.end)} for span in spans],
        }
        for series, spans in sorted(forgotten.items(), key=lambda item: str(item[0]))
    ]


def _line(finding: Finding) -> tuple[str, ...]:
    series = finding.series
    detail = f": {finding.detail}" if finding.detail else ""
    return (
        f"{series.dataset.name} {series.interval.name}",
        series.symbol,
        _some(finding.spans),
        f"{finding.rows:,}" if finding.rows else "–",
        f"{finding.problem}{detail}",
    )


def _some(spans: SpanSet) -> str:
    return join_limited([span_text(span) for span in spans], _SPANS) or "–"
