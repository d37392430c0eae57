"""Several runs into one store at once: it then holds the union of their queries, and each row once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import anyio
import attrs

from chaos.harness.command import backfill
from chaos.harness.request_audit import page_requests
from chaos.harness.store_contents import Oracle, check_contents, contents, fingerprint
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange, SimulatorOptions
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.coverage import Coverage
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from tests.support.worlds import DAY, MINUTE, span_of

__all__ = ["concurrent_runs", "concurrent_runs_in"]

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")

_SLOW = 3.0
"""Latency in seconds of a run that another one may overtake."""

_STALLED = 120.0
"""Latency of the run that is to be killed, once it has requested enough: longer than any run waits."""


@attrs.frozen
class RunSpec:
    """The query of one of several runs."""

    span: Span
    datasets: tuple[str, ...]

    def words(self) -> list[str]:
        """Return the arguments of the command line."""
        words = ["--start", str(self.span.start), "--end", str(self.span.end), "--concurrency", "4"]
        words += [word for name in _SYMBOLS for word in ("--symbol", name)]
        return words + [word for name in self.datasets for word in ("--dataset", name)]

    def query(self) -> Query:
        """Return the same query for the library."""
        return Query(symbols=_SYMBOLS, datasets=self.datasets, start=self.span.start, end=self.span.end)


@attrs.frozen
class Scenario:
    """Runs at the same time into one store; if `killed`, the first of them is killed and restarted."""

    name: str
    specs: Sequence[RunSpec]
    killed: bool = False

    @property
    def union(self) -> RunSpec:
        """One query for everything that the runs fetch."""
        spans = [spec.span for spec in self.specs]
        datasets = dict.fromkeys(name for spec in self.specs for name in spec.datasets)
        whole = Span(min(span.start for span in spans), max(span.end for span in spans))
        return RunSpec(whole, tuple(datasets))


def _scenarios(days: int) -> list[Scenario]:
    start = span_of("2024-06-01", "2024-06-02").start - days * DAY // 2
    whole = Span(start, start + days * DAY)
    first, second = Span(start, start + days * DAY * 2 // 3), Span(start + days * DAY // 3, whole.end)
    every = ("ohlcv", "premium_index", "funding_rate")
    return [
        Scenario(
            "four, each overlapping two", [RunSpec(s, (d,)) for s in (first, second) for d in every[:2]]
        ),
        Scenario("one of two is killed and started again", [RunSpec(whole, every)] * 2, killed=True),
        Scenario("two that want the same", [RunSpec(whole, every)] * 2),
        Scenario("two that overlap", [RunSpec(first, every), RunSpec(second, every)]),
        Scenario("two with different datasets", [RunSpec(whole, every[:1]), RunSpec(whole, every[1:])]),
    ]


@contextmanager
def _exchange() -> Iterator[SimulatedExchange]:
    june = span_of("2024-06-01", "2024-06-02").start
    market = GeneratedMarket(
        ["BTCUSDT", "ETHUSDT", MarketInstrument.parse("SOLUSDT", june - DAY + 7 * MINUTE)],
        seed=17,
        gaps=[Span(june + 11 * MINUTE, june + 40 * MINUTE)],
    )
    with SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.02)) as exchange:
        yield exchange


def concurrent_runs(effort: Effort) -> Iterator[Result]:
    """Start several runs at once, for every kind of store."""
    for kind in KINDS:
        with store_fixture(kind) as fixture:
            yield from concurrent_runs_in(fixture, effort)


def concurrent_runs_in(fixture: StoreFixture, effort: Effort) -> Iterator[Result]:
    """Start several runs at once into one kind of store: as processes, and as pipelines of one process."""
    commands = Trial(f"several runs at once, {fixture.kind}: the union, each row once", "scenarios")
    pipelines = Trial(f"several pipelines in one process, {fixture.kind}: the union, once", "scenarios")
    scenarios = _scenarios(effort.choose(4, 20))[: effort.choose(2, 5)]
    for number in range(effort.choose(1, 1, 20)):
        for scenario in scenarios:
            name = f"{fixture.kind}, seed {effort.seed}, {number}: {scenario.name}"
            # An exchange for each step: on another host the budget of this minute is unspent.
            with _exchange() as exchange:
                oracle = Oracle(exchange.market, scenario.union.span)
                alone = _pipelines(exchange, fixture.fresh(), [scenario.union])
                pages = _pages(exchange)
            with commands.attempt(name), _exchange() as exchange:
                url = fixture.fresh()
                if scenario.killed:
                    last = effort.rng(name).randint(pages // 4, pages // 2)
                    _one_killed(exchange, url, scenario, last, pages)
                else:
                    _commands(exchange, url, scenario.specs)
                _compare(url, alone, oracle)
            if not scenario.killed:
                with pipelines.attempt(name), _exchange() as exchange:
                    _compare(_pipelines(exchange, fixture.fresh(), scenario.specs), alone, oracle)
    yield commands.result()
    yield pipelines.result()


def _pages(exchange: SimulatedExchange) -> int:
    """Count the page requests."""
    return page_requests(exchange.request_log.latest)


def _commands(exchange: SimulatedExchange, url: str, specs: Sequence[RunSpec]) -> None:
    with ExitStack() as stack:
        for command in [stack.enter_context(backfill(exchange, url, spec.words())) for spec in specs]:
            command.finish()


def _one_killed(exchange: SimulatedExchange, url: str, scenario: Scenario, last: int, pages: int) -> None:
    """Kill the first run after `last` of its page requests, and start it again.

    The runs share the work, so each has an exchange of its own that keeps it from ending too early: the first
    is slow until the others are at work and gets no page after the last, and the others are slow from their
    first page until the first run is killed.
    """
    first, *others = scenario.specs

    def hold_first(_: ServerRequest, reply: ServerReply) -> ServerReply:
        seen = _pages(apart)
        if seen >= last - 1:
            apart.latency = _STALLED
        elif seen:
            apart.latency = quick if _pages(exchange) else _SLOW
        return reply

    def hold_others(_: ServerRequest, reply: ServerReply) -> ServerReply:
        if _pages(exchange):
            exchange.latency = _SLOW
        return reply

    def release_others() -> None:
        exchange.edit, exchange.latency = None, quick

    with ExitStack() as stack:
        apart = stack.enter_context(_exchange())
        quick = apart.latency
        exchange.edit, apart.edit = hold_others, hold_first
        stack.callback(release_others)
        run = stack.enter_context(backfill(apart, url, first.words()))
        assert run.until(lambda _: _pages(apart) > 0), "it has ended without a page"
        running = [stack.enter_context(backfill(exchange, url, spec.words())) for spec in others]
        assert run.until(lambda _: _pages(exchange) > 0), "it has ended before the others were at work"
        assert run.kill_when(lambda _: _pages(apart) >= last), "it has ended before it was killed"
        assert last <= _pages(apart) < pages, f"killed after {_pages(apart)} of {pages} pages"
        release_others()
        running.append(stack.enter_context(backfill(exchange, url, first.words())))
        for command in running:
            command.finish()


def _pipelines(exchange: SimulatedExchange, url: str, specs: Sequence[RunSpec]) -> str:
    venue, settings = BinanceUsdm(exchange.base_url), Settings(concurrency=4)
    pipelines = [Pipeline(venue, spec.query(), url, settings=settings) for spec in specs]

    async def run(pipeline: Pipeline) -> None:
        report = await pipeline
        assert report.complete, report

    async def all_at_once() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for pipeline in pipelines:
                    group.start_soon(run, pipeline)

    anyio.run(all_at_once)
    return url


def _compare(url: str, alone: str, oracle: Oracle) -> None:
    found, expected = check_contents(url, oracle), contents(alone)
    assert not (beside := left_over(url)), f"left over: {beside}"
    for series, held in expected.items():
        there = found[series].coverage if series in found else Coverage()
        assert there.covered == held.coverage.covered, f"{series}: {there.covered} is covered"
    same = fingerprint(url, verdicts_on_events=False) == fingerprint(alone, verdicts_on_events=False)
    assert same, "not what one run of the union has stored"
