"""`marketfetch refetch`: fetch again what a store holds, and say what has changed."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import (
    PROGRESS,
    REQUESTS,
    add_chosen_span,
    add_progress,
    add_requests,
    add_store,
)
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.parsing.query_options import add_composites, add_sources
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.cli.documents import Document
    from marketfetch.reports import Report

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    what = add_chosen_span(parser, "what is fetched again of them")
    add_composites(what)
    what.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would be fetched again, change nothing"
    )
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.upkeep.refetch import Refetch, RefetchResult
    from marketfetch.cli.arguments import chosen_from, composites_from, progress_from
    from marketfetch.cli.maintenance_view import refetched_page
    from marketfetch.cli.pipelines import job_options
    from marketfetch.cli.reported_run import run_and_report

    chosen, listener = chosen_from(arguments), progress_from(arguments)
    if arguments.dry_run:
        return _dry_run(arguments, signals)
    job = Refetch(
        arguments.store,
        **chosen,
        composites=composites_from(arguments),
        **job_options(arguments, listener),
    )

    def shown(report: Report) -> tuple[object, Document]:
        done = RefetchResult(report, job.changes)
        return done.as_dict(), refetched_page(done)

    return run_and_report(arguments, signals, job, listener, shown)


def _dry_run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.maintenance import forget
    from marketfetch.cli.arguments import chosen_from
    from marketfetch.cli.maintenance_view import forgotten_as_list, forgotten_page

    signals.begin_interruptible()
    spans = forget(arguments.store, **chosen_from(arguments), dry_run=True)
    signals.begin_final_phase()
    print_result(
        arguments, forgotten_as_list(spans), lambda: forgotten_page("Would fetch again spans", spans)
    )
    return 0


COMMAND = Command(
    "refetch",
    "fetch again what a store holds, and say what changed",
    _add_options,
    _run,
    (
        "refetch -t sqlite:market.sqlite -s BTCUSDT \\\n      --start 2026-06-01 --end 2026-06-02 --dry-run",
        "refetch -t duckdb:market.duckdb -e okx \\\n      -d ohlcv --start 2d",
    ),
    # What is fetched again has to be typed.
    preset=frozenset({"store", "json", "dry_run", "composite", "sources", "unusable"}) | REQUESTS | PROGRESS,
)
