"""Completion scripts for bash, zsh and fish, made from the parsers: commands, options, names as values."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from marketfetch.cli.parsing.names import served_names
from marketfetch.cli.parsing.parser import Parser

__all__ = ["completion_script"]


def completion_script(shell: str, parsers: Mapping[str, Parser]) -> str:
    """Return the script for a shell; it holds the names of what is installed now, and starts no process.

    >>> print(completion_script("fish", {"demo": Parser(description="See it.", add_help=False)}))
    # Completion of marketfetch for fish.
    complete -c marketfetch -f
    complete -c marketfetch -n __fish_use_subcommand -a demo -d 'See it.'
    <BLANKLINE>
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parsers)


def _actions(parser: Parser) -> list[argparse.Action]:
    """Return the actions of a parser, each once, in the order of the help."""
    return list(dict.fromkeys(parser.actions_by_option.values()))


def _values(action: argparse.Action) -> Sequence[str] | None:
    """Return the values that can be completed; empty where files are, None where nothing is known."""
    if action.nargs == 0:
        return None
    if action.choices is not None:
        return list(action.choices)
    return served_names().get(action.dest, () if action.metavar == "FILE" else None)


def _bash(parsers: Mapping[str, Parser]) -> str:
    options, values = [], []
    for name, parser in parsers.items():
        options.append(f"        {name}) words='{' '.join(parser.actions_by_option)}' ;;")
        for action in _actions(parser):
            known = _values(action)
            if known is not None:
                spelt = "|".join(f"{name}:{option}" for option in action.option_strings)
                given = f"words='{' '.join(known)}'" if known else "files=1"
                values.append(f"        {spelt}) {given} ;;")
    return f"""\
# Completion of marketfetch for bash.
_marketfetch() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} option='' words='' files='' at
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W '{" ".join(parsers)} help' -- "$current"))
        return
    fi
    if [[ $command == help ]]; then
        COMPREPLY=($(compgen -W '{" ".join(parsers)}' -- "$current"))
        return
    fi
    if [[ $command == completion ]]; then
        COMPREPLY=($(compgen -W 'bash zsh fish' -- "$current"))
        return
    fi
    for ((at = COMP_CWORD - 1; at > 1; at--)); do
        [[ ${{COMP_WORDS[at]}} == -* ]] && option=${{COMP_WORDS[at]}} && break
    done
    if [[ $current == -* ]]; then
        case $command in
{chr(10).join(options)}
        esac
    else
        case $command:$option in
{chr(10).join(values)}
        esac
    fi
    if [[ $files ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}}
complete -F _marketfetch marketfetch
"""


def _zsh(parsers: Mapping[str, Parser]) -> str:
    summaries = "\n".join(
        f"        {_quoted(f'{name}:{each.description}')}" for name, each in parsers.items()
    )
    cases = []
    for name, parser in parsers.items():
        specs = [_zsh_spec(action) for action in _actions(parser)]
        specs += ["'1:shell:(bash zsh fish)'"] if name == "completion" else []
        lines = " \\\n".join(f"            {spec}" for spec in specs)
        cases.append(f"        {name}) _arguments \\\n{lines} ;;")
    return f"""\
#compdef marketfetch
# Completion of marketfetch for zsh.
_marketfetch() {{
    local -a commands=(
{summaries}
        'help:Show the help of a command.'
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
        help) _describe command commands ;;
{chr(10).join(cases)}
    esac
}}
_marketfetch "$@"
"""


def _zsh_spec(action: argparse.Action) -> str:
    """Return the specification of an option for `_arguments`."""
    names = "{" + ",".join(action.option_strings) + "}" if len(action.option_strings) > 1 else ""
    plain = "" if names else action.option_strings[0]
    text = (
        (action.help or "").replace("[", "(").replace("]", ")").replace(":", " ").replace("%(default)s", "")
    )
    known = _values(action)
    value = "" if action.nargs == 0 else f":{action.dest}:"
    if known is not None:
        value += f"({' '.join(known)})" if known else "_files"
    return f"'*'{names}{_quoted(f'{plain}[{text}]{value}')}"


def _fish(parsers: Mapping[str, Parser]) -> str:
    lines = ["# Completion of marketfetch for fish.", "complete -c marketfetch -f"]
    for name, parser in parsers.items():
        about = _quoted(parser.description or "")
        lines.append(f"complete -c marketfetch -n __fish_use_subcommand -a {name} -d {about}")
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        for action in _actions(parser):
            spelt = " ".join(
                f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
                for option in action.option_strings
            )
            known = _values(action)
            value = "" if action.nargs == 0 else " -x" if known != () else " -r -F"
            value += f" -a {_quoted(' '.join(known))}" if known else ""
            text = _quoted((action.help or "").replace("%(default)s", str(action.default)))
            lines.append(f"complete -c marketfetch {seen} {spelt}{value} -d {text}")
        if name == "completion":
            lines.append(f"complete -c marketfetch {seen} -a 'bash zsh fish'")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    r"""Quote a text for zsh and fish.

    >>> print(_quoted("the exchange's"))
    'the exchange'\''s'
    """
    return "'" + text.replace("'", "'\\''") + "'"
