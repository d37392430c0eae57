"""The commands of the command line; each takes its arguments and returns the exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from traceback import format_exception

import anyio
import orjson

from marketfetch.api.inputs import store_of
from marketfetch.api.maintenance import forget, verify
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.api.source_maintenance import verify_sources
from marketfetch.cli.arguments import filters_from, parse, pool_from, query_from
from marketfetch.cli.documents import Document
from marketfetch.cli.maintenance_view import (
    forgotten_as_list,
    forgotten_page,
    source_verification_page,
    verification_page,
)
from marketfetch.cli.option_parser import with_option_name
from marketfetch.cli.output import StdoutClosed, print_document, print_error, stdout_errors, write_stdout
from marketfetch.cli.report_view import coverage_page, internal_gaps, ledger_as_list, report_page
from marketfetch.cli.runner import RunResult, describe_crash, run_with_signals
from marketfetch.cli.signals import SignalHandler
from marketfetch.common.local_resources import naming_exhaustion
from marketfetch.errors import ConfigurationError, MarketfetchError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.listeners.logs import LogListener, log_to_console
from marketfetch.listeners.progress import Progress, progress_to
from marketfetch.protocols import Store, SupportsRejected
from marketfetch.redaction import printable, redact
from marketfetch.sinks.urls import sink_from
from marketfetch.values.coverage import Coverage
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.verification.selection import Selection

__all__ = ["run_command"]

_FOR_ALL_OF_VERIFY = frozenset({"--to", "--json", "--exchange", "--symbol", "--dataset", "--interval"})
"""The options of `verify` that work without --sources."""


def run_command(argv: Sequence[str] | None, signals: SignalHandler) -> int:
    """Run the command of the arguments and return the exit code; an error is printed in one line."""
    commands = {
        "backfill": _backfill,
        "coverage": _coverage,
        "verify": _verify,
        "forget": _forget,
        "demo": _demo,
    }
    options: list[str] = []
    try:
        arguments = parse(argv)
        options = arguments.options
        return commands[arguments.command](arguments, signals)
    except (StdoutClosed, BrokenPipeError) as error:
        if isinstance(error, StdoutClosed) and str(error):
            print_error(str(error))
        return 1
    except MarketfetchError as error:
        # Nothing was sent: an error after the first request is printed with the report.
        print_error(with_option_name(str(error), options))
        return 2
    except KeyboardInterrupt:
        print_error(f"stopped by {signals.received}")
        return 1
    except Exception as error:  # noqa: BLE001  # a traceback is of no use on the command line
        print_error(describe_crash(error))
        return 1


def _backfill(arguments: Namespace, signals: SignalHandler) -> int:
    listener = _listener(arguments)
    pipeline = Pipeline(
        exchange_from(arguments.exchange, arguments.base_url, arguments.archive_url),
        query_from(arguments),
        sink_from(arguments.to),
        proxies=pool_from(arguments),
        fetcher=CurlFetcher(certificate=arguments.certificate),
        settings=Settings(
            concurrency=arguments.concurrency,
            heartbeat=_heartbeat(arguments),
            unusable=arguments.unusable,
        ),
        listeners=[listener],
        board=arguments.board,
    )
    with listener, naming_exhaustion():
        result = anyio.run(partial(run_with_signals, pipeline, signals, partial(_print_result, arguments)))
    signals.finish()
    return _print_result(arguments, result)


def _listener(arguments: Namespace) -> Progress:
    if not arguments.verbose:
        return progress_to(sys.stderr)
    log_to_console("DEBUG")
    return LogListener()


def _heartbeat(arguments: Namespace) -> float:
    default = 1.0 if sys.stderr.isatty() else 10.0  # a display may change often; each line of a log stays
    return arguments.heartbeat or default


def _print_result(arguments: Namespace, result: RunResult) -> int:
    """Print the report and the message of what ended the run early; return the exit code."""
    try:
        _print(arguments, result.report.as_dict(), report_page(result.report))
    finally:
        if result.defect is not None and arguments.verbose:
            sys.stderr.write(printable(redact("".join(format_exception(result.defect))), keep="\n"))
        if result.message:
            print_error(result.message)
    return 0 if result.report.complete and not result.message else 1


def _coverage(arguments: Namespace, signals: SignalHandler) -> int:
    signals.interrupt()
    store = store_of("to", arguments.to, "name")
    chosen = Selection.of(**filters_from(arguments)).held(store)
    ledger = {series: known for series, known in chosen.items() if known.covered}  # without forgotten series
    if not ledger:
        raise ConfigurationError(f"to: {store!r} holds nothing yet; `marketfetch backfill` fills it")
    rejected = _rejected(store, ledger)
    signals.finish()
    _print(arguments, ledger_as_list(ledger, rejected), coverage_page(ledger, rejected))
    return 1 if any(map(internal_gaps, ledger.values())) else 0


def _verify(arguments: Namespace, signals: SignalHandler) -> int:
    signals.interrupt()
    if arguments.sources:
        return _verify_sources(arguments, signals)
    if stray := next((option for option in arguments.given if option not in _FOR_ALL_OF_VERIFY), None):
        raise ConfigurationError(f"{stray}: works only with --sources; add --sources")
    verification = verify(arguments.to, **filters_from(arguments))
    if not verification.rows:
        raise ConfigurationError(
            f"to: {sink_from(arguments.to)!r} holds nothing yet; there is nothing to verify"
        )
    signals.finish()
    _print(arguments, verification.as_dict(), verification_page(verification))
    return 0 if verification.ok else 1


def _verify_sources(arguments: Namespace, signals: SignalHandler) -> int:
    filters = filters_from(arguments)
    name = filters.pop("exchange")
    if name is None:
        raise ConfigurationError("exchange: say whose files to compare with; add --exchange")
    listener = _listener(arguments)
    with listener, naming_exhaustion():
        verification = verify_sources(
            arguments.to,
            exchange_from(name, arguments.base_url, arguments.archive_url),
            repair=arguments.repair,
            proxies=pool_from(arguments),
            fetcher=CurlFetcher(certificate=arguments.certificate),
            settings=Settings(concurrency=arguments.concurrency, heartbeat=_heartbeat(arguments)),
            listeners=[listener],
            board=arguments.board,
            **filters,
        )
    signals.finish()
    _print(arguments, verification.as_dict(), source_verification_page(verification))
    return 0 if verification.ok else 1


def _forget(arguments: Namespace, signals: SignalHandler) -> int:
    signals.interrupt()
    filters = filters_from(arguments)
    if not any(filters.values()):
        raise ConfigurationError(
            "symbols: nothing is chosen; name series by --symbol, --dataset, --interval or --exchange, or "
            "say --all-symbols"
        )
    forgotten = forget(
        arguments.to,
        **filters,
        start=arguments.start,
        end=arguments.end,
        rows=arguments.rows,
        dry_run=arguments.dry_run,
    )
    signals.finish()
    page = forgotten_page(forgotten, rows=arguments.rows, dry_run=arguments.dry_run)
    _print(arguments, forgotten_as_list(forgotten), page)
    return 0


def _print(arguments: Namespace, plain: object, page: Document) -> None:
    """Print JSON with --json, else a page for people."""
    if arguments.json:
        write_stdout(orjson.dumps(plain))
    else:
        with stdout_errors():
            print_document(page, sys.stdout)


def _rejected(store: Store, ledger: Mapping[Series, Coverage]) -> Mapping[Series, Sequence[RejectedRow]]:
    """Read the rows at the unusable times, if the store keeps them."""
    if not isinstance(store, SupportsRejected):
        return {}
    rejected: dict[Series, Sequence[RejectedRow]] = {}
    for series, coverage in ledger.items():
        if hull := coverage.unusable.hull:
            rows = store.rejected(series, hull)
            rejected[series] = [row for row in rows if series.interval.floor(row.time) in coverage.unusable]
    return rejected


def _demo(arguments: Namespace, signals: SignalHandler) -> int:
    signals.interrupt()
    # By name: no code that is used in production may import the simulated exchange.
    try:
        demo = import_module("marketfetch.testing.demo")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"demo: needs the package {error.name}; pip install 'marketfetch[duckdb,progress,testing]'"
        ) from error
    code: int = demo.run(days=arguments.days, keep=arguments.keep)
    return code
