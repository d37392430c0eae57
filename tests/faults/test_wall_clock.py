"""What "now" is: the wall clock as each run finds it, and no jump of it within a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import anyio
import attrs
import pytest

from marketfetch.api.pipeline import Pipeline
from marketfetch.events import Event, RoundStarted
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from marketfetch.values.times import SteadyClock, parse_time
from tests.support.worlds import HOUR, MINUTE, World, run

NOON = parse_time("now", "2026-11-01T12:00:30Z", 0)


@attrs.define
class Machine:
    """A machine's clocks, moved by hand: the time of day, and the two that count since the start (ms)."""

    wall: int = NOON
    awake: int = 5 * HOUR
    since_start: int = 7 * HOUR

    def pass_by(self, ms: int) -> None:
        self.wall += ms
        self.awake += ms
        self.since_start += ms

    def sleep(self, ms: int) -> None:
        """Suspend: what counts only while the machine is awake stands still."""
        self.wall += ms
        self.since_start += ms

    def set_wall(self, ms: int) -> None:
        """Somebody, or NTP, sets the time of day."""
        self.wall += ms

    @contextmanager
    def installed(self) -> Iterator[None]:
        def gettime(clock: int) -> int:
            slept = clock == getattr(time, "CLOCK_BOOTTIME", -1) or sys.platform == "darwin"
            return (self.since_start if slept else self.awake) * 1_000_000

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: self.wall * 1_000_000)
            patch.setattr(time, "time", lambda: self.wall / 1000)
            patch.setattr(time, "monotonic_ns", lambda: self.awake * 1_000_000)
            patch.setattr(time, "clock_gettime_ns", gettime)
            yield


def exchange_of(machine: Machine, clock_skew: int = 0) -> SimulatedExchange:
    """An exchange whose time is the machine's time of day, whatever that is."""
    options = SimulatorOptions(now=lambda: machine.wall, clock_skew=clock_skew)
    return SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4), options)


@contextmanager
def pipelines(
    machine: Machine, **settings: Any
) -> Iterator[tuple[SimulatedExchange, Callable[..., Pipeline], MemorySink]]:
    with exchange_of(machine) as exchange, machine.installed():
        store = MemorySink()
        world = World(exchange, settings=Settings(**settings))

        def pipeline(**query: Any) -> Pipeline:
            return world.pipeline(store, **{"start": NOON - HOUR, "end": "now", **query})

        yield exchange, pipeline, store


def covered_until(store: MemorySink) -> int:
    (coverage,) = store.ledger().values()
    return coverage.covered.spans[-1].end


BETWEEN: dict[str, tuple[Callable[[Machine], None], int]] = {
    "the machine slept": (lambda machine: machine.sleep(10 * HOUR), 10 * HOUR),
    "the time of day was set forwards": (lambda machine: machine.set_wall(3 * HOUR), 3 * HOUR),
    "hours went by": (lambda machine: machine.pass_by(2 * HOUR), 2 * HOUR),
}


@pytest.mark.parametrize("what", BETWEEN)
@pytest.mark.parametrize("iterated", [False, True], ids=["awaited", "iterated"])
def test_a_pipeline_that_runs_again_knows_what_time_it_is(what: str, *, iterated: bool) -> None:
    happen, later = BETWEEN[what]
    machine = Machine()
    with pipelines(machine) as (_, make, store):
        pipeline = make()

        async def iterate() -> None:
            async for _batch in pipeline:
                pass

        anyio.run(iterate if iterated else pipeline.run)
        assert covered_until(store) == NOON - 30_000 - MINUTE
        happen(machine)
        anyio.run(iterate if iterated else pipeline.run)
        assert pipeline.report().complete
        assert covered_until(store) == NOON - 30_000 - MINUTE + later


