"""Reading rows back as columns."""

from __future__ import annotations

import numpy as np

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.postgres.tables import Table
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span

__all__ = ["read"]

_PAGE = 1_000_000
"""Rows asked for at once: they come packed into one row, and the server can send 1 GB in one."""


def read(
    connection: Connection, table: Table, labels: tuple[int | str, ...], dataset: Dataset, span: Span
) -> Columns:
    """Return the stored rows of a series inside a span, sorted by time; NaN where a column is not mapped."""
    query = statements.rows(table, _PAGE)
    place = {f"label{i}": value for i, value in enumerate(labels)}
    parts = [Columns.empty(dataset)]
    start = span.start
    while start < span.end:
        bounds = {"first": table.clock.bound(start), "last": table.clock.bound(span.end)}
        row = connection.execute(query, place | bounds, binary=True).fetchone()
        if row is None or row[0] is None:
            break
        times = table.clock.decode(np.frombuffer(row[0], ">i8").astype(np.int64))
        values = np.full((len(dataset.columns), len(times)), np.nan)
        for field, packed in zip(table.fields, row[1:], strict=True):
            values[field.line] = np.frombuffer(packed, ">f8")
        parts.append(Columns(times, values))
        if len(times) < _PAGE:
            break
        start = int(times[-1]) + 1
    return Columns.join(parts)
