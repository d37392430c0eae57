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

from marketfetch.cli.parsing.parser import Parser, Several
from marketfetch.common.text import is_encodable
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import Secret, redact

__all__ = ["FILE_NAME", "PREFIX", "apply_presets", "variable_of"]

FILE_NAME = "marketfetch.toml"
PREFIX = "MARKETFETCH_"

_MOST_BYTES = 1_000_000
"""Longer than any file of presets; /dev/zero has no end."""
_NOT_PRESET = {"help", "config", "job"}
_REPLACED = {
    "symbol": {"symbols_from", "all_symbols", "quote", "delisted"},
    "symbols_from": {"symbol", "all_symbols", "quote", "delisted"},
    "all_symbols": {"symbol", "symbols_from"},
    "verbose": {"quiet", "progress"},
    "quiet": {"verbose", "progress"},
    "progress": {"quiet", "verbose"},
}
"""Options that make a preset of others meaningless: who types symbols wants those, not the preset ones."""
_YES, _NO = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_IN_FOLDER = re.compile(r"(?P<scheme>duckdb|sqlite|parquet|file):(?!//|/)(?P<path>.+)", re.DOTALL)


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
    """Make presets the defaults of a command's options; return the place of each by its option.

    An option that is typed in `words` has no preset, and one that is not `allowed` (None: all are) neither.
    Raises ConfigurationError, with the place and near matches, for a file that cannot be read, an unknown
    section, job or key, and a value that the option cannot mean. A value is not shown if it may be secret.
    """
    parser = commands[command]
    _check_variables(commands)
    actions = {name: action for name, action in parser.actions_by_option.items() if name.startswith("--")}
    decided = {"help", "config", "job"}
    for dest in _typed(parser, words):
        decided |= {dest, *_REPLACED.get(dest, ())}
    places: dict[str, str] = {}
    for layer in _layers(command, commands, words):
        replaced: set[str] = set()
        for preset in layer:
            action = actions.get(f"--{preset.key}")
            if action is None or not (allowed is None or action.dest in allowed):
                continue
            value = _value(parser, action, preset)  # checked even if it does not count this time
            if value is None or action.dest in decided:
                continue
            action.default, action.required = value, False
            option = next(each for each in action.option_strings if each.startswith("--"))
            places[option] = preset.place
            replaced |= {action.dest, *_REPLACED.get(action.dest, ())}
        decided |= replaced
    return places


def _typed(parser: Parser, words: Sequence[str]) -> set[str]:
    """Return the dests of the options that occur in words, also of short ones behind one dash."""
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
    job = typed.get("job") or os.environ.get(PREFIX + "JOB")
    path = Path(config) if config else _found()
    if path is None:
        if job:
            raise ConfigurationError(f"--job: there is no {FILE_NAME} in this folder or above it")
        return
    file, options = _File.read(path), _keys(commands)
    file.check_sections(commands)
    if job:
        jobs = file.content.get("jobs", {})
        if job not in jobs:
            raise unknown(f"--job of {path}", job, jobs)
        yield file.presets(("jobs", job), options)
    yield file.presets((command,), _keys({command: commands[command]}))
    yield file.presets(("defaults",), options)


def _keys(commands: Mapping[str, Parser]) -> set[str]:
    """Return the keys that stand for options: their long names without dashes."""
    names = {option.lstrip("-") for parser in commands.values() for option in parser.options}
    return names - _NOT_PRESET


def _found() -> Path | None:
    """Return the file in the current folder or the nearest one above it; none if that folder was removed."""
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        return None
    candidates = (each / FILE_NAME for each in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _variables() -> list[str]:
    return sorted(name for name in os.environ if name.startswith(PREFIX))


def _check_variables(commands: Mapping[str, Parser]) -> None:
    """Refuse a variable that is not text, or looks like a misspelt one; others are another program's."""
    variables = _variables()
    if not variables:
        return  # without the parsers of all commands
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
    """The text of a file and what it says."""

    path: Path
    text: str
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> _File:
        """Read a file; ConfigurationError if it cannot be read or is no TOML."""
        import tomllib

        try:
            with path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            text = content.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(f"--config: {path} cannot be read: {reason}") from None
        if len(content) > _MOST_BYTES:
            raise ConfigurationError(f"--config: {path} is longer than a megabyte; name a file of presets")
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            # It has the line and no part of the text, but for single characters.
            raise ConfigurationError(f"{path}: {error}") from None
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"{path}: a number has too many digits, or lists are nested too deeply; no option takes that"
            ) from None

    def check_sections(self, commands: Mapping[str, Parser]) -> None:
        """Raise ConfigurationError for a section that is not a table, also of a job that is not used."""
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
    r"""Return the number of the line on which a key of a section stands; None if it is written in parts.

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
    if not isinstance(action, Several):
        return _checked(parser, action, preset, preset.value)
    several = preset.value if isinstance(preset.value, list) else [preset.value]
    if preset.folder is None and action.split is False:
        several = str(preset.value).split()
    return action.separated([_checked(parser, action, preset, each) for each in several])


def _flag(preset: _Preset) -> bool:
    value = str(preset.value).lower()
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
    """Make a path in a file relative to the folder of that file, wherever the command runs.

    >>> action = argparse.Action(["--store"], "store", type=Secret)
    >>> _anchored(action, "duckdb:market.duckdb", Path("/srv/data"))
    'duckdb:/srv/data/market.duckdb'
    """
    if action.type is Path:
        return str(folder / text)
    if action.type is Secret and (found := _IN_FOLDER.fullmatch(text)):
        return f"{found['scheme']}:{folder / found['path']}"
    return text
