"""Simulated exchanges, archives, proxies and markets for tests: real HTTP on loopback, without any network.

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange, LocalProxies(3) as proxies:
        ...  # point a client at exchange.base_url, through proxies.urls

Install it with `marketfetch[simulator]`; HTTPS and the contract classes need `marketfetch[testing]`.
`python -m marketfetch.testing` runs them in a separate process.
"""

from __future__ import annotations

from marketfetch.proxies.registry import separate_registry
from marketfetch.testing.archives.faults import ArchiveFaultKind, ArchiveFaults
from marketfetch.testing.archives.publication import Publication
from marketfetch.testing.archives.simulated_archive import ArchiveOptions, SimulatedArchive, simulate_binance
from marketfetch.testing.faults.kinds import FaultKind, Faults
from marketfetch.testing.markets.generated import GeneratedMarket
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.testing.markets.replayed import ReplayedMarket
from marketfetch.testing.markets.revising import RevisingMarket
from marketfetch.testing.proxies.local_proxy import LocalProxies, LocalProxy, ProxyMode
from marketfetch.testing.request_log import LoggedRequest, RequestLog
from marketfetch.testing.simulator import SimulatedExchange, SimulatorOptions
from marketfetch.testing.venues.rate_limiter import LimitRules

__all__ = [
    "ArchiveFaultKind",
    "ArchiveFaults",
    "ArchiveOptions",
    "FaultKind",
    "Faults",
    "GeneratedMarket",
    "LimitRules",
    "LocalProxies",
    "LocalProxy",
    "LoggedRequest",
    "Market",
    "MarketInstrument",
    "MarketRows",
    "ProxyMode",
    "Publication",
    "ReplayedMarket",
    "RequestLog",
    "RevisingMarket",
    "SimulatedArchive",
    "SimulatedExchange",
    "SimulatorOptions",
    "Window",
    "separate_registry",
    "simulate_binance",
]
