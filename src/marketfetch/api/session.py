"""`Session`: what several pipelines share, and what outlives their runs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import check_parts, pool_of
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.type_checks import is_number
from marketfetch.errors import ConfigurationError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sharing, Sink
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.redaction import Secret, redact
from marketfetch.session import SessionState
from marketfetch.sinks.memory import MemorySink

__all__ = ["Session"]


class Session:
    """Connections, instruments, clocks and budgets that outlive runs; for many pipelines of one event loop.

    Inside `async with session:` every pipeline that was made with `session=session` uses its connections. A
    run asks for the exchange's clock and its listing of symbols only if they are unknown, or the listing is
    older than `max_age` seconds or lacks a name of the query. Leaving the block closes the connections, so
    runs have to end before; the session may be opened again.

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
        check_parts(fetcher, None)
        if not is_number(max_age) or max_age <= 0:
            raise ConfigurationError(
                f"max_age: must be above zero, a number of seconds, not {redact(repr(max_age))}"
            )
        self.state = SessionState(
            RotatingProxies(()) if proxies is None else pool_of(proxies),
            fetcher if fetcher is not None else CurlFetcher(),
            round(max_age * 1000),
            kept=True,
        )
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections and give back the claims on addresses."""
        closing, self._closing = self._closing, None
        if closing is not None:
            await closing.aclose()

    def __repr__(self) -> str:
        return f"<Session: {'closed' if self._closing is None else 'open'}, {self.state.pool!r}>"
