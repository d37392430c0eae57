"""`marketfetch demo`: see it at work on a simulated exchange, without any network."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from pathlib import Path

from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import count
from marketfetch.cli.parsing.parser import Parser, StoreOnceAction
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import ConfigurationError

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--keep",
        metavar="FILE",
        type=Path,
        action=StoreOnceAction,
        help="keep the DuckDB file of the demonstration",
    )
    parser.add_argument(
        "--days",
        metavar="N",
        type=count,
        action=StoreOnceAction,
        default=150,
        help="how much history (default: 150)",
    )


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    signals.begin_interruptible()
    # By name: no code that is used in production may import the simulated exchange.
    try:
        demo = import_module("marketfetch.testing.demo")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"demo: needs the package {error.name}; pip install 'marketfetch[duckdb,progress,simulator]'"
        ) from error
    code: int = demo.run(days=arguments.days, keep=arguments.keep)
    return code


COMMAND = Command(
    "demo",
    "see it at work on a simulated exchange, without any network",
    _add_options,
    _run,
    ("demo --days 3",),
    has_result=False,
)
