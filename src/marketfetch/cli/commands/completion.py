"""`marketfetch completion`: print the script by which a shell completes commands, options and names."""

from __future__ import annotations

import sys
from argparse import Namespace

from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]

_INSTALL = """\
To use it now and in every new shell:
  bash  marketfetch completion bash \\
            > ~/.local/share/bash-completion/completions/marketfetch
  zsh   marketfetch completion zsh > ~/.zfunc/_marketfetch
        (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)
  fish  marketfetch completion fish \\
            > ~/.config/fish/completions/marketfetch.fish"""


def _add_options(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.cli.output import stdout_errors
    from marketfetch.cli.parsing.completion import completion_script

    signals.begin_interruptible()
    script = completion_script(arguments.shell, arguments.parsers)
    with stdout_errors():
        sys.stdout.write(script)
    return 0


COMMAND = Command(
    "completion",
    "print the script by which bash, zsh or fish completes words",
    _add_options,
    _run,
    preset=frozenset(),
    has_result=False,
    more_help=lambda: _INSTALL,
)
