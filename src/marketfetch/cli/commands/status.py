"""`marketfetch status`: say how current a store is, and what is missing inside it."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_filters, add_store
from marketfetch.cli.parsing.parser import Parser, StoreOnceAction
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_filters(parser, "all that the store holds, unless some are named")
    health = parser.add_argument_group("what counts as well")
    health.add_argument(
        "--max-lag",
        metavar="TIME",
        action=StoreOnceAction,
        help="exit code 1 if a series ends longer ago, such as 2h",
    )


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.cli.arguments import ledger_from
    from marketfetch.cli.status_view import SeriesStatus, status_as_list, status_page
    from marketfetch.values.times import SteadyClock, parse_time

    signals.begin_interruptible()
    now = SteadyClock()()
    oldest = None if arguments.max_lag is None else parse_time("max_lag", arguments.max_lag, now)
    _, ledger = ledger_from(arguments)
    states = [SeriesStatus.of(series, known, now, oldest) for series, known in ledger.items()]
    signals.begin_final_phase()
    print_result(arguments, status_as_list(states), lambda: status_page(states))
    return 0 if all(state.ok for state in states) else 1


COMMAND = Command(
    "status",
    "say how current a store is, and whether it has gaps",
    _add_options,
    _run,
    ("status -t sqlite:market.sqlite", "status -t sqlite:market.sqlite --max-lag 2h"),
)
