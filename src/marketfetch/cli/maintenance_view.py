"""What `marketfetch verify` and `marketfetch forget` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketfetch.cli.report_view import Grid, Page
from marketfetch.listeners.text import counted, listed, span_text
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, utc
from marketfetch.values.verification import Finding, Verification

__all__ = ["forgotten_as_list", "forgotten_page", "verification_page"]

_LINES = 20
_SPANS = 2


def verification_page(verification: Verification) -> Page:
    """Say what was compared and what is wrong, each finding with the commands that mend it."""
    series, rows = len(verification.rows), sum(verification.rows.values())
    broken = len({finding.series for finding in verification.findings if finding.problem.harmful})
    verdict = f"{counted(broken, 'series')} with problems" if broken else "nothing wrong"
    headline = f"{counted(rows, 'row')} of {counted(series, 'series')} compared with the ledger: {verdict}"
    findings = sorted(verification.findings, key=lambda finding: not finding.problem.harmful)
    lines = [_line(finding) for finding in findings[:_LINES]]
    if len(findings) > _LINES:
        lines.append((f"{len(findings) - _LINES:,} more", "", "", "", "--json lists them all"))
    grids = [Grid("Found", ("dataset", "symbol", "where (UTC)", "rows ", "what"), lines)] if lines else []
    remedies = [finding.remedy for finding in findings[:_LINES] if finding.problem.harmful]
    notes = ["To mend it:", *(f"  {remedy}" for remedy in remedies)] if remedies else []
    return Page(headline, grids, notes, verification.ok)


def forgotten_page(forgotten: Mapping[Series, SpanSet], *, rows: bool, dry_run: bool) -> Page:
    """Say what was forgotten, or would be."""
    what = "coverage and rows" if rows else "coverage"
    verdict = f"{'Would forget' if dry_run else 'Forgot'} {what} of {counted(len(forgotten), 'series')}"
    lines = [
        (series.exchange, f"{series.dataset.name} {series.interval.name}", series.symbol, _some(spans))
        for series, spans in sorted(forgotten.items(), key=lambda item: str(item[0]))
    ]
    if len(lines) > _LINES:
        lines[_LINES:] = [(f"{len(lines) - _LINES:,} more", "", "", "--json lists them all")]
    header = ("exchange", "dataset", "symbol", "forgotten (UTC)")
    return Page(verdict, [Grid("", header, lines)] if lines else [])


def forgotten_as_list(forgotten: Mapping[Series, SpanSet]) -> list[dict[str, Any]]:
    """Return what was forgotten in plain types, times as ISO text, for JSON."""
    return [
        {
            "exchange": series.exchange,
            "dataset": series.dataset.name,
            "symbol": series.symbol,
            "interval": series.interval.name,
            "forgotten": [{"start": utc(span.start), "end": utc(span.end)} for span in spans],
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
    return listed([span_text(span) for span in spans], _SPANS) or "–"
