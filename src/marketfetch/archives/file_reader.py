"""Reading one file of an archive: from its bytes to rows that may be stored, and an account of the others.

A file proves that moments are present, never that they are empty: files with a right checksum lack days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import attrs
import numpy as np

from marketfetch.archives.checksums import Checksum, digest_of
from marketfetch.archives.containers import InflateLimits, open_member
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.layouts import DecodedRows, check_decoded
from marketfetch.decoding.validation import all_sound, check_rows
from marketfetch.errors import ArchiveDamaged, wrong_kind
from marketfetch.values.archives import ArchiveFile, Provenance
from marketfetch.values.pages import Columns, same_values
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, format_utc

__all__ = ["PIECE_ROWS", "FileContent", "FileReader", "FileSummary"]

PIECE_ROWS = 100_000
"""Rows of a piece, at least; the last one has fewer."""
_DISORDER = 10_000
"""Rows that are held back, so that a row may come late by so many rows."""
_EARLIEST = -(2**62)
"""Before every time."""


@attrs.frozen
class FileContent:
    """What a file should hold: rows of one series in one calendar period.

    - `member`: the name that the text must have in a zip file; None if any name and container will do.
    - `published`: when the file was made, in UTC milliseconds; rows that closed later are not final. None if
      that is not known.
    """

    series: Series
    period: CalendarPeriod
    layout: CsvLayout
    member: str | None = None
    published: int | None = None

    @classmethod
    def of(cls, file: ArchiveFile, series: Series, period: CalendarPeriod, layout: CsvLayout) -> FileContent:
        """Return what a file should hold; the text in a zip file must have the name of the file."""
        stem = file.name.removesuffix(".zip")
        member = None if stem == file.name else f"{stem.removesuffix('.csv')}.csv"
        return cls(series, period, layout, member, file.modified)


@attrs.frozen
class FileSummary:
    """What a file held.

    - `digest`: the SHA-256 of its bytes in hexadecimal; `verified` tells whether a published checksum agreed.
    - `rejected` counts by reason the rows that were not taken.
    """

    size: int
    digest: str
    verified: bool
    rejected: Mapping[str, int]

    def provenance(self, file: ArchiveFile, span: Span) -> Provenance:
        """Return the provenance of rows from this file, whose calendar span is given."""
        return Provenance(file.key, span, self.size, file.modified, self.digest, verified=self.verified)


@attrs.define(eq=False)
class FileReader:
    """The rows of one file: Columns that are sorted and unique, one piece after another.

    All rows are inside the period, on the grid, closed and possible. Exact copies of a row are dropped. If
    two different rows have one time, neither is taken. Memory does not grow with the file: a piece has about
    100,000 rows. Iterating again reads the file again. `digest` is the SHA-256 of the file, if it is known.

    Raises ArchiveDamaged for a file that is cut, altered, encrypted, not one text or in no order, and
    DecodeError for a text that is not of the layout, the symbol and the period. Rows are certain once the
    iteration has ended without an exception: pieces that came before one must not be stored.

    >>> import gzip, io
    >>> layout = CsvLayout({"open": 1, "high": 2, "low": 3, "close": 4}, width=5)
    >>> series = Series.of("binance-spot", "mark_price", "BTCUSDT", "1m")
    >>> file = io.BytesIO(gzip.compress(b"1704067200000,1.5,2,1,1.7"))
    >>> reader = FileReader(file, FileContent(series, CalendarPeriod.parse("2024-01-01"), layout))
    >>> [columns.times.tolist() for columns in reader], reader.summary.rejected
    ([[1704067200000]], {})
    """

    file: BinaryIO
    content: FileContent
    checksum: Checksum | None = None
    limits: InflateLimits = attrs.field(factory=InflateLimits)
    digest: str | None = None
    _summary: FileSummary | None = attrs.field(default=None, init=False)

    @property
    def summary(self) -> FileSummary:
        """What the file held; RuntimeError before all pieces have been taken."""
        if self._summary is None:
            raise RuntimeError("the file is not read to its end yet; iterate over the reader first")
        return self._summary

    def __iter__(self) -> Iterator[Columns]:
        self.digest = self.digest or digest_of(self.file)
        if self.checksum is not None:
            algorithm = self.checksum.algorithm
            self.checksum.check(self.digest if algorithm == "sha256" else digest_of(self.file, algorithm))
        size = self.file.seek(0, 2)
        rejected = Counter[str]()
        for piece in _in_order(self._sound_rows(rejected), rejected):
            if len(piece):
                yield piece
        self._summary = FileSummary(size, self.digest, self.checksum is not None, dict(+rejected))

    def _sound_rows(self, rejected: Counter[str]) -> Iterator[Columns]:
        """Yield the rows of each block that may be stored, as they come, and count the others by reason."""
        content = self.content
        member = open_member(self.file, self.limits)
        if content.member not in {None, member.name}:
            found = "no zip file" if member.name is None else repr(member.name[:100])
            raise ArchiveDamaged(f"expected a zip file with {content.member}, found {found}")
        place = f"{type(content.layout).__name__}.decode"
        pieces: object = content.layout.decode(member.pieces, content.series, content.period.span)
        if not isinstance(pieces, Iterable):
            raise wrong_kind(place, pieces, "yield a DecodedRows for each block of lines")
        for decoded in pieces:
            rows = self._with_closed(check_decoded(place, decoded, content.series.dataset))
            if all_sound(rows, content.series, content.period.span):  # as nearly always
                yield rows.columns
                continue
            checked = check_rows(rows, content.series, content.period.span)
            rejected.update(checked.rejected)
            yield rows.columns.take(checked.sound)

    def _with_closed(self, decoded: DecodedRows) -> DecodedRows:
        """Mark the rows that were not closed when the file was made."""
        published = self.content.published
        if published is None:
            return decoded
        closed = decoded.columns.times < self.content.series.interval.floor(published)
        return attrs.evolve(decoded, closed=closed if decoded.closed is None else closed & decoded.closed)


@attrs.define(eq=False)
class _Gathered:
    """The rows of several blocks, side by side.

    Each block is copied while it is in the cache of the processor, and the next block reuses its memory. To
    keep all blocks and join them at the end would take twice the memory.
    """

    _arrays: Columns
    """At first the arrays of the first block; from the second block on, arrays with room for more rows."""
    rows: int = attrs.field(
        default=attrs.Factory(lambda self: len(self._arrays), takes_self=True), init=False
    )

    @property
    def columns(self) -> Columns:
        """All rows, in the order in which they came."""
        return self._arrays.take(slice(self.rows))

    def add(self, block: Columns) -> None:
        """Add the rows of a block."""
        before, self.rows = self.rows, self.rows + len(block)
        if self.rows > len(self._arrays):
            first, room = self._arrays.take(slice(before)), max(self.rows, PIECE_ROWS + 2 * _DISORDER)
            self._arrays = Columns(np.empty(room, np.int64), np.empty((len(block.values), room)))
            self._put(slice(before), first)
        self._put(slice(before, self.rows), block)

    def _put(self, where: slice, rows: Columns) -> None:
        self._arrays.times[where], self._arrays.values[:, where] = rows.times, rows.values


def _in_order(blocks: Iterable[Columns], rejected: Counter[str]) -> Iterator[Columns]:
    """Join blocks to pieces that are sorted and unique; each piece is later than the one before it."""
    held: _Gathered | None = None
    last_out = _EARLIEST
    for block in blocks:
        if not len(block):
            continue
        if held is None:
            held = _Gathered(block)
        else:
            held.add(block)
        if held.rows >= PIECE_ROWS + _DISORDER:
            rows = _sorted(held.columns)
            # Rows of one time are not torn apart.
            cut = int(np.searchsorted(rows.times, rows.times[-_DISORDER]))
            piece, held = rows.take(slice(cut)), _Gathered(rows.take(slice(cut, None)))
            last_out = _check_order(piece, last_out)
            yield _unique(piece, rejected)
    if held is not None:
        piece = _sorted(held.columns)
        _check_order(piece, last_out)
        yield _unique(piece, rejected)


def _check_order(piece: Columns, last_out: int) -> int:
    """Return the last time of a piece; ArchiveDamaged if the piece begins before the last one ended."""
    if not len(piece):
        raise ArchiveDamaged(f"more than {PIECE_ROWS:,} rows of the file have one time")
    first = int(piece.times[0])
    if first <= last_out:
        raise ArchiveDamaged(
            f"a row of {format_utc(first)} is more than {_DISORDER:,} rows too late in the file"
        )
    return int(piece.times[-1])


def _sorted(rows: Columns) -> Columns:
    """Sort rows by time; rows of one time keep their order."""
    if np.all(rows.times[1:] >= rows.times[:-1]):
        return rows
    return rows.take(np.argsort(rows.times, kind="stable"))


def _unique(rows: Columns, rejected: Counter[str]) -> Columns:
    """Keep one of equal rows, and none of different rows of one time; the rows are sorted."""
    if rows.is_sorted:
        return rows
    begins = np.append(True, rows.times[1:] != rows.times[:-1])  # numpy's own signature
    equal = np.append(True, same_values(rows.values[:, 1:], rows.values[:, :-1]).all(axis=0))
    agree = np.logical_and.reduceat(begins | equal, np.flatnonzero(begins))[np.cumsum(begins) - 1]
    rejected["duplicate"] += int(np.count_nonzero(agree & ~begins))
    rejected["conflicting"] += int(np.count_nonzero(~agree))
    return rows.take(agree & begins)
