"""What can be written on the command line, and what it means as values of the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from marketfetch.engine.query import Everything, Query, Settings
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.proxies.rotating import RotatingProxies
from marketfetch.values.redaction import Secret, redact
from marketfetch.values.series import Composite

__all__ = ["parse", "pool_from", "query_from"]

_STORES = "duckdb:FILE, sqlite:FILE, parquet:FOLDER or postgresql://…"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; what argparse itself refuses ends the process with exit code 2.

    Raises ConfigurationError for options that do not exist, with near matches, for words that belong to no
    option, and for what is not text. Such words are not repeated: they may be of a password.
    """
    words = sys.argv[1:] if argv is None else argv
    for place, word in enumerate(words, start=1):
        if not _is_text(word):
            raise ConfigurationError(f"arguments: number {place} is not text in the encoding of this system")
    arguments, rest = _parser().parse_known_args(words)
    if rest:
        option, _, _ = rest[0].partition("=")
        if not option.startswith("--"):
            raise ConfigurationError(
                "arguments: there is a word that belongs to no option; put what has spaces in quotes"
            )
        raise unknown("argument", option, [f"--{name.replace('_', '-')}" for name in vars(arguments)])
    return arguments


def _is_text(word: str) -> bool:
    """Tell whether a word was decoded as a whole; what was not is in it as halves of surrogate pairs."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def query_from(arguments: argparse.Namespace) -> Query:
    """Make the query; raises ConfigurationError where the arguments contradict each other or name nothing."""
    return Query(
        symbols=_symbols(arguments),
        datasets=arguments.dataset or ["ohlcv"],
        interval=arguments.interval,
        start=arguments.start,
        end=arguments.end,
        composites=[_composite(text) for text in arguments.composite],
    )


def pool_from(arguments: argparse.Namespace) -> RotatingProxies:
    """Make the pool: all proxies given and, unless forbidden, the direct connection.

    Raises ConfigurationError for malformed addresses, naming the option or the line of the file.
    """
    given = [(address, f"--proxy {number}") for number, address in enumerate(arguments.proxy, start=1)]
    if arguments.proxies_from:
        given += read_proxies(arguments.proxies_from)
    return RotatingProxies([parse_proxy(*each) for each in given], direct=arguments.direct)


def _symbols(arguments: argparse.Namespace) -> Everything | list[str]:
    names = [*arguments.symbol, *_lines(arguments.symbols_from)]
    if not arguments.all_symbols:
        if arguments.quote:
            raise ConfigurationError("quote: it narrows --all-symbols; add that")
        return names
    if names:
        raise ConfigurationError("symbols: name some or say --all-symbols, not both")
    return Everything(arguments.quote)


def _lines(path: Path | None) -> list[str]:
    """Read one name per line; blank lines and what follows a `#` are left out."""
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"symbols: {path} cannot be read: {error}") from error
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def _composite(text: str) -> Composite:
    """Read `MT=ETHUSDT,BTCUSDT`.

    >>> _composite("MT=ETHUSDT,BTCUSDT").members
    ('ETHUSDT', 'BTCUSDT')
    """
    symbol, _, members = text.partition("=")
    names = tuple(name.strip() for name in members.split(","))
    if not symbol.strip() or not all(names):
        raise ConfigurationError(f"composite: {text!r} is none; write it like MT=ETHUSDT,BTCUSDT")
    return Composite(symbol.strip(), names)


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line, and takes no abbreviations: scripts would come to rely on them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # Repeated only if it is nearly right: an option put before the command leaves its value here.
        if action.choices is not None and value not in action.choices:
            known: Iterable[str] = action.choices
            near = get_close_matches(str(value), known, n=1)
            said = f"{value!r} is unknown; did you mean {near[0]!r}?" if near else "choose one of "
            raise argparse.ArgumentError(action, said if near else said + ", ".join(known))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"marketfetch: {redact(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="marketfetch",
        description="Say what your store should hold; what is missing is fetched, and nothing else.",
        epilog="Exit codes: 0 all is covered, 1 something is missing, 2 the call was wrong and nothing sent.",
    )
    parser.add_argument("--version", action="version", version=f"marketfetch {version('marketfetch')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_backfill(commands.add_parser("backfill", help="fetch what a store lacks"))
    coverage = commands.add_parser("coverage", help="say what a store holds, and what is missing inside it")
    _add_store(coverage)
    demo = commands.add_parser("demo", help="see it at work on a simulated exchange, without any network")
    demo.add_argument("--keep", metavar="FILE", type=Path, help="keep the DuckDB file of the demonstration")
    demo.add_argument("--days", type=_count, default=10, help="how much history (default: %(default)s)")
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="STORE", type=Secret, required=True, help=_STORES)
    parser.add_argument("--json", action="store_true", help="JSON, and nothing else, on standard output")


def _add_backfill(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what the store should hold")
    what.add_argument("--exchange", metavar="NAME", required=True, help="such as binance-usdm or okx")
    what.add_argument("--symbol", metavar="NAME", action="append", default=[], help="may be repeated")
    what.add_argument("--symbols-from", metavar="FILE", type=Path, help="a file with one symbol per line")
    what.add_argument("--all-symbols", action="store_true", help="all that are traded now")
    what.add_argument("--quote", metavar="NAME", help="with --all-symbols: only those of this quote currency")
    what.add_argument("--dataset", metavar="NAME", action="append", help="may be repeated (default: ohlcv)")
    what.add_argument("--interval", metavar="NAME", default="1m", help="such as 1m, 1h, 1d (default: 1m)")
    what.add_argument("--start", metavar="TIME", required=True, help="2026-06-01, 2026-06-01T12:00Z or 20d")
    what.add_argument("--end", metavar="TIME", default="now", help="likewise, exclusive (default: now)")
    what.add_argument(
        "--composite",
        metavar="NAME=A,B,…",
        action="append",
        default=[],
        help="a symbol derived from others: mean of their prices, sum of their volumes; may be repeated",
    )
    _add_store(parser)
    how = parser.add_argument_group("how to get there")
    how.add_argument(
        "--proxy", metavar="URL", type=Secret, action="append", default=[], help="may be repeated"
    )
    how.add_argument("--proxies-from", metavar="FILE", type=Path, help="one proxy per line, hidden from `ps`")
    how.add_argument("--no-direct", dest="direct", action="store_false", help="only through proxies")
    how.add_argument(
        "--board",
        metavar="BOARD",
        type=Secret,
        default=Secret("auto"),
        help="with which processes budgets are shared: auto, none, file:FOLDER or postgresql://… (default: "
        "auto, all of this user, and all that write into the same PostgreSQL)",
    )
    how.add_argument("--base-url", metavar="URL", help="ask this host instead of the exchange's own")
    how.add_argument("--certificate", metavar="FILE", type=Path, help="trust these authorities too (PEM)")
    how.add_argument(
        "--concurrency",
        metavar="N",
        type=_count,
        default=Settings().concurrency,
        help="requests in flight at most (default: %(default)s)",
    )
    how.add_argument(
        "--heartbeat",
        metavar="SECONDS",
        type=_seconds,
        help="time between signs of life on standard error (default: 10; on a terminal 1)",
    )
    how.add_argument("-v", "--verbose", action="store_true", help="log every page; no progress")


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return seconds
