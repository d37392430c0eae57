"""Redirect code that names no host to a simulated exchange on loopback, away from the live one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marketfetch.exchanges.binance_coinm import BinanceCoinm
from marketfetch.exchanges.binance_spot import BinanceSpot
from marketfetch.exchanges.binance_usdm import BinanceUsdm
from marketfetch.exchanges.okx import Okx
from marketfetch.testing import GeneratedMarket, SimulatedExchange

__all__ = ["exchanges_on_loopback"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


@contextmanager
def exchanges_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedExchange]:
    """Redirect the built-in exchanges to a simulated one until the block is left."""
    with SimulatedExchange(GeneratedMarket(SYMBOLS)) as exchange, monkeypatch.context() as patch:
        for kind in (BinanceUsdm, BinanceCoinm, BinanceSpot, Okx):
            patch.setattr(kind, "default_url", exchange.base_url)
        yield exchange
