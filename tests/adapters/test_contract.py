"""The built-in adapters keep the contract that is asked of everybody's; the simulated exchange answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from urllib.request import urlopen

import pytest

from marketfetch.adapter import DAY, Request
from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
    simulate_binance,
)
from marketfetch.testing.contracts.exchange import ExchangeContract

NOW = 1_781_913_600_000
"""2026-06-20, the present of the simulated exchange."""


class Simulated(ExchangeContract):
    simulated: ClassVar[SimulatedExchange]
    archive: ClassVar[SimulatedArchive]
    answers: ClassVar[dict[str, bytes]] = {}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def run_exchange(cls) -> Iterator[None]:
        options = SimulatorOptions(limits=None, okx_history_limit=300)  # OKX sends 100 or 300 rows
        files = ArchiveOptions(since=NOW - 30 * DAY)
        market = GeneratedMarket(["BTCUSDT", "ETHUSDT", "BTCUSD_PERP"], seed=3)
        with simulate_binance(market, options, files, now=lambda: NOW) as (cls.simulated, cls.archive):
            yield

    def answer(self, request: Request) -> bytes | None:
        target = request.url.removeprefix(request.base_url)
        if target not in self.answers:
            with urlopen(self.simulated.base_url + target) as reply:
                self.answers[target] = reply.read()
        return self.answers[target]

    def file(self, key: str) -> bytes | None:
        return self.archive.read(key)


class TestBinanceUsdm(Simulated):
    exchange = BinanceUsdm
    symbol = "BTCUSDT"


class TestBinanceCoinm(Simulated):
    exchange = BinanceCoinm
    symbol = "BTCUSD_PERP"


class TestBinanceSpot(Simulated):
    exchange = BinanceSpot
    symbol = "BTCUSDT"


class TestOkx(Simulated):
    exchange = Okx
    symbol = "BTC-USDT-SWAP"
