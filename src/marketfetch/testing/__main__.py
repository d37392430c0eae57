"""Run a simulated exchange, and optionally its archive and proxies, in a separate process.

    python -m marketfetch.testing --port 8000 --symbols BTCUSDT,ETHUSDT --archive --proxies 3

Prints one line of JSON (`base_url`, `archive`, `proxies`, `certificate`) when ready; serves until Ctrl-C or
SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from types import FrameType

import msgspec

from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LimitRules,
    LocalProxies,
    Market,
    ReplayedMarket,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m marketfetch.testing", description="A simulated exchange."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT", help="comma-separated symbols")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated market")
    parser.add_argument("--replay", metavar="FOLDER", help="serve recorded kline files instead")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--tls", action="store_true", help="serve HTTPS")
    parser.add_argument("--gzip", action="store_true", help="compress answers for clients that accept it")
    parser.add_argument("--archive", action="store_true", help="start an archive with the same rows (HTTP)")
    parser.add_argument("--proxies", type=int, default=0, help="how many local proxies to start")
    parser.add_argument(
        "--tiers", choices=("documented", "measured"), default="documented", help="kline weights"
    )
    parser.add_argument("--minute", type=float, default=60.0, help="seconds that a limiter's minute lasts")
    parser.add_argument("--no-limits", action="store_true", help="never refuse a request")
    parser.add_argument("--faults", type=float, default=0.0, help="share of answers that go wrong, 0 to 1")
    parser.add_argument("--fault-kinds", help="comma-separated kinds of faults (default: all)")
    parser.add_argument("--fault-seed", type=int, default=0, help="seed of which answers go wrong, and how")
    return parser.parse_args()


def _market(arguments: argparse.Namespace) -> Market:
    if arguments.replay:
        return ReplayedMarket.from_folder(arguments.replay, seed=arguments.seed)
    return GeneratedMarket(arguments.symbols.split(","), arguments.seed)


def _faults(arguments: argparse.Namespace) -> Faults:
    kinds = arguments.fault_kinds.split(",") if arguments.fault_kinds else FaultKind
    return Faults(rate=arguments.faults, kinds=kinds, seed=arguments.fault_seed)


def main() -> None:
    """Serve until told to stop."""
    arguments = _arguments()
    rules = LimitRules(tiers=arguments.tiers, period_scale=arguments.minute / 60)
    options = SimulatorOptions(
        port=arguments.port,
        tls=arguments.tls,
        gzip=arguments.gzip,
        latency=arguments.latency,
        limits=None if arguments.no_limits else rules,
        faults=_faults(arguments) if arguments.faults else None,
    )
    stop = threading.Event()

    def finish(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, finish)
    market = _market(arguments)
    with contextlib.ExitStack() as running:
        exchange = running.enter_context(SimulatedExchange(market, options))
        archive = running.enter_context(SimulatedArchive(market)) if arguments.archive else None
        proxies = running.enter_context(LocalProxies(arguments.proxies))
        ready = {
            "base_url": exchange.base_url,
            "archive": archive and archive.base_url,
            "proxies": proxies.urls,
            "certificate": exchange.certificate and str(exchange.certificate),
        }
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        while not stop.wait(0.5):  # Windows does not handle a signal during a wait
            pass


if __name__ == "__main__":
    main()
