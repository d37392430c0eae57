"""Exchanges, proxies and markets to test against: real HTTP on loopback, no network needed.

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange, LocalProxies(3) as proxies:
        ...  # point a client at exchange.base_url, through proxies.urls

Install it with `marketfetch[testing]`. `python -m marketfetch.testing` runs the same in a process of its own.
"""

from __future__ import annotations

from marketfetch.proxies.registry import separate_registry
from marketfetch.testing.faults import FaultKind, Faults
from marketfetch.testing.generated import GeneratedMarket
from marketfetch.testing.limits import LimitRules
from marketfetch.testing.market import Instrument, Market, Table, Window
from marketfetch.testing.proxy import LocalProxies, LocalProxy, ProxyMode
from marketfetch.testing.record import Record, Seen
from marketfetch.testing.replayed import ReplayedMarket
from marketfetch.testing.revising import RevisingMarket
from marketfetch.testing.simulator import SimulatedExchange, SimulatorOptions

__all__ = [
    "FaultKind",
    "Faults",
    "GeneratedMarket",
    "Instrument",
    "LimitRules",
    "LocalProxies",
    "LocalProxy",
    "Market",
    "ProxyMode",
    "Record",
    "ReplayedMarket",
    "RevisingMarket",
    "Seen",
    "SimulatedExchange",
    "SimulatorOptions",
    "Table",
    "Window",
    "separate_registry",
]
