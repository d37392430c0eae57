"""Runs the command of the command line; an error is printed in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.output import StdoutClosed, print_error
from marketfetch.cli.parsing.command_line import parse
from marketfetch.cli.parsing.parser import with_option_name
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import FetchError, MarketfetchError

__all__ = ["dispatch"]


def dispatch(argv: Sequence[str] | None, signals: SignalHandler) -> int:
    """Run the command that the arguments name and return the exit code."""
    with _warnings_in_lines():
        return _dispatch(argv, signals)


def _dispatch(argv: Sequence[str] | None, signals: SignalHandler) -> int:
    commands = {command.name: command for command in COMMANDS}
    arguments = None
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv, commands)
        if "board" not in arguments:
            return commands[arguments.command].run(arguments, signals)
        from marketfetch.cli.reported_run import printing_warnings  # not for `--help`

        with printing_warnings(arguments):
            return commands[arguments.command].run(arguments, signals)
    except (StdoutClosed, BrokenPipeError) as error:
        if isinstance(error, StdoutClosed) and str(error):
            print_error(str(error))
        return 1
    except MarketfetchError as error:
        message = str(error)
        if arguments is not None:
            options = arguments.parsers[arguments.command].options
            message = with_option_name(message, options, arguments.places, arguments.to)
        print_error(message)
        # Any other error of a command that sends requests is printed with its report, also with code 1.
        return 1 if isinstance(error, FetchError) else 2
    except KeyboardInterrupt:
        print_error(f"stopped by {signals.received}")
        return 1
    except Exception as error:  # noqa: BLE001  # a traceback is of no use on the command line
        from marketfetch.cli.runner import describe_crash  # with the engine: not for `--help`

        print_error(describe_crash(error))
        return 1


@contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """Print warnings of Python as errors are printed, without a place in the code.

    Example: waiting for the store, which another program has open.
    """
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: print_error(str(message))
    try:
        yield
    finally:
        warnings.showwarning = before
