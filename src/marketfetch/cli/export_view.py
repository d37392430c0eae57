"""The output of `marketfetch export`."""

from __future__ import annotations

from marketfetch.api.upkeep.export import Exported
from marketfetch.cli.documents import Document, TextTable
from marketfetch.listeners.text import pluralize, spans_text

__all__ = ["export_page"]


def export_page(exported: Exported, file: str) -> Document:
    """Return the page of an export: how many rows went into the file, and what the store lacks."""
    lacking = [(series, spans) for series, spans in exported.missing.items() if spans]
    headline = (
        f"{pluralize(exported.total, 'row')} of {pluralize(len(exported.rows), 'series')} written to {file}"
    )
    rows = [
        (f"{series.dataset.name} {series.interval.name}", series.symbol, spans_text(spans))
        for series, spans in lacking
    ]
    table = TextTable.limited("Missing in the store", ("dataset", "symbol", "where (UTC)"), rows)
    return Document(headline, [table] if rows else [])
