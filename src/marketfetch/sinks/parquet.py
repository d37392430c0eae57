"""The Parquet store: a folder of files that every data tool reads."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar, cast
from urllib.parse import quote

import attrs
import numpy as np

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.sinks.durable import alone_in, make_folder, replace_file
from marketfetch.sinks.merging import merge, same
from marketfetch.sinks.places import file_path, place, require
from marketfetch.sinks.rowfiles import read_rows, write_rows
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.exhaustion import exhausted
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["ParquetSink"]

_LEDGER = "_coverage.json"
"""The underscore hides it from what reads the folder as one table."""

_VERDICTS = ("covered", "empty")

_T = TypeVar("_T")

_Names = tuple[str, str, str, str]
"""Exchange, dataset, symbol and interval of a series."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PASSING = frozenset({errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})


@attrs.frozen(repr=False)
class ParquetSink:
    """Stores rows in Parquet files below a folder, with what is covered beside them.

    A series has a folder, `ohlcv/exchange=binance-usdm/symbol=BTCUSDT/interval=1m/`, with a file for each
    month (`2026-06.parquet`); for each year from 1h on and for events, for each day below 1m. Symbols are
    percent-encoded. DuckDB's `read_parquet('DIR/ohlcv/**/*.parquet', hive_partitioning=true)` and
    `pyarrow.dataset.dataset('DIR/ohlcv', partitioning='hive')` see one table of exchange, symbol, interval,
    open_time (UTC) and the columns.

    A batch is merged into the files of its periods: NULL never overwrites a value, and a file that would
    stay the same is not touched. Files are replaced as a whole and coverage is written last, so that what a
    crash leaves unfinished is merely not covered. The same rows always make the same bytes. Several
    processes may write at once; on one series they take turns.

    Nothing is opened before it is used. Raises ConfigurationError if pyarrow is not installed.

    >>> ParquetSink("market")
    ParquetSink('market')
    """

    folder: Path = attrs.field(converter=file_path)

    def __attrs_post_init__(self) -> None:
        require("pyarrow", extra="parquet", user="ParquetSink")

    @classmethod
    def from_url(cls, text: str) -> ParquetSink:
        """Make the store that `parquet:DIR` names; raises ConfigurationError where there is no path."""
        return cls(place(text))

    @property
    def lanes(self) -> int:
        """One writer."""
        return 1

    @property
    def batch_rows(self) -> int:
        """Rows that a batch may have: a month of minutes, so that it makes a file at one go."""
        return 45_000

    def partition(self, series: Series, moment: int) -> Span:
        """Return the span of the file that holds a moment; see Partitioned."""
        return _span(_period(moment, _unit(series.interval)))

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the folder; see Sink.

        Raises ConfigurationError if what it shall be in does not exist, SinkError if it cannot be written.
        """
        if not os.path.isdir(self.folder.parent):  # noqa: PTH112  # Path.is_dir may raise
            raise ConfigurationError(
                f"{self.folder}: there is no folder {self.folder.parent}; create it, or name another one"
            )
        with _translated(self.folder):
            make_folder(self.folder)
            with TemporaryFile(dir=self.folder):
                pass  # files can be made here

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer; see Sink."""
        yield self._write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return what is known of each of the given series; see Store."""
        return {one: _remembered(self._home(one), one) for one in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held whose dataset marketfetch itself knows; see Store.

        Raises ConfigurationError if there is no such folder.
        """
        if not os.path.isdir(self.folder):  # noqa: PTH112  # Path.is_dir may raise
            raise ConfigurationError(
                f"{self.folder}: no such folder; correct the path, or fetch into it first"
            )
        with _translated(self.folder):
            files = sorted(self.folder.glob(f"*/exchange=*/symbol=*/interval=*/{_LEDGER}"))
        held = map(_entry, files)
        known = datasets()
        return {
            Series.of(exchange, known[dataset], symbol, interval): coverage
            for (exchange, dataset, symbol, interval), coverage in held
            if dataset in known
        }

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; see Store."""
        home, unit = self._home(series), _unit(series.interval)
        with _translated(home):
            files = [file for file in home.glob("*.parquet") if _span_of(file, unit).intersect(span)]
            rows = merge([_rows(file, series.dataset) for file in files], series.dataset)
        first, last = np.searchsorted(rows.times, (span.start, span.end))
        return rows.take(slice(int(first), int(last)))

    def _home(self, series: Series) -> Path:
        parts = {"exchange": series.exchange, "symbol": series.symbol, "interval": series.interval.name}
        folders = (f"{name}={quote(value, safe='')}" for name, value in parts.items())
        return self.folder.joinpath(series.dataset.name, *folders)

    def _write(self, batch: Batch) -> None:
        home, dataset = self._home(batch.series), batch.series.dataset
        with _translated(home), alone_in(home):
            known = _remembered(home, batch.series)
            for period, rows in _split(Columns.join([batch.columns]), _unit(batch.series.interval)):
                file = home / f"{period}.parquet"
                held = _rows(file, dataset)
                merged = merge([held, rows], dataset)
                if not same(held, merged):
                    replace_file(file, partial(write_rows, merged, dataset))
            # Last: what a crash leaves out of it is fetched once more, and changes no row.
            if known | batch.coverage != known:
                text = _dumped(batch.series, known | batch.coverage)
                replace_file(home / _LEDGER, lambda file: file.write(text))

    def __repr__(self) -> str:
        return f"ParquetSink({str(self.folder)!r})"


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"{error.filename or path}: {error.strerror or error}"
        if isinstance(error, BlockingIOError):
            raise SinkUnavailable(
                f"{path}: another process is at work in it for long; end it, or wait"
            ) from error
        if lacking := exhausted(error.errno):
            raise SinkUnavailable(f"{said}; {lacking}") from error
        if error.errno in _PASSING:
            raise SinkUnavailable(f"{said}; run again when the disk is back") from error
        remedy = "make room on the disk" if error.errno in _FULL else "make the folder and its files writable"
        raise SinkError(f"{said}; {remedy}, or name another folder") from error


def _unit(interval: Interval) -> str:
    """Choose the period of a file, in NumPy's letters: merging rewrites it, so it holds no million rows."""
    if interval.is_event or interval.typical >= 3_600_000:
        return "Y"
    return "M" if interval.typical >= 60_000 else "D"


