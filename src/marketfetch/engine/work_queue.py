"""Handing out slices, chunk by chunk, no faster than the memory allows."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import attrs

from marketfetch.planning.batches import Chunk
from marketfetch.engine.row_budget import Allowance
from marketfetch.engine.batch_builder import Gatherer
from marketfetch.values.series import Slice

__all__ = ["Handout"]


@attrs.define(eq=False)
class Handout:
    """The slices of a plan, for any number of workers; knows nothing of what they do with them."""

    _chunks: Iterator[Chunk]
    _gatherer: Gatherer
    _allowance: Allowance
    _next: Chunk | None = attrs.field(default=None, init=False)
    _parts: list[Slice] = attrs.field(factory=list, init=False)
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def take(self) -> Slice | None:
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
            await self._allowance.take(self._next.rows)
            chunk, self._next = self._next, None
            self._gatherer.begin(chunk)
            self._parts = list(reversed(chunk.parts))
