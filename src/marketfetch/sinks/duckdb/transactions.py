"""How a group of batches is divided into transactions, of which two are written side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = ["TRANSACTION_ROWS", "side_by_side", "transactions"]

TRANSACTION_ROWS = 122_880
"""Rows of one transaction, at most: DuckDB compresses a row group of so many rows, on one processor."""


def transactions(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Divide batches, in their order, into transactions; a batch that is too large has one of its own.

    Of batches of 100,000, 20,000 and 50,000 rows, the first two share a transaction.
    """
    some: list[Batch] = []
    for batch in batches:
        if some and _rows(some) + batch.rows > TRANSACTION_ROWS:
            yield some
            some = []
        some.append(batch)
    if some:
        yield some


def side_by_side(batches: Sequence[Batch]) -> tuple[Sequence[Batch], Sequence[Batch]]:
    """Divide batches into two lists of about equally many rows, for two connections.

    All batches of a series are in one list, in their order: two connections that write the same series at the
    same time conflict. The second list is empty where one transaction takes all batches, or all are of one
    series.
    """
    if _rows(batches) <= TRANSACTION_ROWS:
        return batches, ()
    by_series: dict[Series, list[Batch]] = {}
    for batch in batches:
        by_series.setdefault(batch.series, []).append(batch)
    larger: list[Batch] = []
    smaller: list[Batch] = []
    for some in sorted(by_series.values(), key=_rows, reverse=True):
        larger, smaller = sorted((larger, smaller), key=_rows, reverse=True)
        smaller += some
    return larger, smaller


def _rows(batches: Iterable[Batch]) -> int:
    return sum(batch.rows for batch in batches)
