"""The arguments of the command line, and the values of the library that they are turned into."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from marketfetch.cli.option_parser import Once, Parser, check_options
from marketfetch.errors import ConfigurationError
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.redaction import Secret, redact
from marketfetch.values.instruments import Composite
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.settings import Settings

__all__ = ["filters_from", "parse", "pool_from", "query_from"]

_STORES = "duckdb:FILE, sqlite:FILE, parquet:FOLDER or postgresql://…"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; an error of argparse ends the process with exit code 2.

    Raises ConfigurationError for an unknown option, with near matches, for a word that belongs to no option,
    and for a word that is not text. The message does not repeat a stray or undecodable word: it may be part
    of a password. Of an unknown option it shows the part before `=`. `options` of the result lists the long
    options of the command, and `given` those whose values are not the defaults.
    """
    words = sys.argv[1:] if argv is None else argv
    for place, word in enumerate(words, start=1):
        if not _is_text(word):
            raise ConfigurationError(
                f"arguments: number {place} is not text in the encoding of this system; "
                "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            )
    parser, commands = _parsers()
    check_options(words, commands)
    arguments, rest = parser.parse_known_args(words)
    if rest:
        if rest[0].startswith("-"):
            raise ConfigurationError(
                f"arguments: {redact(rest[0].partition('=')[0])!r} is no option; see marketfetch "
                f"{arguments.command} --help"
            )
        places = " or ".join(str(place) for place, word in enumerate(words, start=1) if word == rest[0])
        raise ConfigurationError(
            f"arguments: number {places} belongs to no option; put the name of its option before it, and "
            "quotes around what has spaces"
        )
    command = commands[arguments.command]
    arguments.given = command.given(arguments)
    arguments.options = command.options
    return arguments


def _is_text(word: str) -> bool:
    """Return whether all bytes of a word were decoded; Python puts surrogates in place of other bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def query_from(arguments: argparse.Namespace) -> Query:
    """Make the query; raises ConfigurationError for arguments that contradict each other or name nothing."""
    return Query(
        symbols=_symbols(arguments),
        datasets=arguments.dataset or ["ohlcv"],
        interval=arguments.interval,
        start=arguments.start,
        end=arguments.end,
        composites=[_composite(text) for text in arguments.composite],
        sources=arguments.sources,
    )


def filters_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the filters by symbol, dataset, interval and exchange that choose series of a store."""
    everything = AllSymbols() if getattr(arguments, "all_symbols", False) else None
    if everything and arguments.symbol:
        raise ConfigurationError("symbols: name some or say --all-symbols, not both")
    return {
        "symbols": arguments.symbol or everything,
        "datasets": arguments.dataset,
        "interval": arguments.interval,
        "exchange": arguments.exchange,
    }


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
        if arguments.quote:
            raise ConfigurationError("quote: works only with --all-symbols; add --all-symbols")
        if arguments.delisted:
            raise ConfigurationError("delisted: works only with --all-symbols; add --all-symbols")
        if not names and not arguments.composite:
            raise ConfigurationError("symbols: name one or more, or add --all-symbols")
        return names
    if names:
        raise ConfigurationError("symbols: name some or say --all-symbols, not both")
    return AllSymbols(arguments.quote, delisted=arguments.delisted)


def _lines(path: Path | None) -> list[str]:
    """Read one name per line; blank lines and `# comments` are skipped."""
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--symbols-from: {path} cannot be read: {_reason(error)}") from error
    for number, line in enumerate(lines, start=1):
        if not line.replace("\t", " ").isprintable():
            raise ConfigurationError(
                f"--symbols-from: line {number} of {path} is not text; write names in UTF-8"
            )
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"


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


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, Parser]]:
    """Return the parser of the command line, and the parser of each command."""
    parser = Parser(
        prog="marketfetch",
        description="Say what your store should hold; what is missing is fetched, and nothing else.",
        epilog="Exit codes: 0 all is well, 1 something is missing or wrong, 2 the call was wrong.",
    )
    parser.add_argument("--version", action="version", version=f"marketfetch {version('marketfetch')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    backfill = commands.add_parser("backfill", help="fetch what a store lacks")
    coverage = commands.add_parser("coverage", help="say what a store holds, and what is missing inside it")
    verify = commands.add_parser("verify", help="compare the rows of a store with its ledger")
    forget = commands.add_parser(
        "forget", help="remove entries from the ledger, so that they are fetched again"
    )
    demo = commands.add_parser("demo", help="see it at work on a simulated exchange, without any network")
    _add_backfill(backfill)
    for each in (coverage, verify):
        _add_filters(each, "all that the store holds, unless some are named")
        _add_store(each)
    _add_sources(verify)
    _add_filters(forget, "name some, or say --all-symbols")
    _add_store(forget)
    _add_forget(forget)
    demo.add_argument(
        "--keep", metavar="FILE", type=Path, action=Once, help="keep the DuckDB file of the demonstration"
    )
    demo.add_argument(
        "--days", type=_count, action=Once, default=150, help="how much history (default: %(default)s)"
    )
    named = {"backfill": backfill, "coverage": coverage, "verify": verify, "forget": forget, "demo": demo}
    return parser, named


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="STORE", type=Secret, action=Once, required=True, help=_STORES)
    parser.add_argument("--json", action="store_true", help="JSON, and nothing else, on standard output")


