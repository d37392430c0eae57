"""Options that several commands have, and the checks of their values."""

from __future__ import annotations

import argparse
from pathlib import Path

from marketfetch.cli.parsing.parser import ListAction, Parser, StoreOnceAction
from marketfetch.redaction import Secret, redact

__all__ = [
    "PROGRESS",
    "REQUESTS",
    "add_chosen_span",
    "add_connection",
    "add_exchange",
    "add_filters",
    "add_output",
    "add_progress",
    "add_proxies",
    "add_requests",
    "add_span",
    "add_store",
    "count",
    "seconds",
]

PROGRESS = frozenset({"progress", "quiet", "verbose", "heartbeat"})
"""The dests of the options that `add_progress` adds."""
REQUESTS = frozenset(
    {"proxy", "proxies_from", "direct", "base_url", "certificate", "board", "archive_url", "concurrency"}
)
"""The dests of the options that `add_requests` adds."""
_STORES = "the store: duckdb:FILE, sqlite:FILE, parquet:FOLDER or postgresql://… (--to means the same)"


def add_output(parser: Parser) -> None:
    """Add the options that every command with a result has."""
    output = parser.add_argument_group("output and presets")
    output.add_argument("--json", action="store_true", help="JSON, and nothing else, on standard output")
    output.add_argument(
        "--config",
        metavar="FILE",
        action=StoreOnceAction,
        type=Path,
        help="presets of options (default: marketfetch.toml in this folder or the nearest one above it)",
    )
    output.add_argument(
        "-j", "--job", metavar="NAME", action=StoreOnceAction, help="the options of a job of that file"
    )


def add_store(parser: Parser, *, required: bool = True) -> None:
    """Add the option that names a store."""
    parser.add_argument(
        *("-t", "--store", "--to"),
        metavar="STORE",
        type=Secret,
        action=StoreOnceAction,
        required=required,
        help=_STORES,
    )


def add_exchange(group: Parser | argparse._ArgumentGroup) -> None:
    """Add the option that names an exchange."""
    group.add_argument(
        "-e",
        "--exchange",
        metavar="NAME",
        action=StoreOnceAction,
        required=True,
        help="such as binance-usdm or okx",
    )


def add_filters(parser: Parser, unnamed: str) -> argparse._ArgumentGroup:
    """Add the options that choose series of a store; `unnamed` says what happens without them."""
    which = parser.add_argument_group("which series", unnamed)
    which.add_argument(
        "-e", "--exchange", metavar="NAME", action=StoreOnceAction, help="only those of this exchange"
    )
    which.add_argument("-s", "--symbol", metavar="NAME", action=ListAction, default=None, help="one or more")
    which.add_argument("-d", "--dataset", metavar="NAME", action=ListAction, default=None, help="one or more")
    which.add_argument(
        "-i", "--interval", metavar="NAME", action=StoreOnceAction, help="only those of this interval"
    )
    return which


def add_chosen_span(parser: Parser, title: str) -> argparse._ArgumentGroup:
    """Add the options that choose series of a store, which have to be named, and a span of them."""
    which = add_filters(parser, "name some, or say --all-symbols")
    which.add_argument("--all-symbols", action="store_true", help="all series of the store")
    what = parser.add_argument_group(title)
    add_span(what)
    return what


def add_span(group: argparse._ArgumentGroup) -> None:
    """Add the options that choose a span of what a store holds."""
    group.add_argument(
        "--start", metavar="TIME", action=StoreOnceAction, help="2026-06-01 (default: all before --end)"
    )
    group.add_argument(
        "--end", metavar="TIME", action=StoreOnceAction, help="exclusive (default: all from --start on)"
    )


def add_proxies(group: argparse._ArgumentGroup) -> None:
    """Add the options that choose the addresses from which requests are sent."""
    group.add_argument(
        "--proxy", metavar="URL", type=Secret, action=ListAction, split=False, help="one or more"
    )
    group.add_argument(
        "--proxies-from",
        metavar="FILE",
        action=StoreOnceAction,
        type=Path,
        help="one proxy per line, hidden from `ps`",
    )
    group.add_argument("--no-direct", dest="direct", action="store_false", help="only through proxies")


def add_connection(group: argparse._ArgumentGroup) -> None:
    """Add the options about the host, its certificate and the rate limits."""
    group.add_argument(
        "--base-url",
        metavar="URL",
        action=StoreOnceAction,
        help="ask this host instead of the exchange's own",
    )
    group.add_argument(
        "--certificate",
        metavar="FILE",
        action=StoreOnceAction,
        type=Path,
        help="trust these authorities too (PEM)",
    )
    group.add_argument(
        "--board",
        metavar="BOARD",
        action=StoreOnceAction,
        type=Secret,
        default=Secret("auto"),
        help="share rate limits with other processes: auto, none, file:FOLDER or postgresql://… (auto, the "
        "default: with this user's processes and with those that write to the same PostgreSQL)",
    )


def add_requests(group: argparse._ArgumentGroup) -> None:
    """Add the options of commands that make many requests."""
    add_proxies(group)
    add_connection(group)
    group.add_argument(
        "--archive-url",
        metavar="URL",
        action=StoreOnceAction,
        help="read files from this host, not the public one",
    )
    group.add_argument(
        "--concurrency",
        metavar="N",
        action=StoreOnceAction,
        type=count,
        help="requests in flight at most (default: 20)",
    )


def add_progress(parser: Parser) -> None:
    """Add the options about what is shown while a command works."""
    shown = parser.add_argument_group("progress, on standard error")
    shown.add_argument(
        "--progress",
        action=StoreOnceAction,
        choices=("auto", "bar", "log", "json", "none"),
        default="auto",
        help="bar: a live display, log: lines, json: a JSON object per line, auto: a bar on a terminal, else "
        "lines (default: %(default)s)",
    )
    shown.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, and no report unless something is missing"
    )
    shown.add_argument("-v", "--verbose", action="store_true", help="log every page; no progress")
    shown.add_argument(
        "--heartbeat",
        metavar="SECONDS",
        action=StoreOnceAction,
        type=seconds,
        help="time between signs of life (default: 10; on a terminal 1)",
    )


def count(text: str) -> int:
    """Read a whole number above zero."""
    if not text.isdecimal() or len(text) > 18 or not int(text):
        # Redacted before it is cut: a part of a password could not be recognised.
        raise argparse.ArgumentTypeError(f"{redact(repr(text))[:60]} is not a whole number above zero")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{redact(repr(text))[:60]} is not a number of seconds above zero")
    return number
