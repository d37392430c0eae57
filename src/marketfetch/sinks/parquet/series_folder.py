"""The files of one series in a Parquet store: what is in them, and how it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote

import attrs
import numpy as np

from marketfetch.errors import SinkError
from marketfetch.sinks.files.atomic_files import locked, make_folder, replace_file
from marketfetch.sinks.files.lock_files import sweep
from marketfetch.sinks.merging import merge, rows_equal
from marketfetch.sinks.parquet.codec import UnreadableFile, check_whole, read_note, read_rows, write_rows
from marketfetch.sinks.parquet.footers import FileNote, LedgerNote, check_names
from marketfetch.sinks.parquet.format1 import FIRST_LEDGER, read_first
from marketfetch.sinks.parquet.periods import Period, periods_of, split, unit_of, whole_periods
from marketfetch.sinks.remedies import forget_command
from marketfetch.sinks.sql.packed_coverage import PackedCoverage, in_spans
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["LEDGER", "WORK", "SeriesFolder", "files_aside", "locks_of"]

LEDGER = "_ledger.parquet"
"""A Parquet file without rows, so that nothing else lies in the way of who reads a folder as one table."""

WORK = "_marketfetch"
"""The folder for what is there only while somebody writes: locks and files aside."""

_LONG = 100
"""Characters of the names of a series that the name of its lock has at most."""

_T = TypeVar("_T")


def locks_of(root: Path) -> Path:
    """Return the folder of a store's locks."""
    return root / WORK / "locks"


def files_aside(root: Path) -> Path:
    """Return the folder in which a store's files are written before they are put in their places."""
    return root / WORK / "aside"


@attrs.frozen(eq=False)
class _Held:
    """What one file holds; `note` is None where format 1 wrote it."""

    rows: Columns
    note: FileNote | None


