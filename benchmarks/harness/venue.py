"""The Binance USD-M adapter with other rate limits than the published ones."""

from __future__ import annotations

import attrs

from benchmarks.competitors.job import Job
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.values.http import Cost, LimitPool

__all__ = ["scaled", "unlimited", "venue_of"]


def _with(pool: LimitPool) -> type[BinanceUsdm]:
    class ScaledOhlcv(Ohlcv):
        def cost(self, rows: int) -> Cost:
            return attrs.evolve(super().cost(rows), pool=pool)

    class ScaledUsdm(BinanceUsdm):
        name = "binance-usdm"
        weight = pool
        sources = (ScaledOhlcv,)

    return ScaledUsdm


def scaled(minute: float, weight: int = 2400) -> type[BinanceUsdm]:
    """Return the adapter with a budget of `weight` in a rate limit minute of `minute` seconds."""
    period = round(minute * 1000)
    return _with(
        LimitPool("binance-futures weight", weight, period, "clock", used_header="x-mbx-used-weight-1m")
    )


def venue_of(job: Job) -> BinanceUsdm:
    """Return the adapter for a job: with its archive, or else without rate limits."""
    if job.archive_url is None:
        return unlimited()(job.base_url)
    return BinanceUsdm(job.base_url, archive_url=job.archive_url)


def unlimited() -> type[BinanceUsdm]:
    """Return the adapter without rate limits, so that something else is the bottleneck."""
    return _with(LimitPool("no limit", 10**12, 60_000, "clock"))
