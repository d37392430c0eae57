"""Files of an archive: two years of 1m candles, against the API within its published limits.

The API's time is computed, not measured: pages × weight ÷ budget of one address, with the page size that has
the most rows for its weight. Documented and measured weights agree on it: 499 rows cost 2 of 2,400 a minute.
The archive's files are rendered before the clock starts.
"""

from __future__ import annotations

import dataclasses
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from benchmarks.competitors.job import Job
from benchmarks.harness.comparison import PEERS, Competitor, child, compare
from benchmarks.harness.exchange import Options, Running, exchange, symbols
from benchmarks.harness.results import Result, at_least, at_most, without_bar
from benchmarks.sections.memory import on_disk
from benchmarks.sections.postgres import server
from marketfetch.adapters.binance_usdm import UsdmOhlcvFiles
from marketfetch.archives.checksums import parse_checksum
from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.testing import ArchiveOptions, GeneratedMarket, SimulatedArchive
from marketfetch.values.series import Series
from tests.support import large_files, postgres

__all__ = ["archive"]

_SYMBOLS = symbols(3)
_START, _END = 1_704_067_200_000, 1_767_225_600_000  # 2024-01-01 to 2026-01-01, 24 months
_MONTH_END = 1_706_745_600_000  # 2024-02-01
_MINUTE, _DAY = 60_000, 86_400_000
_PUBLISHED = _END + 5 * _DAY
"""When the archive has the file of the last month."""
_PAGE, _WEIGHT, _BUDGET = 499, 2, 2400
_DIFFERENCE = """
    SELECT (SELECT count(*) FROM (SELECT * FROM {files} EXCEPT SELECT * FROM {rest}) AS a)
         + (SELECT count(*) FROM (SELECT * FROM {rest} EXCEPT SELECT * FROM {files}) AS b),
           (SELECT count(*) FROM {files}), (SELECT count(*) FROM {rest})"""


def archive() -> Iterator[Result]:
    """Fill stores from files, and compare them with stores that the API has filled."""
    options = Options(symbols=_SYMBOLS, archive=(_START, _PUBLISHED))
    with server() as running, exchange(options) as source:
        with on_disk("duckdb:{}/market.duckdb") as url:
            yield from _two_years("DuckDB", source, url)
        with running.database() as dsn:
            yield from _two_years("PostgreSQL", source, dsn)
        yield from _against_others(source)
        yield at_most("a month in DuckDB: rows that differ from the API's", _differing_duckdb(source), 0)
        yield at_most(
            "a month in PostgreSQL: rows that differ from the API's", _differing_postgres(source, running), 0
        )
    yield from _gigabyte()
    yield at_least("from the bytes of a file to columns: rows for each CPU second", _decoded(), 3_000_000)


