"""From the words of a command line to the command and its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence

from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_output
from marketfetch.cli.parsing.parser import Parser, check_options
from marketfetch.cli.parsing.presets import apply_presets
from marketfetch.common.text import is_encodable
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact

__all__ = ["parse", "parsers_of"]

_EXIT_CODES = "Exit codes: 0 all is well, 1 something is missing or\nwrong, 2 the call was wrong."
_START = """\
Start with:
  marketfetch demo
  marketfetch exchanges
  marketfetch backfill -e binance-usdm -s BTCUSDT \\
      --start 20d -t sqlite:market.sqlite
  marketfetch status -t sqlite:market.sqlite
`marketfetch help COMMAND` has its options and examples."""


def parse(words: Sequence[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    """Parse the words; an error of argparse ends the process with exit code 2.

    The result has the `command`, the `parsers` of all commands, the `places` of presets by option, and `to`,
    the option of the store as it was typed.

    Raises ConfigurationError for an unknown option, with near matches, for a word that belongs to no option,
    and for a word that is not text. The message does not repeat a stray or undecodable word: it may be part
    of a password. Of an unknown option it shows the part before `=`.
    """
    _check_text(words)
    parsers = parsers_of(commands.values())
    if not words:
        # An empty variable in a script is a wrong call, not a success.
        overview = _overview(commands)
        overview.exit(2, overview.format_help())
    if words[0] == "help":
        words = [*words[1:2], "--help", *words[2:]]
    check_options(words, parsers)
    name = words[0]
    if name not in commands:
        _overview(commands).parse_args(words)  # ends the process: the help, the version or an unknown command
    places: dict[str, str] = {}
    if commands[name].preset != frozenset() and not {"-h", "--help"} & set(words):
        places = apply_presets(name, parsers, words[1:], commands[name].preset)
    arguments, rest = parsers[name].parse_known_args(words[1:])
    if rest:
        raise _stray(rest[0], words, name)
    arguments.command, arguments.parsers, arguments.places = name, parsers, places
    arguments.to = "--to" if any(word.partition("=")[0] == "--to" for word in words) else "--store"
    return arguments


def _check_text(words: Sequence[str]) -> None:
    for place, word in enumerate(words, start=1):
        if not is_encodable(word):
            raise ConfigurationError(
                f"arguments: word {place} is not text in the encoding of this system; "
                "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            )


def _stray(stray: str, words: Sequence[str], command: str) -> ConfigurationError:
    if stray.startswith("-"):
        return ConfigurationError(
            f"arguments: {redact(stray.partition('=')[0])!r} is not an option; "
            f"see marketfetch {command} --help"
        )
    # The word itself is not shown: it may be a URL with a password.
    place = words.index(stray)
    before = [word.partition("=")[0] for word in words[:place] if word.startswith("-")]
    after = f" (after {redact(before[-1])})" if before else ""
    return ConfigurationError(
        f"arguments: word {place + 1}{after} belongs to no option; put the name of its option before it, and "
        "quotes around what has spaces; an option takes one value unless its help says 'one or more'"
    )


def parsers_of(commands: Iterable[Command]) -> Mapping[str, Parser]:
    """Return the parser of each command by its name; it is made when it is first asked for."""
    return _Parsers(commands)


class _Parsers(Mapping[str, Parser]):
    """All parsers take longer to make than the words to parse, and mostly one is needed."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._commands = {command.name: command for command in commands}
        self._made: dict[str, Parser] = {}

    def __getitem__(self, name: str) -> Parser:
        if name not in self._made:
            self._made[name] = _parser_of(self._commands[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def _parser_of(command: Command) -> Parser:
    examples = "\n".join(f"  marketfetch {each}" for each in command.examples)
    parser = Parser(
        prog=f"marketfetch {command.name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"Examples:\n{examples}" if examples else None,
        more_help=command.more_help,
    )
    command.add_options(parser)
    if command.has_result:
        add_output(parser)
    parser.shorten_usage()
    return parser


def _overview(commands: Mapping[str, Command]) -> Parser:
    """Return the parser of a command line that names no command."""
    parser = Parser(
        prog="marketfetch",
        description="Say what your store should hold; what is missing is\nfetched, and nothing else.",
        epilog=f"{_START}\n\n{_EXIT_CODES}",
    )
    parser.add_argument("-V", "--version", action=_Version)
    adder = parser.add_subparsers(dest="command", required=True, metavar="command", title="commands")
    for command in commands.values():
        adder.add_parser(command.name, help=command.summary)
    return parser


class _Version(argparse.Action):
    """Prints version and decoder; they are read when they are asked for, since reading takes long."""

    def __init__(self, **kwargs: object) -> None:
        help_text = "print the version, and which decoder works"
        super().__init__(**{"nargs": 0, "help": help_text, **kwargs})  # type: ignore[arg-type]

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print both and end the process."""
        from importlib.metadata import version

        from marketfetch.decoding.compiled import DECODER

        print(f"marketfetch {version('marketfetch')}\ndecoder: {DECODER}")  # noqa: T201
        parser.exit()
