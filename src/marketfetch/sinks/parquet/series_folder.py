"""Writing the files of one series in a Parquet store, one process at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import attrs

from marketfetch.common.platforms import retry_while_open_elsewhere
from marketfetch.errors import SinkError
from marketfetch.sinks.files.atomic_files import locked, make_folder, replace_file
from marketfetch.sinks.files.lock_files import sweep
from marketfetch.sinks.merging import merge, rows_equal
from marketfetch.sinks.parquet.codec import check_whole, read_rows, write_rows
from marketfetch.sinks.parquet.footers import FileNote, LedgerNote, replace_entry
from marketfetch.sinks.parquet.format1 import FORMAT1_LEDGER_FILE
from marketfetch.sinks.parquet.paths import LEDGER_FILE, lock_path, temporary_folder
from marketfetch.sinks.parquet.periods import Period, periods_of, split, unit_of, whole_periods
from marketfetch.sinks.parquet.series_files import SeriesFiles
from marketfetch.sinks.provenance import without_forgotten
from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, RejectedRow, in_spans
from marketfetch.values.spans import Span, SpanSet

__all__ = ["SeriesFolder"]


@attrs.frozen(eq=False)
class _FileContents:
    """The content of one file; `note` is None in a file of format 1."""

    rows: Columns
    note: FileNote | None


@attrs.frozen
class SeriesFolder(SeriesFiles):
    """The folder of a series: what SeriesFiles reads, and how it is changed."""

    @property
    def lock(self) -> Path:
        """The lock file of the series."""
        return lock_path(self.root, self.series)

    def write(self, batch: Batch, written: set[str]) -> None:
        """Merge a batch into the files, and add the periods of its rows to `written`.

        RowsRefused changes nothing. SinkError for a missing file that the ledger counts on, or that this run
        has `written`: a new file would have the rows of this batch alone.
        """
        check_whole(self.series, batch.columns)
        interval = self.series.interval
        rows_of = dict(split(Columns.join([batch.columns]), unit_of(interval)))
        new = PackedCoverage.of(batch.coverage)
        rejected: dict[Period, list[RejectedRow]] = {}
        for row in batch.rejected:
            rejected.setdefault(self._period_of(row.time), []).append(row)
        with self._locked():
            ledger = self._migrate_ledger()
            files, spans_with_file = dict(ledger.files), list[Span]()
            absent = self._absent(batch.coverage.empty, {*rows_of, *rejected})
            touched = periods_of(batch.coverage.covered - absent, interval)
            for period in sorted({*rows_of, *rejected, *touched}):
                contents = self._read_contents(period)
                if contents is None and str(period) in written:
                    raise self._deleted_file_error(str(period))
                if contents is None and str(period) in ledger.files:
                    raise self._missing_file_error(period)
                before = self._before(period, contents, ledger)
                part = new.within(period.covers(interval))
                after = before.united_with(part, rejected.get(period, ()), batch.provenance)
                rows = [] if contents is None else [contents.rows]
                rows += [rows_of[period]] if period in rows_of else []
                rows_after = merge(rows, self.series.dataset)
                if contents is None or not (rows_equal(contents.rows, rows_after) and after.equals(before)):
                    self._put(period, rows_after, after)
                    files[str(period)] = None
                elif contents.note is not None:
                    files[str(period)] = None
                spans_with_file.append(period.covers(interval))
            kept = ledger.fileless.without(SpanSet(tuple(spans_with_file)))
            empty = kept.united_with(PackedCoverage.of(Coverage(absent, absent)))
            known = (
                ledger.provenance if spans_with_file else replace_entry(ledger.provenance, batch.provenance)
            )
            # Last: after a crash before this line, the new files still count, by `_list_files`.
            self._put_ledger(ledger, LedgerNote(files, empty, known))
            written.update(map(str, rows_of))  # under the lock: afterwards `forget` may remove them

    def check_there(self, written: AbstractSet[str]) -> None:
        """Raise SinkError if a file of these periods is gone."""
        if lost := written - set(map(str, self._periods(foreign=True))):
            raise self._deleted_file_error(min(lost))

    def forget(self, spans: SpanSet, *, rows: bool) -> set[str]:
        """Remove the coverage of the spans, and with `rows` the rows; return the periods without a file now.

        1. A missing file whose period the spans touch is removed from the ledger.
        2. A damaged file is deleted where the spans contain its whole period, with `rows`.
        """
        if not self.is_stored:
            return set()
        with self._locked():
            ledger = self._migrate_ledger()
            files, to_delete = dict(ledger.files), list[Path]()
            names = {*files, *map(str, self._periods(foreign=True))}
            unit = unit_of(self.series.interval)
            for period in filter(None, (Period.parse(name, unit) for name in sorted(names))):
                period_spans = SpanSet.of(period.span, period.covers(self.series.interval))
                if not period_spans & spans:
                    continue
                try:
                    contents = self._read_contents(period)
                except SinkError:
                    if not rows or period_spans - spans:
                        raise
                    contents = _FileContents(Columns.empty(self.series.dataset), FileNote())
                if contents is None:
                    files.pop(str(period), None)
                    continue
                before = self._before(period, contents, ledger)
                after = before.without(spans)
                kept = contents.rows.take(~in_spans(contents.rows.times, spans)) if rows else contents.rows
                if not len(kept) and not after:
                    files.pop(str(period), None)
                    to_delete.append(self._file(period))
                elif len(kept) != len(contents.rows) or not after.equals(before):
                    self._put(period, kept, after)
                    files[str(period)] = None
            known = tuple(without_forgotten(ledger.provenance, spans))
            self._put_ledger(ledger, LedgerNote(files, ledger.fileless.without(spans), known))
            for file in to_delete:  # after the ledger, which would count them as missing
                retry_while_open_elsewhere(partial(file.unlink, missing_ok=True))
            return names - files.keys()

    def migrate(self) -> None:
        """Migrate the ledger of format 1; no file of rows is touched. See also `_locked`."""
        with self._locked():
            self._migrate_ledger()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        temporary = temporary_folder(self.root)
        with locked(self.lock) as held_lock:
            make_folder(temporary)
            if held_lock.taken_over:  # its holder died amid a write
                sweep(temporary)
                self._list_files()
            yield

    def _list_files(self) -> None:
        """Add files to the ledger that a process renamed into their places before it died."""
        ledger = self._migrate_ledger()
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

    def _deleted_file_error(self, name: str) -> SinkError:
        return SinkError(
            f"{self.path / name}.parquet was deleted under the run that wrote it; leave it there, and run "
            "again"
        )

    def _migrate_ledger(self) -> LedgerNote:
        ledger, first = self._ledger(), self.path / FORMAT1_LEDGER_FILE
        if os.path.exists(first):  # noqa: PTH110  # Path.exists may raise
            self._put_ledger(None, ledger)
            first.unlink(missing_ok=True)
        return ledger

    def _absent(self, empty: SpanSet, busy: Collection[Period]) -> SpanSet:
        """Return the periods that are empty from end to end, and have no file and will get none."""
        whole = SpanSet(tuple(whole_periods(empty, self.series.interval)))
        if not whole:
            return whole
        with_file = {*busy, *self._periods(foreign=True)}
        return whole - SpanSet(tuple(period.covers(self.series.interval) for period in with_file))

    def _before(self, period: Period, contents: _FileContents | None, ledger: LedgerNote) -> FileNote:
        """Return the note of a period so far, from its file or the ledger."""
        if contents is not None and contents.note is not None:
            return contents.note
        legacy = ledger.files.get(str(period)) if contents is not None else None
        return FileNote(legacy or ledger.fileless.within(period.covers(self.series.interval)))

    def _read_contents(self, period: Period) -> _FileContents | None:
        def read(source: BinaryIO) -> _FileContents:
            # Rows and note of one open file: another machine may replace the file in between.
            note = self._note(period, source)
            return _FileContents(read_rows(source, self.series.dataset), note)

        return self._in_file(period, read)

    def _put(self, period: Period, rows: Columns, note: FileNote) -> None:
        self._replace(self._file(period), rows, note.dump(self.series))

    def _put_ledger(self, before: LedgerNote | None, after: LedgerNote) -> None:
        if before is not None and before.equals(after):
            return
        if after.files or after.fileless or after.provenance:
            self._replace(
                self.path / LEDGER_FILE, Columns.empty(self.series.dataset), after.dump(self.series)
            )
        else:
            retry_while_open_elsewhere(partial((self.path / LEDGER_FILE).unlink, missing_ok=True))

    def _replace(self, file: Path, rows: Columns, note: bytes) -> None:
        make_folder(file.parent, self.root)
        write = partial(write_rows, rows, self.series.dataset, note)
        replace_file(file, write, temporary_folder(self.root))
