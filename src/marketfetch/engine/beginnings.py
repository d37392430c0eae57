"""Where series begin and end: stretches known to be empty are written down instead of asked page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import attrs
from anyio import CapacityLimiter

from marketfetch.engine.account import Account
from marketfetch.engine.asking import Asker
from marketfetch.engine.lanes import Lanes
from marketfetch.errors import FetchError
from marketfetch.values.http import Request, Response
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Instrument, Series, Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Beginnings"]

_DAY = 86_400_000


@attrs.frozen(eq=False)
class Beginnings:
    """Finds the first row of series that were listed late, and the end of those that were delisted."""

    asker: Asker
    lanes: Lanes
    instruments: Mapping[str, Instrument]

    async def find(self, accounts: Sequence[Account]) -> None:
        """Note for every incomplete series what lies before its first and after its last row."""
        limiter = CapacityLimiter(self.asker.settings.concurrency)
        async with anyio.create_task_group() as group:
            for account in accounts:
                if account.missing:
                    group.start_soon(self._find, account, limiter)

    async def _find(self, account: Account, limiter: CapacityLimiter) -> None:
        instrument = self.instruments[account.series.symbol]
        async with limiter:
            await self._end(account, instrument)
            await self._beginning(account, instrument)

    async def _end(self, account: Account, instrument: Instrument) -> None:
        hull, gone = account.missing.hull, instrument.delisted_at
        # A day of grace: the last rows come in after the announced hour.
        if hull is not None and gone is not None and gone + _DAY < hull.end:
            await self._nothing_in(
                account, Span(max(hull.start, account.series.interval.ceil(gone + _DAY)), hull.end)
            )

    async def _beginning(self, account: Account, instrument: Instrument) -> None:
        series, hull, listed = account.series, account.missing.hull, instrument.listed_at
        if hull is None or (listed is not None and listed <= hull.start):
            return
        request = self.asker.exchange.endpoint(series.dataset).first(series, hull.start)
        if request is None:
            return
        # Absence is believed when it is said twice.
        first, again = [await self._first_row(request, series) for _ in range(2)]
        if first is not None and first == again and first > hull.start:
            await self._nothing_in(account, Span(hull.start, min(first, hull.end)))

    async def _first_row(self, request: Request, series: Series) -> int | None:
        """Return the open time of the oldest row there is; None if that cannot be told."""
        endpoint = self.asker.exchange.endpoint(series.dataset)

        def read(response: Response) -> int | None:
            times = endpoint.decode(response.body, Slice(series, Span(0, 1), rows=1)).columns.times
            return int(times.min()) if len(times) else None

        try:
            first, _ = await self.asker.ask(request, read)
        except FetchError:
            return None  # the pages themselves will say what is wrong
        return first

    async def _nothing_in(self, account: Account, span: Span) -> None:
        empty = SpanSet.of(span) & account.missing
        if empty:
            coverage = Coverage(empty, empty)
            account.known |= coverage
            await self.lanes.put(Batch(account.series, Columns.empty(account.series.dataset), coverage))
