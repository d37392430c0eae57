"""From the parsed arguments to the values of the library: queries, filters and pools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from marketfetch.api.inputs import store_of
from marketfetch.common.text import file_error_reason
from marketfetch.errors import ConfigurationError
from marketfetch.listeners.logs import LogListener, log_to_console
from marketfetch.listeners.progress import Progress, progress_to
from marketfetch.protocols import Store
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.verification.selection import Selection

__all__ = [
    "chosen_from",
    "composites_from",
    "filters_from",
    "heartbeat_from",
    "ledger_from",
    "pool_from",
    "progress_from",
    "query_from",
]


def query_from(arguments: argparse.Namespace) -> Query:
    """Make the query; raises ConfigurationError for arguments that contradict each other or name nothing."""
    return Query(
        symbols=_symbols(arguments),
        datasets=arguments.dataset,
        interval=arguments.interval,
        start=arguments.start,
        end=arguments.end if "end" in arguments else "now",
        composites=composites_from(arguments),
        sources=arguments.sources,
    )


def composites_from(arguments: argparse.Namespace) -> list[Composite]:
    """Return the composites that `--composite` defines."""
    return [_composite(text) for text in arguments.composite]


def filters_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the filters by symbol, dataset, interval and exchange that choose series of a store."""
    everything = AllSymbols() if getattr(arguments, "all_symbols", False) else None
    if everything and arguments.symbol:
        raise ConfigurationError("symbols: name some or say --all-symbols, not both")
    return {
        "symbols": everything if arguments.symbol is None else arguments.symbol,
        "datasets": arguments.dataset,
        "interval": arguments.interval,
        "exchange": arguments.exchange,
    }


def chosen_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the filters and the span of a command that changes series, which have to be named."""
    filters = filters_from(arguments)
    if not any(filters.values()):
        raise ConfigurationError(
            "symbols: nothing is chosen; name series by --symbol, --dataset, --interval or --exchange, or "
            "say --all-symbols"
        )
    return {**filters, "start": arguments.start, "end": arguments.end}


def ledger_from(arguments: argparse.Namespace) -> tuple[Store, dict[Series, Coverage]]:
    """Open the store and return the chosen series of its ledger; those that were forgotten are left out."""
    store = store_of("store", arguments.store, "name")
    chosen = Selection.of(**filters_from(arguments)).held(store)
    ledger = {series: known for series, known in chosen.items() if known.covered}
    if not ledger:
        raise ConfigurationError(f"store: {store!r} holds nothing yet; `marketfetch backfill` fills it")
    return store, ledger


def progress_from(arguments: argparse.Namespace) -> Progress | None:
    """Return the listener that shows progress on standard error; None if none is wanted."""
    if arguments.quiet and (arguments.verbose or arguments.progress not in {"auto", "none"}):
        raise ConfigurationError("quiet: shows no progress; leave out --verbose and --progress")
    if arguments.verbose and arguments.progress != "auto":
        raise ConfigurationError("verbose: the log takes the place of the progress; leave out --progress")
    if arguments.verbose:
        log_to_console("DEBUG")
        return LogListener()
    if arguments.quiet or arguments.progress == "none":
        return None
    return progress_to(sys.stderr, arguments.progress)


def heartbeat_from(arguments: argparse.Namespace) -> float:
    """Return the seconds between signs of life: a display may change often, but each line of a log stays."""
    seconds: float | None = arguments.heartbeat
    return seconds or (1.0 if sys.stderr.isatty() else 10.0)


def pool_from(arguments: argparse.Namespace) -> RotatingProxies:
    """Make the pool of all proxies, and of the direct connection unless `--no-direct` is given.

    Raises ConfigurationError for a malformed address, with the number of its option or its line.
    """
    addresses = [(address, f"--proxy {number}") for number, address in enumerate(arguments.proxy, start=1)]
    if arguments.proxies_from:
        try:
            addresses += read_proxies(arguments.proxies_from)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace("proxies:", "--proxies-from:", 1)) from error
    if not addresses and not arguments.direct:
        raise ConfigurationError("--no-direct: there are no proxies; add --proxy or --proxies-from")
    return RotatingProxies([parse_proxy(*each) for each in addresses], direct=arguments.direct)


def _symbols(arguments: argparse.Namespace) -> AllSymbols | list[str]:
    names = [*arguments.symbol, *_lines(arguments.symbols_from)]
    if not arguments.all_symbols:
        for name in ("quote", "kind", "delisted"):
            if getattr(arguments, name):
                raise ConfigurationError(f"{name}: works only with --all-symbols; add --all-symbols")
        if not names and not arguments.composite:
            raise ConfigurationError("symbols: name one or more, or add --all-symbols")
        return names
    if names:
        raise ConfigurationError("symbols: name some or say --all-symbols, not both")
    return AllSymbols(arguments.quote, delisted=arguments.delisted, kind=arguments.kind)


def _lines(path: Path | None) -> list[str]:
    """Read one name per line; blank lines and `# comments` are skipped."""
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--symbols-from: {path} cannot be read: {file_error_reason(error)}"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.replace("\t", " ").isprintable():
            raise ConfigurationError(
                f"--symbols-from: line {number} of {path} is not text; write names in UTF-8"
            )
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def _composite(text: str) -> Composite:
    """Read `MT=ETHUSDT,BTCUSDT`.

    >>> _composite("MT=ETHUSDT,BTCUSDT").members
    ('ETHUSDT', 'BTCUSDT')
    """
    symbol, _, members = text.partition("=")
    names = tuple(name.strip() for name in members.split(","))
    if not symbol.strip() or not all(names):
        raise ConfigurationError(f"composite: {text!r} is not a composite; write it like MT=ETHUSDT,BTCUSDT")
    return Composite(symbol.strip(), names)
