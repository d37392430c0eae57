"""The reference of all commands in Markdown, from the parser.

python -m tools.docs.command_reference
"""

from __future__ import annotations

import argparse

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.command_line import parsers_of
from marketfetch.cli.parsing.parser import Parser

__all__ = ["reference"]

_START = """\
# Command reference

Every command with every option, as `marketfetch help COMMAND` has them. [Command line](../cli.md) explains
presets, progress and exit codes.
"""


def reference() -> str:
    """Return the page: a section for each command, with what it does, its options, and examples."""
    parsers = parsers_of(COMMANDS)
    overview = "\n".join(f"| [`{each.name}`](#{each.name}) | {each.summary} |" for each in COMMANDS)
    sections = [_section(command, parsers[command.name]) for command in COMMANDS]
    return "\n".join((_START, f"| command | what it does |\n|---|---|\n{overview}\n", *sections))


def _section(command: Command, parser: Parser) -> str:
    parts = [f"## {command.name}", parser.description or ""]
    if command.examples:
        examples = "\n".join(f"$ marketfetch {each}" for each in command.examples)
        parts.append(f"```console\n{examples}\n```")
    for title, actions in parser.actions_by_group.items():
        rows = [_row(each) for each in actions if each.dest != "help"]
        if rows:
            parts.append(
                "\n".join((f"| {title.removeprefix('positional ')} | meaning |", "|---|---|", *rows))
            )
    return "\n\n".join(parts) + "\n"


def _row(action: argparse.Action) -> str:
    spelt = ", ".join(f"`{option}`" for option in action.option_strings or (action.dest,))
    value = (
        ""
        if action.nargs == 0 or not action.option_strings
        else f" {action.metavar or ' or '.join(action.choices or ())}"
    )
    meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
    needed = " **required**" if action.required and action.option_strings else ""
    return f"| {spelt}{value} | {meaning}{needed} |"


if __name__ == "__main__":
    print(reference())
