"""`marketfetch exchanges`: list the installed exchanges."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    """There are none of its own."""


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.discovery import datasets
    from marketfetch.api.plugins import exchanges
    from marketfetch.cli.documents import Document, TextTable

    signals.begin_interruptible()
    found = {name: datasets(name) for name in exchanges()}
    plain = [{"exchange": name, "datasets": served} for name, served in found.items()]
    rows = [(name, ", ".join(served)) for name, served in found.items()]
    table = TextTable("", ("exchange", "datasets"), rows)
    print_result(arguments, plain, lambda: Document("", [table]))
    return 0


COMMAND = Command(
    "exchanges",
    "list the installed exchanges and their datasets",
    _add_options,
    _run,
    ("exchanges", "exchanges --json"),
    preset=frozenset({"json"}),
)
