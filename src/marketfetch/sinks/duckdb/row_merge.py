"""Merges the rows of several batches into a table of DuckDB, in as few statements as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marketfetch.sinks.duckdb.statements import (
    check_time_resolution,
    has_integer_time,
    insert_parts,
    merge_part,
    merge_parts,
    probe_all,
    probe_each,
)
from marketfetch.sinks.sql.file_tables import FileTable, LabelledRows

if TYPE_CHECKING:
    import duckdb

__all__ = ["merge_rows"]

_SMALL = 100
"""Rows of a part that is looked up and merged together with others. A larger one has a statement of its own,
with its labels and times as constants: DuckDB then skips the parts of the table that have other rows."""

_LARGE_PARTS_PER_QUERY = 20
"""Large parts that one query looks up."""


def merge_rows(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> None:
    """Merge parts into a table, in their order.

    A statement takes about a millisecond. In a follow, each of hundreds of series has one row of the same
    minute: they are looked up in one statement, and merged in another.

    1. Parts that have no row in the table between their first and last times are appended together.
    2. Other small parts are merged together, and each other large part by itself.
    """
    for some in _without_overlap(parts):
        small = [part for part in some if len(part.columns) <= _SMALL]
        large = [part for part in some if len(part.columns) > _SMALL]
        overlapping_small = _overlapping(connection, table, small) if small else []
        overlapping_large = [
            part for some in _chunks(large) for part in _overlapping_large(connection, table, some)
        ]
        overlapping = {id(part) for part in (*overlapping_small, *overlapping_large)}
        if new := [part for part in some if id(part) not in overlapping]:
            with _register_parts(connection, table, new):
                connection.execute(insert_parts(table), _labels(new))
        if overlapping_small:
            with _register_parts(connection, table, overlapping_small):
                connection.execute(
                    merge_parts(table), [*_labels(overlapping_small), *_time_range(table, overlapping_small)]
                )
        for part in overlapping_large:
            with _register_parts(connection, table, [part]):
                connection.execute(merge_part(table), _part_parameters(table, part))


def _without_overlap(parts: Sequence[LabelledRows]) -> Iterator[list[LabelledRows]]:
    """Cut a list where a part may have a row with the same key as an earlier one."""
    some: list[LabelledRows] = []
    by_labels: dict[object, list[LabelledRows]] = {}
    for part in parts:
        if any(part.overlaps(other) for other in by_labels.get(part.labels, ())):
            yield some
            some, by_labels = [], {}
        some.append(part)
        by_labels.setdefault(part.labels, []).append(part)
    if some:
        yield some


def _overlapping(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> list[LabelledRows]:
    """Return the parts that have rows in the table between their first and last times."""
    ends = [_ends(table, part) for part in parts]
    firsts, lasts = ([*column] for column in zip(*ends, strict=True))
    parameters = [*_labels(parts), *_time_range(table, parts), firsts, lasts]
    return [parts[number - 1] for (number,) in connection.execute(probe_all(table), parameters).fetchall()]


def _overlapping_large(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> list[LabelledRows]:
    """Return the large parts that have rows in the table between their first and last times."""
    parameters = [value for part in parts for value in _part_parameters(table, part)]
    found = connection.execute(probe_each(table, len(parts)), parameters).fetchall()
    return [parts[index] for (index,) in found]


def _chunks(parts: Sequence[LabelledRows]) -> Iterator[Sequence[LabelledRows]]:
    return (
        parts[first : first + _LARGE_PARTS_PER_QUERY]
        for first in range(0, len(parts), _LARGE_PARTS_PER_QUERY)
    )


def _labels(parts: Sequence[LabelledRows]) -> list[list[int | str | None]]:
    """Return, for each label column, the label of each part."""
    return [list(column) for column in zip(*(part.labels for part in parts), strict=True)]


def _times(table: FileTable, part: LabelledRows) -> NDArray[np.int64]:
    """Return the times of rows in the unit in which statements take them."""
    times = part.columns.times
    if has_integer_time(table):
        return table.to_db_rows(times)
    check_time_resolution(table, times)
    return times


def _ends(table: FileTable, part: LabelledRows) -> tuple[int, int]:
    times = _times(table, part)
    return int(times[0]), int(times[-1])


def _time_range(table: FileTable, parts: Sequence[LabelledRows]) -> tuple[int, int]:
    """Return the first and the last time of all parts."""
    ends = [_ends(table, part) for part in parts]
    return min(first for first, _ in ends), max(last for _, last in ends)


def _part_parameters(table: FileTable, part: LabelledRows) -> list[int | str | None]:
    return [*part.labels, *_ends(table, part)]


@contextmanager
def _register_parts(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> Iterator[None]:
    """Let statements of the block select the rows of parts from `marketfetch_batch`.

    Its columns are `part`, the number of the part from 1 on, `t`, the time, and `c0`, `c1` … as in the table.
    """
    numbers = np.repeat(np.arange(1, len(parts) + 1), [len(part.columns) for part in parts])
    columns = {"part": numbers, "t": np.concatenate([_times(table, part) for part in parts])}
    values = {
        f"c{index}": np.concatenate([part.columns.values[line] for part in parts])
        for index, line in enumerate(table.value_indexes)
    }
    connection.register("marketfetch_batch", columns | values)
    yield
    connection.unregister("marketfetch_batch")
