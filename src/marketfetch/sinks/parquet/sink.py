"""The Parquet store: a folder of files that every data tool can read."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import unquote

import attrs

from marketfetch.common.local_resources import PASSING_ERRNOS, resource_remedy
from marketfetch.common.platforms import is_open_elsewhere
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.redaction import Secret
from marketfetch.sinks.files.atomic_files import make_folder
from marketfetch.sinks.files.lock_files import break_lock, is_abandoned, sweep
from marketfetch.sinks.files.paths import check_folder, file_identity, file_path, path_from_uri, require
from marketfetch.sinks.parquet.footers import FORMAT
from marketfetch.sinks.parquet.format1 import FORMAT1_LEDGER_FILE
from marketfetch.sinks.parquet.paths import WORK_FOLDER, lock_folder, temporary_folder
from marketfetch.sinks.parquet.periods import Period, unit_of
from marketfetch.sinks.parquet.series_folder import SeriesFolder
from marketfetch.sinks.remedies import newer_format_error
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["ParquetSink"]

_MARK_PREFIX = "format-"
"""Begins the name of an empty folder that tells the format: readers would stumble over a file."""

_FULL_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@attrs.frozen(repr=False)
class ParquetSink:
    """Stores rows in Parquet files below a folder, and their coverage in the same files.

    A series has a folder, `ohlcv/exchange=binance-usdm/symbol=BTCUSDT/interval=1m/`, with a file for each
    month (`2026-06.parquet`); for each year from 1h on and for events, for each day below 1m. Symbols are
    percent-encoded. DuckDB's `read_parquet('DIR/ohlcv/**/*.parquet', hive_partitioning=true)`, Polars'
    `scan_parquet('DIR/ohlcv')` and `pyarrow.dataset.dataset('DIR/ohlcv', partitioning='hive')` see one table
    of exchange, symbol, interval, open_time (UTC) and the columns. `_ledger.parquet` has no rows.

    A batch is merged into the files of its periods: NULL never overwrites a value, and a file that would
    stay the same is not written. Files are replaced atomically, and the footer of each has the coverage of
    its period: a crash, a deletion or another machine changes rows and coverage together. The same rows make
    the same bytes. Several processes may write at once; a lock file serialises the writes to one series.

    A file that is deleted by hand counts as missing: reading says so, and after `forget` it is fetched anew.

    Nothing is opened before it is used. Raises ConfigurationError if pyarrow is not installed.

    >>> ParquetSink("market")
    ParquetSink('market')
    """

    folder: Path = attrs.field(converter=file_path)
    _written: dict[Writer, dict[SeriesFolder, set[str]]] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )
    """The periods that each open writer has written and nobody has forgotten since."""

    def __attrs_post_init__(self) -> None:
        require("pyarrow", extra="parquet", user="ParquetSink")

    @classmethod
    def from_url(cls, text: str | Secret) -> ParquetSink:
        """Make the store that `parquet:DIR` names; raises ConfigurationError where there is no path."""
        text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
        return cls(path_from_uri(text))

    @property
    def max_writers(self) -> int:
        """Two writers, for different series: one encodes while the other one waits for the disk."""
        return 2

    @property
    def batch_rows(self) -> int:
        """Rows of one batch: a month of minutes, so that a file is written once."""
        return 45_000

    def partition(self, series: Series, moment: int) -> Span:
        """Return the span of the file that holds a moment; see SupportsPartitions."""
        return Period.of(moment, unit_of(series.interval)).span

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the folder, or migrate one that an older version wrote; see Sink.

        Removes temporary files of killed processes. Raises ConfigurationError if the parent folder does not
        exist, and SinkError if the folder cannot be written, has a newer format, or has a damaged ledger:
        then nothing is changed.
        """
        check_folder(self.folder, "one")
        with self._checked():
            make_folder(self.folder)
            with TemporaryFile(dir=self.folder):
                pass  # files can be made here
            if not self._mark.is_dir():
                self._migrate()
                make_folder(self._mark)
            abandoned = {lock for lock in lock_folder(self.folder).glob("*.lock") if is_abandoned(lock)}
            for one in self._folders() if abandoned else ():
                if one.lock in abandoned:
                    one.migrate()
            for lock in abandoned:
                if is_abandoned(lock):  # of a series that has no folder yet
                    break_lock(lock)
            for work in (temporary_folder(self.folder), lock_folder(self.folder)):
                sweep(work)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer; see Sink.

        It raises SinkError if the folder was deleted or replaced meanwhile: then earlier rows are in no file.
        So does leaving the block if files were deleted that this writer has written.
        """
        with self._checked():
            pass
        opened, written = file_identity(self._mark), dict[SeriesFolder, set[str]]()

        def check_same() -> None:
            if file_identity(self._mark) != opened:
                raise SinkError(
                    f"{self.folder} was deleted, moved or replaced under a run; leave it there, and run again"
                )

        def write(batch: Batch) -> None:
            check_same()
            folder = SeriesFolder(self.folder, batch.series)
            names = written.setdefault(folder, set())
            with self._translated():
                folder.write(batch, names)
            check_same()

        self._written[write] = written
        try:
            yield write
        finally:
            del self._written[write]
        for folder, names in written.items():
            with self._translated():
                folder.check_there(names)

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return the coverage of each of the given series; see Store.

        Raises SinkError where a file that the ledger counts on is missing or damaged.
        """
        with self._checked():
            return {one: SeriesFolder(self.folder, one).coverage() for one in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every stored series whose dataset is registered; see Store.

        Missing and damaged files are left out. Raises ConfigurationError if there is no such folder.
        """
        with self._existing():
            folders = self._folders()
            return {one.series: one.coverage(whole=False) for one in folders if one.is_stored}

    def series(self) -> Collection[Series]:
        """Return every stored series, by the names of folders; see SupportsLatest."""
        with self._existing():
            return [one.series for one in self._folders() if one.is_stored]

    def latest(self, series: Collection[Series], limit: int) -> Mapping[Series, Columns]:
        """Return the newest rows of each series, from its last files; see SupportsLatest.

        Raises SinkError where one of these files is missing or damaged.
        """
        with self._checked():
            return {one: SeriesFolder(self.folder, one).latest(limit) for one in series}

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; see Store.

        Raises SinkError where a file with rows of the span is missing or damaged; other spans can be read.
        """
        with self._checked():
            return SeriesFolder(self.folder, series).read(span)

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series inside a span; see SupportsRejected."""
        with self._checked():
            return SeriesFolder(self.folder, series).rejected(span)

    def provenance(self, series: Series) -> Sequence[Provenance]:
        """Return the files of archives that rows of a series came from; see SupportsProvenance."""
        with self._checked():
            return SeriesFolder(self.folder, series).provenance()

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove the coverage of spans of a series, and with `rows` the rows; see SupportsForget.

        Each file changes atomically. A missing file is removed from the ledger; a damaged file is deleted
        where the spans contain its whole period, with `rows`.
        """
        with self._checked():
            folder = SeriesFolder(self.folder, series)
            forgotten = folder.forget(spans, rows=rows)
            for written in [*self._written.values()]:
                written.get(folder, set()).difference_update(forgotten)

    def _series(self) -> Iterator[Series]:
        """Yield each series that has a folder."""
        known = datasets()
        for folder in sorted(self.folder.glob("*/exchange=*/symbol=*/interval=*")):
            dataset, *names = folder.relative_to(self.folder).parts
            exchange, symbol, interval = (unquote(name.partition("=")[2]) for name in names)
            if dataset in known:
                try:
                    yield Series.of(exchange, known[dataset], symbol, interval)
                except ConfigurationError:
                    continue  # not a folder of marketfetch

    def _folders(self) -> Iterator[SeriesFolder]:
        return (SeriesFolder(self.folder, series) for series in self._series())

    @property
    def _mark(self) -> Path:
        """The folder whose name says the format of the store."""
        return self.folder / WORK_FOLDER / f"{_MARK_PREFIX}{FORMAT}"

    def _migrate(self) -> None:
        """Migrate every series of format 1; all are read before one is changed."""
        old = [one for one in self._folders() if (one.path / FORMAT1_LEDGER_FILE).exists()]
        for one in old:
            one.coverage(whole=False)
        for one in old:
            one.migrate()

    @contextmanager
    def _existing(self) -> Iterator[None]:
        """Do as `_checked`; raises ConfigurationError if there is no such folder."""
        if not os.path.isdir(self.folder):  # noqa: PTH112  # Path.is_dir may raise
            if os.path.exists(self.folder):  # noqa: PTH110  # Path.exists may raise
                raise ConfigurationError(f"{self.folder} is a file; name a folder")
            raise ConfigurationError(
                f"{self.folder}: no such folder; correct the path, or fetch into it first"
            )
        with self._checked():
            yield

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Translate errors of the disk; raises SinkError for a store that a newer version wrote."""
        with self._translated():
            try:
                marks = [
                    mark.name
                    for mark in (self.folder / WORK_FOLDER).iterdir()
                    if mark.name.startswith(_MARK_PREFIX)
                ]
            except (FileNotFoundError, NotADirectoryError):
                marks = []
            for mark in marks:
                found = mark.removeprefix(_MARK_PREFIX)
                if found.isdecimal() and int(found) > FORMAT:
                    raise newer_format_error(self.folder, found, FORMAT)
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        path = self.folder
        try:
            yield
        except OSError as error:
            message = f"{error.filename or path}: {error.strerror or error}"
            if isinstance(error, BlockingIOError):
                raise SinkUnavailable(f"{path}: {error.strerror}; end it, or wait") from error
            if local_remedy := resource_remedy(error.errno):
                raise SinkUnavailable(f"{message}; {local_remedy}") from error
            if error.errno in PASSING_ERRNOS:
                raise SinkUnavailable(f"{message}; run again when the disk is back") from error
            if is_open_elsewhere(error):
                raise SinkUnavailable(f"{message}; close what has it open, or make it writable") from error
            if isinstance(error, FileExistsError | NotADirectoryError) and os.path.isfile(path):  # noqa: PTH113
                raise SinkError(f"{path} is a file; name a folder") from error
            remedy = (
                "make room on the disk"
                if error.errno in _FULL_DISK_ERRNOS
                else "make the folder and its files readable and writable"
            )
            raise SinkError(f"{message}; {remedy}, or name another folder") from error

    def __repr__(self) -> str:
        return f"ParquetSink({str(self.folder)!r})"
