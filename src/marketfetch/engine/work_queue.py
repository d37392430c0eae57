"""Handing out slices, chunk by chunk, no faster than the memory allows."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import attrs

from marketfetch.engine.batch_builder import BatchBuilder
from marketfetch.engine.row_budget import RowBudget
from marketfetch.planning.batches import BatchPlan
from marketfetch.values.series import Slice

__all__ = ["WorkQueue"]


@attrs.define(eq=False)
class WorkQueue:
    """The slices of a plan, for any number of workers; knows nothing of what they do with them."""

    _chunks: Iterator[BatchPlan]
    _builder: BatchBuilder
    _budget: RowBudget
    _next: BatchPlan | None = attrs.field(default=None, init=False)
    _parts: list[Slice] = attrs.field(factory=list, init=False)
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def get(self) -> Slice | None:
        """Return the next slice, None after the last; waits while too many rows are held."""
        if not self._parts:
            async with self._turn:
                await self._open_chunk()
        return self._parts.pop() if self._parts else None

    async def _open_chunk(self) -> None:
        """Lay out the parts of the next chunk, unless somebody else just did."""
        while not self._parts:
            self._next = self._next or next(self._chunks, None)  # still there if the wait was cancelled
            if self._next is None:
                return
            await self._budget.acquire(self._next.rows)
            chunk, self._next = self._next, None
            self._builder.begin(chunk)
            self._parts = list(reversed(chunk.slices))
