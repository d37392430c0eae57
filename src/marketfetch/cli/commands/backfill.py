"""`marketfetch backfill`: fetch what a store lacks."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_exchange, add_progress, add_requests, add_store
from marketfetch.cli.parsing.parser import Once, Parser, Several
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.api.pipeline import Pipeline
    from marketfetch.cli.runner import RunResult

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    _add_query(parser)
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    how.add_argument(
        "--sources",
        action=Once,
        choices=("auto", "rest", "archive"),
        default="auto",
        help="rest asks the API, archive reads public files of the exchange, auto takes files where that is "
        "sooner (default: %(default)s)",
    )
    how.add_argument(
        "--unusable",
        metavar="POLICY",
        action=Once,
        choices=("keep", "store", "retry"),
        default="keep",
        help="wrong rows of the exchange: keep (note them beside the ledger, not in the table), store (write "
        "them to the table) or retry (request them again; default: %(default)s)",
    )
    how.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="say what is missing, fetch no rows and write nothing: asks for the listing alone",
    )
    add_progress(parser)


def _add_query(parser: Parser) -> None:
    what = parser.add_argument_group("what the store should hold")
    add_exchange(what)
    what.add_argument("-s", "--symbol", metavar="NAME", action=Several, help="one or more, also BTC,ETH")
    what.add_argument(
        "--symbols-from", metavar="FILE", action=Once, type=Path, help="a file with one symbol per line"
    )
    what.add_argument("--all-symbols", action="store_true", help="all that are traded now")
    what.add_argument(
        "--quote", metavar="NAME", action=Once, help="with --all-symbols: only those of this quote currency"
    )
    what.add_argument(
        "--delisted", action="store_true", help="with --all-symbols: also those that only the archive has"
    )
    what.add_argument(
        "-d",
        "--dataset",
        metavar="NAME",
        action=Several,
        default=["ohlcv"],
        help="one or more (default: ohlcv)",
    )
    what.add_argument(
        "-i", "--interval", metavar="NAME", action=Once, default="1m", help="such as 1h (default: 1m)"
    )
    what.add_argument(
        "--start", metavar="TIME", action=Once, required=True, help="2026-06-01, 2026-06-01T12:00Z or 20d"
    )
    what.add_argument(
        "--end", metavar="TIME", action=Once, default="now", help="likewise, exclusive (default: now)"
    )
    what.add_argument(
        "--composite",
        metavar="NAME=A,B,…",
        action=Several,
        split=False,
        help="a symbol derived from others: mean of their prices, sum of their volumes; one or more",
    )


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from contextlib import nullcontext

    import anyio

    from marketfetch.api.pipeline import Pipeline
    from marketfetch.api.plugins import exchange_from
    from marketfetch.cli.arguments import heartbeat_from, pool_from, progress_from, query_from
    from marketfetch.cli.runner import run_with_signals
    from marketfetch.common.local_resources import naming_exhaustion
    from marketfetch.fetchers.curl import CurlFetcher
    from marketfetch.sinks.memory import MemorySink
    from marketfetch.sinks.urls import sink_from
    from marketfetch.values.settings import Settings

    listener, sink = progress_from(arguments), sink_from(arguments.store)
    pipeline = Pipeline(
        exchange_from(arguments.exchange, arguments.base_url, arguments.archive_url),
        query_from(arguments),
        sink,
        proxies=pool_from(arguments),
        fetcher=CurlFetcher(certificate=arguments.certificate),
        settings=Settings(
            concurrency=arguments.concurrency or Settings().concurrency,
            heartbeat=heartbeat_from(arguments),
            unusable=arguments.unusable,
        ),
        listeners=[listener] if listener else [],
        board=arguments.board,
    )
    if arguments.dry_run:
        return _dry_run(arguments, signals, pipeline)
    with listener or nullcontext(), naming_exhaustion():
        result = anyio.run(partial(run_with_signals, pipeline, signals, partial(_print_report, arguments)))
    signals.finish()
    if isinstance(sink, MemorySink):
        print_error("store: memory: is empty again when this command ends; name a file to keep the rows")
    return _print_report(arguments, result)


def _dry_run(arguments: Namespace, signals: SignalHandler, pipeline: Pipeline) -> int:
    from marketfetch.api.run_sync import run_sync
    from marketfetch.cli.preview_view import preview_as_dict, preview_page

    signals.interrupt()
    preview = run_sync(pipeline.preview)
    signals.finish()
    print_result(arguments, preview_as_dict(preview), lambda: preview_page(preview))
    return 1 if preview.unknown else 0


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


def _names() -> str:
    """Return the names that options take; they are looked up when the help is shown."""
    from marketfetch.cli.documents import wrapped
    from marketfetch.cli.parsing.names import served_names

    names = served_names()
    return "\n".join(
        wrapped(f"{title}: {', '.join(names[dest])}", indent="  ")
        for title, dest in (("Exchanges", "exchange"), ("Datasets", "dataset"), ("Intervals", "interval"))
    )


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
    more_help=_names,
)
