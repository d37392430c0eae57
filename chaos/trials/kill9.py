"""The real command line, killed again and again: the same bytes in the end, and little asked twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from chaos.harness.command import backfill
from chaos.harness.request_audit import (
    InFlightLimit,
    lost_pages,
    lost_rows,
    refetched_pages,
    requested_pages,
    setup_requests,
)
from chaos.harness.store_contents import Contents, Oracle, check_contents, fingerprint
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from marketfetch.sinks import sink_from
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange, SimulatorOptions
from marketfetch.testing.simulator import wall_clock
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.series import Series
from marketfetch.values.spans import Span
from tests.support.worlds import DAY, MINUTE, span_of

__all__ = ["kill9", "kill9_in"]

_CONCURRENCY = 4
_PAGE = 1500
_LAG, _WORK = 2_000, 1_500
"""Milliseconds: how long candles are waited for, and about when a run is busy with its pages."""

_MIX = Composite("MIX", ("BTCUSDT", "ETHUSDT"))


@attrs.frozen
class Job:
    """What the command line is asked for; up to now, if it is not `fixed`: rows close while it runs."""

    span: Span
    datasets: tuple[str, ...]
    composites: tuple[Composite, ...] = ()
    fixed: bool = True

    @property
    def name(self) -> str:
        """What to call it."""
        return "history" if self.fixed else "up to now"

    @property
    def series(self) -> list[Series]:
        """What is fetched, without composites."""
        names = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
        return [Series.of("binance-usdm", kind, name, "1m") for kind in self.datasets for name in names]

    def words(self, end: int | None = None) -> list[str]:
        """Return the arguments; an `end` makes a job up to now one that can be repeated."""
        until = self.span.end if self.fixed else end
        words = ["--start", str(self.span.start), "--end", "now" if until is None else str(until)]
        words += [
            word for name in dict.fromkeys(one.symbol for one in self.series) for word in ("--symbol", name)
        ]
        words += [word for name in self.datasets for word in ("--dataset", name)]
        words += [
            word
            for mix in self.composites
            for word in ("--composite", f"{mix.symbol}={','.join(mix.members)}")
        ]
        return [*words, "--concurrency", str(_CONCURRENCY)]


@attrs.frozen(eq=False)
class World:
    """The exchange and the two jobs."""

    exchange: SimulatedExchange
    history: Job
    up_to_now: Job

    def oracle(self, job: Job) -> Oracle:
        """Return what is true of a job's span."""
        return Oracle(self.exchange.market, job.span, job.composites)

    def turn_clock(self, job: Job) -> None:
        """Let a minute close while the run that is about to start is at work, unless its end is fixed."""
        behind = 0 if job.fixed else (wall_clock() - _LAG) % MINUTE + _WORK
        self.exchange.now = lambda: wall_clock() - behind


@contextmanager
def _world(days: int) -> Iterator[World]:
    """Three symbols, one of them listed in the midst, and an outage of the exchange; a month ends there."""
    start = span_of("2024-06-01", "2024-06-02").start - days * DAY // 2
    late = MarketInstrument.parse("SOLUSDT", start + days * DAY // 3 + 7 * MINUTE)
    outage = Span(start + DAY + 11 * MINUTE, start + DAY + 40 * MINUTE)
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT", late], seed=11, gaps=[outage])
    midnight = wall_clock() // DAY * DAY
    with SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.02, log_size=10**6)) as exchange:
        yield World(
            exchange,
            Job(Span(start, start + days * DAY), ("ohlcv", "premium_index", "funding_rate"), (_MIX,)),
            Job(Span(midnight - days * DAY, midnight + 2 * DAY), ("ohlcv", "premium_index"), fixed=False),
        )


def kill9(effort: Effort) -> Iterator[Result]:
    """Kill runs into every kind of store."""
    for kind in KINDS:
        with store_fixture(kind) as place:
            yield from kill9_in(place, effort)


