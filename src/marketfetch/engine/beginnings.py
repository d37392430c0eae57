"""Where series begin and end: stretches known to be empty are written down instead of asked page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import attrs
from anyio import CancelScope, CapacityLimiter

from marketfetch.engine.account import Account
from marketfetch.engine.asking import Asker
from marketfetch.engine.lanes import Lanes
from marketfetch.errors import FetchError, RestrictedLocation
from marketfetch.values.http import Request, Response
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Instrument, Slice
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
                    group.start_soon(self._find, account, limiter, group.cancel_scope)

    async def _find(self, account: Account, limiter: CapacityLimiter, everybody: CancelScope) -> None:
        instrument = self.instruments[account.series.symbol]
        async with limiter:
            try:
                await self._end(account, instrument)
                await self._beginning(account, instrument)
            except RestrictedLocation:
                everybody.cancel()  # before the limiter lets the next one in
                raise

    async def _end(self, account: Account, instrument: Instrument) -> None:
        hull, gone = account.missing.hull, instrument.delisted_at
        if hull is None or gone is None:
            return
        # A day of grace: the last rows come in after the announced hour.
        end = max(hull.start, account.series.interval.ceil(gone + _DAY))
        if end < hull.end:
            await self._nothing_in(account, Span(end, hull.end))

    async def _beginning(self, account: Account, instrument: Instrument) -> None:
        series, hull, listed = account.series, account.missing.hull, instrument.listed_at
        if hull is None or (listed is not None and listed <= hull.start):
            return
        if any(span.start < hull.start for span in account.known.present):
            return  # it has begun before
        endpoint = self.asker.exchange.endpoint(series.dataset)
        request = endpoint.first(series, hull.start)
        if request is None:
            return
        times = await self._times(account, request)
        first = min(times, default=hull.start)
        if first <= hull.start or first != series.interval.floor(first):
            return
        before = Span(hull.start, min(first, hull.end))
        # Absence is believed when it is said twice. Here years hang on it: two answers to another question.
        other = endpoint.request(Slice(series, before, rows=1))
        for _ in range(2):
            if await self._times(account, other) != []:
                return
        await self._nothing_in(account, before)

    async def _times(self, account: Account, request: Request) -> list[int]:
        """Return the times of an answer's rows; `[0]`, which means nothing, for one that cannot be used."""
        series = account.series
        endpoint = self.asker.exchange.endpoint(series.dataset)

        def read(response: Response) -> list[int]:
            decoded = endpoint.decode(response.body, Slice(series, Span(0, 1), rows=1))
            return [*decoded.columns.times.tolist(), *[0] * decoded.undecodable]

        try:
            times, _ = await self.asker.ask(request, read)
        except RestrictedLocation:
            raise
        except FetchError:
            return [0]  # the pages themselves will say what is wrong
        return times

    async def _nothing_in(self, account: Account, span: Span) -> None:
        empty = SpanSet.of(span) & account.missing
        if empty:
            coverage = Coverage(empty, empty)
            account.learn(coverage)
            await self.lanes.put(Batch(account.series, Columns.empty(account.series.dataset), coverage))
