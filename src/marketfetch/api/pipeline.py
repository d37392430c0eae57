"""The pipeline for services, and the Session that several of them share.

Assemble the parts, await the report, iterate over the durable batches, or follow.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import attrs
from anyio import create_memory_object_stream

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import check_query, fetcher_of, pool_of, settings_of, sink_of
from marketfetch.api.plugins import exchange_from
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.type_checks import is_number, kind_of
from marketfetch.engine.run import Run
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.session import SessionState
from marketfetch.errors import ConfigurationError
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.following.following import Following, open_following
from marketfetch.listeners.dispatch import Listeners
from marketfetch.plans import Plan
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sharing, Sink, Writer
from marketfetch.redaction import Secret, redact
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["NullSink", "Pipeline", "Session"]


class Session:
    """Connections, instruments, clocks and budgets that outlive runs; for many pipelines of one event loop.

    Inside `async with session:` every pipeline that was made with `session=session` uses its connections. A
    run asks for the exchange's clock and its listing of symbols only if they are unknown, or the listing is
    older than `max_age` seconds or lacks a name of the query. Leaving the block closes the connections, so
    runs have to end before: a run or a follow that has not ended raises ConfigurationError. The session may
    be opened again.

    `proxies`, `fetcher` and `board` are those of `Pipeline`, for all pipelines of the session. Raises
    ConfigurationError for a part that cannot work.

    >>> import asyncio
    >>> async def main() -> None:
    ...     async with Session() as session:
    ...         print(session)
    >>> asyncio.run(main())
    <Session: open, <RotatingProxies: 1 egress, 1 ready>>
    """

    def __init__(
        self,
        *,
        proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
        fetcher: Fetcher | None = None,
        board: Board | str | Secret | None = "auto",
        max_age: float = 3600.0,
    ) -> None:
        client = fetcher_of(fetcher)
        if not is_number(max_age) or not 0 < max_age < math.inf:
            raise ConfigurationError(
                f"max_age: must be above zero, a number of seconds, not {redact(repr(max_age))}"
            )
        self.state = SessionState(pool_of(proxies), client, round(max_age * 1000), persistent=True)
        self._board = board
        self._sharing = sharing_of(board, MemorySink())
        self._closing: AsyncExitStack | None = None

    def sharing(self, sink: Sink) -> Sharing:
        """Return the boards of a pipeline into a sink: those of the session, and that of the sink."""
        return sharing_of(self._board, sink)

    async def __aenter__(self) -> Self:
        """Open the session on the running event loop; ConfigurationError if it is open already."""
        asyncio_loop("a Session")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.state.open(self._sharing))
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections and give back the claims on addresses."""
        closing, self._closing = self._closing, None
        if closing is not None:
            await closing.aclose()

    def __repr__(self) -> str:
        return f"<Session: {'closed' if self._closing is None else 'open'}, {self.state.pool!r}>"


