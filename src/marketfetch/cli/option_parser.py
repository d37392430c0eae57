"""An argument parser whose error messages name options as they are typed."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import printable, redact

__all__ = ["Once", "Parser", "check_options", "with_option_name"]

_MIN_SIMILARITY = 0.75
_RENAMED = {
    "symbols": "--symbol",
    "datasets": "--dataset",
    "composites": "--composite",
    "store": "--to",
    "sink": "--to",
}
"""Arguments of the library whose option has another name."""


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors and without abbreviated options: scripts would come to rely on them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)

    @property
    def options(self) -> list[str]:
        """The long options of this parser, as they are typed."""
        return sorted(option for option in self._option_string_actions if option.startswith("--"))

    def given(self, arguments: argparse.Namespace) -> list[str]:
        """Return the long options whose values are not the defaults."""
        return [
            action.option_strings[-1]
            for action in self._actions
            if action.option_strings and getattr(arguments, action.dest, action.default) != action.default
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # The value is shown only if it resembles a choice: it may be a URL with a password.
        if action.choices is not None and value not in action.choices:
            known: Iterable[str] = action.choices
            near = get_close_matches(str(value), known, n=1)
            message = f"{value!r} is unknown; did you mean {near[0]!r}?" if near else "choose one of "
            raise argparse.ArgumentError(action, message if near else message + ", ".join(known))

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process with exit code 2."""
        self.exit(2, f"marketfetch: {printable(redact(message))} (see {self.prog} --help)\n")


class Once(argparse.Action):
    """Keeps the value of an option and refuses a second, other value, which would replace it silently."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value."""
        given: dict[str, Any] = vars(namespace).setdefault("given", {})
        if given.setdefault(self.dest, values) != values:
            raise argparse.ArgumentError(self, "is given twice, and only one can count; write it once")
        setattr(namespace, self.dest, values)


def check_options(words: Sequence[str], commands: Mapping[str, Parser]) -> None:
    """Raise ConfigurationError for an option that the command does not have.

    The message has the near matches among the options of the command, or the commands that have the option.
    Call this before argparse, which would report a missing required option first. The message does not show
    text after `=`: it may be a credential.
    """
    if not words or words[0] in {"--help", "-h", "--version"}:
        return
    if words[0].startswith("-"):
        names = ", ".join(commands)
        raise ConfigurationError(f"arguments: options come after the command, which is one of {names}")
    parser = commands.get(words[0])
    if parser is None:
        return
    for word in words[1:]:
        if word == "--":
            return
        option = word.partition("=")[0]
        if option.startswith("--") and " " not in option and option not in parser.options:
            raise _unknown_option(words[0], option, commands)


def _unknown_option(command: str, option: str, commands: Mapping[str, Parser]) -> ConfigurationError:
    known = commands[command].options
    near = get_close_matches(option, known, n=3, cutoff=_MIN_SIMILARITY)
    others = [name for name, parser in commands.items() if option in parser.options]
    if others:
        has = ", ".join(name for name in known if name != "--help")
        remedy = f"it belongs to {' and '.join(others)}, and {command} has {has}"
    elif near:
        remedy = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        remedy = f"see marketfetch {command} --help"
    return ConfigurationError(f"arguments: {option!r} is no option of {command}; {remedy}")


def with_option_name(message: str, options: Iterable[str]) -> str:
    """Begin a message with the name of an option if it begins with the name of a library argument.

    >>> with_option_name("symbols: an empty name is none; leave it out", ["--symbol"])
    '--symbol: an empty name is none; leave it out'
    """
    name, colon, rest = message.partition(":")
    option = _RENAMED.get(name, f"--{name.replace('_', '-')}")
    return f"{option}{colon}{rest}" if colon and option in options else message
