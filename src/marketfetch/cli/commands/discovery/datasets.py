"""`marketfetch datasets`: list what an exchange serves, and in which intervals."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_exchange
from marketfetch.cli.parsing.parser import ListAction, Parser
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_exchange(parser)
    parser.add_argument("-d", "--dataset", metavar="NAME", action=ListAction, help="only these; one or more")


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.discovery import datasets, intervals
    from marketfetch.cli.documents import Document, TextTable
    from marketfetch.values.datasets import Dataset

    signals.begin_interruptible()
    names = arguments.dataset or datasets(arguments.exchange)
    served = {name: intervals(arguments.exchange, name) for name in names}
    columns = {name: Dataset.parse(name).names for name in names}
    plain = [
        {"dataset": name, "intervals": grids, "columns": columns[name]} for name, grids in served.items()
    ]
    rows = [(name, ", ".join(grids), ", ".join(columns[name])) for name, grids in served.items()]
    table = TextTable("", ("dataset", "intervals", "columns"), rows)
    print_result(arguments, plain, lambda: Document("", [table]))
    return 0


COMMAND = Command(
    "datasets",
    "list the datasets, intervals and columns of an exchange",
    _add_options,
    _run,
    ("datasets -e okx", "datasets -e okx -d ohlcv --json"),
    preset=frozenset({"exchange", "json"}),
)
