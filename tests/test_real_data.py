"""Real candles, replayed as an API and as files, and fetched through three proxies into every store.

Every candle of every file must be there, every column equal to the file to the bit.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketfetch.protocols import Store
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import (
    ArchiveOptions,
    LocalProxies,
    ReplayedMarket,
    SimulatedArchive,
    SimulatedExchange,
)
from marketfetch.values.series import Series
from marketfetch.values.spans import Span
from tests.support.commands import Command

Rows = dict[str, list[list[str]]]


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> Rows:
    """The files as text: symbol → rows of twelve fields, in order of time."""
    rows: Rows = defaultdict(list)
    for path in sorted((shared_data / "binance_usdm_1m").glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            rows[path.name.split("-")[0]] += [row for row in csv.reader(file) if row[0].isdecimal()]
    return rows


@pytest.fixture(scope="session")
def exchange(shared_data: Path) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(ReplayedMarket.from_folder(shared_data / "binance_usdm_1m")) as exchange:
        yield exchange


def backfill(
    marketfetch: Command, exchange: SimulatedExchange, proxies: LocalProxies, *arguments: str
) -> dict[str, Any]:
    """Run the command line as a script would and return its report."""
    words = ["backfill", "--exchange", "binance-usdm", "--interval", "1m", "--base-url", exchange.base_url]
    options = [option for url in proxies.urls for option in ("--proxy", url)]
    done = marketfetch(*words, "--no-direct", "--json", *options, *arguments)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check_every_candle(
    to: str,
    marketfetch: Command,
    exchange: SimulatedExchange,
    recorded: Rows,
    archive: SimulatedArchive | None = None,
) -> None:
    """Fetch all candles, through the API or from files, and compare them with the recorded text."""
    sources = [] if archive is None else ["--sources", "archive", "--archive-url", archive.base_url]
    with LocalProxies(3) as proxies:
        for symbol, rows in recorded.items():
            start, end = int(rows[0][0]), int(rows[-1][0]) + 60_000
            options = ["--symbol", symbol, "--dataset", "ohlcv", "--start", str(start), "--end", str(end)]
            report = backfill(marketfetch, exchange, proxies, *options, *sources, "--to", to)
            assert report["rows_written"] == len(rows)
            assert report["archive"]["rows"] == (len(rows) if archive is not None else 0)
            assert {egress["name"] for egress in report["egresses"]} == {"Proxy 1", "Proxy 2", "Proxy 3"}
    assert 429 not in exchange.request_log.statuses

    store = sink_from(to)
    assert isinstance(store, Store)
    for symbol, rows in recorded.items():
        series = Series.of("binance-usdm", "ohlcv", symbol, "1m")
        held = store.read(series, Span(0, int(rows[-1][0]) + 60_000))
        expected = np.array(rows, np.float64).T
        np.testing.assert_array_equal(held.times, expected[0].astype(np.int64))
        # open, high, low, close, volume, quote volume, trades, taker buy volume, taker buy quote volume
        np.testing.assert_array_equal(held.values, expected[[1, 2, 3, 4, 5, 7, 8, 9, 10]])
    assert len(store.ledger()) == len(recorded)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "parquet"])
def test_every_candle_of_every_file_is_stored_bit_for_bit(
    kind: str, tmp_path: Path, marketfetch: Command, exchange: SimulatedExchange, recorded: Rows
) -> None:
    check_every_candle(f"{kind}:{tmp_path / 'market'}", marketfetch, exchange, recorded)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_candle_of_every_file_is_stored_in_postgresql(
    postgres_dsn: str, marketfetch: Command, exchange: SimulatedExchange, recorded: Rows
) -> None:
    check_every_candle(postgres_dsn, marketfetch, exchange, recorded)


@pytest.fixture(scope="session")
def archive(shared_data: Path) -> Iterator[SimulatedArchive]:
    market = ReplayedMarket.from_folder(shared_data / "binance_usdm_1m")
    with SimulatedArchive(market, ArchiveOptions(since=1_693_526_400_000)) as archive:  # 2023-09
        yield archive


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["duckdb", "sqlite", "parquet"])
def test_every_candle_of_every_file_of_the_archive_is_stored_bit_for_bit(
    kind: str,
    tmp_path: Path,
    exchange: SimulatedExchange,
    archive: SimulatedArchive,
    recorded: Rows,
    *,
    marketfetch: Command,
) -> None:
    check_every_candle(f"{kind}:{tmp_path / 'market'}", marketfetch, exchange, recorded, archive)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_candle_of_every_file_of_the_archive_is_stored_in_postgresql(
    postgres_dsn: str,
    marketfetch: Command,
    exchange: SimulatedExchange,
    archive: SimulatedArchive,
    recorded: Rows,
) -> None:
    check_every_candle(postgres_dsn, marketfetch, exchange, recorded, archive)


def test_archive_serves_every_recorded_month_byte_for_byte(shared_data: Path) -> None:
    files = sorted((shared_data / "binance_usdm_1m").glob("*.csv.gz"))
    archive = SimulatedArchive(ReplayedMarket.from_folder(shared_data / "binance_usdm_1m"))
    for file in files:
        stem = file.name.removesuffix(".csv.gz")
        symbol = stem.split("-")[0]
        body = archive.read(f"data/futures/um/monthly/klines/{symbol}/1m/{stem}.zip")
        with zipfile.ZipFile(io.BytesIO(body)) as packed, gzip.open(file) as recorded_month:
            assert packed.read(f"{stem}.csv") == recorded_month.read()
    assert len(files) > 1
