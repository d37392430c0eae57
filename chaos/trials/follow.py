"""Follow mode for hours or a week on an accelerated clock, while exchange, network and store keep failing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from chaos.harness.trials import Effort, Result, Trial
from marketfetch.errors import SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, Market, RevisingMarket
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.spans import HOUR, MINUTE, SECOND, Span
from marketfetch.values.times import Clock
from tests.support.followed import NOON, FollowedWorld, followed_world, until
from tests.support.worlds import assert_holds

__all__ = ["follow"]

_SYMBOLS = ("BTCUSDT", "ETHUSDT")
_SERIES = [Series.of("binance-usdm", "ohlcv", symbol, "1m") for symbol in _SYMBOLS]
_KINDS = (
    FaultKind.STATUS_503,
    FaultKind.STATUS_429,
    FaultKind.EMPTY_BODY,
    FaultKind.SHORT_PAGE,
    FaultKind.EMPTY_PAGE,
    FaultKind.IMPOSSIBLE_ROW,
    FaultKind.RESET,
)
_OUTAGE = 40 * MINUTE
"""The longest outage, in milliseconds."""
_WARM_UP_HOURS = 6


class _Store(MemorySink):
    """A store that is sometimes away."""

    away = False

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as inner:

            def write(batch: Batch) -> None:
                if self.away:
                    raise SinkUnavailable("the store is away")
                inner(batch)

            yield write


def follow(effort: Effort) -> Iterator[Result]:
    """Follow two symbols for hours or a week; then the store has every row, and nothing has grown."""
    hours = effort.choose(6, 48, 7 * 24)
    final, store = GeneratedMarket(_SYMBOLS, seed=5), _Store()
    rows = Trial(f"{hours} hours are followed through outages and faults: rows equal the truth", "series")
    # A process grows while it runs each part for the first time, which is no leak: that happens before.
    _follow(final, _Store(), _WARM_UP_HOURS, effort.rng("warm-up"))
    sizes = _follow(final, store, hours, effort.rng("follow"))
    for series in _SERIES:
        with rows.attempt(str(series)):
            covered = store.coverage([series])[series].covered.hull
            assert covered is not None
            assert covered.end >= NOON + hours * HOUR
            assert_holds(store, final, series, Span(series.interval.ceil(NOON - HOUR), covered.end))
    yield rows.result()
    yield _flat(sizes)


def _follow(final: Market, store: _Store, hours: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Follow two symbols for hours; return the sizes of this process at each outage."""

    def revising(clock: Clock) -> Market:
        return RevisingMarket(final, clock, settling=45 * SECOND)

    sizes: list[tuple[int, ...]] = []
    with followed_world(revising, limits=None, log_size=1) as world:
        world.run(lambda: _work(world, store, hours, rng, sizes))
    return sizes


async def _work(
    world: FollowedWorld, store: _Store, hours: int, rng: random.Random, sizes: list[tuple[int, ...]]
) -> None:
    async with world.following(store, symbols=_SYMBOLS):
        while world.clock() < NOON + hours * HOUR:
            sizes.append(_sizes())
            await _trouble(world, store, rng)
            await anyio.sleep(rng.uniform(5, 60) * 60)
        end = NOON + hours * HOUR + 10 * MINUTE
        await until(lambda: all(_covered_until(store, series) >= end for series in _SERIES))
        sizes.append(_sizes())


async def _trouble(world: FollowedWorld, store: _Store, rng: random.Random) -> None:
    """Let one part fail for a while, then work again."""
    kind, seconds = rng.randrange(4), rng.uniform(MINUTE, _OUTAGE) / SECOND
    match kind:
        case 0:
            world.cut_off = True
        case 1:
            store.away = True
        case 2:
            world.exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_503], times=10**9)
        case _:
            world.exchange.faults = Faults(rate=0.3, kinds=_KINDS, seed=rng.randrange(1000), times=1)
    await anyio.sleep(seconds)
    world.cut_off, store.away, world.exchange.faults = False, False, None


def _covered_until(store: _Store, series: Series) -> int:
    covered = store.coverage([series])[series].covered.hull
    return 0 if covered is None else covered.end


def _sizes() -> tuple[int, int, int]:
    """Return descriptors, threads and resident memory (pages) of this process."""
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return descriptors, threading.active_count(), int(Path("/proc/self/statm").read_text().split()[1])


def _flat(sizes: list[tuple[int, ...]]) -> Result:
    """Compare the most descriptors, threads and memory in the first third and the last one."""
    trial, third = Trial("… and descriptors, threads and memory are flat", "sizes"), max(1, len(sizes) // 3)
    for number, (name, more) in enumerate((("descriptors", 3), ("threads", 3), ("memory", 0))):
        with trial.attempt(name):
            first, last = (max(each[number] for each in part) for part in (sizes[:third], sizes[-third:]))
            assert last <= 1.1 * first + more, f"{name}: {first} in the first third, {last} in the last one"
    return trial.result()
