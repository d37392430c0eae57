"""Reading rows back as columns."""

from __future__ import annotations

import numpy as np

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span

__all__ = ["read", "read_page"]

_PAGE = 1_000_000
"""Rows asked for at once: they come packed into one row, and the server can send 1 GB in one."""


def read(
    connection: Connection, table: TableModel, labels: tuple[Name, ...], dataset: Dataset, span: Span
) -> Columns:
    """Return the stored rows of a series inside a span, sorted by time; NaN where a column is not mapped."""
    parts = [Columns.empty(dataset)]
    start = span.start
    while start < span.end:
        page = read_page(connection, table, labels, Span(start, span.end), _PAGE)
        parts.append(_laid_out(page, table, dataset))
        if len(page) < _PAGE:
            break
        start = int(page.times[-1]) + 1
    return Columns.join(parts)


def read_page(
    connection: Connection, table: TableModel, labels: tuple[Name, ...], span: Span, limit: int
) -> Columns:
    """Return the oldest `limit` rows stored inside a span, with a line for each of the table's fields."""
    place: dict[str, object] = {f"label{i}": value for i, value in enumerate(labels)}
    bounds: dict[str, object] = {
        "first": table.time_codec.bound(span.start),
        "last": table.time_codec.bound(span.end),
    }
    row = connection.execute(statements.rows(table, limit), place | bounds, binary=True).fetchone()
    if row is None or row[0] is None:
        return Columns(np.empty(0, np.int64), np.empty((len(table.values), 0)))
    times = table.time_codec.decode(np.frombuffer(row[0], ">i8").astype(np.int64))
    return Columns(times, np.array([np.frombuffer(packed, ">f8") for packed in row[1:]], np.float64))


def _laid_out(page: Columns, table: TableModel, dataset: Dataset) -> Columns:
    """Give a page the lines of its dataset."""
    values = np.full((len(dataset.columns), len(page)), np.nan)
    values[[field.line for field in table.values]] = page.values
    return Columns(page.times, values)
