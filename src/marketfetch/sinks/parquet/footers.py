"""The notes in the footers of the Parquet files of a series.

A FileNote is in each file of rows: the coverage of its period, and the files of archives that its rows came
from. Rows and note are one file, so they are replaced atomically, and deleting, restoring or overwriting the
file does so with both.

A LedgerNote is in `_ledger.parquet`, a file without rows: the files that the series must have, and the
periods that are empty from end to end and need no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import msgspec

from marketfetch.errors import SinkError
from marketfetch.sinks.provenance import by_span, dump_file, load_file, without_forgotten
from marketfetch.sinks.remedies import newer_format_error
from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.archives import Provenance
from marketfetch.values.pages import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

__all__ = ["FORMAT", "FileNote", "LedgerNote", "check_names", "replace_entry"]

FORMAT = 3
"""The format of the store. Notes of format 2 have no provenance, and are valid notes of format 3.

Format 1 had the whole coverage of a series in `_coverage.json`.
"""


@attrs.frozen(eq=False)
class FileNote:
    """The coverage of the period of one file, its rejected rows, and the provenance of its rows."""

    coverage: PackedCoverage = attrs.field(factory=PackedCoverage)
    rejected: tuple[RejectedRow, ...] = ()
    provenance: tuple[Provenance, ...] = ()

    def dump(self, series: Series) -> bytes:
        """Write the note, as JSON."""
        rejected = [(row.time, row.reason, row.raw) for row in self.rejected]
        entry = {"coverage": self.coverage.numbers(), "rejected": rejected}
        return _dump(series, entry | _dump_files(self.provenance))

    @classmethod
    def parse(cls, text: bytes, series: Series, file: str) -> FileNote:
        """Read a note; raises ValueError where it is damaged, SinkError where it is not of this series."""
        entry = _parse(text, series, file)
        try:
            rejected = tuple(_load_rejected(*row) for row in entry["rejected"])
            return cls(PackedCoverage.parse(entry["coverage"]), rejected, _load_files(entry))
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise ValueError(f"its note reads {text[:60]!r}") from error

    def united_with(
        self, coverage: PackedCoverage, rejected: Iterable[RejectedRow], provenance: Provenance | None
    ) -> FileNote:
        """Unite with a batch; a rejected row is removed when its moment becomes present."""
        known = self.coverage.united_with(coverage)
        rows = sorted({*self.rejected, *rejected})
        kept = tuple(row for row in rows if not known.is_present(row.time))
        return FileNote(known, kept, replace_entry(self.provenance, provenance))

    def without(self, spans: SpanSet) -> FileNote:
        """Return what is left when the moments of `spans` are forgotten."""
        kept = tuple(row for row in self.rejected if row.time not in spans)
        return FileNote(self.coverage.without(spans), kept, tuple(without_forgotten(self.provenance, spans)))

    def __bool__(self) -> bool:
        return bool(self.coverage or self.rejected or self.provenance)

    def equals(self, other: FileNote) -> bool:
        """Whether two notes are equal."""
        mine, others = (self.rejected, self.provenance), (other.rejected, other.provenance)
        return mine == others and self.coverage.equals(other.coverage)


@attrs.frozen(eq=False)
class LedgerNote:
    """The files that a series must have, by the names of their periods, and the coverage without a file.

    A file of format 1 has no note until it is written again: until then its coverage is in `files`.
    """

    files: Mapping[str, PackedCoverage | None] = MappingProxyType({})
    fileless: PackedCoverage = attrs.field(factory=PackedCoverage)
    """The coverage of periods that have no rows and need no file."""
    provenance: tuple[Provenance, ...] = ()
    """The files that these periods came from."""

    def dump(self, series: Series) -> bytes:
        """Write the note, as JSON."""
        files = {
            name: None if coverage is None else coverage.numbers()
            for name, coverage in sorted(self.files.items())
        }
        entry = {"files": files, "fileless": self.fileless.numbers()}
        return _dump(series, entry | _dump_files(self.provenance))

    @classmethod
    def parse(cls, text: bytes, series: Series, file: str) -> LedgerNote:
        """Read a note; raises ValueError where it is damaged, SinkError where it is not of this series."""
        entry = _parse(text, series, file)
        try:
            files = {
                str(name): None if coverage is None else PackedCoverage.parse(coverage)
                for name, coverage in entry["files"].items()
            }
            return cls(files, PackedCoverage.parse(entry["fileless"]), _load_files(entry))
        except (ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"its note reads {text[:60]!r}") from error

    def equals(self, other: LedgerNote) -> bool:
        """Whether two notes are equal."""
        if self.files.keys() != other.files.keys() or self.provenance != other.provenance:
            return False
        if not self.fileless.equals(other.fileless):
            return False
        pairs = ((coverage, other.files[name]) for name, coverage in self.files.items())
        return all(
            one is two or (one is not None and two is not None and one.equals(two)) for one, two in pairs
        )


def replace_entry(entries: Iterable[Provenance], new: Provenance | None) -> tuple[Provenance, ...]:
    """Add an entry, which replaces that of the same file."""
    if new is None:
        return tuple(entries)
    return tuple(by_span([new, *(entry for entry in entries if entry.key != new.key)]))


def _dump_files(entries: Sequence[Provenance]) -> dict[str, object]:
    return {"provenance": list(map(dump_file, entries))} if entries else {}


def _load_files(entry: Mapping[str, Any]) -> tuple[Provenance, ...]:
    return tuple(map(load_file, entry.get("provenance", ())))


def _dump(series: Series, entry: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"format": FORMAT, "series": series.names, **entry})


def _parse(text: bytes, series: Series, file: str) -> Mapping[str, Any]:
    try:
        entry = msgspec.json.decode(text)
    except RecursionError as error:
        raise ValueError(f"its note reads {text[:60]!r}") from error
    if not isinstance(entry, dict) or type(entry.get("format")) is not int:
        raise ValueError(f"its note reads {text[:60]!r}")
    if entry["format"] > FORMAT:
        raise newer_format_error(file, entry["format"], FORMAT)
    names = entry.get("series")
    if not isinstance(names, list):
        raise ValueError(f"its note reads {text[:60]!r}")
    check_names(names, series, file)
    return entry


def check_names(names: Sequence[object], series: Series, file: str) -> None:
    """Raise SinkError for a file of another series than that of its folder."""
    if tuple(names) != series.names:
        raise SinkError(
            f"{file} is about {' '.join(map(str, names))}, not {series}: this file system takes capital and "
            "small letters for the same; keep the two in different folders"
        )


def _load_rejected(time: object, reason: object, raw: object) -> RejectedRow:
    if type(time) is not int or not isinstance(reason, str) or not isinstance(raw, str):
        raise TypeError(time)
    if abs(time) >= 2**63:
        raise OverflowError(time)
    return RejectedRow(time, reason, raw)
