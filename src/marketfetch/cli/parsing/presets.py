"""Presets of options: `marketfetch.toml` and the environment.

    option  >  MARKETFETCH_…  >  [jobs.NAME]  >  [COMMAND]  >  [defaults]  >  default

A preset is checked as the option itself is; an error names its place: file, line and key, or the variable.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from marketfetch.cli.parsing.parser import ListAction, Parser
from marketfetch.common.text import file_error_reason, is_encodable
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import Secret, redact

__all__ = ["FILE_NAME", "PREFIX", "apply_presets", "variable_of"]

FILE_NAME = "marketfetch.toml"
PREFIX = "MARKETFETCH_"

_MAX_BYTES = 1_000_000
"""What is read of a file at most: `--config` may name something without an end, such as /dev/zero."""
_NOT_PRESET = {"help", "config", "job"}
_OF_ALL_SYMBOLS = {"quote", "kind", "delisted"}
_CANCELLED = {
    "symbol": {"symbols_from", "all_symbols", *_OF_ALL_SYMBOLS},
    "symbols_from": {"symbol", "all_symbols", *_OF_ALL_SYMBOLS},
    "all_symbols": {"symbol", "symbols_from"},
    "verbose": {"quiet", "progress"},
    "quiet": {"verbose", "progress"},
    "progress": {"quiet", "verbose"},
}
"""For each option those whose presets it cancels: `--symbol BTC` cancels `all-symbols = true` of a file."""
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_RELATIVE = re.compile(r"(?P<scheme>duckdb|sqlite|parquet|file):(?!/)(?P<path>.+)", re.DOTALL)


class _Preset(NamedTuple):
    """The value of a key, and its place for messages; `folder` is that of the file, None for a variable."""

    key: str
    value: Any
    place: str
    folder: Path | None = None


def variable_of(option: str) -> str:
    """Return the environment variable of an option.

    >>> variable_of("--base-url")
    'MARKETFETCH_BASE_URL'
    """
    return PREFIX + option.lstrip("-").replace("-", "_").upper()


def apply_presets(
    command: str,
    commands: Mapping[str, Parser],
    words: Sequence[str],
    allowed: frozenset[str] | None,
) -> dict[str, str]:
    """Make presets the defaults of a command's options; return by option where its preset was found.

    Example: {"--start": "marketfetch.toml, line 3, start"}. A preset does not count if the option is typed in
    `words`, or is not in `allowed`; None allows all options.

    Raises ConfigurationError for a file that cannot be read, an unknown section, job or key, a variable with
    a misspelt name, and a value that the option does not take. The message names the place, and similar
    names. A value is not shown if it may be secret.
    """
    parser = commands[command]
    _check_variables(commands)
    actions = {name: action for name, action in parser.actions_by_option.items() if name.startswith("--")}
    decided = set(_NOT_PRESET)
    for dest in _typed(parser, words):
        decided |= {dest, *_CANCELLED.get(dest, ())}
    places: dict[str, str] = {}
    for layer in _layers(command, commands, words):
        replaced: set[str] = set()
        for preset in layer:
            action = actions.get(f"--{preset.key}")
            if action is None or not (allowed is None or action.dest in allowed):
                continue
            value = _value(parser, action, preset)  # checked also if another one counts
            if action.dest in decided:
                continue
            if value is None:  # a flag that is off: it stays off if a lower layer switches it on
                replaced |= {action.dest, *(_OF_ALL_SYMBOLS if action.dest == "all_symbols" else ())}
                continue
            action.default, action.required = value, False
            option = next(each for each in action.option_strings if each.startswith("--"))
            places[option] = preset.place
            replaced |= {action.dest, *_CANCELLED.get(action.dest, ())}
        decided |= replaced
    return places


def _typed(parser: Parser, words: Sequence[str]) -> set[str]:
    """Return the dests of the options that occur in words; `-qv` counts as `-q` and `-v`."""
    found: set[str] = set()
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            names = [word.partition("=")[0]]
        elif word.startswith("-"):
            names = []
            for letter in word[1:]:
                names.append(f"-{letter}")
                action = parser.actions_by_option.get(names[-1])
                if action is None or action.nargs != 0:
                    break  # the rest is its value
        else:
            continue
        known = (parser.actions_by_option.get(name) for name in names)
        found |= {action.dest for action in known if action is not None}
    return found


def _layers(
    command: str, commands: Mapping[str, Parser], words: Sequence[str]
) -> Iterator[Sequence[_Preset]]:
    """Yield the presets, the most important layer first."""
    if _variables():
        yield [
            _Preset(key, os.environ[name], name)
            for key in sorted(_keys(commands))
            if os.environ.get(name := variable_of(key))
        ]
    typed = vars(commands[command].parse_typed(words))
    config = typed.get("config") or os.environ.get(PREFIX + "CONFIG")
    job = typed.get("job")
    if job is None:  # an empty name that is typed is a mistake, an empty variable is none
        job = os.environ.get(PREFIX + "JOB") or None
    path = Path(config) if config else _found()
    if path is None:
        if job is not None:
            raise ConfigurationError(f"--job: there is no {FILE_NAME} in this folder or above it")
        return
    file, options = _File.read(path), _keys(commands)
    file.check_sections(commands)
    if job is not None:
        jobs = file.content.get("jobs", {})
        if job not in jobs:
            raise unknown(f"--job of {path}", job, jobs)
        yield file.presets(("jobs", job), options)
    yield file.presets((command,), _keys({command: commands[command]}))
    yield file.presets(("defaults",), options)


def _keys(commands: Mapping[str, Parser]) -> set[str]:
    """Return the keys that stand for options: their long names without the first two dashes."""
    names = {option.lstrip("-") for parser in commands.values() for option in parser.options}
    return names - _NOT_PRESET


def _found() -> Path | None:
    """Return the file in the current folder or the nearest one above it.

    Returns None if there is no such file, or if the current folder was removed.
    """
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        return None
    candidates = (each / FILE_NAME for each in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _variables() -> list[str]:
    return sorted(name for name in os.environ if name.startswith(PREFIX))


def _check_variables(commands: Mapping[str, Parser]) -> None:
    """Refuse a variable that is not text, and a variable with a misspelt name, such as MARKETFETCH_STOR.

    Any other variable may belong to another program.
    """
    variables = _variables()
    if not variables:
        return  # the names of all variables would need the parsers of all commands
    known = {variable_of(key).removeprefix(PREFIX) for key in _keys(commands)} | {"CONFIG", "JOB"}
    for name in variables:
        rest = name.removeprefix(PREFIX)
        if rest in known and not is_encodable(os.environ[name]):
            raise ConfigurationError(
                f"{name}: is not text in the encoding of this system; set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            )
        if rest not in known and (near := get_close_matches(rest, known, n=2, cutoff=0.75)):
            meant = " or ".join(f"{PREFIX}{each}" for each in near)
            raise ConfigurationError(
                f"environment: {name} is no variable of marketfetch; did you mean {meant}?"
            )


class _File(NamedTuple):
    """The text of a TOML file, and its content."""

    path: Path
    text: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> _File:
        """Read a file; ConfigurationError if it cannot be read or is no TOML."""
        import tomllib

        try:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
            text = content.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"--config: {path} cannot be read: {file_error_reason(error)}") from None
        if len(content) > _MAX_BYTES:
            raise ConfigurationError(f"--config: {path} is longer than a megabyte; name a file of presets")
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            # The message has the line, and at most one character of the text: no secret.
            raise ConfigurationError(f"{path}: {error}") from None
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"{path}: a number has too many digits, or lists are nested too deeply; no option takes that"
            ) from None

    def check_sections(self, commands: Mapping[str, Parser]) -> None:
        """Check all sections, also those of jobs that are not used this time.

        Raises ConfigurationError for an unknown section or key, and for a section that is not a table.
        """
        sections = ("defaults", "jobs", *commands)
        for name, section in self.content.items():
            if name not in sections:
                raise unknown(self.place((), name), name, sections, "is not a section")
            tables = section.items() if name == "jobs" and isinstance(section, dict) else [(name, section)]
            for title, table in tables:
                if not isinstance(table, dict):
                    raise ConfigurationError(
                        f"{self.place((), name)}: {title} is a value; begin a section with [{name}"
                        f"{'.NAME' if name == 'jobs' else ''}]"
                    )
                of = _keys({name: commands[name]} if name in commands else commands)
                self.presets(("jobs", title) if name == "jobs" else (title,), of)

    def presets(self, section: tuple[str, ...], keys: set[str]) -> Sequence[_Preset]:
        """Return the presets of a section; ConfigurationError for a key that is not an option."""
        table: Any = self.content
        for name in section:
            table = table.get(name, {})
        presets = []
        for written, value in table.items():
            key, place = written.replace("_", "-"), self.place(section, written)
            if key not in keys:
                raise unknown(place, written, keys, "is not an option")
            presets.append(_Preset(key, value, place, self.path.parent))
        return presets

    def place(self, section: tuple[str, ...], key: str) -> str:
        """Name the place of a key for messages: file, line and key."""
        line = _line_of(self.text, section, key)
        return f"{self.path}{f', line {line}' if line else ''}, {key}"


def _line_of(text: str, section: tuple[str, ...], key: str) -> int | None:
    r"""Return the number of the line of a key; None if it is not found, such as `jobs.daily.interval = "1d"`.

    >>> _line_of("[jobs.daily]\n\ninterval = '1d'", ("jobs", "daily"), "interval")
    3
    """
    current: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?", line):
            current = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if not section and current[0] == key:
                return number
        elif current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return None


def _value(parser: Parser, action: argparse.Action, preset: _Preset) -> Any:
    """Return the value of an option, checked as if it were typed; None for a flag that is off."""
    if action.nargs == 0:
        return action.const if _flag(preset) else None
    if not isinstance(action, ListAction):
        return _checked(parser, action, preset, preset.value)
    several = preset.value if isinstance(preset.value, list) else [preset.value]
    if preset.folder is None and action.split is False:
        several = str(preset.value).split()  # MARKETFETCH_COMPOSITE="A=B,C D=E,F"
    return action.separated([_checked(parser, action, preset, each) for each in several])


def _flag(preset: _Preset) -> bool:
    value = str(preset.value).lower()
    # A number in a file is refused; a text may also say yes, on or 1.
    if value not in _YES | _NO or isinstance(preset.value, int | float) is not isinstance(preset.value, bool):
        raise ConfigurationError(f"{preset.place}: is switched on or off; write true or false")
    return value in _YES


def _checked(parser: Parser, action: argparse.Action, preset: _Preset, value: Any) -> Any:
    if isinstance(value, bool | dict | list | time):
        kind = "several values" if isinstance(value, list) else f"of type {type(value).__name__}"
        raise ConfigurationError(f"{preset.place}: what was found is {kind}; write one text or number")
    text = value.isoformat() if isinstance(value, date | datetime) else str(value)
    if preset.folder is not None:
        text = _anchored(action, text, preset.folder)
    try:
        return parser.value_of(action, text)
    except argparse.ArgumentError as error:
        raise ConfigurationError(f"{preset.place}: {redact(error.message)}") from None


def _anchored(action: argparse.Action, text: str, folder: Path) -> str:
    """Join a relative path of a file to the folder of that file, wherever the command runs.

    >>> action = argparse.Action(["--store"], "store", type=Secret)
    >>> _anchored(action, "duckdb:market.duckdb", Path("/srv/data"))
    'duckdb:/srv/data/market.duckdb'
    """
    if action.type is Path or (action.dest == "out" and text != "-"):
        return str(folder / text)
    if action.type is Secret and (found := _RELATIVE.fullmatch(text)):
        return f"{found['scheme']}:{folder / found['path']}"
    return text