class Pipeline:
    """A query with an exchange, a sink, proxies and a fetcher, ready to run.

    `exchange` is a name (`binance-usdm`, with `base_url` and `archive_url` at other hosts) or an Exchange.
    `sink` is any Sink, or text such as `duckdb:market.duckdb`; without a sink the batches can only be
    iterated over. `proxies` is a ProxyPool, or addresses to use in addition to the direct connection
    (default: the direct connection alone). `fetcher` is a Fetcher (default: CurlFetcher). `listeners` receive
    every event on the event loop; a listener that raises is logged and receives no further event. `board`
    says which other processes share the rate limits of the addresses: `auto` means all processes of this
    user on this machine, and all that write into the same store if it is PostgreSQL; None means no other
    process; a Board, or its URL such as `file:/srv/board`, means all that use this board. `session` is a
    Session that has proxies, fetcher and board for several pipelines.

    `await pipeline` runs it on asyncio and returns the Report. A pipeline may be run again: it requests only
    what is missing by then. Raises ConfigurationError at once for a combination that cannot work, and while
    running the MarketfetchError that ended the run early; its `.report` tells what was done.

    >>> from marketfetch.sinks import MemorySink
    >>> query = Query(symbols="BTCUSDT", datasets="ohlcv", interval="1m", start="2026-06-01")
    >>> Pipeline("binance-usdm", query, MemorySink())
    <Pipeline binance-usdm ohlcv 1m into MemorySink>
    """

    @checks_keywords
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
        session: Session | None = None,
    ) -> None:
        check_query(query)
        used = settings_of(settings)
        if session is not None:
            _check_session(session, proxies, fetcher, board)
        self._listeners = Listeners(listeners)
        store = NullSink() if sink is None else sink_of("sink", sink)
        self._config = RunConfig(
            exchange=exchange_from(exchange, base_url, archive_url),
            query=query,
            sink=store,
            session=SessionState(pool_of(proxies), fetcher_of(fetcher)) if session is None else session.state,
            settings=used,
            emit=self._listeners.emit,
            sharing=sharing_of(board, store) if session is None else session.sharing(store),
        )
        self._last: Run | Following = Run(self._config)
        self._config.check()
        self._plan: Plan | None = None

    def __await__(self) -> Generator[Any, None, Report]:
        return self.run().__await__()

    async def run(self) -> Report:
        """Run and return the report; the class lists the errors."""
        asyncio_loop("a Pipeline")
        self._last = run = Run(self._config, self._take_plan())
        return await run.execute()

    async def plan(self) -> Plan:
        """Return what a run would request now: rows, requests, weight, bytes and seconds.

        Only the exchange's clock, its listing and listings of its archive are requested, and nothing is
        written. The report of the next run compares the plan with what the run did. Raises what `run` raises.
        """
        asyncio_loop("a Pipeline")
        self._plan = await Run(self._config).plan()
        return self._plan

    def report(self) -> Report:
        """Return the report of the last run or follow so far; also after it was cancelled."""
        return self._last.report()

    async def __aiter__(self) -> AsyncGenerator[Batch]:
        """Run, and yield every batch once it is durable; the run waits for a slow loop body (back-pressure).

        To stop early, leave the loop inside `contextlib.aclosing(aiter(pipeline))`, which cancels the run and
        waits for its end. Errors of the run are raised from the loop.
        """
        asyncio_loop("a Pipeline")
        send, receive = create_memory_object_stream[Batch](1)
        self._last = run = Run(attrs.evolve(self._config, deliver=send.send), self._take_plan())

        async def execute() -> None:
            with send:
                await run.execute()

        # A task, not a task group: a generator may be closed by another task than the one that started it.
        task = asyncio.create_task(execute())
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

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[Following]:
        """Catch up, then store each new row as soon as it is there, until the block is left.

            async with pipeline.follow() as following:
                async for batch in following: ...

        A candle is stored within about a second of its close, and requested once more when it is final, a
        minute later at most exchanges: only then is it covered. Events, such as funding, come minutes after
        the hour. Outages of the exchange, the network and the store are waited for, and whatever was missed
        is fetched afterwards. The symbols are looked up again every hour, or when those of the session are
        old. `following.health()` says how far each series is.

        The block is cancelled by what cannot pass: ConfigurationError before the first run has caught up,
        RestrictedLocation, and errors that are not of this library. Raises ConfigurationError for a query
        with an `end`, and with `sources="archive"`.
        """
        async with open_following(self._config) as following:
            self._last = following
            yield following

    def _take_plan(self) -> Plan | None:
        """Return the plan of the next run; the run after that has none."""
        plan, self._plan = self._plan, None
        return plan

    def __repr__(self) -> str:
        names = "+".join(dataset.name for dataset in self._config.query.datasets)
        sink = type(self._config.sink).__name__
        return f"<Pipeline {self._config.exchange.name} {names} {self._config.query.interval} into {sink}>"


def _check_session(session: object, proxies: object, fetcher: object, board: object) -> None:
    """Raise ConfigurationError for a session of another type, and for parts that a session has already."""
    if not isinstance(session, Session):
        raise ConfigurationError(
            f"session: {kind_of(session)} is not a Session; write `async with Session() as session:`"
        )
    given = {"proxies": proxies is not None, "fetcher": fetcher is not None, "board": board != "auto"}
    for name, is_given in given.items():
        if is_given:
            raise ConfigurationError(f"{name}: belongs to the session; write Session({name}=...)")


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
