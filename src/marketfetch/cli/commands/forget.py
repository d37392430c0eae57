"""`marketfetch forget`: remove entries from the ledger of a store, so that they are fetched again."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_chosen_span, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    what = add_chosen_span(parser, "what is forgotten of them")
    what.add_argument("--rows", action="store_true", help="delete the stored rows, too")
    what.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would be forgotten, change nothing"
    )


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.maintenance import forget
    from marketfetch.cli.arguments import chosen_from
    from marketfetch.cli.maintenance_view import forgotten_as_list, forgotten_page

    signals.begin_interruptible()
    forgotten = forget(
        arguments.store, **chosen_from(arguments), rows=arguments.rows, dry_run=arguments.dry_run
    )
    signals.begin_final_phase()
    what = "coverage and rows" if arguments.rows else "coverage"
    verdict = f"{'Would forget' if arguments.dry_run else 'Forgot'} {what}"
    print_result(arguments, forgotten_as_list(forgotten), lambda: forgotten_page(verdict, forgotten))
    return 0


COMMAND = Command(
    "forget",
    "remove coverage, so that it is fetched again",
    _add_options,
    _run,
    ("forget -t sqlite:market.sqlite -s BTCUSDT \\\n      --start 2026-06-01 --end 2026-06-02 --dry-run",),
    preset=frozenset({"store", "json", "dry_run"}),  # what is forgotten has to be typed
)
