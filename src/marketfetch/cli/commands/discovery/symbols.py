"""`marketfetch symbols`: list the instruments of an exchange."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_connection, add_exchange, add_proxies
from marketfetch.cli.parsing.parser import Parser, StoreOnceAction
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # values take long to import
    from marketfetch.events import Event

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_exchange(parser)
    which = parser.add_argument_group("which instruments", "all that are traded now, unless")
    which.add_argument(
        "--quote", metavar="NAME", action=StoreOnceAction, help="only those of this quote currency"
    )
    which.add_argument(
        "--kind", metavar="KIND", action=StoreOnceAction, help="only spot, perpetual or future"
    )
    which.add_argument(
        "-p",
        "--pattern",
        metavar="GLOB",
        action=StoreOnceAction,
        help="only these names, such as 'BTC*', in any case",
    )
    which.add_argument("--inactive", action="store_true", help="also those that are not traded now")
    how = parser.add_argument_group("how to ask")
    add_proxies(how)
    add_connection(how)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.discovery import instruments
    from marketfetch.cli.arguments import pool_from
    from marketfetch.cli.documents import Document, TextTable
    from marketfetch.fetchers.curl import CurlFetcher
    from marketfetch.listeners.text import pluralize

    signals.begin_interruptible()
    found = instruments(
        arguments.exchange,
        quote=arguments.quote,
        kind=arguments.kind,
        active=None if arguments.inactive else True,
        pattern=arguments.pattern,
        base_url=arguments.base_url,
        proxies=pool_from(arguments),
        fetcher=CurlFetcher(certificate=arguments.certificate),
        listeners=[_print_retry],
        board=arguments.board,
    )
    signals.begin_final_phase()
    header = ("symbol", "unified", "kind", "active", "listed", "last day")
    table = TextTable("", header, found.rows())
    headline = f"{pluralize(len(found), 'instrument')} of {arguments.exchange}"
    print_result(arguments, found.as_list(), lambda: Document(headline, [table] if found else []))
    return 0 if found else 1


def _print_retry(event: Event) -> None:
    """Print a failed request that is repeated: else the command would seem to hang."""
    from marketfetch.events import RequestFailed
    from marketfetch.listeners.text import describe_event

    if isinstance(event, RequestFailed) and not event.final:
        print_error(f"asking again: {describe_event(event)}")


COMMAND = Command(
    "symbols",
    "list the instruments of an exchange",
    _add_options,
    _run,
    ("symbols -e okx --kind perpetual --quote USDT", "symbols -e binance-usdm -p 'BTC*' --json"),
)
