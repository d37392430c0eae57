"""`export`: write the rows of a dataset in a store into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from marketfetch.api.inputs import check_flag, store_of
from marketfetch.api.reading import RequestedSpan, chosen_series, span_report
from marketfetch.api.store_calls import call_store
from marketfetch.api.tables.table import Table
from marketfetch.api.upkeep.table_files import FileFormat, Times, check_times, format_of, open_table_file
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.text import pluralize, text_in_ipython
from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.planning.derivation import split_by_rows
from marketfetch.protocols import Sink, Store
from marketfetch.redaction import Secret, printable
from marketfetch.report_text import spans_text
from marketfetch.reports import Report, SeriesReport, spans_as_list
from marketfetch.sinks.files.atomic_files import replace_file
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import TimeLike
from marketfetch.verification.selection import Selection

__all__ = ["ExportResult", "export"]

_STEP = 100_000
"""Open times of one read: some megabytes."""


@attrs.frozen
class ExportResult:
    """What was exported: rows and `missing` moments of the span, by series.

    >>> hour = Series.of("okx", "ohlcv", "BTC-USDT", "1h")
    >>> print(ExportResult({hour: 24}, {hour: SpanSet()}))
    24 rows of 1 series
    """

    rows: Mapping[Series, int]
    missing: Mapping[Series, SpanSet]

    def __str__(self) -> str:
        lacking = [
            f"{series}: missing in the store {spans_text(spans)}"
            for series, spans in self.missing.items()
            if spans
        ]
        head = f"{pluralize(self.total, 'row')} of {pluralize(len(self.rows), 'series')}"
        return "\n  ".join(map(printable, [head, *lacking]))

    _repr_pretty_ = text_in_ipython

    @property
    def total(self) -> int:
        """The number of rows."""
        return sum(self.rows.values())

    @property
    def complete(self) -> bool:
        """Whether the store knows every moment of the span."""
        return not any(self.missing.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain types, times as ISO text, for JSON."""
        return {
            "rows": self.total,
            "complete": self.complete,
            "series": [
                {**series.as_dict(), "rows": count, "missing": spans_as_list(self.missing[series])}
                for series, count in self.rows.items()
            ],
        }


@checks_keywords
def export(  # noqa: PLR0913  # which rows, where to, and in which form
    store: str | Path | Secret | Sink,
    file: str | Path | BinaryIO,
    dataset: str | Dataset = "ohlcv",
    symbols: str | Iterable[str] | AllSymbols | None = None,
    *,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    interval: str | timedelta | Interval | None = None,
    exchange: str | None = None,
    format: FileFormat | None = None,  # noqa: A002  # as in pandas and polars
    times: Times = "iso",
    overwrite: bool = False,
) -> ExportResult:
    """Write the rows of a dataset into a file; the columns and the choice are those of `open(store).table`.

    `file` is a path, whose suffix says the format (`.csv`, `.parquet`, `.arrow` or `.feather`) unless
    `format` does, or a binary file that is open. Rows are ordered by series, then by time. A CSV has a
    header, NULL as an empty cell, and `open_time` as ISO text in UTC or, with `times="ms"`, as UTC
    milliseconds. The store is read in pieces, so that memory does not grow with history. A file appears when
    it is whole.

    Raises ConfigurationError for names that the store does not hold, for a file that exists unless
    `overwrite` is True, and for a format that needs a package which is not installed; and SinkError for a
    file that cannot be written.

    >>> export("sqlite:market.sqlite", "btc.xlsx")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: format: the name 'btc.xlsx' tells none; end it with .csv, ...
    """
    check_flag("overwrite", overwrite)
    path = Path(file) if isinstance(file, str | Path) else None
    kind = format_of(None if path is None else path.name, format)
    check_times(times, kind)
    chosen = Selection.of(symbols=symbols, datasets=[dataset], interval=interval, exchange=exchange)
    window = RequestedSpan.parse(start, end)
    source = _Source(store_of("store", store, "export needs"), chosen, window)
    if path is None:
        return source.write(file, kind, times)  # type: ignore[arg-type]  # neither text nor a path
    _check_place(path, overwrite=overwrite)
    results: list[ExportResult] = []
    try:
        replace_file(path, lambda handle: results.append(source.write(handle, kind, times)))
    except OSError as error:
        raise SinkError(f"file: {path} cannot be written: {error.strerror or error}") from error
    return results[-1]


def _check_place(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise ConfigurationError(f"file: {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"file: the folder {path.parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise ConfigurationError(
            f"file: {path} exists; name another one, or replace it (overwrite=True, --force)"
        )


@attrs.frozen
class _Source:
    """The rows of a store that are to be exported."""

    store: Store
    chosen: Selection
    window: RequestedSpan

    def write(self, handle: BinaryIO, kind: FileFormat, times: Times) -> ExportResult:
        ((dataset, series),) = self._call(partial(chosen_series, self.store, self.chosen)).items()
        known = self._call(partial(self.store.coverage, series))
        spans = {one: self.window.of(one, known[one]) for one in series}
        lines = [span_report(one, known[one], spans[one], self.window.now) for one in series]
        rows = dict.fromkeys(series, 0)
        with open_table_file(handle, kind, dataset, times) as write:
            for one in series:
                for piece in self._pieces(one, spans[one]):
                    write(piece)
                    rows[one] += len(piece)
        return ExportResult(rows, {line.series: _missing(line) for line in lines})

    def _pieces(self, series: Series, span: Span) -> Iterator[Table]:
        # Events are few, and have no grid by which their number could be known.
        whole = SpanSet.of(span)
        steps = [whole] if series.interval.is_event else split_by_rows(series.interval, whole, _STEP)
        for step in steps:
            for part in step:
                columns = self._call(partial(self.store.read, series, part))
                if len(columns):
                    yield Table(series.dataset, {series: columns}, Report.empty())

    def _call(self, work: Callable[[], Any]) -> Any:
        return call_store(work, RetryPolicy())


def _missing(line: SeriesReport) -> SpanSet:
    return SpanSet.of(*(span for gap in line.missing for span in gap.spans))
