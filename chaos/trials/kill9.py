"""Kill `marketfetch backfill` again and again: the final store is the same, and little is refetched."""

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
"""Milliseconds: the delay before a closed candle is fetched, and the usual start of a run's page requests."""

_MIX = Composite("MIX", ("BTCUSDT", "ETHUSDT"))


@attrs.frozen
class KillJob:
    """The arguments of the command line. If not `fixed`, the end is "now": candles close during the run."""

    span: Span
    datasets: tuple[str, ...]
    composites: tuple[Composite, ...] = ()
    fixed: bool = True

    @property
    def name(self) -> str:
        """The name in failure messages."""
        return "history" if self.fixed else "up to now"

    @property
    def series(self) -> list[Series]:
        """The fetched series, without composites."""
        names = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
        return [Series.of("binance-usdm", kind, name, "1m") for kind in self.datasets for name in names]

    def words(self, end: int | None = None) -> list[str]:
        """Return the arguments; `end` replaces "now", so that an earlier run can be repeated."""
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
class Scenario:
    """The exchange, and the two jobs that are run against it."""

    exchange: SimulatedExchange
    store_history: KillJob
    up_to_now: KillJob

    def oracle(self, job: KillJob) -> Oracle:
        """Return the true rows of a job's span."""
        return Oracle(self.exchange.market, job.span, job.composites)

    def turn_clock(self, job: KillJob) -> None:
        """Set the exchange's clock so that a minute closes during the next run, unless its end is fixed."""
        behind = 0 if job.fixed else (wall_clock() - _LAG) % MINUTE + _WORK
        self.exchange.now = lambda: wall_clock() - behind


@contextmanager
def _world(days: int) -> Iterator[Scenario]:
    """Three symbols, one listed later than the start; an outage of 29 minutes; the end of a month."""
    start = span_of("2024-06-01", "2024-06-02").start - days * DAY // 2
    late = MarketInstrument.parse("SOLUSDT", start + days * DAY // 3 + 7 * MINUTE)
    outage = Span(start + DAY + 11 * MINUTE, start + DAY + 40 * MINUTE)
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT", late], seed=11, gaps=[outage])
    midnight = wall_clock() // DAY * DAY
    with SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.02, log_size=10**6)) as exchange:
        yield Scenario(
            exchange,
            KillJob(Span(start, start + days * DAY), ("ohlcv", "premium_index", "funding_rate"), (_MIX,)),
            KillJob(Span(midnight - days * DAY, midnight + 2 * DAY), ("ohlcv", "premium_index"), fixed=False),
        )


def kill9(effort: Effort) -> Iterator[Result]:
    """Kill runs, for every kind of store."""
    for kind in KINDS:
        with store_fixture(kind) as fixture:
            yield from kill9_in(fixture, effort)


