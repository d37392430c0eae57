"""The files of one series in a Parquet store: reading, writing and forgetting."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, TypeVar

import attrs
import numpy as np

from marketfetch.common.platforms import patiently
from marketfetch.errors import SinkError
from marketfetch.sinks.files.atomic_files import locked, make_folder, replace_file
from marketfetch.sinks.files.lock_files import sweep
from marketfetch.sinks.merging import merge, rows_equal
from marketfetch.sinks.parquet.codec import UnreadableFile, check_whole, read_note, read_rows, write_rows
from marketfetch.sinks.parquet.footers import FileNote, LedgerNote, check_names, replaced
from marketfetch.sinks.parquet.format1 import FIRST_LEDGER, read_first, united
from marketfetch.sinks.parquet.periods import Period, periods_of, split, unit_of, whole_periods
from marketfetch.sinks.parquet.places import LEDGER, home_of, lock_of, temporary_folder
from marketfetch.sinks.provenance import by_span, remembered
from marketfetch.sinks.remedies import forget_command
from marketfetch.sinks.sql.packed_coverage import PackedCoverage, in_spans
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet

__all__ = ["SeriesFolder"]

_T = TypeVar("_T")


@attrs.frozen(eq=False)
class _Held:
    """The content of one file; `note` is None in a file of format 1."""

    rows: Columns
    note: FileNote | None


@attrs.frozen
class SeriesFolder:
    """The folder of a series: a file of rows for each period, and `_ledger.parquet`; see `footers`."""

    root: Path
    series: Series

    @property
    def home(self) -> Path:
        """The folder itself."""
        return home_of(self.root, self.series)

    @property
    def lock(self) -> Path:
        """The lock file of the series."""
        return lock_of(self.root, self.series)

    # --- reading: changes nothing, and needs no right to write ---

    def coverage(self, *, whole: bool = True) -> Coverage:
        """Return the coverage of the series.

        Raises SinkError for a file that is missing or damaged; `whole=False` leaves its period out instead.
        """
        ledger, periods = self._ledger_and_periods(None if whole else SpanSet())
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
        _, periods = self._ledger_and_periods(SpanSet.of(span), foreign=False)
        wanted = [period for period in periods if period.span.intersect(span)]
        read = partial(read_rows, dataset=dataset)
        rows = merge([self._in_file(one, read) or Columns.empty(dataset) for one in wanted], dataset)
        first, last = np.searchsorted(rows.times, (span.start, span.end))
        return rows.take(slice(int(first), int(last)))

    def latest(self, limit: int) -> Columns:
        """Return the newest rows, at most `limit`; raises SinkError for a missing or damaged file of them."""
        parts, reached = [Columns.empty(self.series.dataset)], 0
        for period in reversed(self._periods(foreign=False)):
            rows = self._in_file(period, partial(read_rows, dataset=self.series.dataset))
            parts += [] if rows is None else [rows]
            reached = period.span.start
            if sum(map(len, parts)) >= limit:
                break
        else:
            reached = 0
        self._ledger_and_periods(SpanSet.of(Span(reached, MAX_TIMESTAMP)))
        return merge(parts, self.series.dataset).take(slice(-limit, None))

    def rejected(self, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows inside a span, sorted by time."""
        _, notes = self._notes(span)
        return [row for note in notes for row in note.rejected if row.time in span]

    def provenance(self) -> Sequence[Provenance]:
        """Return the files of archives that rows came from, sorted by span.

        A file may be in the notes of several periods. After it was issued anew, the last issue counts.
        """
        ledger, notes = self._notes(None)
        entries = [*ledger.provenance, *(entry for note in notes for entry in note.provenance)]
        return by_span({one.key: one for one in sorted(entries, key=attrgetter("modified"))}.values())

    @property
    def is_held(self) -> bool:
        """Whether anything of the series is stored."""
        return bool(self._periods(foreign=True)) or any(
            os.path.exists(self.home / name)  # noqa: PTH110  # Path.exists may raise
            for name in (LEDGER, FIRST_LEDGER)
        )

    # --- writing: one process at a time ---

    def write(self, batch: Batch, written: AbstractSet[str]) -> set[str]:
        """Merge a batch into the files, and return the periods of its rows; RowsRefused changes nothing.

        SinkError for a missing file that the ledger counts on, or that this run has `written`: a new file
        would have the rows of this batch alone.
        """
        check_whole(self.series, batch.columns)
        interval = self.series.interval
        rows_of = dict(split(Columns.join([batch.columns]), unit_of(interval)))
        new = PackedCoverage.of(batch.coverage)
        rejected: dict[Period, list[RejectedRow]] = {}
        for row in batch.rejected:
            rejected.setdefault(self._period_of(row.time), []).append(row)
        with self._locked():
            ledger = self._migrated()
            files, filed = dict(ledger.files), list[Span]()
            absent = self._absent(batch.coverage.empty, {*rows_of, *rejected})
            touched = periods_of(batch.coverage.covered - absent, interval)
            for period in sorted({*rows_of, *rejected, *touched}):
                held = self._held(period)
                if held is None and str(period) in written:
                    raise self._lost(str(period))
                if held is None and str(period) in ledger.files:
                    raise self._missing(period)
                before = self._before(period, held, ledger)
                part = new.within(period.covers(interval))
                after = before.united_with(part, rejected.get(period, ()), batch.provenance)
                rows = [] if held is None else [held.rows]
                rows += [rows_of[period]] if period in rows_of else []
                merged = merge(rows, self.series.dataset)
                if held is None or not (rows_equal(held.rows, merged) and after.same(before)):
                    self._put(period, merged, after)
                    files[str(period)] = None
                elif held.note is not None:
                    files[str(period)] = None
                filed.append(period.covers(interval))
            kept = ledger.fileless.without(SpanSet(tuple(filed)))
            empty = kept.united_with(PackedCoverage.of(Coverage(absent, absent)))
            known = ledger.provenance if filed else replaced(ledger.provenance, batch.provenance)
            # Last: after a crash before this line, the new files still count, by `_list_files`.
            self._put_ledger(ledger, LedgerNote(files, empty, known))
        return set(map(str, rows_of))

    def check_there(self, written: AbstractSet[str]) -> None:
        """Raise SinkError if a file of these periods is gone."""
        if lost := written - set(map(str, self._periods(foreign=True))):
            raise self._lost(min(lost))

    def forget(self, spans: SpanSet, *, rows: bool) -> set[str]:
        """Remove the coverage of the spans, and with `rows` the rows; return the periods without a file now.

        1. A missing file whose period the spans touch is removed from the ledger.
        2. A damaged file is deleted where the spans contain its whole period, with `rows`.
        """
        if not self.is_held:
            return set()
        with self._locked():
            ledger = self._migrated()
            files, doomed = dict(ledger.files), list[Path]()
            names = {*files, *map(str, self._periods(foreign=True))}
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
            known = tuple(remembered(ledger.provenance, spans))
            self._put_ledger(ledger, LedgerNote(files, ledger.fileless.without(spans), known))
            for file in doomed:  # after the ledger, which would count them as missing
                patiently(partial(file.unlink, missing_ok=True))
            return names - files.keys()

    def migrate(self) -> None:
        """Migrate the ledger of format 1; no file of rows is touched. See also `_locked`."""
        with self._locked():
            self._migrated()

    # --- internals ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        temporary = temporary_folder(self.root)
        with locked(self.lock) as claim:
            make_folder(temporary)
            if claim.inherited:  # its holder died amid a write
                sweep(temporary)
                self._list_files()
            yield

    def _list_files(self) -> None:
        """Add files to the ledger that a process renamed into their places before it died."""
        ledger = self._migrated()
        found = [
            period
            for period in self._periods(foreign=True)
            if str(period) not in ledger.files
            and self._in_file(period, partial(self._note, period)) is not None
        ]
        if found:
            covered = SpanSet(tuple(period.covers(self.series.interval) for period in found))
            files = {**ledger.files, **dict.fromkeys(map(str, found))}
            fileless = ledger.fileless.without(covered)
            self._put_ledger(ledger, LedgerNote(files, fileless, ledger.provenance))

    def _notes(self, span: Span | None) -> tuple[LedgerNote, list[FileNote]]:
        """Return the ledger, and the notes of the files whose periods a span touches, None for all."""
        ledger, periods = self._ledger_and_periods(SpanSet())
        interval = self.series.interval
        touched = [one for one in periods if span is None or one.covers(interval).intersect(span)]
        notes = (self._in_file(period, partial(self._note, period)) for period in touched)
        return ledger, [note for note in notes if note is not None]

    def _forget_command(self, period: Period) -> str:
        return forget_command(self.root, self.series, period.covers(self.series.interval))

    def _file(self, period: Period) -> Path:
        return self.home / f"{period}.parquet"

    def _period_of(self, moment: int) -> Period:
        return Period.of(self.series.interval.floor(moment), unit_of(self.series.interval))

    def _ledger_and_periods(
        self, spans: SpanSet | None, *, foreign: bool = True
    ) -> tuple[LedgerNote, list[Period]]:
        """Return the ledger, and the periods that have a file.

        Raises SinkError for a file of the ledger that is missing at two looks, in these spans, None for all:
        another process may delete files after the first look at the ledger.
        """
        for last in (False, True):
            ledger = self._ledger()
            periods = self._periods(foreign=foreign)
            absent = map(self._named, sorted(ledger.files.keys() - set(map(str, periods))))
            missing = [one for one in absent if spans is None or self._in(one, spans)]
            if not missing:
                break
            if last:
                raise self._missing(missing[0])
        return ledger, periods

    def _missing(self, period: Period) -> SinkError:
        return SinkError(
            f"{self._file(period)} is missing, and the ledger counts on its rows; put it back, or have them "
            f"fetched anew: {self._forget_command(period)}"
        )

    def _lost(self, name: str) -> SinkError:
        return SinkError(
            f"{self.home / name}.parquet was deleted under the run that wrote it; leave it there, and run "
            "again"
        )

    def _named(self, name: str) -> Period:
        period = Period.parse(name, unit_of(self.series.interval))
        if period is None:
            raise SinkError(f"{self.home / LEDGER} is damaged: it counts on a file {name!r}; remove it")
        return period

    def _in(self, period: Period, spans: SpanSet) -> bool:
        return bool(SpanSet.of(period.span, period.covers(self.series.interval)) & spans)

    def _periods(self, *, foreign: bool) -> list[Period]:
        """Return the periods with a file, in order; without `foreign`, SinkError for other Parquet files."""
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
                elif not foreign:
                    raise SinkError(f"{self.home / name} is not a file that marketfetch wrote; move it away")
        return sorted(periods)

    def _ledger(self) -> LedgerNote:
        """Return the ledger, united with that of format 1 where there is one."""
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
        return united(ledger, coverage, set(self._periods(foreign=True)), self.series.interval)

    def _migrated(self) -> LedgerNote:
        ledger, first = self._ledger(), self.home / FIRST_LEDGER
        if os.path.exists(first):  # noqa: PTH110  # Path.exists may raise
            self._put_ledger(None, ledger)
            first.unlink(missing_ok=True)
        return ledger

    def _absent(self, empty: SpanSet, busy: Collection[Period]) -> SpanSet:
        """Return the periods that are empty from end to end, and have no file and will get none."""
        whole = SpanSet(tuple(whole_periods(empty, self.series.interval)))
        if not whole:
            return whole
        filed = {*busy, *self._periods(foreign=True)}
        return whole - SpanSet(tuple(period.covers(self.series.interval) for period in filed))

    def _before(self, period: Period, held: _Held | None, ledger: LedgerNote) -> FileNote:
        """Return the note of a period so far, from its file or the ledger."""
        if held is not None and held.note is not None:
            return held.note
        legacy = ledger.files.get(str(period)) if held is not None else None
        return FileNote(legacy or ledger.fileless.within(period.covers(self.series.interval)))

    def _held(self, period: Period) -> _Held | None:
        def held(source: BinaryIO) -> _Held:
            # Rows and note of one open file: another machine may replace the file in between.
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
        """Apply `read` to the file of a period; None where there is no file."""
        file = self._file(period)
        try:
            with file.open("rb") as source:
                return read(source)
        except FileNotFoundError:
            return None
        except (UnreadableFile, ValueError) as error:
            remedy = self._forget_command(period)
            raise SinkError(
                f"{file} is not a file that marketfetch wrote ({error}); restore it from a copy, or move it "
                f"away and have its rows fetched anew: {remedy}"
            ) from error

    def _put(self, period: Period, rows: Columns, note: FileNote) -> None:
        self._replace(self._file(period), rows, note.dumped(self.series))

    def _put_ledger(self, before: LedgerNote | None, after: LedgerNote) -> None:
        if before is not None and before.same(after):
            return
        if after.files or after.fileless or after.provenance:
            self._replace(self.home / LEDGER, Columns.empty(self.series.dataset), after.dumped(self.series))
        else:
            patiently(partial((self.home / LEDGER).unlink, missing_ok=True))

    def _replace(self, file: Path, rows: Columns, note: bytes) -> None:
        make_folder(file.parent)
        write = partial(write_rows, rows, self.series.dataset, note)
        replace_file(file, write, temporary_folder(self.root))
