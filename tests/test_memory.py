"""Memory is bounded by concurrency, not by history: two thirds of a long run need no more than the first."""

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
from tests.support.peak_memory import peaks_of_run
from tests.support.postgres import Server

SYMBOLS = [f"C{number:02}USDT" for number in range(20)]
START = date(2026, 4, 1)
GROWTH, ROUNDS = 1.1, 3
TIMEOUT = ROUNDS * 280 + 60
"""Seconds: a run has 280."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc"),
]


def check_flatness(
    store: Callable[[], AbstractContextManager[str]], days: int = 60, *, settled: int = 1
) -> None:
    """Fail if runs need more memory after `settled` thirds of their rows; up to three runs are tried.

    Memory that grows with history raises every last peak above every earlier one. Example (DuckDB, kB): the
    peaks after each third were 170,688, 205,428 and 205,428, then 171,212, 188,284 and 207,000. Nothing
    grows: sooner or later a checkpoint takes 30 MB for a moment (decision 85), mostly in the second third.
    """
    market = GeneratedMarket(SYMBOLS, seed=1)
    query = {"symbols": SYMBOLS, "start": str(START), "end": str(START + timedelta(days=days))}
    tried: list[tuple[int, ...]] = []
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange, LocalProxies(3) as proxies:
        for _ in range(ROUNDS):
            with store() as url:
                peaks = peaks_of_run(
                    query,
                    url,
                    rows=days * 1440 * len(SYMBOLS),
                    base_url=exchange.base_url,
                    proxies=proxies.urls,
                )
            tried.append(peaks)
            highest_before = max(peaks[settled - 1] for peaks in tried)
            lowest_last = min(last for _, _, last in tried)
            if lowest_last <= GROWTH * highest_before:
                break
    assert lowest_last <= GROWTH * highest_before, tried
    assert lowest_last <= 300_000, "kB, of which Python and the driver take about 100,000"


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize(
    ("kind", "days", "settled"),
    [("duckdb", 120, 2), ("parquet", 60, 1), ("sqlite", 60, 1)],
    ids=["duckdb", "parquet", "sqlite"],
)
def test_a_run_needs_no_more_memory_at_its_end(kind: str, days: int, settled: int, tmp_path: Path) -> None:
    numbers = count()

    @contextmanager
    def store() -> Iterator[str]:
        yield f"{kind}:{tmp_path / str(next(numbers))}"

    check_flatness(store, days, settled=settled)


@pytest.mark.heavy
@pytest.mark.timeout(TIMEOUT)
def test_a_run_into_postgresql_needs_no_more_memory_at_its_end(
    postgres_server: Server,
) -> None:
    check_flatness(postgres_server.database)


@pytest.mark.timeout(TIMEOUT)
def test_a_file_of_three_hundred_megabytes_needs_no_more_memory_than_one_of_a_hundred(tmp_path: Path) -> None:
    # Both have more rows than the row budget, and are read twice. `benchmarks` does it with a gigabyte.
    peaks = {
        rows: large_files.peak_of_run(tmp_path / str(rows), rows, line=line)
        for rows, line in ((500_000, 200), (1_000_000, 300))
    }
    few, many = peaks.values()
    assert many <= GROWTH * few, peaks
    assert many <= 200_000, "kB, of which Python, NumPy and SQLite take about 80,000"
