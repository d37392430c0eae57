"""`marketfetch backfill`: fetch what a store lacks."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from marketfetch.cli.commands.plan import print_plan
from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_progress, add_requests, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.parsing.query_options import add_query, add_sources, names_help
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.cli.runner import RunResult

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_query(parser)
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)
    how.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="print the plan of this job, as `marketfetch plan` does, and fetch nothing",
    )
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from contextlib import nullcontext

    import anyio

    from marketfetch.cli.arguments import progress_from
    from marketfetch.cli.pipelines import pipeline_from
    from marketfetch.cli.runner import run_with_signals
    from marketfetch.common.local_resources import naming_exhaustion
    from marketfetch.sinks.memory import MemorySink
    from marketfetch.sinks.urls import sink_from

    listener, sink = progress_from(arguments), sink_from(arguments.store)
    pipeline = pipeline_from(arguments, sink, listener)
    if arguments.dry_run:
        return print_plan(arguments, signals, pipeline)
    with listener or nullcontext(), naming_exhaustion():
        result = anyio.run(partial(run_with_signals, pipeline, signals, partial(_print_report, arguments)))
    signals.finish()
    if isinstance(sink, MemorySink):
        print_error("store: memory: is empty again when this command ends; name a file to keep the rows")
    return _print_report(arguments, result)


def _print_report(arguments: Namespace, result: RunResult) -> int:
    """Print the report and the message of what ended the run early; return the exit code."""
    from marketfetch.cli.report_view import report_page

    complete = result.report.complete and not result.message
    try:
        if arguments.json or not (arguments.quiet and complete):
            print_result(arguments, result.report.as_dict(), lambda: report_page(result.report))
    finally:
        if result.defect is not None and arguments.verbose:
            from traceback import format_exception

            from marketfetch.redaction import printable, redact

            sys.stderr.write(printable(redact("".join(format_exception(result.defect))), keep="\n"))
        if result.message:
            print_error(result.message)
    return 0 if complete else 1


COMMAND = Command(
    "backfill",
    "fetch what a store lacks",
    _add_options,
    _run,
    (
        "backfill -e binance-usdm -s BTCUSDT ETHUSDT \\\n      -i 1h --start 20d -t duckdb:market.duckdb",
        "backfill -e okx --all-symbols --quote USDT \\\n      --start 2026-01-01 -t sqlite:market.sqlite",
        "backfill --job daily --dry-run",
    ),
    more_help=names_help,
)