def _split(rows: Columns, unit: str) -> Iterator[tuple[str, Columns]]:
    """Cut sorted rows into periods, each with its name."""
    start = 0
    while start < len(rows):
        period = _period(int(rows.times[start]), unit)
        end = int(np.searchsorted(rows.times, _span(period).end))
        yield str(period), rows.take(slice(start, end))
        start = end


def _period(moment: int, unit: str) -> np.datetime64:
    period: np.datetime64 = np.datetime64(moment, "ms").astype(f"datetime64[{unit}]")
    return period


def _span(period: np.datetime64) -> Span:
    start, end = (int(moment.astype("datetime64[ms]").astype(np.int64)) for moment in (period, period + 1))
    return Span(start, end)


def _span_of(file: Path, unit: str) -> Span:
    """Return the period that a file is named after."""
    try:
        return _span(np.datetime64(file.stem).astype(f"datetime64[{unit}]"))
    except ValueError as error:
        raise SinkError(f"{file} is not a file that marketfetch wrote; move it away") from error


def _rows(file: Path, dataset: Dataset) -> Columns:
    try:
        with file.open("rb") as source:
            return read_rows(source, dataset, str(file))
    except FileNotFoundError:
        return Columns.empty(dataset)


def _names(series: Series) -> _Names:
    return series.exchange, series.dataset.name, series.symbol, series.interval.name


def _dumped(series: Series, coverage: Coverage) -> bytes:
    spans = {name: [(span.start, span.end) for span in getattr(coverage, name)] for name in _VERDICTS}
    return json.dumps({"series": _names(series), **spans}, ensure_ascii=False).encode()


def _entry(file: Path) -> tuple[_Names, Coverage]:
    """Read a ledger file: whose it is, and what is known."""
    try:
        with _translated(file):
            entry = json.loads(file.read_bytes())
        exchange, dataset, symbol, interval = _all(str, entry["series"])
        covered, empty = (
            SpanSet(tuple(Span(*_all(int, ends)) for ends in entry[name])) for name in _VERDICTS
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SinkError(f"{file} is damaged; remove it, and its series is asked for anew") from error
    return (exchange, dataset, symbol, interval), Coverage(covered, empty)


def _all(kind: type[_T], values: Sequence[object]) -> tuple[_T, ...]:
    """Return values that are of one type, every one; TypeError where another is among them."""
    if not all(type(value) is kind for value in values):
        raise TypeError(values)
    return cast("tuple[_T, ...]", tuple(values))


def _remembered(home: Path, series: Series) -> Coverage:
    file = home / _LEDGER
    if not os.path.exists(file):  # noqa: PTH110  # Path.exists may raise
        return Coverage()
    names, coverage = _entry(file)
    if names != _names(series):
        raise SinkError(
            f"{file} is about {' '.join(names)}, not {series}: this file system takes capital and small "
            "letters for the same; keep the two in different folders"
        )
    return coverage