def kill9_in(fixture: StoreFixture, effort: Effort) -> Iterator[Result]:
    """Kill runs into one kind of store at random moments; the last run of each job is not killed."""
    wanted, kills, worst = effort.choose(2, 10, 100), 0, 0
    most = effort.choose(1, 7)  # kills of one job: jobs of both kinds are killed
    rng, bound = (
        effort.rng(f"kill9 {fixture.kind}"),
        InFlightLimit.of(sink_from(fixture.fresh()), _CONCURRENCY),
    )
    same = Trial(f"killed at any moment, {fixture.kind}: the same final store", "jobs")
    again = Trial(f"refetched after a kill, {fixture.kind}: only pages in flight", "runs")
    undisturbed: dict[tuple[bool, int], str] = {}
    with _world(effort.choose(6, 20)) as scenario:
        oracles = {job.fixed: scenario.oracle(job) for job in (scenario.store_history, scenario.up_to_now)}
        for number in range(4 * wanted):  # some runs end before they are killed
            if kills >= wanted:
                break
            job = scenario.up_to_now if number % 2 else scenario.store_history
            store_history = KilledStore(scenario, job, oracles[job.fixed], fixture.fresh(), rng, bound, again)
            with same.attempt(f"{fixture.kind}, seed {effort.seed}, job {number} ({job.name})"):
                try:
                    store_history.run_and_kill(min(wanted - kills, rng.randint(most // 2 + 1, most)))
                    store_history.compare(fixture, undisturbed)
                finally:
                    kills, worst = kills + store_history.kills, max(worst, store_history.worst)
    same.unit += f", {kills} kills"
    again.bar = f"≤ {bound.pages} pages"
    result = same.result()
    if kills < wanted:
        result = attrs.evolve(result, failures=(*result.failures, f"{kills} of {wanted} kills met a run"))
    yield result
    yield attrs.evolve(again.result(), survived=f"{worst} at most")


@attrs.define(eq=False)
class KilledStore:
    """One store, and the killed runs that fill it."""

    scenario: Scenario
    job: KillJob
    oracle: Oracle
    url: str
    rng: random.Random
    bound: InFlightLimit
    again: Trial
    kills: int = 0
    worst: int = 0
    """The most pages that one kill wasted."""
    _runs: int = 0
    _fetched: bool = False
    """Whether the last run requested any page."""
    _durable: Contents = attrs.field(factory=dict)

    def run_and_kill(self, times: int) -> None:
        """Start and kill `times` runs, then let one more complete the store."""
        for _ in range(times):
            name, trigger = self._trigger()
            if not self._run(name, trigger):
                return  # the run completed before the kill
        self._run("never", lambda _: False)

    def compare(self, fixture: StoreFixture, undisturbed: dict[tuple[bool, int], str]) -> None:
        """Fail unless an undisturbed run into another store gives the same digest."""
        # The log of a killed writer stays if a run has only read: the next run that writes removes it.
        assert not self._fetched or not (found := left_over(self.url)), f"left over: {found}"
        end = max(held.coverage.covered.spans[-1].end for held in self._durable.values())
        key = (self.job.fixed, end)
        if key not in undisturbed:
            exchange, other = self.scenario.exchange, fixture.fresh()
            exchange.now = wall_clock
            with backfill(exchange, other, self.job.words(end)) as command:
                command.finish()
            undisturbed[key] = fingerprint(other)
        assert fingerprint(self.url) == undisturbed[key], "not what an undisturbed run has stored"

    def _run(self, name: str, trigger: Callable[[float], bool]) -> bool:
        """Start a run, kill it at the trigger, check store and requests; return whether it was killed."""
        exchange, before = self.scenario.exchange, self._durable
        self.scenario.turn_clock(self.job)
        self._runs += 1
        exchange.request_log.clear()
        with backfill(exchange, self.url, self.job.words()) as command:
            killed = command.kill_when(trigger)
        self.kills += killed
        seen = exchange.request_log.latest
        self._durable = check_contents(self.url, self.oracle)
        with self.again.attempt(f"{self.url}, run {self._runs}, killed {name}"):
            asked = requested_pages(seen, "1m")
            self._fetched = bool(asked)
            gone = lost_pages(asked, self._durable) if killed else []
            self.worst = max(self.worst, len(gone))
            assert not (twice := refetched_pages(asked, before)), f"asked although it was stored: {twice}"
            assert len(gone) <= self.bound.pages, f"{len(gone)} pages are wasted"
            rows = lost_rows(asked, self._durable)
            assert rows <= self.bound.rows, f"{rows} rows are wasted"
            # Clock and listing: twice each at most; the start of a series: three requests at most.
            assert setup_requests(seen) <= 4 + 3 * len(self.job.series), (
                f"{setup_requests(seen)} to start with"
            )
        return killed

    def _trigger(self) -> tuple[str, Callable[[float], bool]]:
        """Choose when to kill: during the start, amid the page requests, or after the last of them."""
        left = self._pages_left()
        kind = self.rng.choice(["starting", "asking", "asking", "ending"])
        pages = {"starting": 0, "asking": self.rng.randint(1, left), "ending": left}[kind]
        pause = self.rng.uniform(0, {"starting": 0.8, "asking": 0.15, "ending": 0.7}[kind])
        reached: list[float] = []

        def trigger(elapsed: float) -> bool:
            if kind == "starting" or self.scenario.exchange.request_log.total >= pages + 2:
                reached.append(elapsed)
            return bool(reached) and elapsed >= (0 if kind == "starting" else reached[0]) + pause

        return f"{kind}: {pause:.3f} s after {pages} pages", trigger

    def _pages_left(self) -> int:
        left = 0
        for series in self.job.series:
            held = self._durable.get(series)
            for span in (held.coverage if held else Coverage()).missing(self.job.span):
                left += 1 if series.interval.is_event else -(-series.interval.count(span) // _PAGE)
        return max(1, left)
