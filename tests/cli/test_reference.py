"""The page about the command line says what the parser says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.parsing.command_line import parse
from tools.command_reference import reference

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")


def test_the_page_ends_with_the_reference_of_the_parser() -> None:
    stored = PAGE.rpartition("## Commands\n")[2].strip()
    assert stored == reference().strip(), "write the output of tools/command_reference.py into docs/cli.md"


@pytest.mark.parametrize(
    "example", [example for command in COMMANDS for example in command.examples if "--job" not in example]
)
def test_every_example_of_the_help_is_a_right_call(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example.replace("\\\n", ""))
    assert parse(words, {command.name: command for command in COMMANDS}).command == words[0]
