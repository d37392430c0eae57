"""`marketfetch verify`: compare the rows of a store with its ledger, or with the files of the archive."""

from __future__ import annotations

from argparse import Namespace

from marketfetch.cli.output import print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import (
    PROGRESS,
    REQUESTS,
    add_filters,
    add_progress,
    add_requests,
    add_store,
)
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import ConfigurationError

__all__ = ["COMMAND"]

_WITHOUT_SOURCES = frozenset(
    {"store", "config", "job", "exchange", "symbol", "dataset", "interval", "progress", "heartbeat"}
)
"""The options that work without --sources; they are among those of `given`."""


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_filters(parser, "all that the store holds, unless some are named")
    files = parser.add_argument_group("files of archives")
    files.add_argument(
        "--sources",
        action="store_true",
        help="compare rows with the files that they came from, where the exchange issued these anew",
    )
    files.add_argument("--repair", action="store_true", help="with --sources: write the rows of new issues")
    add_requests(parser.add_argument_group("with --sources: how to get there"))
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from marketfetch.api.maintenance import verify
    from marketfetch.cli.arguments import filters_from, progress_from
    from marketfetch.cli.maintenance_view import verification_page
    from marketfetch.sinks.urls import sink_from

    signals.begin_interruptible()
    if arguments.sources:
        return _verify_sources(arguments, signals)
    if stray := next((name for name in _typed_options(arguments) if name not in _WITHOUT_SOURCES), None):
        raise ConfigurationError(f"{stray}: works only with --sources; add --sources")
    progress_from(arguments)  # nothing is shown but the log, with --verbose
    verification = verify(arguments.store, **filters_from(arguments))
    if not verification.rows:
        raise ConfigurationError(
            f"store: {sink_from(arguments.store)!r} holds nothing yet; there is nothing to verify"
        )
    signals.begin_final_phase()
    if arguments.json or not (arguments.quiet and verification.ok):
        print_result(arguments, verification.as_dict(), lambda: verification_page(verification))
    return 0 if verification.ok else 1


def _typed_options(arguments: Namespace) -> list[str]:
    """Return the names of the options that were typed."""
    typed = not arguments.direct and "--no-direct" not in arguments.places
    flags = {"repair": arguments.repair, "no_direct": typed}
    return [*vars(arguments).get("given", ()), *(name for name, given in flags.items() if given)]


def _verify_sources(arguments: Namespace, signals: SignalHandler) -> int:
    from contextlib import nullcontext

    from marketfetch.api.plugins import exchange_from
    from marketfetch.api.source_maintenance import verify_sources
    from marketfetch.cli.arguments import filters_from, progress_from
    from marketfetch.cli.maintenance_view import source_verification_page
    from marketfetch.cli.pipelines import parts_from
    from marketfetch.common.local_resources import raising_resource_errors

    filters = filters_from(arguments)
    name = filters.pop("exchange")
    if name is None:
        raise ConfigurationError("exchange: say whose files to compare with; add --exchange")
    listener = progress_from(arguments)
    with listener or nullcontext(), raising_resource_errors():
        verification = verify_sources(
            arguments.store,
            exchange_from(name, arguments.base_url, arguments.archive_url),
            repair=arguments.repair,
            **parts_from(arguments, listener),
            **filters,
        )
    signals.begin_final_phase()
    print_result(arguments, verification.as_dict(), lambda: source_verification_page(verification))
    return 0 if verification.ok else 1


COMMAND = Command(
    "verify",
    "compare the rows of a store with its ledger",
    _add_options,
    _run,
    (
        "verify -t sqlite:market.sqlite",
        "verify -t duckdb:market.duckdb --sources \\\n      -e binance-usdm --repair",
    ),
    # A file that says `sources = "archive"` for backfill means another option; repairing has to be typed.
    preset=frozenset({"store", "symbol", "dataset", "interval", "exchange", "json"}) | REQUESTS | PROGRESS,
)
