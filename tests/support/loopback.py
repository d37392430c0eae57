"""The exchanges on loopback: code that names no host is run against the simulated one, never the live one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marketfetch.exchanges.binance_spot import BinanceSpot
from marketfetch.exchanges.binance_usdm import BinanceUsdm
from marketfetch.exchanges.okx import Okx
from marketfetch.testing import GeneratedMarket, SimulatedExchange

__all__ = ["exchanges_on_loopback"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


@contextmanager
def exchanges_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedExchange]:
    """Point the built-in exchanges at a simulated one for as long as the block lasts."""
    with SimulatedExchange(GeneratedMarket(SYMBOLS)) as exchange, monkeypatch.context() as patch:
        for kind in (BinanceUsdm, BinanceSpot, Okx):
            patch.setattr(kind, "default_url", exchange.base_url)
        yield exchange
