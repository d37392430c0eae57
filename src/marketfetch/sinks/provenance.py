"""Helpers for provenance: a store keeps one entry for each file of an archive, the one written last."""

from __future__ import annotations

from collections.abc import Iterable

from marketfetch.values.archives import Provenance
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FILE_COLUMNS", "by_span", "dump_file", "load_file", "without_forgotten"]

FILE_COLUMNS = ("file_key", "start_time", "end_time", "size", "modified", "digest", "verified")
"""The names of the values of `dump_file`."""


def dump_file(entry: Provenance) -> tuple[str, int, int, int, int, str, bool]:
    """Write an entry as a row of a table or a JSON list.

    >>> dump_file(Provenance("a.zip", Span(0, 60_000), 512, 70_000, "9f86d0", verified=True))
    ('a.zip', 0, 60000, 512, 70000, '9f86d0', True)
    """
    span = entry.span
    return entry.key, span.start, span.end, entry.size, entry.modified, entry.digest, entry.verified


def load_file(row: Iterable[object]) -> Provenance:
    """Read the row of `dump_file`; raises ValueError or TypeError for any other values."""
    key, start, end, size, modified, digest, verified = row
    if not isinstance(key, str) or not isinstance(digest, str):
        raise TypeError(key)
    numbers = [number for number in (start, end, size, modified) if type(number) is int]
    first, last, length, changed = numbers
    return Provenance(key, Span(first, last), length, changed, digest, verified=bool(verified))


def by_span(entries: Iterable[Provenance]) -> list[Provenance]:
    """Sort entries by span, those of one span by key."""
    return sorted(entries, key=lambda entry: (entry.span, entry.key))


def without_forgotten(entries: Iterable[Provenance], forgotten: SpanSet) -> list[Provenance]:
    """Return the entries of files that the forgotten spans do not contain as a whole.

    >>> day = Provenance("a.zip", Span(0, 86_400_000), 512, 0, "9f86d0", verified=True)
    >>> [len(without_forgotten([day], SpanSet.of(Span(0, end)))) for end in (60_000, 86_400_000)]
    [1, 0]
    """
    return [entry for entry in entries if SpanSet.of(entry.span) - forgotten]
