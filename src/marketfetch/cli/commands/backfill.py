"""`marketfetch backfill`: fetch what a store lacks."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.commands.plan import print_plan
from marketfetch.cli.output import print_error
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_progress, add_requests, add_store
from marketfetch.cli.parsing.parser import Parser, StoreOnceAction
from marketfetch.cli.parsing.query_options import add_query, add_sources, names_help
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_query(parser)
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)
    how.add_argument(
        "--dask",
        metavar="ADDRESS",
        action=StoreOnceAction,
        help="let every worker of a Dask cluster take part, such as tcp://scheduler:8786",
    )
    how.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="print the plan of this job, as `marketfetch plan` does, and fetch nothing",
    )
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.cli.arguments import progress_from
    from marketfetch.cli.pipelines import pipeline_from
    from marketfetch.cli.reported_run import run_and_report
    from marketfetch.sinks.memory import MemorySink
    from marketfetch.sinks.urls import sink_from

    listener, sink = progress_from(arguments), sink_from(arguments.store)
    pipeline = pipeline_from(arguments, sink, listener)
    if arguments.dry_run:
        return print_plan(arguments, signals, pipeline)
    if arguments.dask is not None:
        from marketfetch.cli.cluster import run_on_cluster

        return run_on_cluster(arguments, signals, listener)
    code = run_and_report(arguments, signals, pipeline, listener)
    if isinstance(sink, MemorySink):
        print_error("store: memory: is empty again when this command ends; name a file to keep the rows")
    return code


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
