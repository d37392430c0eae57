"""How many rows a run may hold: memory is bounded by this, not by history."""

from __future__ import annotations

import anyio
import attrs

__all__ = ["RowBudget"]


@attrs.define(eq=False)
class RowBudget:
    """Rows that may be in memory, from being asked for until they are durable.

    Any task may take or give back. Something larger than the whole allowance gets it when nothing else is
    held, so that nothing waits for ever.
    """

    limit: int = 0
    in_use: int = attrs.field(default=0, init=False)
    _freed: anyio.Event | None = attrs.field(default=None, init=False)

    async def acquire(self, rows: int) -> None:
        """Wait until so many rows may be held, and hold them."""
        while self.in_use and self.in_use + rows > self.limit:
            if self._freed is None:
                self._freed = anyio.Event()
            await self._freed.wait()
        self.in_use += rows

    def release(self, rows: int) -> None:
        """Let go of rows that were written, or that never came."""
        self.in_use -= rows
        if self._freed is not None:
            self._freed.set()
            self._freed = None
