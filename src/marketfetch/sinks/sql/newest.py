"""Where the newest rows of a database file are, without reading all of its ledger."""

from __future__ import annotations

from collections.abc import Iterator

from marketfetch.sinks.sql.coverage_schema import PREFIX, DbConnection, load_segment
from marketfetch.sinks.sql.ledger import registered_series
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span

__all__ = ["covered_series", "look_back", "newest_present_end"]

_GROWTH = 8


def covered_series(connection: DbConnection, target: str) -> list[Series]:
    """Return every series of a target that has coverage, without those of unregistered datasets."""
    rows = connection.execute(
        f"SELECT exchange, dataset, symbol, interval FROM {PREFIX}series AS s WHERE target = ? "
        f"AND EXISTS (SELECT 1 FROM {PREFIX}coverage AS c WHERE c.series_id = s.id) ORDER BY id",
        [target],
    )
    return [*registered_series(map(tuple, rows.fetchall())).values()]


def newest_present_end(connection: DbConnection, series_id: int, version: int) -> int:
    """Return the end of the newest moment that has a row by the ledger; 0 if there is none.

    Segments are read from the last one on. The ledger of format 1 has no segments: 0, too.
    """
    before = MAX_TIMESTAMP
    while version > 1:
        row = connection.execute(
            f"SELECT start_time, covered_spans, empty_spans, unusable_spans FROM {PREFIX}coverage "
            "WHERE series_id = ? AND start_time < ? ORDER BY start_time DESC LIMIT 1",
            [series_id, before],
        ).fetchone()
        if row is None:
            break
        before, *texts = row
        if (present := load_segment(series_id, texts).present.hull) is not None:
            return present.end
    return 0


def look_back(end: int, length: int) -> Iterator[Span]:
    """Yield spans that start ever earlier before `end`, the last one at 0.

    They have no end: a program may have added rows that the ledger does not know.

    >>> [span.start for span in look_back(1_000_000, 60_000)]
    [940000, 520000, 0]
    """
    while (start := end - length) > 0:
        yield Span(start, MAX_TIMESTAMP)
        length *= _GROWTH
    yield Span(0, MAX_TIMESTAMP)