def _gigabyte() -> Iterator[Result]:
    """Compare the memory that a file of 1 GB of text needs with that of one of 0.1 GB, read into SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (
            large_files.peak_of_run(Path(folder, str(rows)), rows, line=line) / 1000
            for rows, line in ((500_000, 200), (2_500_000, 420))
        )
    yield at_most("a file of 1.05 GB of text: peak memory against 0.1 GB", many / few, 1.1, " ×")
    yield without_bar("… with the interpreter and its libraries", many, " MB")


def _two_years(name: str, source: Running, url: str) -> Iterator[Result]:
    found = _fill(source, url, end=_END, files=True)
    pages = len(_SYMBOLS) * -(-(_END - _START) // _MINUTE // _PAGE)
    rest = pages * _WEIGHT / _BUDGET * 60
    what = f"{name}, {len(_SYMBOLS)} symbols × 24 months: speed against the API's {rest:.0f} s"
    yield at_least(what, rest / found["seconds"], 40, " ×")
    yield without_bar("… seconds", found["seconds"], " s")
    yield without_bar("… rows/s", found["rows"] / found["seconds"])
    yield at_most("… peak memory beyond the base", (found["peak"] - found["base"]) / 1e6, 300, " MB")


def _against_others(source: Running) -> Iterator[Result]:
    """Compare with other programs that read the archive: into memory, of one of them into CSV files."""
    sides = {
        "marketfetch": Competitor("ours"),
        "freqtrade, daily files to data frames": Competitor("freqtrade_files", PEERS),
        "binance-bulk-downloader, monthly files to CSV": Competitor("bulk_downloader", PEERS),
    }
    job = Job(source.base_url, _SYMBOLS, _START, _END, "1m", 20, archive_url=source.archive_url)
    found = compare(sides, job, rounds=2, core=None)
    seconds = {name: statistics.median(one["seconds"] for one in each) for name, each in found.items()}
    for name, each in seconds.items():
        yield without_bar(f"into memory, {name}: seconds", each, " s")
    for name in list(sides)[1:]:
        yield without_bar(f"… times as fast as {name}", seconds[name] / seconds["marketfetch"], " ×")


def _fill(source: Running, url: str, *, end: int, files: bool) -> dict[str, Any]:
    """Fill an empty store in a process of its own, and return its measurements."""
    job = Job(source.base_url, _SYMBOLS, _START, end, "1m", 20, dsn=url)
    if files:
        job = dataclasses.replace(job, archive_url=source.archive_url)
    module = "benchmarks.competitors.store_fill"
    found = child([sys.executable, "-m", module, json.dumps(dataclasses.asdict(job))], core=None)
    expected = len(_SYMBOLS) * (end - _START) // _MINUTE
    if found["rows"] != expected:
        raise AssertionError(f"{found['rows']:,} rows were written, of {expected:,}")
    return found


def _differing_duckdb(source: Running) -> int:
    """Return how many rows of a month are in only one of two files, each filled from another source."""
    with on_disk("{}/files.duckdb") as files, on_disk("{}/rest.duckdb") as rest:
        _fill(source, f"duckdb:{files}", end=_MONTH_END, files=True)
        _fill(source, f"duckdb:{rest}", end=_MONTH_END, files=False)
        with closing(duckdb.connect(files)) as database:
            database.execute("CREATE TABLE of_files AS FROM ohlcv")
            database.execute(f"ATTACH '{rest}' AS rest (READ_ONLY); USE rest")
            database.execute("CREATE TEMP TABLE of_rest AS FROM ohlcv")
            query = _DIFFERENCE.format(files="files.of_files", rest="temp.of_rest")
            return _differing(database.execute(query).fetchone())


def _differing_postgres(source: Running, running: postgres.Server) -> int:
    """Return how many rows of a month differ between two fills of one database, one after the other."""
    with running.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        _fill(source, dsn, end=_MONTH_END, files=True)
        connection.execute("CREATE TABLE files AS TABLE ohlcv")
        connection.execute("DROP SCHEMA marketfetch CASCADE")
        _fill(source, dsn, end=_MONTH_END, files=False)
        query = _DIFFERENCE.format(files="files", rest="ohlcv")
        return _differing(connection.execute(query).fetchone())


def _differing(found: tuple[int, int, int] | Any) -> int:
    differing, of_files, of_rest = found
    expected = len(_SYMBOLS) * (_MONTH_END - _START) // _MINUTE
    if of_files != expected or of_rest != expected:
        raise AssertionError(f"{of_files:,} and {of_rest:,} rows are stored, not {expected:,}")
    return int(differing)


def _decoded() -> float:
    """Read six months on one thread; return the rows for each CPU second, the median of five rounds."""
    market = GeneratedMarket(_SYMBOLS[:1])
    held = SimulatedArchive(market, ArchiveOptions(since=_START, now=lambda: _PUBLISHED))
    series = Series.of("binance-usdm", "ohlcv", _SYMBOLS[0], "1m")
    files = UsdmOhlcvFiles()
    prefix = files.folder(series, "month") + files.stem(series)
    readers = []
    for month in range(1, 7):
        key = f"{prefix}2024-{month:02}.zip"
        content = FileContent(series, CalendarPeriod.parse(f"2024-{month:02}"), files.layout)
        checksum = parse_checksum(held.read(f"{key}.CHECKSUM"), key.rpartition("/")[2])
        readers.append((held.read(key), content, checksum))

    def speed() -> float:
        began, rows = time.process_time(), 0
        for body, content, checksum in readers:
            rows += sum(map(len, FileReader(io.BytesIO(body), content, checksum)))
        return rows / (time.process_time() - began)

    return statistics.median(speed() for _ in range(5))
