"""Reading the files of one series in a Parquet store: it changes nothing, and needs no right to write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, TypeVar

import attrs
import numpy as np

from marketfetch.errors import SinkError
from marketfetch.sinks.merging import merge
from marketfetch.sinks.parquet.codec import UnreadableFile, read_note, read_rows
from marketfetch.sinks.parquet.footers import FileNote, LedgerNote, check_names
from marketfetch.sinks.parquet.format1 import FORMAT1_LEDGER_FILE, merge_format1, read_format1_ledger
from marketfetch.sinks.parquet.paths import LEDGER_FILE, series_path
from marketfetch.sinks.parquet.periods import Period, unit_of
from marketfetch.sinks.provenance import by_span
from marketfetch.sinks.remedies import forget_command
from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet

__all__ = ["SeriesFiles"]

_T = TypeVar("_T")


@attrs.frozen
class SeriesFiles:
    """The files of a series: one with rows for each period, and `_ledger.parquet`; see `footers`."""

    root: Path
    series: Series

    @property
    def path(self) -> Path:
        """The path of the folder."""
        return series_path(self.root, self.series)

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
        known = PackedCoverage.join(parts).unpack()
        return known | ledger.fileless.unpack() if ledger.fileless else known

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
    def is_stored(self) -> bool:
        """Whether anything of the series is stored."""
        return any(self._each_period(foreign=True)) or any(
            os.path.exists(self.path / name)  # noqa: PTH110  # Path.exists may raise
            for name in (LEDGER_FILE, FORMAT1_LEDGER_FILE)
        )

    def _notes(self, span: Span | None) -> tuple[LedgerNote, list[FileNote]]:
        """Return the ledger, and the notes of the files whose periods a span touches, None for all."""
        ledger, periods = self._ledger_and_periods(SpanSet())
        interval = self.series.interval
        touched = [one for one in periods if span is None or one.covers(interval).intersect(span)]
        notes = (self._in_file(period, partial(self._note, period)) for period in touched)
        return ledger, [note for note in notes if note is not None]

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
            absent = map(self._period_named, sorted(ledger.files.keys() - set(map(str, periods))))
            missing = [one for one in absent if spans is None or self._touches(one, spans)]
            if not missing:
                break
            if last:
                raise self._missing_file_error(missing[0])
        return ledger, periods

    def _missing_file_error(self, period: Period) -> SinkError:
        return SinkError(
            f"{self._file(period)} is missing, and the ledger counts on its rows; put it back, or have them "
            f"fetched anew: {self._forget_command(period)}"
        )

    def _period_named(self, name: str) -> Period:
        period = Period.parse(name, unit_of(self.series.interval))
        if period is None:
            raise SinkError(f"{self.path / LEDGER_FILE} is damaged: it counts on a file {name!r}; remove it")
        return period

    def _touches(self, period: Period, spans: SpanSet) -> bool:
        return bool(SpanSet.of(period.span, period.covers(self.series.interval)) & spans)

    def _periods(self, *, foreign: bool) -> list[Period]:
        """Return the periods with a file, in order; without `foreign`, SinkError for other Parquet files."""
        return sorted(self._each_period(foreign=foreign), key=attrgetter("number"))

    def _each_period(self, *, foreign: bool) -> Iterator[Period]:
        """Yield what `_periods` returns, in any order."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            stem, dot, kind = name.rpartition(".")
            if kind == "parquet" and dot and not name.startswith(("_", ".")):
                period = Period.parse(stem, unit_of(self.series.interval))
                if period is not None:
                    yield period
                elif not foreign:
                    raise SinkError(f"{self.path / name} is not a file that marketfetch wrote; move it away")

    def _ledger(self) -> LedgerNote:
        """Return the ledger, united with that of format 1 where there is one."""
        ledger, file, first = LedgerNote(), self.path / LEDGER_FILE, self.path / FORMAT1_LEDGER_FILE
        try:
            with file.open("rb") as source:
                ledger = LedgerNote.parse(read_note(source) or b"", self.series, str(file))
        except FileNotFoundError:
            pass
        except (UnreadableFile, ValueError) as error:
            raise SinkError(
                f"{file} is damaged ({error}); remove it: each file says itself what is in it, and the rest "
                "is asked for anew"
            ) from error
        try:
            names, coverage = read_format1_ledger(first)
        except FileNotFoundError:
            return ledger
        check_names(names, self.series, str(first))
        return merge_format1(ledger, coverage, set(self._periods(foreign=True)), self.series.interval)

    def _note(self, period: Period, source: BinaryIO) -> FileNote | None:
        text = read_note(source)
        if text is None:
            return None
        note = FileNote.parse(text, self.series, str(self._file(period)))
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

    def _forget_command(self, period: Period) -> str:
        return forget_command(self.root, self.series, period.covers(self.series.interval))

    def _file(self, period: Period) -> Path:
        return self.path / f"{period}.parquet"

    def _period_of(self, moment: int) -> Period:
        return Period.of(self.series.interval.floor(moment), unit_of(self.series.interval))
