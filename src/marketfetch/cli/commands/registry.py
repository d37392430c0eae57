"""All commands, in the order of the help: a new command is a module beside this one, and a line here."""

from __future__ import annotations

from marketfetch.cli.commands import (
    backfill,
    completion,
    coverage,
    datasets,
    demo,
    exchanges,
    export,
    follow,
    forget,
    plan,
    refetch,
    status,
    symbols,
    update,
    verify,
)
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
