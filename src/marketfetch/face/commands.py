"""What the commands of the command line do: each takes its arguments and returns the exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from traceback import format_exception

import anyio
import orjson

from marketfetch.engine.query import Settings
from marketfetch.errors import ConfigurationError, MarketfetchError
from marketfetch.face.arguments import parse, pool_from, query_from
from marketfetch.face.logs import LogListener, log_to_console
from marketfetch.face.output import Unheard, complain, delivering, say
from marketfetch.face.pipeline import Pipeline
from marketfetch.face.plugins import exchange_from
from marketfetch.face.progress import Progress, progress_to
from marketfetch.face.rendering import coverage_page, holes, ledger_as_list, report_page, show
from marketfetch.face.signals import Signals
from marketfetch.face.stopping import Outcome, run_until_stopped, trouble_with
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Store
from marketfetch.sinks.urls import sink_from
from marketfetch.values.redaction import redact

__all__ = ["perform"]


def perform(argv: Sequence[str] | None, signals: Signals) -> int:
    """Do what the arguments say and return the exit code; whatever goes wrong is told in one line."""
    commands = {"backfill": _backfill, "coverage": _coverage, "demo": _demo}
    try:
        arguments = parse(argv)
        return commands[arguments.command](arguments, signals)
    except (Unheard, BrokenPipeError) as error:
        if isinstance(error, Unheard) and str(error):
            complain(str(error))
        return 1
    except MarketfetchError as error:
        complain(str(error))  # nothing was sent: what happens later is told beside the report
        return 2
    except KeyboardInterrupt:
        complain(f"stopped by {signals.received}")
        return 1
    except Exception as error:  # noqa: BLE001  # a traceback is of no use to who typed the command
        complain(trouble_with(error))
        return 1


def _backfill(arguments: Namespace, signals: Signals) -> int:
    watcher = _watcher(arguments)
    pipeline = Pipeline(
        exchange_from(arguments.exchange, arguments.base_url),
        query_from(arguments),
        sink_from(arguments.to),
        proxies=pool_from(arguments),
        fetcher=CurlFetcher(certificate=arguments.certificate),
        settings=Settings(concurrency=arguments.concurrency, heartbeat=_heartbeat(arguments)),
        listeners=[watcher],
        board=arguments.board,
    )
    with watcher:
        outcome = anyio.run(partial(run_until_stopped, pipeline, signals, partial(_tell, arguments)))
    signals.conclude()
    return _tell(arguments, outcome)


def _watcher(arguments: Namespace) -> Progress:
    if not arguments.verbose:
        return progress_to(sys.stderr)
    log_to_console("DEBUG")
    return LogListener()


def _heartbeat(arguments: Namespace) -> float:
    usual = 1.0 if sys.stderr.isatty() else 10.0  # a picture may change often, lines may not
    return arguments.heartbeat or usual


def _tell(arguments: Namespace, outcome: Outcome) -> int:
    """Print the report and what ended the run early; return the exit code."""
    try:
        if arguments.json:
            say(orjson.dumps(outcome.report.as_dict()))
        else:
            with delivering():
                show(report_page(outcome.report), sys.stdout)
    finally:
        if outcome.defect is not None and arguments.verbose:
            sys.stderr.write(redact("".join(format_exception(outcome.defect))))
        if outcome.trouble:
            complain(outcome.trouble)
    return 0 if outcome.report.complete and not outcome.trouble else 1


def _coverage(arguments: Namespace, signals: Signals) -> int:
    signals.interrupt()
    store = sink_from(arguments.to)
    if not isinstance(store, Store):
        raise ConfigurationError(f"to: {type(store).__name__} does not know what it holds; name a database")
    ledger = store.ledger()
    if not ledger:
        raise ConfigurationError(f"to: {store!r} holds nothing yet; `marketfetch backfill` fills it")
    signals.conclude()
    if arguments.json:
        say(orjson.dumps(ledger_as_list(ledger)))
    else:
        with delivering():
            show(coverage_page(ledger), sys.stdout)
    return 1 if any(map(holes, ledger.values())) else 0


def _demo(arguments: Namespace, signals: Signals) -> int:
    signals.interrupt()
    # By name: nothing that is used in production may depend on the simulated exchange.
    try:
        demo = import_module("marketfetch.testing.demo")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"demo: needs the package {error.name}; pip install 'marketfetch[duckdb,progress,testing]'"
        ) from error
    code: int = demo.run(days=arguments.days, keep=arguments.keep)
    return code