def kill9_in(place: StoreFixture, effort: Effort) -> Iterator[Result]:
    """Kill runs into one kind of store at random moments, and let each job be completed in the end."""
    wanted, kills, worst = effort.choose(10, 10, 100), 0, 0
    chance, bound = (
        effort.chance(f"killing {place.kind}"),
        InFlightLimit.of(sink_from(place.fresh()), _CONCURRENCY),
    )
    same = Trial(f"killed anywhere, {place.kind}: the same bytes in the end", "jobs")
    again = Trial(f"asked again after a kill, {place.kind}: what was in flight", "runs")
    undisturbed: dict[tuple[bool, int], str] = {}
    with _world(effort.choose(8, 20)) as world:
        oracles = {job.fixed: world.oracle(job) for job in (world.history, world.up_to_now)}
        for number in range(wanted):  # each job has a kill, or something is wrong
            if kills >= wanted:
                break
            job = world.up_to_now if number % 2 else world.history
            history = History(world, job, oracles[job.fixed], place.fresh(), chance, bound, again)
            with same.attempt(f"{place.kind}, seed {effort.seed}, job {number} ({job.name})"):
                try:
                    history.run_and_kill(min(wanted - kills, chance.randint(4, 7)))
                    history.compare(place, undisturbed)
                finally:
                    kills, worst = kills + history.kills, max(worst, history.worst)
    same.unit += f", {kills} kills"
    again.bar = f"≤ {bound.pages} pages"
    result = same.result()
    if kills < wanted:
        result = attrs.evolve(result, failures=(*result.failures, f"{kills} of {wanted} kills met a run"))
    yield result
    yield attrs.evolve(again.result(), survived=f"{worst} at most")


@attrs.define(eq=False)
class History:
    """One store, and the runs that were begun to fill it."""

    world: World
    job: Job
    oracle: Oracle
    url: str
    chance: random.Random
    bound: InFlightLimit
    again: Trial
    kills: int = 0
    worst: int = 0
    """The most pages that a kill made worthless."""
    _runs: int = 0
    _durable: Contents = attrs.field(factory=dict)

    def run_and_kill(self, times: int) -> None:
        """Start so many runs and kill them, then let one complete what is missing."""
        for _ in range(times):
            name, moment = self._moment()
            if not self._run(name, moment):
                return  # it was done before its moment came
        self._run("never", lambda _: False)

    def compare(self, place: StoreFixture, undisturbed: dict[tuple[bool, int], str]) -> None:
        """Fail unless an undisturbed run into another store makes the same bytes."""
        assert not (beside_it := left_over(self.url)), f"left over: {beside_it}"
        end = max(held.coverage.covered.spans[-1].end for held in self._durable.values())
        key = (self.job.fixed, end)
        if key not in undisturbed:
            exchange, other = self.world.exchange, place.fresh()
            exchange.now = wall_clock
            with backfill(exchange, other, self.job.words(end)) as command:
                command.finish()
            undisturbed[key] = fingerprint(other)
        assert fingerprint(self.url) == undisturbed[key], "not what an undisturbed run has stored"

    def _run(self, name: str, moment: Callable[[float], bool]) -> bool:
        """Start a run and kill it at a moment; then look at what it has left. Returns whether it was hit."""
        exchange, before = self.world.exchange, self._durable
        self.world.turn_clock(self.job)
        self._runs += 1
        exchange.record.clear()
        with backfill(exchange, self.url, self.job.words()) as command:
            killed = command.kill_when(moment)
        self.kills += killed
        seen = exchange.record.latest
        self._durable = check_contents(self.url, self.oracle)
        with self.again.attempt(f"{self.url}, run {self._runs}, killed {name}"):
            asked = requested_pages(seen, "1m")
            gone = lost_pages(asked, self._durable) if killed else []
            self.worst = max(self.worst, len(gone))
            assert not (twice := refetched_pages(asked, before)), f"asked although it was stored: {twice}"
            assert len(gone) <= self.bound.pages, f"{len(gone)} pages are worthless"
            rows = lost_rows(asked, self._durable)
            assert rows <= self.bound.rows, f"{rows} rows are worthless"
            # The clock and the listing, each once more where in doubt; three times where a series begins.
            assert setup_requests(seen) <= 4 + 3 * len(self.job.series), (
                f"{setup_requests(seen)} to start with"
            )
        return killed

    def _moment(self) -> tuple[str, Callable[[float], bool]]:
        """Choose when to kill: while it starts, amidst its pages, or when it has asked for all of them."""
        left = self._pages_left()
        kind = self.chance.choice(["starting", "asking", "asking", "ending"])
        pages = {"starting": 0, "asking": self.chance.randint(1, left), "ending": left}[kind]
        pause = self.chance.uniform(0, {"starting": 0.8, "asking": 0.15, "ending": 0.7}[kind])
        reached: list[float] = []

        def moment(elapsed: float) -> bool:
            if kind == "starting" or self.world.exchange.record.total >= pages + 2:
                reached.append(elapsed)
            return bool(reached) and elapsed >= (0 if kind == "starting" else reached[0]) + pause

        return f"{kind}: {pause:.3f} s after {pages} pages", moment

    def _pages_left(self) -> int:
        left = 0
        for series in self.job.series:
            held = self._durable.get(series)
            for span in (held.coverage if held else Coverage()).missing(self.job.span):
                left += 1 if series.interval.is_event else -(-series.interval.count(span) // _PAGE)
        return max(1, left)
