"""Bound by the published limits: rows of each address in each minute of the exchange's clock.

A rate limit minute is shortened to seconds, with the published budget. The time that a client loses at the
border of a minute is not shortened, and therefore weighs more here than on the real exchange.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import anyio

from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_least, at_most, without_bar
from benchmarks.harness.venue import scaled
from marketfetch.api.pipeline import Pipeline
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["BEST", "rate_bound", "refused", "share"]

BEST = 499 * 2400 // 2
"""The most rows for the budget of one address and minute: 598,800."""
_START, _MINUTE = 1_609_459_200_000, 60_000
_SYMBOLS = 20


def rate_bound() -> Iterator[Result]:
    """Fetch more rows than the budgets of 1, 3 and 10 addresses allow, and with a clock skew of 3 s."""
    shares = {}
    for egresses, minute in ((1, 5.0), (3, 5.0), (10, 20.0)):
        found = _run(Options(symbols=symbols(_SYMBOLS), minute=minute, proxies=egresses), windows=3)
        shares[egresses] = share(found)
        yield at_least(f"{egresses} addresses: share of {BEST:,} rows", shares[egresses] * 100, 97, " %")
        yield at_most(f"{egresses} addresses: answers 429 and 418", refused(found), 0)
    yield at_least("ten addresses against ten times one", shares[10] / shares[1], 0.97)
    for skew in (-3000, 3000):
        found = _run(Options(symbols=symbols(_SYMBOLS), minute=5, proxies=1, skew=skew), windows=2)
        yield without_bar(f"clock off by {skew / 1000:+g} s: share", share(found) * 100, " %")
        yield at_most(f"clock off by {skew / 1000:+g} s: answers 429 and 418", refused(found), 0)


def _run(options: Options, windows: int) -> dict[str, Any]:
    """Fetch the rows of `windows` and a half minutes; return the exchange's counters."""
    assert options.minute
    rows = round(BEST * options.proxies * (windows + 0.5))
    end = _START + rows // _SYMBOLS * _MINUTE
    with exchange(options) as running:
        pipeline = Pipeline(
            scaled(options.minute)(running.base_url),
            Query(symbols=options.symbols, start=_START, end=end),
            proxies=RotatingProxies(running.proxies, direct=False),
            settings=Settings(heartbeat=60),
        )
        report = anyio.run(pipeline.run)
    assert report.rows_written == rows // _SYMBOLS * _SYMBOLS, report
    return dict(running.counted)


def share(found: Mapping[str, Any]) -> float:
    """Return the mean share of BEST over all addresses and all minutes but the first and the last."""
    rows: dict[str, dict[str, int]] = found["rows"]
    seen = sorted({int(number) for windows in rows.values() for number in windows})
    shares = [windows.get(str(number), 0) / BEST for windows in rows.values() for number in seen[1:-1]]
    return statistics.mean(shares)


def refused(found: Mapping[str, Any]) -> int:
    statuses: dict[str, int] = found["statuses"]
    return sum(count for status, count in statuses.items() if status in {"429", "418"})
