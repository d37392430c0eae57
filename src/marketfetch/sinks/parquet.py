"""The Parquet store: a folder that every tool of the trade can read, and nothing to run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import attrs
import numpy as np
import orjson

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.protocols import Writer
from marketfetch.sinks.files import alone, put
from marketfetch.sinks.merging import merge
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ConfigurationError(
        f"parquet: needs the package {error.name}; pip install 'marketfetch[parquet]'"
    ) from error

__all__ = ["ParquetSink"]

_PERIOD = re.compile(r"\d{4,}(-\d\d){0,2}")
_TIME = pa.timestamp("ms", "UTC")
_VERDICTS = ("covered", "empty")
_Names = tuple[str, str, str, str]


@attrs.frozen(repr=False)
class ParquetSink:
    """Stores rows as Parquet files in a folder, with what is covered beside them.

    There is one file for each calendar month (UTC) of a series, for each year where rows are an hour or more
    apart or come as events, for each day where they are less than a minute apart:

        FOLDER/ohlcv/exchange=binance-usdm/symbol=BTCUSDT/interval=1m/2026-06.parquet

    Symbols are percent-encoded where needed. A file is a function of its rows: an interrupted run that was
    repeated leaves the same bytes as one that was not interrupted. Whoever reads meanwhile sees each file
    either as it was or as it will be. Several runs may write at once; they take turns.

    DuckDB reads it as `read_parquet('FOLDER/ohlcv/**/*.parquet', hive_partitioning = true)`, pyarrow as
    `dataset('FOLDER/ohlcv', partitioning='hive')`.

    Nothing is opened before it is used.

    >>> from tempfile import TemporaryDirectory
    >>> series = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> rows = Columns(np.array([60_000]), np.array([[1.0], [2.0], [0.5], [1.5]]))
    >>> with TemporaryDirectory() as folder:
    ...     store = ParquetSink(folder)
    ...     with store.writer() as write:
    ...         write(Batch(series, rows, Coverage(series.interval.cover(rows.times))))
    ...     len(store.read(series, Span(0, 120_000)))
    1
    """

    folder: Path = attrs.field(converter=Path)

    @classmethod
    def from_url(cls, text: str) -> ParquetSink:
        """Make the sink that `parquet:FOLDER` names; `text` is the folder."""
        return cls(Path(text))

    @property
    def lanes(self) -> int:
        """One writer: the disk is what it waits for."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the folder; ConfigurationError if that, or writing to it, is impossible."""
        try:
            with alone(self._lock):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"{self.folder}: cannot be written to ({error}); choose a folder that you may write to"
            ) from error

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer; SinkError from it names what the file system objected to."""
        yield self._write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return what is known of each of the given series; see Store."""
        return {line: self._covered(line) for line in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held whose dataset marketfetch itself knows; see Store.

        Raises ConfigurationError if there is no such folder.
        """
        if not self.folder.is_dir():
            raise ConfigurationError(f"{self.folder}: no such folder; name one that a back-fill has written")
        known = datasets()
        held = map(_load, sorted(self._memory.rglob("*.json")))
        return {
            Series.of(exchange, known[dataset], symbol, interval): coverage
            for (exchange, dataset, symbol, interval), coverage in held
            if dataset in known
        }

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; see Store."""
        unit = _unit(series.interval)
        ends = np.array([span.start, span.end - 1], "datetime64[ms]").astype(f"datetime64[{unit}]")
        first, last = (_key(str(end)) for end in ends)
        folder = self.folder / _place(series)
        names = (path.stem for path in folder.glob("*.parquet") if _PERIOD.fullmatch(path.stem))
        wanted = sorted(name for name in names if first <= _key(name) <= last)
        rows = merge([_rows(folder / f"{name}.parquet", series.dataset) for name in wanted], series.dataset)
        start, stop = np.searchsorted(rows.times, (span.start, span.end))
        return rows.take(slice(int(start), int(stop)))

    def _write(self, batch: Batch) -> None:
        series, columns = batch.series, batch.columns
        folder = self.folder / _place(series)
        with _failing(f"cannot write {series} to {self.folder}"), alone(self._lock):
            covered = self._covered(series) | batch.coverage
            periods = columns.times.astype("datetime64[ms]").astype(f"datetime64[{_unit(series.interval)}]")
            for period in np.unique(periods):
                path = folder / f"{period}.parquet"
                merged = merge([_rows(path, series.dataset), columns.take(periods == period)], series.dataset)
                put(path, _encoded(merged, series.dataset))
            # Last: should we be stopped before, the rows are fetched once more and change nothing.
            put(self._page(series), _dumped(series, covered))

    def _covered(self, series: Series) -> Coverage:
        path = self._page(series)
        with _failing(f"cannot read {path}"):
            if not path.exists():
                return Coverage()
            names, coverage = _load(path)
        if names != _names(series):
            raise SinkError(
                f"{path} is about {' '.join(names)}, not {series}: this file system takes small and capital "
                "letters for the same; keep the two in different folders"
            )
        return coverage

    @property
    def _memory(self) -> Path:
        # Readers of Parquet folders pass over names that start with an underscore.
        return self.folder / "_marketfetch"

    @property
    def _lock(self) -> Path:
        return self._memory / "lock"

    def _page(self, series: Series) -> Path:
        return self._memory / f"{_place(series)}.json"

    def __repr__(self) -> str:
        return f"ParquetSink({str(self.folder)!r})"


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{what}: {error}") from error


def _names(series: Series) -> _Names:
    return series.exchange, series.dataset.name, series.symbol, series.interval.name


def _place(series: Series) -> str:
    exchange, dataset, symbol, interval = (quote(name, safe="") for name in _names(series))
    return f"{dataset}/exchange={exchange}/symbol={symbol}/interval={interval}"


def _unit(interval: Interval) -> str:
    """Tell how much time a file stands for, as numpy spells it, so that none has 100,000 rows on a grid."""
    if interval.is_event or interval.typical >= 3_600_000:
        return "Y"
    return "M" if interval.typical >= 60_000 else "D"


def _key(period: str) -> tuple[int, ...]:
    return tuple(map(int, period.split("-")))


def _encoded(columns: Columns, dataset: Dataset) -> bytes:
    arrays = {"open_time": pa.array(columns.times).cast(_TIME)}
    # Prices share their leading bytes, times and counts their magnitude: zstd sees long runs.
    encodings = {"open_time": "DELTA_BINARY_PACKED"}
    for column, line in zip(dataset.columns, columns.values, strict=True):
        array = pa.array(line, mask=np.isnan(line))
        arrays[column.name] = array.cast(pa.int64()) if column.integer else array
        encodings[column.name] = "DELTA_BINARY_PACKED" if column.integer else "BYTE_STREAM_SPLIT"
    buffer = pa.BufferOutputStream()
    parquet.write_table(
        pa.table(arrays), buffer, compression="zstd", use_dictionary=False, column_encoding=encodings
    )
    return buffer.getvalue().to_pybytes()


def _rows(path: Path, dataset: Dataset) -> Columns:
    """Read the rows of a file; none if there is no such file."""
    try:
        with _failing(f"cannot read {path}"):
            if not path.exists():
                return Columns.empty(dataset)
            table = parquet.ParquetFile(pa.BufferReader(path.read_bytes())).read()
            times = table["open_time"].cast(pa.int64()).to_numpy()
            lines = [table[name].cast(pa.float64(), safe=False).to_numpy() for name in dataset.names]
    except KeyError as error:
        raise SinkError(f"{path} has no column {error}; move it elsewhere, it is none of ours") from error
    return Columns(times, np.stack(lines))


def _dumped(series: Series, coverage: Coverage) -> bytes:
    verdicts = zip(_VERDICTS, (coverage.covered, coverage.empty), strict=True)
    spans = {key: [(span.start, span.end) for span in held] for key, held in verdicts}
    return orjson.dumps({"series": _names(series), **spans}, option=orjson.OPT_APPEND_NEWLINE)


def _load(path: Path) -> tuple[_Names, Coverage]:
    try:
        with _failing(f"cannot read {path}"):
            content = orjson.loads(path.read_bytes())
        covered, empty = (SpanSet(tuple(Span(*ends) for ends in content[key])) for key in _VERDICTS)
        exchange, dataset, symbol, interval = content["series"]
    except (KeyError, TypeError, ValueError) as error:
        raise SinkError(
            f"{path} is damaged; delete it: the rows stay, and the next run asks again for what it covered"
        ) from error
    return (exchange, dataset, symbol, interval), Coverage(covered, empty)
