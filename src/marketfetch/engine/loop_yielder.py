"""Leaving the event loop to others in time: it may be a host's, who has more to do than to wait for us."""

from __future__ import annotations

from time import perf_counter

import anyio
import attrs
from anyio.lowlevel import checkpoint

__all__ = ["LoopYielder"]


@attrs.define(eq=False)
class LoopYielder:
    """Spreads the work of many tasks that become ready at once over several rounds of the loop.

    Twenty answers may arrive in one round, and to read one takes a millisecond. Who asks for a breath when
    the last one is `seconds` ago lets the loop go round once, and whoever asks meanwhile waits behind.
    """

    seconds: float = 0.002
    _last: float = attrs.field(default=0.0, init=False)
    _turn: anyio.Lock = attrs.field(factory=lambda: anyio.Lock(fast_acquire=True), init=False)

    async def maybe_yield(self) -> None:
        """Return at once or, if it is time, after others on the loop had their turn."""
        if perf_counter() - self._last < self.seconds and not self._turn.locked():
            return
        async with self._turn:
            if perf_counter() - self._last >= self.seconds:
                await checkpoint()
                self._last = perf_counter()
