"""The output of `marketfetch verify`, `forget`, `refetch` and `export`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from marketfetch.cli.documents import MAX_ROWS, Document, TextTable
from marketfetch.cli.report_view import dataset_text, report_page, sorted_by_series
from marketfetch.listeners.text import pluralize, spans_text
from marketfetch.reports import (
    Finding,
    ReissuedFile,
    SourceVerification,
    Verification,
    spans_as_list,
)
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.api.upkeep.export import ExportResult
    from marketfetch.api.upkeep.refetch import RefetchResult

__all__ = [
    "export_page",
    "forgotten_as_list",
    "forgotten_page",
    "refetched_page",
    "source_verification_page",
    "verification_page",
]


def verification_page(verification: Verification) -> Document:
    """Return the page of a verification: the findings, and the commands that mend them."""
    series, rows = len(verification.rows), sum(verification.rows.values())
    broken = len({finding.series for finding in verification.findings if finding.problem.harmful})
    nothing = "nothing harmful" if verification.findings else "nothing wrong"
    verdict = f"{pluralize(broken, 'series')} with problems" if broken else nothing
    headline = (
        f"{pluralize(rows, 'row')} of {pluralize(series, 'series')} compared with the ledger: {verdict}"
    )
    findings = sorted(verification.findings, key=lambda finding: not finding.problem.harmful)
    header = ("dataset", "symbol", "where (UTC)", "rows ", "what")
    table = TextTable.limited("Found", header, [_row(finding) for finding in findings])
    remedies = [finding.remedy for finding in findings[:MAX_ROWS] if finding.problem.harmful]
    notes = ["To mend it:", *(f"  {remedy}" for remedy in remedies)] if remedies else []
    return Document(headline, [table] if table.rows else [], notes)


def source_verification_page(verification: SourceVerification) -> Document:
    """Return the page of a comparison with the files of an archive."""
    changed = [file for file in verification.reissued if file.differs]
    failed = sum(bool(file.error) for file in changed)
    verdict = f"{pluralize(len(changed) - failed, 'file')} with other rows" if changed else "nothing differs"
    verdict += f", {pluralize(failed, 'file')} could not be compared" if failed else ""
    files, series = pluralize(verification.files, "file"), pluralize(verification.series, "series")
    rows = [_reissued(file) for file in changed]
    table = TextTable.limited("Issued anew", ("file", "where (UTC)", "what differs", ""), rows)
    mendable = any(file.differs and not file.error and not file.repaired for file in changed)
    notes = ["--repair writes the rows of the new issues"] if mendable else []
    headline = f"{files} of {series} compared with the archive: {verdict}"
    return Document(headline, [table] if rows else [], notes)


def _reissued(file: ReissuedFile) -> tuple[str, ...]:
    name = file.key.rpartition("/")[2]
    return name, spans_text(file.spans), file.summary, "repaired" if file.repaired else ""


def export_page(exported: ExportResult, file: str) -> Document:
    """Return the page of an export: how many rows went into the file, and what the store lacks."""
    lacking = [(series, spans) for series, spans in exported.missing.items() if spans]
    headline = (
        f"{pluralize(exported.total, 'row')} of {pluralize(len(exported.rows), 'series')} written to {file}"
    )
    rows = [(dataset_text(series), series.symbol, spans_text(spans)) for series, spans in lacking]
    table = TextTable.limited("Missing in the store", ("dataset", "symbol", "where (UTC)"), rows)
    return Document(headline, [table] if rows else [])


def forgotten_page(verdict: str, forgotten: Mapping[Series, SpanSet]) -> Document:
    """Return the page of what was or would be forgotten; the headline begins with the verdict."""
    rows_of_table = [
        (series.exchange, dataset_text(series), series.symbol, spans_text(spans))
        for series, spans in sorted_by_series(forgotten)
    ]
    table = TextTable.limited("", ("exchange", "dataset", "symbol", "where (UTC)"), rows_of_table)
    headline = f"{verdict} of {pluralize(len(forgotten), 'series')}"
    return Document(headline, [table] if table.rows else [])


def forgotten_as_list(forgotten: Mapping[Series, SpanSet]) -> list[dict[str, Any]]:
    """Return what was forgotten in plain types, times as ISO text, for JSON."""
    return [
        {**series.as_dict(), "forgotten": spans_as_list(spans)}
        for series, spans in sorted_by_series(forgotten)
    ]


def refetched_page(refetched: RefetchResult) -> Document:
    """Return the page of a refetch: its report, and a line for each series whose rows have changed."""
    page = report_page(refetched.report)
    changed = [change for change in refetched.changes if change.summary]
    rows = [
        (
            dataset_text(change.series),
            change.series.symbol,
            spans_text(change.spans),
            change.summary,
        )
        for change in changed
    ]
    same = len(refetched.changes) - len(changed)
    notes = [f"{pluralize(same, 'series')} with the same rows as before"] if same else []
    if any(change.fields is None for change in refetched.changes):
        notes.append("These are too many rows to compare: name fewer series, or a shorter span")
    table = TextTable.limited("Changed", ("dataset", "symbol", "fetched again (UTC)", "changes"), rows)
    return attrs.evolve(page, tables=[*page.tables, *([table] if rows else [])], notes=[*page.notes, *notes])


def _row(finding: Finding) -> tuple[str, ...]:
    series = finding.series
    detail = f": {finding.detail}" if finding.detail else ""
    return (
        dataset_text(series),
        series.symbol,
        spans_text(finding.spans),
        f"{finding.rows:,}" if finding.rows else "–",
        f"{finding.problem}{detail}",
    )
