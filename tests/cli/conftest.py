"""A simulated exchange to call the real command line against."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from tests.support.commands import Command


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """A market of six symbols on loopback, with its limits."""
    symbols = [f"{name}USDT" for name in ("AVAX", "ETH", "BTC", "XRP", "SOL")]
    with SimulatedExchange(GeneratedMarket([*symbols, "BTCUSDC"]), SimulatorOptions()) as exchange:
        yield exchange


@pytest.fixture
def marketfetch_process() -> Command:
    """The command in a process of its own: for start-up, signals, streams and the locale."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "marketfetch", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)

    return run
