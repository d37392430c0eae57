"""`marketfetch forget`: remove entries from the ledger of a store, so that they are fetched again."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_filters, add_store
from marketfetch.cli.parsing.parser import Once, Parser
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import ConfigurationError

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    which = add_filters(parser, "name some, or say --all-symbols")
    which.add_argument("--all-symbols", action="store_true", help="all series of the store")
    what = parser.add_argument_group("what is forgotten of them")
    what.add_argument("--start", metavar="TIME", action=Once, help="2026-06-01 (default: all before --end)")
    what.add_argument("--end", metavar="TIME", action=Once, help="exclusive (default: all from --start on)")
    what.add_argument("--rows", action="store_true", help="delete the stored rows, too")
    what.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would be forgotten, change nothing"
    )


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.maintenance import forget
    from marketfetch.cli.arguments import filters_from
    from marketfetch.cli.maintenance_view import forgotten_as_list, forgotten_page

    signals.interrupt()
    filters = filters_from(arguments)
    if not any(filters.values()):
        raise ConfigurationError(
            "symbols: nothing is chosen; name series by --symbol, --dataset, --interval or --exchange, or "
            "say --all-symbols"
        )
    forgotten = forget(
        arguments.store,
        **filters,
        start=arguments.start,
        end=arguments.end,
        rows=arguments.rows,
        dry_run=arguments.dry_run,
    )
    signals.finish()
    print_result(
        arguments,
        forgotten_as_list(forgotten),
        lambda: forgotten_page(forgotten, rows=arguments.rows, dry_run=arguments.dry_run),
    )
    return 0


COMMAND = Command(
    "forget",
    "remove coverage, so that it is fetched again",
    _add_options,
    _run,
    ("forget -t sqlite:market.sqlite -s BTCUSDT \\\n      --start 2026-06-01 --end 2026-06-02 --dry-run",),
    preset=frozenset({"store", "json"}),  # what is forgotten has to be typed
)
