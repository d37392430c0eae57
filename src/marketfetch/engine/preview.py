"""Preview: what a run would fetch."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.discovery import SeriesResolver, known_instruments, set_server_clock
from marketfetch.engine.missing import update_wanted
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.state import RunState
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet

__all__ = ["Preview", "preview_of"]


@attrs.frozen
class Preview:
    """What a run would fetch: the missing spans of every series, and the names that are unknown, with why.

    >>> Preview({Series.of("okx", "ohlcv", "BTC-USDT", "1h"): SpanSet()}, {}).rows
    0
    """

    missing: Mapping[Series, SpanSet]
    unknown: Mapping[str, str]

    @property
    def rows(self) -> int:
        """How many rows of grids are missing; of events nobody knows the number."""
        return sum(series.interval.count_rows(spans) for series, spans in self.missing.items())


async def preview_of(config: RunConfig) -> Preview:
    """Request the clock and the listing, read the coverage, and subtract; nothing is fetched or written.

    Raises what a run raises before its first page.
    """
    config.check()
    state = RunState()
    retrier = StoreRetrier(config.settings.retries, config.emit)
    resolver = SeriesResolver(
        config.query,
        config.exchange,
        config.sink,
        state,
        retrier,
        config.emit,
        retry_unusable=config.settings.unusable == "retry",
    )
    async with config.session.connected(config.sharing):
        executor = RequestExecutor(
            config.exchange, config.fetcher, config.pool, config.settings, state, config.emit
        )
        clock = config.session.server_clock(config.exchange.base_url)
        ahead = await set_server_clock(executor, clock)
        await resolver.resolve(await known_instruments(config.session, executor, config.query))
    now = config.settings.clock()
    for each in state.series.values():
        endpoint = config.exchange.endpoint(each.series.dataset)
        update_wanted(each, endpoint, config.query.span(now), now + min(0, ahead))
    known = {series: each for series, each in state.series.items() if series.symbol not in state.unknown}
    return Preview({series: each.missing for series, each in known.items()}, dict(state.unknown))