def test_settings_that_are_kept_for_weeks_serve_a_new_pipeline_and_a_new_query() -> None:
    """One Settings for a whole service; the end of a query is checked against the time of day, too."""
    machine = Machine()
    with exchange_of(machine) as exchange, machine.installed():
        world, store = World(exchange, settings=Settings()), MemorySink()
        machine.sleep(10 * HOUR)
        end = NOON + 9 * HOUR
        report = run(world.pipeline(store, start=NOON - HOUR, end=end, interval="1h"))
        assert report.complete
        assert report.series[0].wanted == Span(NOON - 30_000, NOON - 30_000 + 9 * HOUR)


def test_a_time_of_day_that_was_wrong_and_is_set_back_is_right_for_the_next_run() -> None:
    """The machine came up an hour ahead; a run asked by that clock; then NTP set it right."""
    machine = Machine(wall=NOON + HOUR)
    options = SimulatorOptions(now=lambda: NOON)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4), options) as exchange, machine.installed():
        store = MemorySink()
        pipeline = World(exchange, settings=Settings()).pipeline(store, start=NOON - HOUR, end="now")
        assert not run(pipeline).complete  # what lies between the two clocks is missing
        machine.set_wall(-HOUR)
        assert run(pipeline).complete


WITHIN: dict[str, tuple[Callable[[Machine], None], int]] = {
    "the machine slept": (lambda machine: machine.sleep(2 * HOUR), 2 * HOUR),
    "the time of day was set forwards": (lambda machine: machine.set_wall(2 * HOUR), 0),
    "the time of day was set back": (lambda machine: machine.set_wall(-2 * HOUR), 0),
}


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="no clock that is known to count suspend")
@pytest.mark.parametrize("what", WITHIN)
def test_within_a_run_only_time_that_passes_moves_the_clock(what: str) -> None:
    """A jump in the first round: only a suspend lets the second round want more than the first."""
    happen, later = WITHIN[what]
    machine, true = Machine(), Machine()
    done: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, RoundStarted) and not done:
            done.append(event)
            happen(machine)
            true.wall += later

    options = SimulatorOptions(now=lambda: true.wall)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4), options) as exchange, machine.installed():
        store = MemorySink()
        world = World(exchange, settings=Settings(), listeners=[listen])
        report = run(world.pipeline(store, start=NOON - HOUR, end="now"))
    assert report.complete
    assert done
    assert covered_until(store) == NOON - 30_000 - MINUTE + later


def test_a_clock_of_the_callers_own_is_asked_and_left_alone() -> None:
    now = [NOON]
    machine = Machine(wall=0)
    with (
        SimulatedExchange(
            GeneratedMarket(["BTCUSDT"], seed=4), SimulatorOptions(now=lambda: now[0])
        ) as exchange,
        machine.installed(),
    ):
        store = MemorySink()
        settings = Settings(clock=lambda: now[0])
        pipeline = World(exchange, settings=settings).pipeline(store, start=NOON - HOUR, end="now")
        run(pipeline)
        now[0] += HOUR
        run(pipeline)
        assert covered_until(store) == NOON - 30_000 - MINUTE + HOUR


def test_the_clock_itself() -> None:
    machine = Machine()
    with machine.installed():
        clock = SteadyClock()
        assert clock() == NOON
        machine.set_wall(-5 * HOUR)
        machine.pass_by(1)
        assert clock() == NOON + 1
        if sys.platform in {"linux", "darwin"}:
            machine.sleep(HOUR)
            assert clock() == NOON + 1 + HOUR


def test_the_end_of_a_query_is_held_against_the_time_of_day_when_a_pipeline_is_made() -> None:
    machine = Machine()

    def made(settings: Settings) -> AbstractContextManager[object] | None:
        query = Query(symbols="BTCUSDT", start=NOON - HOUR, end=NOON + 9 * HOUR)
        Pipeline("binance-usdm", query, MemorySink(), settings=settings)
        return None

    with machine.installed():
        settings = Settings()
        with pytest.raises(ValueError, match="in the future"):
            made(settings)
        machine.sleep(10 * HOUR)
        made(settings)
