"""Follow all datasets of a pipeline in the background, and read batches and health meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

import anyio
import attrs
from anyio import BrokenResourceError, ClosedResourceError, create_memory_object_stream
from anyio.streams.memory import MemoryObjectSendStream

from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.exception_groups import raising_one_error
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.session import SessionState
from marketfetch.errors import ConfigurationError
from marketfetch.following.follower import Follower
from marketfetch.reports import Report, SeriesHealth
from marketfetch.values.pages import Batch
from marketfetch.values.query import Query

__all__ = ["Following", "open_following"]


class Following:
    """A pipeline that is being followed; see `Pipeline.follow`.

    Iterate over it for every batch once it is durable: the follow waits for a slow loop body. `health` may be
    called at any time.
    """

    def __init__(self, config: RunConfig) -> None:
        self._readers: list[MemoryObjectSendStream[Batch]] = []
        self._stopped = anyio.Event()
        config = attrs.evolve(config, deliver=self._deliver)
        self.followers = [Follower(attrs.evolve(config, query=part)) for part in _parts(config.query)]
        """One for each dataset."""

    def health(self) -> tuple[SeriesHealth, ...]:
        """Return the health of every series; none before the exchange has named them."""
        return tuple(line for follower in self.followers for line in follower.health())

    def report(self) -> Report:
        """Return one report of all runs so far, also after the follow was stopped.

        It has what was wanted and is missing up to the last round.
        """
        reports = [follower.report() for follower in self.followers]
        # The datasets are followed side by side.
        return attrs.evolve(Report.merged(reports), duration=max(report.duration for report in reports))

    def stop(self) -> None:
        """End `wait` and every iteration; call it on the event loop, such as from a signal handler."""
        self._stopped.set()
        for reader in self._readers:
            reader.close()

    async def wait(self) -> None:
        """Return once `stop` was called."""
        await self._stopped.wait()

    async def __aiter__(self) -> AsyncGenerator[Batch]:
        """Yield every batch that becomes durable from now on, until `stop` is called."""
        if self._stopped.is_set():
            return
        send, receive = create_memory_object_stream[Batch](1)
        self._readers.append(send)
        with send, receive:
            try:
                async for batch in receive:
                    yield batch
            finally:
                self._readers.remove(send)

    async def _deliver(self, batch: Batch) -> None:
        for reader in [*self._readers]:
            with suppress(BrokenResourceError, ClosedResourceError):  # it has just ended its loop
                await reader.send(batch)


def _parts(query: Query) -> list[Query]:
    """Return a query for each dataset, since each has its own due times; composites are made of ohlcv."""
    return [
        attrs.evolve(
            query, datasets=(dataset,), composites=query.composites if dataset.name == "ohlcv" else ()
        )
        for dataset in query.datasets
    ]


@asynccontextmanager
async def open_following(config: RunConfig) -> AsyncIterator[Following]:
    """Follow in the background until the block is left; an error that ends a follower cancels the block."""
    asyncio_loop("a Pipeline")
    if config.query.end != "now":
        raise ConfigurationError(f"end: {config.query.end!r} ends, and following does not; leave it out")
    if config.query.sources == "archive":
        raise ConfigurationError("sources: files come days late; to follow write sources='auto' or 'rest'")
    config.check()
    session = config.session
    opening: AbstractAsyncContextManager[object] = nullcontext()
    if not session.persistent:
        session = SessionState(session.pool, session.fetcher, persistent=True)
        opening = session.open(config.sharing)
    following = Following(attrs.evolve(config, session=session))
    with raising_one_error():
        async with opening, anyio.create_task_group() as group:
            for follower in following.followers:
                group.start_soon(follower.run)
            try:
                yield following
            finally:
                following.stop()
                group.cancel_scope.cancel()
