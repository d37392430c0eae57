"""Command: one verb of the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler

__all__ = ["Command"]


class Command(NamedTuple):  # not an attrs class: `marketfetch --help` shall not wait for the import
    """A verb of the command line. It has a summary, options, and a function that returns the exit code.

    `add_options` runs whenever options are parsed, so it imports nothing heavy; `run` imports what it
    needs. `examples` are shown in the help, without the word `marketfetch`, and after them what `more_help`
    returns. `preset` names the options that a file or the environment may set; None means all.
    `has_result` gives the command the options about its output and presets.

    >>> Command("now", "print the time", lambda parser: None, lambda arguments, signals: 0).preset is None
    True
    """

    name: str
    summary: str
    add_options: Callable[[Parser], object]
    run: Callable[[Namespace, SignalHandler], int]
    examples: tuple[str, ...] = ()
    preset: frozenset[str] | None = None
    more_help: Callable[[], str] | None = None
    has_result: bool = True