def _add_filters(parser: argparse.ArgumentParser, unnamed: str) -> None:
    which = parser.add_argument_group("which series", unnamed)
    which.add_argument("--exchange", metavar="NAME", action=Once, help="only those of this exchange")
    which.add_argument("--symbol", metavar="NAME", action="append", default=[], help="may be repeated")
    which.add_argument("--dataset", metavar="NAME", action="append", help="may be repeated")
    which.add_argument("--interval", metavar="NAME", action=Once, help="only those of this interval")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files of archives")
    files.add_argument(
        "--sources",
        action="store_true",
        help="compare rows with the files that they came from, where the exchange issued these anew",
    )
    files.add_argument("--repair", action="store_true", help="with --sources: write the rows of new issues")
    _add_network(parser.add_argument_group("with --sources: how to get there"))


def _add_forget(parser: argparse.ArgumentParser) -> None:
    which = next(group for group in parser._action_groups if group.title == "which series")  # noqa: SLF001
    which.add_argument("--all-symbols", action="store_true", help="all series of the store")
    what = parser.add_argument_group("what is forgotten of them")
    what.add_argument("--start", metavar="TIME", action=Once, help="2026-06-01 (default: all before --end)")
    what.add_argument("--end", metavar="TIME", action=Once, help="exclusive (default: all from --start on)")
    what.add_argument("--rows", action="store_true", help="delete the stored rows, too")
    what.add_argument("--dry-run", action="store_true", help="say what would be forgotten, change nothing")


def _add_backfill(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what the store should hold")
    what.add_argument(
        "--exchange", metavar="NAME", action=Once, required=True, help="such as binance-usdm or okx"
    )
    what.add_argument("--symbol", metavar="NAME", action="append", default=[], help="may be repeated")
    what.add_argument(
        "--symbols-from", metavar="FILE", action=Once, type=Path, help="a file with one symbol per line"
    )
    what.add_argument("--all-symbols", action="store_true", help="all that are traded now")
    what.add_argument(
        "--quote", metavar="NAME", action=Once, help="with --all-symbols: only those of this quote currency"
    )
    what.add_argument(
        "--delisted", action="store_true", help="with --all-symbols: also those that only the archive has"
    )
    what.add_argument("--dataset", metavar="NAME", action="append", help="may be repeated (default: ohlcv)")
    what.add_argument(
        "--interval", metavar="NAME", action=Once, default="1m", help="such as 1m, 1h, 1d (default: 1m)"
    )
    what.add_argument(
        "--start", metavar="TIME", action=Once, required=True, help="2026-06-01, 2026-06-01T12:00Z or 20d"
    )
    what.add_argument(
        "--end", metavar="TIME", action=Once, default="now", help="likewise, exclusive (default: now)"
    )
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
        "--sources",
        action=Once,
        choices=("auto", "rest", "archive"),
        default="auto",
        help="rest asks the API, archive reads public files of the exchange, auto takes files where that is "
        "sooner (default: %(default)s)",
    )
    how.add_argument(
        "--unusable",
        metavar="POLICY",
        action=Once,
        choices=("keep", "store", "retry"),
        default=Settings().unusable,
        help="wrong rows of the exchange: keep (note them beside the ledger, not in the table), store (write "
        "them to the table) or retry (request them again; default: %(default)s)",
    )
    _add_network(how)


def _add_network(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--proxy", metavar="URL", type=Secret, action="append", default=[], help="may be repeated"
    )
    how.add_argument(
        "--proxies-from", metavar="FILE", action=Once, type=Path, help="one proxy per line, hidden from `ps`"
    )
    how.add_argument("--no-direct", dest="direct", action="store_false", help="only through proxies")
    how.add_argument(
        "--base-url", metavar="URL", action=Once, help="ask this host instead of the exchange's own"
    )
    how.add_argument(
        "--archive-url",
        metavar="URL",
        action=Once,
        help="read files from this host, not from the public one",
    )
    how.add_argument(
        "--certificate", metavar="FILE", action=Once, type=Path, help="trust these authorities too (PEM)"
    )
    how.add_argument(
        "--board",
        metavar="BOARD",
        action=Once,
        type=Secret,
        default=Secret("auto"),
        help="share rate limits with other processes: auto, none, file:FOLDER or postgresql://… (auto, the "
        "default: with this user's processes and with those that write to the same PostgreSQL)",
    )
    how.add_argument(
        "--concurrency",
        metavar="N",
        action=Once,
        type=_count,
        default=Settings().concurrency,
        help="requests in flight at most (default: %(default)s)",
    )
    how.add_argument(
        "--heartbeat",
        metavar="SECONDS",
        action=Once,
        type=_seconds,
        help="time between signs of life on standard error (default: 10; on a terminal 1)",
    )
    how.add_argument("-v", "--verbose", action="store_true", help="log every page; no progress")


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 18 or not int(text):
        # Redacted before it is cut: a part of a password could not be recognised.
        raise argparse.ArgumentTypeError(f"{redact(repr(text))[:60]} is not a whole number above zero")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return seconds
