"""Redirect code that names no host to a simulated exchange on loopback, away from the live one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.sources import Archive
from marketfetch.testing import GeneratedMarket, SimulatedExchange, simulate_binance

__all__ = ["exchanges_on_loopback"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BTCUSD_PERP")


@contextmanager
def exchanges_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedExchange]:
    """Redirect the built-in exchanges and their archives to simulated ones until the block is left."""
    market = GeneratedMarket(SYMBOLS)
    with simulate_binance(market) as (exchange, archive), monkeypatch.context() as patch:
        for kind in (BinanceUsdm, BinanceCoinm, BinanceSpot, Okx):
            patch.setattr(kind, "default_url", exchange.base_url)
            for source in kind.sources:
                if issubclass(source, Archive):
                    patch.setattr(source, "files_url", archive.base_url)
                    if source.listing_url is not None:
                        patch.setattr(source, "listing_url", archive.base_url)
        yield exchange
