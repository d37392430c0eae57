"""`marketfetch export`: write rows of a store into a file."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result, stdout_errors
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_filters, add_span, add_store
from marketfetch.cli.parsing.parser import Parser, StoreOnceAction
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import ConfigurationError

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_filters(parser, "all of the dataset, unless some are named")
    rows = parser.add_argument_group("which rows of them")
    add_span(rows)
    file = parser.add_argument_group("the file")
    file.add_argument(
        *("-o", "--out"),
        metavar="FILE",
        action=StoreOnceAction,
        required=True,
        help="its suffix says the format: .csv, .parquet, .arrow or .feather; - is CSV on standard output",
    )
    file.add_argument(
        "--format",
        action=StoreOnceAction,
        choices=("csv", "parquet", "arrow"),
        help="the format, whatever the suffix",
    )
    file.add_argument(
        "--times",
        action=StoreOnceAction,
        choices=("iso", "ms"),
        default="iso",
        help="times in CSV: ISO text in UTC, or UTC milliseconds (default: %(default)s)",
    )
    file.add_argument("--force", action="store_true", help="replace a file that exists")


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    import sys

    from marketfetch.api.upkeep.export import export
    from marketfetch.cli.arguments import filters_from
    from marketfetch.cli.maintenance_view import export_page

    filters = filters_from(arguments)
    datasets = filters.pop("datasets") or ["ohlcv"]
    if len(datasets) > 1:
        raise ConfigurationError(f"dataset: a file holds one, not {len(datasets)}; call export once for each")
    to_stdout = arguments.out == "-"
    if to_stdout and arguments.json:
        raise ConfigurationError("json: the rows go to standard output; leave it out, or name a file")
    if to_stdout and arguments.format not in {None, "csv"}:
        raise ConfigurationError(f"format: {arguments.format} needs a file; standard output gets csv")
    signals.begin_interruptible()
    with stdout_errors():
        exported = export(
            arguments.store,
            sys.stdout.buffer if to_stdout else arguments.out,
            datasets[0],
            **filters,
            start=arguments.start,
            end=arguments.end,
            format=arguments.format,
            times=arguments.times,
            overwrite=arguments.force,
        )
    signals.begin_final_phase()
    if not to_stdout:
        print_result(
            arguments,
            exported.as_dict() | {"file": arguments.out},
            lambda: export_page(exported, arguments.out),
        )
    return 0 if exported.complete else 1


COMMAND = Command(
    "export",
    "write rows of a store into a CSV, Parquet or Arrow file",
    _add_options,
    _run,
    (
        "export -t duckdb:market.duckdb -s BTCUSDT \\\n      -i 1h --start 2026-01-01 -o btc.parquet",
        "export -t sqlite:market.sqlite -s ETHUSDT -o -",
    ),
)
