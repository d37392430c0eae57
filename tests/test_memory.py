"""Memory is bounded by concurrency, not by history: sixty days need no more than twenty."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions

SYMBOLS = [f"C{number:02}USDT" for number in range(20)]
PEAK = """
import sys
from pathlib import Path
from marketfetch.cli.main import main
code = main(sys.argv[1:])
# Not getrusage: its peak is never below what the parent had when it started this process.
status = Path("/proc/self/status").read_text().split()
print(status[status.index("VmHWM:") + 1], file=sys.stderr)
raise SystemExit(code)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")


def peak(exchange: SimulatedExchange, proxies: LocalProxies, days: int, to: str) -> int:
    """Back-fill so many days in a process of its own; returns its peak resident memory in kB."""
    command = [
        sys.executable,
        "-c",
        PEAK,
        "backfill",
        "--exchange",
        "binance-spot",
        "--base-url",
        exchange.base_url,
    ]
    command += [
        "--start",
        "2026-04-01",
        "--end",
        {20: "2026-04-21", 60: "2026-05-31"}[days],
        "--to",
        to,
        "--json",
    ]
    command += [option for symbol in SYMBOLS for option in ("--symbol", symbol)]
    command += [option for url in proxies.urls for option in ("--proxy", url)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    new = {20: 20, 60: 40}[days]  # where the first twenty days may be there already
    assert json.loads(done.stdout)["rows_written"] >= new * 1440 * len(SYMBOLS)
    return int(done.stderr.split()[-1])


def check_flatness(places: Callable[[int], str]) -> None:
    market = GeneratedMarket(SYMBOLS, seed=1)
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange, LocalProxies(3) as proxies:
        peaks = {days: peak(exchange, proxies, days, places(days)) for days in (20, 60)}
    assert peaks[60] <= 1.1 * peaks[20], peaks
    assert peaks[60] <= 300_000, "kB, of which Python, NumPy and the driver take about 100,000"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["duckdb", "parquet", "sqlite"])
def test_sixty_days_need_no_more_memory_than_twenty(kind: str, tmp_path: Path) -> None:
    check_flatness(lambda days: f"{kind}:{tmp_path / str(days)}")


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_sixty_days_need_no_more_memory_than_twenty_with_postgresql(postgres_dsn: str) -> None:
    # The sixty days include the first twenty, which are then not fetched again.
    check_flatness(lambda _: postgres_dsn)
