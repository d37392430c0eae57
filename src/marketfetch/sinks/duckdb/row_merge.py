"""Merges the rows of several batches into a table of DuckDB, in as few statements as possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marketfetch.sinks.duckdb.statements import (
    append,
    combine,
    combine_all,
    counted,
    exact,
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

_TOGETHER = 20
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
        held_small = _held(connection, table, small) if small else []
        held_large = [part for some in _chunks(large) for part in _held_large(connection, table, some)]
        held = {id(part) for part in (*held_small, *held_large)}
        if new := [part for part in some if id(part) not in held]:
            with _registered(connection, table, new):
                connection.execute(append(table), _labels(new))
        if held_small:
            with _registered(connection, table, held_small):
                connection.execute(combine_all(table), [*_labels(held_small), *_reach(table, held_small)])
        for part in held_large:
            with _registered(connection, table, [part]):
                connection.execute(combine(table), _place(table, part))


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


def _held(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> list[LabelledRows]:
    """Return the parts that have rows in the table between their first and last times."""
    ends = [_ends(table, part) for part in parts]
    firsts, lasts = ([*column] for column in zip(*ends, strict=True))
    parameters = [*_labels(parts), *_reach(table, parts), firsts, lasts]
    return [parts[number - 1] for (number,) in connection.execute(probe_all(table), parameters).fetchall()]


def _held_large(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> list[LabelledRows]:
    """Return the large parts that have rows in the table between their first and last times."""
    parameters = [value for part in parts for value in _place(table, part)]
    found = connection.execute(probe_each(table, len(parts)), parameters).fetchall()
    return [parts[place] for (place,) in found]


def _chunks(parts: Sequence[LabelledRows]) -> Iterator[Sequence[LabelledRows]]:
    return (parts[first : first + _TOGETHER] for first in range(0, len(parts), _TOGETHER))


def _labels(parts: Sequence[LabelledRows]) -> list[list[int | str | None]]:
    """Return, for each label column, the label of each part."""
    return [list(column) for column in zip(*(part.labels for part in parts), strict=True)]


def _times(table: FileTable, part: LabelledRows) -> NDArray[np.int64]:
    """Return the times of rows in the unit in which statements take them."""
    times = part.columns.times
    return table.to_db_rows(times) if counted(table) else exact(table, times)


def _ends(table: FileTable, part: LabelledRows) -> tuple[int, int]:
    times = _times(table, part)
    return int(times[0]), int(times[-1])


def _reach(table: FileTable, parts: Sequence[LabelledRows]) -> tuple[int, int]:
    """Return the first and the last time of all parts."""
    ends = [_ends(table, part) for part in parts]
    return min(first for first, _ in ends), max(last for _, last in ends)


def _place(table: FileTable, part: LabelledRows) -> list[int | str | None]:
    return [*part.labels, *_ends(table, part)]


@contextmanager
def _registered(
    connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
) -> Iterator[None]:
    """Let statements of the block select the rows of parts from `marketfetch_batch`.

    Its columns are `part`, the number of the part from 1 on, `t`, the time, and `c0`, `c1` … as in the table.
    """
    numbers = np.repeat(np.arange(1, len(parts) + 1), [len(part.columns) for part in parts])
    columns = {"part": numbers, "t": np.concatenate([_times(table, part) for part in parts])}
    values = {
        f"c{place}": np.concatenate([part.columns.values[line] for part in parts])
        for place, line in enumerate(table.value_indexes)
    }
    connection.register("marketfetch_batch", columns | values)
    yield
    connection.unregister("marketfetch_batch")
