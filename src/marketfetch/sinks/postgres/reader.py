"""Read rows as columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.spans import MAX_TIMESTAMP, Span

__all__ = ["read", "read_newest", "read_page"]

_PAGE = 1_000_000
"""Rows of one query: the server packs them into one row, which can have 1 GB."""

_FROM_AN_INDEX = "SELECT set_config('enable_sort', 'off', true)"
"""For the newest rows, until the transaction ends. Without statistics of the table the server expects so few
rows of a series that it would read and sort all of them, instead of the end of an index."""


def read(
    connection: Connection, table: PostgresTable, key_values: tuple[Name, ...], dataset: Dataset, span: Span
) -> Columns:
    """Return the stored rows of a series inside a span, sorted by time; NaN where a column is not mapped."""
    parts = [Columns.empty(dataset)]
    start = span.start
    while start < span.end:
        page = read_page(connection, table, key_values, Span(start, span.end), _PAGE)
        parts.append(table.to_columns(dataset, page.times, page.values))
        if len(page) < _PAGE:
            break
        start = int(page.times[-1]) + 1
    return Columns.join(parts)


def read_page(
    connection: Connection, table: PostgresTable, key_values: tuple[Name, ...], span: Span, limit: int
) -> Columns:
    """Return the oldest `limit` stored rows inside a span, with a line for each value column of the table."""
    first, last = (table.time_codec.bound(moment) for moment in (span.start, span.end))
    parameters = table.parameters(key_values, first=first, last=last)
    return _rows(connection, table, statements.oldest_rows(table, limit), parameters)


def read_newest(
    connection: Connection, table: PostgresTable, key_values: tuple[Name, ...], dataset: Dataset, limit: int
) -> Columns:
    """Return the newest `limit` stored rows of a series, sorted by time; NaN where a column is not mapped."""
    connection.execute(_FROM_AN_INDEX)
    parts, end = [Columns.empty(dataset)], MAX_TIMESTAMP
    while limit > 0:
        count = min(limit, _PAGE)
        parameters = table.parameters(key_values, last=table.time_codec.bound(end))
        page = _rows(connection, table, statements.newest_rows(table, count), parameters)
        parts.append(table.to_columns(dataset, page.times, page.values))
        if len(page) < count:
            break
        limit, end = limit - count, int(page.times[-1])
    return Columns.join(parts)


def _rows(
    connection: Connection, table: PostgresTable, query: bytes, parameters: Mapping[str, object]
) -> Columns:
    row = connection.execute(query, parameters, binary=True).fetchone()
    if row is None or row[0] is None:
        return Columns(np.empty(0, np.int64), np.empty((len(table.value_columns), 0)))
    times = table.time_codec.decode(np.frombuffer(row[0], ">i8").astype(np.int64))
    return Columns(times, np.array([np.frombuffer(packed, ">f8") for packed in row[1:]], np.float64))