@attrs.frozen
class SeriesFolder:
    """The folder of a series: a file of rows for each period, and `_ledger.parquet`; see `notes`."""

    root: Path
    series: Series

    @property
    def home(self) -> Path:
        """Where the files are."""
        series = self.series
        parts = {"exchange": series.exchange, "symbol": series.symbol, "interval": series.interval.name}
        folders = (f"{name}={quote(value, safe='')}" for name, value in parts.items())
        return self.root.joinpath(series.dataset.name, *folders)

    @property
    def lock(self) -> Path:
        """The file that is there while somebody writes."""
        series = self.series
        names = (series.exchange, series.dataset.name, series.symbol, series.interval.name)
        name = ",".join(quote(name, safe="") for name in names)
        if len(name) > _LONG:  # a lock that is broken gets a longer name, and no name has more than 255 bytes
            name = f"{name[:_LONG]},{sha256(name.encode()).hexdigest()[:16]}"
        return locks_of(self.root) / f"{name}.lock"

    # --- reading: changes nothing, and needs no right to ---

    def coverage(self, *, whole: bool = True) -> Coverage:
        """Return what is known of the series.

        Raises SinkError for a file that is missing or damaged: `whole=False` leaves out what it may have
        said instead.
        """
        ledger, periods = self._look(None if whole else SpanSet())
        parts: list[PackedCoverage] = []
        for period in periods:
            try:
                note = self._in_file(period, partial(self._note, period))
            except SinkError:
                if whole:
                    raise
                continue
            legacy = ledger.files.get(str(period))
            parts.append(note.coverage if note is not None else legacy or PackedCoverage())
        known = PackedCoverage.joined(parts).unpacked()
        return known | ledger.fileless.unpacked() if ledger.fileless else known

    def read(self, span: Span) -> Columns:
        """Return the rows inside a span; raises SinkError for a missing or damaged file of it."""
        dataset = self.series.dataset
        _, periods = self._look(SpanSet.of(span), strangers=False)
        wanted = [period for period in periods if period.span.intersect(span)]
        read = partial(read_rows, dataset=dataset)
        rows = merge([self._in_file(one, read) or Columns.empty(dataset) for one in wanted], dataset)
        first, last = np.searchsorted(rows.times, (span.start, span.end))
        return rows.take(slice(int(first), int(last)))

    def rejected(self, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows inside a span, sorted by time."""
        found: list[RejectedRow] = []
        _, periods = self._look(SpanSet())
        for period in periods:
            if period.covers(self.series.interval).intersect(span):
                note = self._in_file(period, partial(self._note, period)) or FileNote()
                found += (row for row in note.rejected if row.time in span)
        return found

    @property
    def is_held(self) -> bool:
        """Whether anything of the series is stored."""
        return bool(self._periods(strangers=True)) or any(
            os.path.exists(self.home / name)  # noqa: PTH110  # Path.exists may raise
            for name in (LEDGER, FIRST_LEDGER)
        )

    # --- writing: one process at a time ---

    def write(self, batch: Batch) -> None:
        """Merge a batch into the files of its periods; see ParquetSink.

        Raises RowsRefused before anything changes, where a column of whole numbers has a fraction.
        """
        check_whole(self.series, batch.columns)
        interval = self.series.interval
        given = dict(split(Columns.join([batch.columns]), unit_of(interval)))
        learnt = PackedCoverage.of(batch.coverage)
        rejected: dict[Period, list[RejectedRow]] = {}
        for row in batch.rejected:
            rejected.setdefault(self._period_of(row.time), []).append(row)
        with self._alone():
            ledger = self._migrated()
            files, filed = dict(ledger.files), list[Span]()
            absent = self._absent(batch.coverage.empty, {*given, *rejected})
            touched = periods_of(batch.coverage.covered - absent, interval)
            for period in sorted({*given, *rejected, *touched}):
                held = self._held(period)
                before = self._before(period, held, ledger)
                after = before.learnt(learnt.within(period.covers(interval)), rejected.get(period, ()))
                rows = [] if held is None else [held.rows]
                rows += [given[period]] if period in given else []
                merged = merge(rows, self.series.dataset)
                if held is None or not (rows_equal(held.rows, merged) and after.same(before)):
                    self._put(period, merged, after)
                    files[str(period)] = None
                elif held.note is not None:
                    files[str(period)] = None
                filed.append(period.covers(interval))
            kept = ledger.fileless.without(SpanSet(tuple(filed)))
            empty = kept.learnt(PackedCoverage.of(Coverage(absent, absent)))
            # Last: a file that a crash leaves out of it counts all the same.
            self._put_ledger(ledger, LedgerNote(files, empty))

    def forget(self, spans: SpanSet, *, rows: bool) -> None:
        """Remove what is known of moments, and the rows; see SupportsForget.

        A file that is missing is no longer counted on where the spans touch its period. One that is damaged
        is deleted where the spans hold all of its period and the rows are to go, too.
        """
        if not self.is_held:
            return
        with self._alone():
            ledger = self._migrated()
            files, doomed = dict(ledger.files), list[Path]()
            names = {*files, *map(str, self._periods(strangers=True))}
            unit = unit_of(self.series.interval)
            for period in filter(None, (Period.parse(name, unit) for name in sorted(names))):
                reach = SpanSet.of(period.span, period.covers(self.series.interval))
                if not reach & spans:
                    continue
                try:
                    held = self._held(period)
                except SinkError:
                    if not rows or reach - spans:
                        raise
                    held = _Held(Columns.empty(self.series.dataset), FileNote())
                if held is None:
                    files.pop(str(period), None)
                    continue
                before = self._before(period, held, ledger)
                after = before.without(spans)
                kept = held.rows.take(~in_spans(held.rows.times, spans)) if rows else held.rows
                if not len(kept) and not after:
                    files.pop(str(period), None)
                    doomed.append(self._file(period))
                elif len(kept) != len(held.rows) or not after.same(before):
                    self._put(period, kept, after)
                    files[str(period)] = None
            self._put_ledger(ledger, LedgerNote(files, ledger.fileless.without(spans)))
            for file in doomed:  # after the ledger, which would miss them
                file.unlink(missing_ok=True)

    def migrate(self) -> None:
        """Bring what format 1 left into this one; no file of rows is touched. See also `_alone`."""
        with self._alone():
            self._migrated()

    # --- inside ---

    @contextmanager
    def _alone(self) -> Iterator[None]:
        aside = files_aside(self.root)
        with locked(self.lock) as claim:
            make_folder(aside)
            if claim.inherited:
                sweep(aside)
                self._list_files()
            yield

    def _list_files(self) -> None:
        """Have the ledger count on files that a process had put in their places when it died."""
        ledger = self._migrated()
        found = [
            period
            for period in self._periods(strangers=True)
            if str(period) not in ledger.files
            and self._in_file(period, partial(self._note, period)) is not None
        ]
        if found:
            covered = SpanSet(tuple(period.covers(self.series.interval) for period in found))
            files = {**ledger.files, **dict.fromkeys(map(str, found))}
            self._put_ledger(ledger, LedgerNote(files, ledger.fileless.without(covered)))

    def _file(self, period: Period) -> Path:
        return self.home / f"{period}.parquet"

    def _period_of(self, moment: int) -> Period:
        return Period.of(self.series.interval.floor(moment), unit_of(self.series.interval))

    def _look(self, spans: SpanSet | None, *, strangers: bool = True) -> tuple[LedgerNote, list[Period]]:
        """Return the ledger and the files that are there.

        Raises SinkError for a file that the ledger counts on in these spans, None for all of them, and that
        is not there. Looks again first: another process may have deleted it since the ledger was read.
        """
        for last in (False, True):
            ledger = self._ledger()
            periods = self._periods(strangers=strangers)
            missing = ledger.files.keys() - set(map(str, periods))
            gone = [one for one in map(self._named, sorted(missing)) if spans is None or self._in(one, spans)]
            if not gone:
                break
            if last:
                remedy = forget_command(self.root, self.series, gone[0].covers(self.series.interval))
                raise SinkError(
                    f"{self._file(gone[0])} is missing, and the ledger counts on its rows; put it back, or "
                    f"have them fetched anew: {remedy}"
                )
        return ledger, periods

    def _named(self, name: str) -> Period:
        period = Period.parse(name, unit_of(self.series.interval))
        if period is None:
            raise SinkError(f"{self.home / LEDGER} is damaged: it counts on a file {name!r}; remove it")
        return period

    def _in(self, period: Period, spans: SpanSet) -> bool:
        return bool(SpanSet.of(period.span, period.covers(self.series.interval)) & spans)

    def _periods(self, *, strangers: bool) -> list[Period]:
        """Return the files of rows, in order of time; raises SinkError for others unless strangers may be."""
        try:
            with os.scandir(self.home) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        periods: list[Period] = []
        for name in names:
            stem, dot, kind = name.rpartition(".")
            if kind == "parquet" and dot and not name.startswith(("_", ".")):
                period = Period.parse(stem, unit_of(self.series.interval))
                if period is not None:
                    periods.append(period)
                elif not strangers:
                    raise SinkError(f"{self.home / name} is not a file that marketfetch wrote; move it away")
        return sorted(periods)

    def _ledger(self) -> LedgerNote:
        """Return the ledger; what format 1 left is united with it, where there is some."""
        ledger, file, first = LedgerNote(), self.home / LEDGER, self.home / FIRST_LEDGER
        try:
            with file.open("rb") as source:
                ledger = LedgerNote.parsed(read_note(source) or b"", self.series, str(file))
        except FileNotFoundError:
            pass
        except (UnreadableFile, ValueError) as error:
            raise SinkError(
                f"{file} is damaged ({error}); remove it: each file says itself what is in it, and the rest "
                "is asked for anew"
            ) from error
        try:
            names, coverage = read_first(first)
        except FileNotFoundError:
            return ledger
        check_names(names, self.series, str(first))
        return self._united(ledger, coverage)

    def _united(self, ledger: LedgerNote, first: Coverage) -> LedgerNote:
        """Unite the ledger with what format 1 knew.

        Candles that it called present are in a file, and one that is not there is missed. A year in which no
        event was found has none.
        """
        packed, files, fileless = PackedCoverage.of(first), dict(ledger.files), ledger.fileless
        interval, there = self.series.interval, set(self._periods(strangers=True))
        for period in periods_of(first.covered, interval):
            part = packed.within(period.covers(interval))
            if period in there or (part.unpacked().present and not interval.is_event):
                files[str(period)] = (files.get(str(period)) or PackedCoverage()).learnt(part)
            else:
                fileless = fileless.learnt(part)
        return LedgerNote(files, fileless)

    def _migrated(self) -> LedgerNote:
        ledger, first = self._ledger(), self.home / FIRST_LEDGER
        if os.path.exists(first):  # noqa: PTH110  # Path.exists may raise
            self._put_ledger(None, ledger)
            first.unlink(missing_ok=True)
        return ledger

    def _absent(self, empty: SpanSet, busy: Collection[Period]) -> SpanSet:
        """Return the empty periods that need no file: from end to end, and none is there or will be."""
        whole = SpanSet(tuple(whole_periods(empty, self.series.interval)))
        if not whole:
            return whole
        filed = {*busy, *self._periods(strangers=True)}
        return whole - SpanSet(tuple(period.covers(self.series.interval) for period in filed))

    def _before(self, period: Period, held: _Held | None, ledger: LedgerNote) -> FileNote:
        """Return what is known of a period so far, wherever it stands."""
        if held is not None and held.note is not None:
            return held.note
        legacy = ledger.files.get(str(period)) if held is not None else None
        return FileNote(legacy or ledger.fileless.within(period.covers(self.series.interval)))

    def _held(self, period: Period) -> _Held | None:
        def held(source: BinaryIO) -> _Held:
            # Of one opened file: another machine may put a new one in its place between the two.
            note = self._note(period, source)
            return _Held(read_rows(source, self.series.dataset), note)

        return self._in_file(period, held)

    def _note(self, period: Period, source: BinaryIO) -> FileNote | None:
        text = read_note(source)
        if text is None:
            return None
        note = FileNote.parsed(text, self.series, str(self._file(period)))
        if not note.coverage.lies_in(period.covers(self.series.interval)):
            raise ValueError("its note is about another period")
        return note

    def _in_file(self, period: Period, read: Callable[[BinaryIO], _T]) -> _T | None:
        """Read something from the file of a period; None where there is none."""
        file = self._file(period)
        try:
            with file.open("rb") as source:
                return read(source)
        except FileNotFoundError:
            return None
        except (UnreadableFile, ValueError) as error:
            remedy = forget_command(self.root, self.series, period.covers(self.series.interval))
            raise SinkError(
                f"{file} is not a file that marketfetch wrote ({error}); restore it from a copy, or move it "
                f"away and have its rows fetched anew: {remedy}"
            ) from error

    def _put(self, period: Period, rows: Columns, note: FileNote) -> None:
        self._replace(self._file(period), rows, note.dumped(self.series))

    def _put_ledger(self, before: LedgerNote | None, after: LedgerNote) -> None:
        if before is not None and before.same(after):
            return
        if after.files or after.fileless:
            self._replace(self.home / LEDGER, Columns.empty(self.series.dataset), after.dumped(self.series))
        else:
            (self.home / LEDGER).unlink(missing_ok=True)

    def _replace(self, file: Path, rows: Columns, note: bytes) -> None:
        make_folder(file.parent)
        write = partial(write_rows, rows, self.series.dataset, note)
        replace_file(file, write, files_aside(self.root))
