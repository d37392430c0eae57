"""Following goes on through outages of the exchange, the network and the store, and through clock jumps."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from marketfetch.api.pipeline import Session
from marketfetch.errors import ConfigurationError, RestrictedLocation, SinkError, SinkUnavailable
from marketfetch.events import StoreRecovered, WaitingForStore
from marketfetch.protocols import Writer
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing import FaultKind, Faults
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import MINUTE
from tests.following.test_following import assert_true, covered_until, minutes_pass
from tests.support.followed import NOON, followed_world, until
from tests.support.worlds import HOUR


@pytest.mark.slow
@pytest.mark.parametrize("what", ["exchange", "network"])
def test_an_outage_of_exchange_or_network_is_waited_for_and_made_up(what: str) -> None:
    store = MemorySink()
    with followed_world() as world:

        def away(is_away: bool) -> None:
            if what == "network":
                world.cut_off = is_away
            elif is_away:
                world.exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_503], times=10**9)
            else:
                world.exchange.faults = None

        async def work() -> None:
            async with world.following(store) as following:
                await until(lambda: covered_until(store) > NOON)
                away(is_away=True)
                world.exchange.request_log.clear()
                before = world.clock()
                await anyio.sleep(2 * 3600)
                (health,) = following.health()
                assert health.last_error
                assert health.lag is not None
                assert health.lag > 3600
                assert world.exchange.request_log.total < (world.clock() - before) / 1000 / 5, (
                    "it does not spin"
                )
                away(is_away=False)
                await until(lambda: covered_until(store) > before + 2 * HOUR)
                await minutes_pass(store, 3)

        world.run(work)
        assert_true(store, world.exchange.market)


class AwayStore(MemorySink):
    """A store in memory that can be away."""

    away = False

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        def write(batch: object) -> None:
            self._check()
            inner(batch)  # type: ignore[arg-type]

        self._check()
        with super().writer() as inner:
            yield write

    def _check(self) -> None:
        if self.away:
            raise SinkUnavailable("the store is away")


def test_an_outage_of_the_store_is_waited_for_and_made_up() -> None:
    store = AwayStore()
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store) as following:
                await until(lambda: covered_until(store) > NOON)
                store.away, before = True, world.clock()
                await anyio.sleep(3600)
                assert "the store is away" in str(following.health()[0].last_error)
                store.away = False
                await until(lambda: covered_until(store) > before + HOUR)
                await minutes_pass(store, 3)

        world.run(work)
        waits = [event for event in world.events if isinstance(event, WaitingForStore)]
        assert 1 < len(waits) < 3600 / 8, "it does not spin"
        assert_true(store, world.exchange.market)


@pytest.mark.slow
@pytest.mark.parametrize("jump", [-3 * HOUR, 3 * HOUR])
def test_a_jump_of_the_wall_clock_changes_nothing(jump: int) -> None:
    """The exchange's clock decides; the next look at the wall clock is an hour later."""
    store = MemorySink()
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store):
                await until(lambda: covered_until(store) > NOON)
                world.wall_error = jump
                await minutes_pass(store, 90)  # the run that begins after an hour reads the wall clock
                # Half an hour is 1.8 s, which may pass on a busy machine; by the wall clock it is always 3 h.
                await until(lambda: world.clock() - covered_until(store) < 30 * MINUTE)

        world.run(work)
        assert_true(store, world.exchange.market)


def test_a_wall_clock_that_is_wrong_from_the_start_closes_no_candle_too_soon() -> None:
    store = MemorySink()
    with followed_world() as world:
        world.wall_error = 5 * HOUR

        async def work() -> None:
            async with world.following(store):
                await minutes_pass(store, 65)

        world.run(work)
        assert covered_until(store) <= world.clock()
        assert_true(store, world.exchange.market)


def test_a_refusal_for_the_location_ends_it() -> None:
    with followed_world() as world:

        async def work() -> None:
            async with world.following(MemorySink()) as following:
                world.exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_451], times=10**9)
                await following.wait()

        with pytest.raises(RestrictedLocation):
            world.run(work)


@pytest.mark.parametrize("place", ["none/market.sqlite", "."], ids=["no folder", "a folder"])
def test_a_store_that_cannot_work_ends_it_at_the_start(tmp_path: Path, place: str) -> None:
    with followed_world() as world:
        pipeline = world.pipeline(SQLiteSink(tmp_path / place))

        async def work() -> None:
            async with pipeline.follow() as following:
                await following.wait()

        with pytest.raises((ConfigurationError, SinkError), match=re.escape(str(tmp_path))):
            world.run(work)


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_leaving_the_block_leaves_nothing_behind() -> None:
    store = MemorySink()
    with followed_world() as world:

        async def work() -> None:
            counts = []
            for _ in range(8):
                async with world.following(store):
                    await minutes_pass(store, 2)
                counts.append((len(asyncio.all_tasks()), descriptors(), threading.active_count()))
            grown = [last - first for first, last in zip(counts[1], counts[-1], strict=True)]
            # The exchange, in this process too, may still have to close the last connection.
            assert max(grown) <= 3, "more tasks, descriptors, threads after six follows more"

        world.run(work)


@pytest.mark.parametrize("away", [False, True], ids=["between two candles", "while the exchange is away"])
def test_a_follow_that_outlives_its_session_ends(*, away: bool) -> None:
    store = MemorySink()
    with followed_world() as world:
        world.session = Session(proxies=world.pool(), fetcher=world.fetcher())

        async def work() -> None:
            assert world.session is not None
            async with world.session:
                follow = world.following(store)
                following = await follow.__aenter__()
                await until(lambda: covered_until(store) > NOON)
                world.cut_off = away
                await until(lambda: any(line.last_error for line in following.health()) is away)
            try:
                with anyio.fail_after(3600):
                    await following.wait()
            finally:
                await follow.__aexit__(*sys.exc_info())

        with pytest.raises(ConfigurationError, match=r"^session: it (was closed|is not open)"):
            world.run(work)
        assert_true(store, world.exchange.market)


class SlowToRead(AwayStore):
    """A store that is away once more when a run reads its coverage."""

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        self._check()
        return super().coverage(series)


def test_the_error_of_a_store_is_gone_once_the_store_answers() -> None:
    """Although nothing is missing: nothing is written, and the next row comes an hour later."""
    store = SlowToRead()
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store, interval="1d", start=NOON - 48 * HOUR) as following:
                await until(lambda: following.health() and following.health()[0].covered_until)
            store.away = True
            async with world.following(store, interval="1d", start=NOON - 48 * HOUR) as following:
                await until(lambda: any(isinstance(event, WaitingForStore) for event in world.events))
                store.away = False
                await until(lambda: any(isinstance(event, StoreRecovered) for event in world.events))
                await until(following.health)
                assert following.health()[0].last_error is None

        world.run(work)
