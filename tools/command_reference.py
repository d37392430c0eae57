"""Print the reference of all commands in Markdown, from the parser: `docs/cli.md` ends with it.

python tools/command_reference.py
"""

from __future__ import annotations

import argparse

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.command_line import parsers_of
from marketfetch.cli.parsing.parser import Parser

__all__ = ["reference"]


def reference() -> str:
    """Return a section for each command: what it does, its options, and examples."""
    parsers = parsers_of(COMMANDS)[1]
    return "\n".join(_section(command, parsers[command.name]) for command in COMMANDS)


def _section(command: Command, parser: Parser) -> str:
    actions = [*dict.fromkeys(parser.actions_by_option.values())]
    options = "\n".join(_row(action) for action in actions if action.dest != "help")
    table = f"\n| option | meaning |\n|---|---|\n{options}\n" if options else ""
    examples = "\n".join(f"$ marketfetch {each}" for each in command.examples)
    shown = f"\n```console\n{examples}\n```\n" if examples else ""
    return f"### {command.name}\n\n{parser.description}\n{table}{shown}"


def _row(action: argparse.Action) -> str:
    spelt = ", ".join(f"`{option}`" for option in action.option_strings)
    value = "" if action.nargs == 0 else f" {action.metavar or ' or '.join(action.choices or ())}"
    meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
    needed = " **required**" if action.required else ""
    return f"| {spelt}{value} | {meaning}{needed} |"


if __name__ == "__main__":
    print(reference())
