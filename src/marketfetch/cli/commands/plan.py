"""`marketfetch plan`: say what a job would request, and how long that would take."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_requests, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.parsing.query_options import add_query, add_sources, names_help
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.api.pipeline import Pipeline

__all__ = ["COMMAND", "print_plan"]


def _add_options(parser: Parser) -> None:
    add_store(parser, required=False)
    add_query(parser)
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.store_calls import warn_of_wait
    from marketfetch.cli.pipelines import pipeline_from
    from marketfetch.sinks.memory import MemorySink
    from marketfetch.sinks.urls import sink_from

    sink = MemorySink() if arguments.store is None else sink_from(arguments.store)
    return print_plan(arguments, signals, pipeline_from(arguments, sink, warn_of_wait))


def print_plan(arguments: Namespace, signals: SignalHandler, pipeline: Pipeline) -> int:
    """Print the plan of a pipeline; return the exit code, 1 if a symbol is unknown."""
    from marketfetch.api.run_sync import run_sync
    from marketfetch.cli.plan_view import plan_page

    signals.begin_interruptible()
    plan = run_sync(pipeline.plan)
    signals.begin_final_phase()
    print_result(arguments, plan.as_dict(), lambda: plan_page(plan))
    return 1 if plan.unknown else 0


COMMAND = Command(
    "plan",
    "say what a job would request, and how long it would take",
    _add_options,
    _run,
    (
        "plan -e okx --all-symbols --quote USDT \\\n      --start 2026-01-01",
        "plan -e binance-usdm -s BTCUSDT --start 1y \\\n      -i 1h -t duckdb:market.duckdb",
        "plan --job daily --json",
    ),
    more_help=names_help,
)
