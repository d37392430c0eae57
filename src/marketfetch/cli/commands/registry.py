"""All commands, in the order of the help: a new command is a module of this package, and a line here."""

from __future__ import annotations

from marketfetch.cli.commands import (
    backfill,
    completion,
    coverage,
    demo,
    export,
    follow,
    forget,
    plan,
    refetch,
    status,
    update,
    verify,
)
from marketfetch.cli.commands.discovery import datasets, exchanges, symbols
from marketfetch.cli.parsing.command import Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    backfill.COMMAND,
    plan.COMMAND,
    update.COMMAND,
    follow.COMMAND,
    status.COMMAND,
    coverage.COMMAND,
    verify.COMMAND,
    refetch.COMMAND,
    forget.COMMAND,
    export.COMMAND,
    exchanges.COMMAND,
    symbols.COMMAND,
    datasets.COMMAND,
    demo.COMMAND,
    completion.COMMAND,
)
