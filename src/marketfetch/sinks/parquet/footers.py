"""What stands in the footers of a series' Parquet files: what each covers, and which files there are.

Every file of rows says itself what is known of its period. So rows and coverage are one file, which is there
as a whole or not at all; whoever deletes the file, restores an old copy of it or overwrites it from another
machine deletes, restores or overwrites both.

One more file without rows, `_ledger.parquet`, says of each series which files there have to be and which
periods are empty from end to end, so that these need no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import orjson

from marketfetch.errors import SinkError
from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.pages import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

__all__ = ["FORMAT", "FileNote", "LedgerNote", "check_names", "newer"]

FORMAT = 2
"""Of the store. Format 1 had the whole coverage of a series in `_coverage.json`."""


@attrs.frozen(eq=False)
class FileNote:
    """What is known of the period of one file, and the rejected rows of it."""

    coverage: PackedCoverage = attrs.field(factory=PackedCoverage)
    rejected: tuple[RejectedRow, ...] = ()

    def dumped(self, series: Series) -> bytes:
        """Write the note, as JSON."""
        rejected = [(row.time, row.reason, row.raw) for row in self.rejected]
        return _dumped(series, {"coverage": self.coverage.numbers(), "rejected": rejected})

    @classmethod
    def parsed(cls, text: bytes, series: Series, file: str) -> FileNote:
        """Read a note; raises ValueError where it is damaged, SinkError where it is not of this series."""
        entry = _parsed(text, series, file)
        try:
            rejected = tuple(_rejected(*row) for row in entry["rejected"])
            return cls(PackedCoverage.parsed(entry["coverage"]), rejected)
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"its note reads {text[:60]!r}") from error

    def learnt(self, coverage: PackedCoverage, rejected: Iterable[RejectedRow]) -> FileNote:
        """Unite with what a batch says; a rejected row goes when its moment becomes present."""
        known = self.coverage.learnt(coverage)
        rows = sorted({*self.rejected, *rejected})
        return FileNote(known, tuple(row for row in rows if not known.is_present(row.time)))

    def without(self, spans: SpanSet) -> FileNote:
        """Return what is left when the moments of `spans` are forgotten."""
        kept = tuple(row for row in self.rejected if row.time not in spans)
        return FileNote(self.coverage.without(spans), kept)

    def __bool__(self) -> bool:
        return bool(self.coverage or self.rejected)

    def same(self, other: FileNote) -> bool:
        """Whether two say the same."""
        return self.rejected == other.rejected and self.coverage.same(other.coverage)


@attrs.frozen(eq=False)
class LedgerNote:
    """Which files of a series there have to be, by the names of their periods, and what has none.

    A file that format 1 wrote has no note of its own until it is written again: for it the coverage stands
    here.
    """

    files: Mapping[str, PackedCoverage | None] = MappingProxyType({})
    fileless: PackedCoverage = attrs.field(factory=PackedCoverage)
    """What is known of periods that need no file, since nothing is stored of them."""

    def dumped(self, series: Series) -> bytes:
        """Write the note, as JSON."""
        files = {name: None if held is None else held.numbers() for name, held in sorted(self.files.items())}
        return _dumped(series, {"files": files, "fileless": self.fileless.numbers()})

    @classmethod
    def parsed(cls, text: bytes, series: Series, file: str) -> LedgerNote:
        """Read a note; raises ValueError where it is damaged, SinkError where it is not of this series."""
        entry = _parsed(text, series, file)
        try:
            files = {
                str(name): None if held is None else PackedCoverage.parsed(held)
                for name, held in entry["files"].items()
            }
            return cls(files, PackedCoverage.parsed(entry["fileless"]))
        except (ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"its note reads {text[:60]!r}") from error

    def same(self, other: LedgerNote) -> bool:
        """Whether two say the same."""
        if self.files.keys() != other.files.keys() or not self.fileless.same(other.fileless):
            return False
        pairs = ((held, other.files[name]) for name, held in self.files.items())
        return all(
            one is two or (one is not None and two is not None and one.same(two)) for one, two in pairs
        )


def newer(place: str, found: object) -> SinkError:
    """Make the error for what a later version has written."""
    return SinkError(
        f"{place} was written by a newer marketfetch (format {found}; this one knows {FORMAT}): "
        "upgrade marketfetch"
    )


def _dumped(series: Series, entry: Mapping[str, object]) -> bytes:
    return orjson.dumps({"format": FORMAT, "series": _names(series), **entry})


def _parsed(text: bytes, series: Series, file: str) -> Mapping[str, Any]:
    entry = orjson.loads(text)
    if not isinstance(entry, dict) or type(entry.get("format")) is not int:
        raise ValueError(f"its note reads {text[:60]!r}")
    if entry["format"] > FORMAT:
        raise newer(file, entry["format"])
    names = entry.get("series")
    if not isinstance(names, list):
        raise ValueError(f"its note reads {text[:60]!r}")
    check_names(names, series, file)
    return entry


def check_names(names: Sequence[object], series: Series, file: str) -> None:
    """Raise SinkError where a file is about another series than the one whose folder it is in."""
    if list(names) != _names(series):
        raise SinkError(
            f"{file} is about {' '.join(map(str, names))}, not {series}: this file system takes capital and "
            "small letters for the same; keep the two in different folders"
        )


def _rejected(time: object, reason: object, raw: object) -> RejectedRow:
    if type(time) is not int or not isinstance(reason, str) or not isinstance(raw, str):
        raise TypeError(time)
    if abs(time) >= 2**63:
        raise OverflowError(time)
    return RejectedRow(time, reason, raw)


def _names(series: Series) -> list[str]:
    return [series.exchange, series.dataset.name, series.symbol, series.interval.name]
