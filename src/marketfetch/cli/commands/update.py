"""`marketfetch update`: bring everything that a store holds up to now."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_filters, add_progress, add_requests, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.parsing.query_options import add_composites, add_sources
from marketfetch.cli.signals import SignalHandler

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    which = add_filters(parser, "all that the store holds, unless some are named")
    add_composites(which)
    which.add_argument(
        "--no-gaps", dest="gaps", action="store_false", help="only what is new: leave gaps inside as they are"
    )
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.upkeep.update import Update
    from marketfetch.cli.arguments import composites_from, filters_from, progress_from
    from marketfetch.cli.pipelines import job_options
    from marketfetch.cli.reported_run import run_and_report

    listener = progress_from(arguments)
    job = Update(
        arguments.store,
        **filters_from(arguments),
        gaps=arguments.gaps,
        composites=composites_from(arguments),
        **job_options(arguments, listener),
    )
    return run_and_report(arguments, signals, job, listener)


COMMAND = Command(
    "update",
    "bring everything that a store holds up to now",
    _add_options,
    _run,
    (
        "update -t duckdb:market.duckdb --quiet",
        "update -t sqlite:market.sqlite -i 1h --no-gaps",
    ),
)
