"""Memory is bounded by concurrency, not by history: three times the days need no more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest

from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions
from tests.support import large_files
from tests.support.peak_memory import backfill
from tests.support.postgres import Server

SYMBOLS = [f"C{number:02}USDT" for number in range(20)]
START = date(2026, 4, 1)
GROWTH, ROUNDS = 1.1, 3
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")


def peak_of(exchange: SimulatedExchange, proxies: LocalProxies, days: int, to: str) -> int:
    """Back-fill an empty store in a child process; return its peak resident memory in kB."""
    words = ["--exchange", "binance-spot", "--base-url", exchange.base_url, "--to", to]
    words += ["--start", str(START), "--end", str(START + timedelta(days=days))]
    words += [option for symbol in SYMBOLS for option in ("--symbol", symbol)]
    words += [option for url in proxies.urls for option in ("--proxy", url)]
    report, peak = backfill(words)
    assert report["rows_written"] >= days * 1440 * len(SYMBOLS)
    return peak


def check_flatness(store: Callable[[], AbstractContextManager[str]], few: int = 20) -> None:
    """Fail if three times `few` days need more memory; compares the smallest peaks of up to three rounds.

    Example (DuckDB, kB): six runs of sixty days had 144,948, 144,796, 144,700, 144,820, 189,364 and 146,216:
    now and then one needs 40 MB more, with any history. Memory that grows with history raises every peak.
    """
    market = GeneratedMarket(SYMBOLS, seed=1)
    many = 3 * few
    peaks: dict[int, list[int]] = {few: [], many: []}
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange, LocalProxies(3) as proxies:
        for _ in range(ROUNDS):
            for days, found in peaks.items():
                with store() as url:
                    found.append(peak_of(exchange, proxies, days, url))
            if min(peaks[many]) <= GROWTH * min(peaks[few]):
                break
    assert min(peaks[many]) <= GROWTH * min(peaks[few]), peaks
    assert min(peaks[many]) <= 300_000, "kB, of which Python, NumPy and the driver take about 100,000"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "few"),
    [("duckdb", 40), ("parquet", 20), ("sqlite", 20)],  # DuckDB needs more rows to use all that it may
)
def test_three_times_the_days_need_no_more_memory(kind: str, few: int, tmp_path: Path) -> None:
    numbers = count()

    @contextmanager
    def store() -> Iterator[str]:
        yield f"{kind}:{tmp_path / str(next(numbers))}"

    check_flatness(store, few)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_three_times_the_days_need_no_more_memory_with_postgresql(postgres_server: Server) -> None:
    check_flatness(postgres_server.database)


@pytest.mark.timeout(600)
def test_a_file_of_three_hundred_megabytes_needs_no_more_memory_than_one_of_a_hundred(tmp_path: Path) -> None:
    # Both have more rows than the row budget, and are read twice. `benchmarks` does it with a gigabyte.
    peaks = {
        rows: large_files.peak_of_run(tmp_path / str(rows), rows, line=line)
        for rows, line in ((500_000, 200), (1_000_000, 300))
    }
    few, many = peaks.values()
    assert many <= GROWTH * few, peaks
    assert many <= 200_000, "kB, of which Python, NumPy and SQLite take about 80,000"
