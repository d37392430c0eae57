"""The options of a query: those of commands that fetch what a store should hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from marketfetch.cli.parsing.options import add_exchange
from marketfetch.cli.parsing.parser import ListAction, Parser, StoreOnceAction

__all__ = ["add_composites", "add_query", "add_sources", "names_help"]


def add_query(parser: Parser, *, ends: bool = True) -> None:
    """Add the options that say what a store should hold; without `ends` there is no `--end`."""
    what = parser.add_argument_group("what the store should hold")
    add_exchange(what)
    what.add_argument("-s", "--symbol", metavar="NAME", action=ListAction, help="one or more, also BTC,ETH")
    what.add_argument(
        "--symbols-from",
        metavar="FILE",
        action=StoreOnceAction,
        type=Path,
        help="a file with one symbol per line",
    )
    what.add_argument("--all-symbols", action="store_true", help="all that are traded now")
    what.add_argument(
        "--quote",
        metavar="NAME",
        action=StoreOnceAction,
        help="with --all-symbols: only those of this quote currency",
    )
    what.add_argument(
        "--kind",
        metavar="KIND",
        action=StoreOnceAction,
        help="with --all-symbols: only spot, perpetual or future",
    )
    what.add_argument(
        "--delisted", action="store_true", help="with --all-symbols: also those that only the archive has"
    )
    what.add_argument(
        "-d",
        "--dataset",
        metavar="NAME",
        action=ListAction,
        default=["ohlcv"],
        help="one or more (default: ohlcv)",
    )
    what.add_argument(
        "-i",
        "--interval",
        metavar="NAME",
        action=StoreOnceAction,
        default="1m",
        help="such as 1h (default: 1m)",
    )
    what.add_argument(
        "--start",
        metavar="TIME",
        action=StoreOnceAction,
        required=True,
        help="2026-06-01, 2026-06-01T12:00Z, 20d or 3mo",
    )
    if ends:
        what.add_argument(
            "--end",
            metavar="TIME",
            action=StoreOnceAction,
            default="now",
            help="likewise, exclusive (default: now)",
        )
    add_composites(what)


def add_composites(group: argparse._ArgumentGroup) -> None:
    """Add the option that defines composites."""
    group.add_argument(
        "--composite",
        metavar="NAME=A,B,…",
        action=ListAction,
        split=False,
        help="a symbol derived from others: mean of their prices, sum of their volumes; one or more",
    )


def add_sources(group: argparse._ArgumentGroup) -> None:
    """Add the options about the source of rows, and about wrong rows."""
    group.add_argument(
        "--sources",
        action=StoreOnceAction,
        choices=("auto", "rest", "archive"),
        default="auto",
        help="rest asks the API, archive reads public files of the exchange, auto takes files where that is "
        "sooner (default: %(default)s)",
    )
    group.add_argument(
        "--unusable",
        metavar="POLICY",
        action=StoreOnceAction,
        choices=("keep", "store", "retry"),
        default="keep",
        help="wrong rows of the exchange: keep (note them beside the ledger, not in the table), store (write "
        "them to the table) or retry (request them again; default: %(default)s)",
    )


def names_help() -> str:
    """Return the values that options take, as lines of the help. Called only when the help is shown."""
    from marketfetch.cli.documents import wrapped
    from marketfetch.cli.parsing.names import served_names

    names = served_names()
    return "\n".join(
        wrapped(f"{title}: {', '.join(names[dest])}", indent="  ")
        for title, dest in (("Exchanges", "exchange"), ("Datasets", "dataset"), ("Intervals", "interval"))
    )
