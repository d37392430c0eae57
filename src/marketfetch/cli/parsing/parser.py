"""An argument parser whose error messages name options as they are typed."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import printable, redact

__all__ = ["ListAction", "Parser", "StoreOnceAction", "check_options", "with_option_name"]

_MIN_SIMILARITY = 0.75
_RENAMED = {"symbols": "--symbol", "datasets": "--dataset", "composites": "--composite", "file": "--out"}
"""Arguments of the library whose option has another name."""
_STORE = {"store", "to", "sink", "sink_url", "dsn"}
"""Names that the library has for the store, which is `--store` or, as some type it, `--to`."""


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors and without abbreviated options: scripts would come to rely on them.

    `more_help` returns text that is added to the help; it is called only when the help is shown.
    """

    def __init__(self, *, more_help: Callable[[], str] | None = None, **kwargs: Any) -> None:
        if sys.version_info >= (3, 14):
            kwargs["color"] = False  # its colours cannot be read on a light background
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=_Formatter)
        self._more_help = more_help

    @property
    def options(self) -> list[str]:
        """The long options of this parser, as they are typed."""
        return sorted(option for option in self._option_string_actions if option.startswith("--"))

    @property
    def actions_by_option(self) -> Mapping[str, argparse.Action]:
        """The actions by each of their options, short and long, as they are typed."""
        return self._option_string_actions

    @property
    def actions_by_group(self) -> Mapping[str, Sequence[argparse.Action]]:
        """The actions by the title of their group, in the order of the help."""
        groups = self._action_groups  # argparse has no public name for what is in them
        return {group.title or "": tuple(group._group_actions) for group in groups}  # noqa: SLF001

    def shorten_usage(self) -> None:
        """Show what has to be given in the usage, and leave the other options to the list below it."""
        needed = [action for action in self._actions if action.required]
        words = [
            f"{action.option_strings[0]} {action.metavar}" if action.option_strings else action.dest
            for action in needed
        ]
        usage = " ".join([self.prog, *words, "[options]"])
        self.usage = textwrap.fill(usage, 53, subsequent_indent=" " * 11, break_on_hyphens=False)

    def format_help(self) -> str:
        """Return the help with the text of `more_help`."""
        return super().format_help() + (f"\n{self._more_help()}\n" if self._more_help else "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # The value is shown only if it resembles a choice: it may be a URL with a password.
        if action.choices is not None and value not in action.choices:
            known: Iterable[str] = action.choices
            near = get_close_matches(str(value), known, n=1)
            message = f"{value!r} is unknown; did you mean {near[0]!r}?" if near else "choose one of "
            raise argparse.ArgumentError(action, message if near else message + ", ".join(known))

    def value_of(self, action: argparse.Action, text: str) -> Any:
        """Return the value that a text has for an option; ArgumentError if the text does not have one."""
        value = self._get_value(action, text)
        self._check_value(action, value)
        return value

    def parse_typed(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse what is typed; what is required and absent may come from a preset."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        arguments, _ = self.parse_known_args(words)
        for action in required:
            action.required = True
        return arguments

    def error(self, message: str) -> NoReturn:
        """Print one line and end the process with exit code 2."""
        # argparse names an option by all its spellings: -t/--store/--to
        message = re.sub(r"(?<![\w-])(?:-\w/)?(--[\w-]+)(?:/--[\w-]+)*", r"\1", message)
        self.exit(2, f"marketfetch: {printable(redact(message))} (see {self.prog} --help)\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Writes the value of an option once, after all its spellings: `-s, --symbol NAME …`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        more = " …" if action.nargs == "+" else ""
        value = action.metavar or "|".join(action.choices or ())
        return f"{', '.join(action.option_strings)} {value}{more}"


class StoreOnceAction(argparse.Action):
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


class ListAction(argparse.Action):
    """Collects the values of an option, which may be repeated, have several words, and commas in a word.

    What is typed replaces the default; a default comes from the environment or a file.
    """

    def __init__(self, *, split: bool = True, **kwargs: Any) -> None:
        super().__init__(**{"nargs": "+", "default": [], **kwargs})
        self.split = split

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the values."""
        given: dict[str, Any] = vars(namespace).setdefault("given", {})
        given[self.dest] = [*given.get(self.dest, ()), *self.separated(values)]
        setattr(namespace, self.dest, given[self.dest])

    def separated(self, values: Iterable[Any]) -> list[Any]:
        """Split text at commas; a text without a comma stays as it is, also an empty one."""
        if not self.split:
            return list(values)
        return [part.strip() for text in values for part in _parts(text)]


def _parts(text: str) -> list[str]:
    """Split at commas; a text with a credential stays whole, so that it can be refused as a whole."""
    if redact(text) != text or not text.strip(", "):
        return [text]
    return [part for part in text.split(",") if part.strip()]


def check_options(words: Sequence[str], commands: Mapping[str, Parser]) -> None:
    """Raise ConfigurationError for an option that the command does not have.

    The message has the near matches among the options of the command, or the commands that have the option.
    Call this before argparse, which would report a missing required option first. The message does not show
    text after `=`: it may be a credential.
    """
    if words[0] in {"--help", "-h", "--version", "-V"}:
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
        owners = " and ".join(filter(None, [", ".join(others[:-1]), others[-1]]))
        remedy = f"it belongs to {owners}, and {command} has {has}"
    elif near:
        remedy = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        remedy = f"see marketfetch {command} --help"
    return ConfigurationError(f"arguments: {option!r} is not an option of {command}; {remedy}")


def with_option_name(message: str, options: Iterable[str], places: Mapping[str, str], to: str) -> str:
    """Begin a message with the name of an option if it begins with the name of a library argument.

    `places` says where the value of an option is from, if it was not typed; `to` is how the option of the
    store was typed.

    >>> with_option_name("symbols: a name is empty; leave it out", ["--symbol"], {}, "--store")
    '--symbol: a name is empty; leave it out'
    >>> with_option_name("interval: ...", ["--interval"], {"--interval": "MARKETFETCH_INTERVAL"}, "--store")
    'MARKETFETCH_INTERVAL: ...'
    """
    name, colon, rest = message.partition(":")
    option = to if name in _STORE else _RENAMED.get(name, f"--{name.replace('_', '-')}")
    if name.startswith("--"):
        option = name
    if not colon or option not in options:
        return message
    return f"{places.get('--store' if option == '--to' else option, option)}{colon}{rest}"
