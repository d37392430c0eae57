"""The output of `marketfetch backfill --dry-run`."""

from __future__ import annotations

from typing import Any

from marketfetch.cli.documents import Document, TextTable
from marketfetch.engine.preview import Preview
from marketfetch.listeners.text import pluralize, spans_text
from marketfetch.reports import spans_as_list

__all__ = ["preview_as_dict", "preview_page"]


def preview_page(preview: Preview) -> Document:
    """Return the page of a preview: a line for each series that lacks rows, and the unknown names."""
    lacking = {series: spans for series, spans in preview.missing.items() if spans}
    rows = [
        (
            f"{series.dataset.name} {series.interval.name}",
            series.symbol,
            spans_text(spans),
            "unknown" if series.interval.is_event else f"{series.interval.count_rows(spans):,}",
        )
        for series, spans in lacking.items()
    ]
    headline = (
        f"Dry run: {pluralize(preview.rows, 'row')} of {pluralize(len(lacking), 'series')} would be fetched, "
        f"{pluralize(len(preview.missing) - len(lacking), 'series')} complete; nothing was fetched or written"
    )
    table = TextTable.limited("Missing", ("dataset", "symbol", "where (UTC)", "rows "), rows)
    notes = [f"{symbol}: {hint}" for symbol, hint in preview.unknown.items()]
    return Document(headline, [table] if rows else [], notes)


def preview_as_dict(preview: Preview) -> dict[str, Any]:
    """Return a preview in plain types, times as ISO text, for JSON; `rows` is None for events."""
    return {
        "rows": preview.rows,
        "unknown_symbols": dict(preview.unknown),
        "series": [
            {
                **series.as_dict(),
                "rows": None if series.interval.is_event else series.interval.count_rows(spans),
                "missing": spans_as_list(spans),
            }
            for series, spans in preview.missing.items()
        ],
    }
