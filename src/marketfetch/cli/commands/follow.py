"""`marketfetch follow`: fetch what a store lacks, then store each new row as soon as it is there."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.parsing.command import Command
from marketfetch.cli.parsing.options import add_progress, add_requests, add_store
from marketfetch.cli.parsing.parser import Parser
from marketfetch.cli.parsing.query_options import add_query, add_sources, names_help
from marketfetch.cli.signals import SignalHandler

if TYPE_CHECKING:  # the engine takes long to import
    from marketfetch.api.pipeline import Pipeline
    from marketfetch.events import Listener
    from marketfetch.listeners.follow_status import FollowStatus
    from marketfetch.reports import SeriesHealth

__all__ = ["COMMAND"]


def _add_options(parser: Parser) -> None:
    add_store(parser)
    add_query(parser, ends=False)
    how = parser.add_argument_group("how to get there")
    add_requests(how)
    add_sources(how)
    add_progress(parser)


def _run(arguments: Namespace, signals: SignalHandler) -> int:
    from contextlib import ExitStack

    from marketfetch.cli.arguments import heartbeat_from, progress_from
    from marketfetch.cli.pipelines import pipeline_from
    from marketfetch.common.event_loop import run
    from marketfetch.common.local_resources import raising_resource_errors
    from marketfetch.errors import MarketfetchError
    from marketfetch.sinks.urls import sink_from

    events = progress_from(arguments)  # refuses options that contradict each other
    status = _status_from(arguments)
    listeners: list[Listener] = [] if status is None else [status]
    if events is not None and (arguments.verbose or arguments.progress == "json"):
        listeners.append(events)
    pipeline = pipeline_from(arguments, sink_from(arguments.store), *listeners)
    following = _Follow(arguments, signals, pipeline, status)
    error: MarketfetchError | None = None
    with ExitStack() as entered, raising_resource_errors():
        for each in (status, events if events in listeners else None):
            if each is not None:
                entered.enter_context(each)
        try:
            run(following.run, heartbeat_from(arguments))
        except MarketfetchError as failure:
            if not following.health:
                raise
            error = failure
    signals.begin_final_phase()
    code = following.print_health()
    if error is not None:
        print_error(str(error))
    return 1 if error is not None else code


def _status_from(arguments: Namespace) -> FollowStatus | None:
    """Return what writes the status on standard error; None if none is wanted."""
    import sys

    from marketfetch.listeners.follow_status import FollowStatus
    from marketfetch.listeners.terminals import takes_escapes

    if arguments.quiet or arguments.verbose or arguments.progress == "none":
        return None
    live = arguments.progress in {"auto", "bar"} and takes_escapes(sys.stderr)
    return FollowStatus(sys.stderr, live=live, json=arguments.progress == "json")


class _Follow:
    """A follow until a signal comes."""

    def __init__(
        self, arguments: Namespace, signals: SignalHandler, pipeline: Pipeline, status: FollowStatus | None
    ) -> None:
        self._arguments = arguments
        self._signals = signals
        self._pipeline = pipeline
        self._status = status
        self.health: tuple[SeriesHealth, ...] = ()

    async def run(self, seconds: float) -> None:
        """Follow, and show the status every so many seconds."""
        import asyncio
        from contextlib import suppress

        from anyio import sleep_forever

        from marketfetch.common.event_loop import repeating

        loop = asyncio.get_running_loop()
        async with self._pipeline.follow() as following:

            def note() -> None:
                self.health = following.health()
                if self._status is not None:
                    self._status.show(self.health)

            def stop() -> None:
                with suppress(RuntimeError):  # the loop is closed: the follow has already ended
                    loop.call_soon_threadsafe(following.stop)

            self._signals.begin_cancellable(stop, self.print_health)
            async with repeating(note, seconds, sleep_forever):
                await following.wait()
            self.health = following.health()

    def print_health(self) -> int:
        """Print the last health of each series; return the exit code, 1 if rows of one are missing."""
        from marketfetch.cli.status_view import health_page

        well = all(line.last_error is None for line in self.health)
        if self._arguments.json or not (self._arguments.quiet and well):
            plain = [line.as_dict() for line in self.health]
            print_result(self._arguments, plain, lambda: health_page(self.health))
        return 0 if well else 1


COMMAND = Command(
    "follow",
    "fetch what a store lacks, then each row as it comes",
    _add_options,
    _run,
    (
        "follow -e binance-usdm -s BTCUSDT ETHUSDT \\\n      --start 30d -t duckdb:market.duckdb",
        "follow --job majors --progress json",
    ),
    more_help=names_help,
)
