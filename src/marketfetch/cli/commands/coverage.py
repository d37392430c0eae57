"""The command `coverage`, which lists what a store holds and what is missing inside it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_filters, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # values take long to import
    from marketfetch.protocols import Store
    from marketfetch.values.coverage import Coverage
    from marketfetch.values.rejected_rows import RejectedRow
    from marketfetch.values.series import Series

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_filters(parser, "all that the store holds, unless some are named")


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.cli.arguments import ledger_from
    from marketfetch.cli.report_view import coverage_page, ledger_as_list

    signals.begin_interruptible()
    store, ledger = ledger_from(arguments)
    rejected = _rejected(store, ledger)
    signals.begin_final_phase()
    print_result(arguments, ledger_as_list(ledger, rejected), lambda: coverage_page(ledger, rejected))
    return 1 if any(known.gaps for known in ledger.values()) else 0


def _rejected(store: Store, ledger: Mapping[Series, Coverage]) -> Mapping[Series, Sequence[RejectedRow]]:
    """Read the rows at the unusable times, if the store keeps them."""
    from marketfetch.protocols import SupportsRejected

    if not isinstance(store, SupportsRejected):
        return {}
    rejected: dict[Series, Sequence[RejectedRow]] = {}
    for series, coverage in ledger.items():
        if hull := coverage.unusable.hull:
            rows = store.rejected(series, hull)
            rejected[series] = [row for row in rows if series.interval.floor(row.time) in coverage.unusable]
    return rejected


COMMAND = Command(
    "coverage",
    "say what a store holds, and what is missing inside it",
    _add_options,
    _run,
    ("coverage -t sqlite:market.sqlite", "coverage -t sqlite:market.sqlite -s BTCUSDT"),
)
