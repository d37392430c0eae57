"""What the commands of the command line do: each takes its arguments and returns the exit code."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from importlib import import_module

import anyio
import orjson

from marketfetch.engine.query import Settings
from marketfetch.errors import ConfigurationError
from marketfetch.face.arguments import parse, pool_from, query_from
from marketfetch.face.logs import LogListener, log_to_console
from marketfetch.face.output import complain, say
from marketfetch.face.pipeline import Pipeline
from marketfetch.face.plugins import exchange_from
from marketfetch.face.progress import Progress, progress_to
from marketfetch.face.rendering import coverage_page, holes, ledger_as_list, report_page, show
from marketfetch.face.stopping import Outcome, run_until_stopped
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Store
from marketfetch.sinks.urls import sink_from

__all__ = ["perform"]


def perform(argv: Sequence[str] | None) -> int:
    """Do what the arguments say and return the exit code.

    Raises MarketfetchError as long as nothing was sent; later it is told beside the report.
    """
    commands = {"backfill": _backfill, "coverage": _coverage, "demo": _demo}
    arguments = parse(argv)
    return commands[arguments.command](arguments)


def _backfill(arguments: Namespace) -> int:
    watcher = _watcher(arguments)
    pipeline = Pipeline(
        exchange_from(arguments.exchange, arguments.base_url),
        query_from(arguments),
        sink_from(arguments.to),
        proxies=pool_from(arguments),
        fetcher=CurlFetcher(certificate=arguments.certificate),
        settings=Settings(concurrency=arguments.concurrency, heartbeat=_heartbeat(arguments)),
        listeners=[watcher],
    )

    def give_up(outcome: Outcome) -> None:
        """End the process although a thread of it hangs, which an orderly exit would wait for."""
        watcher.__exit__(None, None, None)
        code = _tell(outcome, json=arguments.json)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    with watcher:
        outcome = anyio.run(partial(run_until_stopped, pipeline, give_up))
    return _tell(outcome, json=arguments.json)


def _watcher(arguments: Namespace) -> Progress:
    if not arguments.verbose:
        return progress_to(sys.stderr)
    log_to_console("DEBUG")
    return LogListener()


def _heartbeat(arguments: Namespace) -> float:
    usual = 1.0 if sys.stderr.isatty() else 10.0  # a picture may change often, lines may not
    return arguments.heartbeat or usual


def _tell(outcome: Outcome, *, json: bool) -> int:
    """Print the report and what ended the run early; return the exit code."""
    if json:
        say(orjson.dumps(outcome.report.as_dict()).decode())
    else:
        show(report_page(outcome.report), sys.stdout)
    if outcome.trouble:
        complain(outcome.trouble)
    return 0 if outcome.report.complete and not outcome.trouble else 1


def _coverage(arguments: Namespace) -> int:
    store = sink_from(arguments.to)
    if not isinstance(store, Store):
        raise ConfigurationError(f"to: {type(store).__name__} does not know what it holds; name a database")
    ledger = store.ledger()
    if not ledger:
        raise ConfigurationError(f"to: {arguments.to} holds nothing yet; `marketfetch backfill` fills it")
    if arguments.json:
        say(orjson.dumps(ledger_as_list(ledger)).decode())
    else:
        show(coverage_page(ledger), sys.stdout)
    return 1 if any(map(holes, ledger.values())) else 0


def _demo(arguments: Namespace) -> int:
    # By name: nothing that is used in production may depend on the simulated exchange.
    try:
        demo = import_module("marketfetch.testing.demo")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"demo: needs the package {error.name}; pip install 'marketfetch[duckdb,progress,testing]'"
        ) from error
    code: int = demo.run(days=arguments.days, keep=arguments.keep)
    return code
