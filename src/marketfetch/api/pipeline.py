"""The pipeline for services: assemble the parts, await the report, or iterate over the durable batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio import create_memory_object_stream

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import check_kinds, pool_of, sink_of
from marketfetch.api.plugins import exchange_from
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.engine.run import Run, RunConfig
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.listeners.dispatch import Listeners
from marketfetch.plans import Plan
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink, Writer
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.redaction import Secret
from marketfetch.reports import Report
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["NullSink", "Pipeline"]


async def _ignore_batch(batch: Batch) -> None:
    """A pipeline that is awaited delivers its batches to the sink only."""


class Pipeline:
    """A query with an exchange, a sink, proxies and a fetcher, ready to run.

    `exchange` is a name (`binance-usdm`, with `base_url` and `archive_url` at other hosts) or an Exchange.
    `sink` is any Sink, or text such as `duckdb:market.duckdb`; without a sink the batches can only be
    iterated over. `proxies` is a ProxyPool, or addresses to use in addition to the direct connection
    (default: the direct connection alone). `fetcher` is a Fetcher (default: CurlFetcher). `listeners` receive
    every event on the event loop; a listener that raises is logged and receives no further event. `board`
    says which other processes share the rate limits of the addresses: `auto` means all processes of this
    user on this machine, and all that write into the same store if it is PostgreSQL; None means no other
    process; a Board, or its URL such as `file:/srv/board`, means all that use this board.

    `await pipeline` runs it on asyncio and returns the Report. A pipeline may be run again: it requests only
    what is missing by then. Raises ConfigurationError at once for a combination that cannot work, and while
    running the MarketfetchError that ended the run early; its `.report` tells what was done.

    >>> from marketfetch.sinks.memory import MemorySink
    >>> query = Query(symbols="BTCUSDT", datasets="ohlcv", interval="1m", start="2026-06-01")
    >>> Pipeline("binance-usdm", query, MemorySink())
    <Pipeline binance-usdm ohlcv 1m into MemorySink>
    """

    def __init__(  # noqa: PLR0913  # the four replaceable parts, the query and the settings
        self,
        exchange: str | Exchange,
        query: Query,
        sink: Sink | str | Path | None = None,
        *,
        proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
        fetcher: Fetcher | None = None,
        settings: Settings | None = None,
        listeners: Sequence[Listener] = (),
        base_url: str | None = None,
        archive_url: str | None = None,
        board: Board | str | Secret | None = "auto",
    ) -> None:
        check_kinds(query, fetcher, settings)
        self._listeners = Listeners(listeners)
        store = NullSink() if sink is None else sink_of("sink", sink)
        self._config = RunConfig(
            exchange=exchange_from(exchange, base_url, archive_url),
            query=query,
            sink=store,
            pool=RotatingProxies(()) if proxies is None else pool_of(proxies),
            fetcher=fetcher if fetcher is not None else CurlFetcher(),
            settings=(settings if settings is not None else Settings()).for_one_run(),
            emit=self._listeners.emit,
            deliver=_ignore_batch,
            sharing=sharing_of(board, store),
        )
        self._run = Run(self._config)
        self._config.check()
        self._plan: Plan | None = None

    def __await__(self) -> Generator[Any, None, Report]:
        return self.run().__await__()

    async def run(self) -> Report:
        """Run and return the report; the class lists the errors."""
        asyncio_loop("a Pipeline")
        self._run = Run(self._config, self._take_plan())
        return await self._run.execute()

    async def plan(self) -> Plan:
        """Return what a run would request now: rows, requests, weight, bytes and seconds.

        Only the exchange's clock, its listing and listings of its archive are requested, and nothing is
        written. The report of the next run compares the plan with what the run did. Raises what `run` raises.
        """
        asyncio_loop("a Pipeline")
        self._plan = await Run(self._config).plan()
        return self._plan

    def report(self) -> Report:
        """Return the report of the last run so far; also after it was cancelled."""
        return self._run.report()

    async def __aiter__(self) -> AsyncGenerator[Batch]:
        """Run, and yield every batch once it is durable; the run waits for a slow loop body (back-pressure).

        To stop early, leave the loop inside `contextlib.aclosing(aiter(pipeline))`, which cancels the run and
        waits for its end. Errors of the run are raised from the loop.
        """
        asyncio_loop("a Pipeline")
        send, receive = create_memory_object_stream[Batch](1)
        self._run = Run(attrs.evolve(self._config, deliver=send.send), self._take_plan())

        async def run() -> None:
            with send:
                await self._run.execute()

        # A task, not a task group: a generator may be closed by another task than the one that started it.
        task = asyncio.create_task(run())
        with receive:
            try:
                async for batch in receive:
                    yield batch
                await task
            finally:
                # The stream is closed after the run has ended: while it stops, it may still send a batch.
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task])
                if not task.cancelled():
                    task.exception()  # marks it as retrieved: the caller has left the loop early

    def _take_plan(self) -> Plan | None:
        """Return the plan of the next run; the run after that has none."""
        plan, self._plan = self._plan, None
        return plan

    def __repr__(self) -> str:
        names = "+".join(dataset.name for dataset in self._config.query.datasets)
        sink = type(self._config.sink).__name__
        return f"<Pipeline {self._config.exchange.name} {names} {self._config.query.interval} into {sink}>"


class NullSink:
    """The sink of a pipeline that is only iterated over: it stores nothing."""

    @property
    def max_writers(self) -> int:
        """One writer."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Nothing is needed."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer that discards batches."""
        yield lambda _: None
