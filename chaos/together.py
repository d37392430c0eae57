"""Several runs of the real command line into one store at once: what they all wanted, and every row once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import anyio
import attrs

from chaos.asked import windows
from chaos.command import backfill
from chaos.contents import Oracle, check_contents, contents, fingerprint
from chaos.promises import Outcome, Scale, Trial
from chaos.stores import KINDS, Place, left_over, place_for
from marketfetch.api.pipeline import Pipeline
from marketfetch.exchanges.binance_usdm import BinanceUsdm
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange, SimulatorOptions
from marketfetch.values.coverage import Coverage
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from tests.support.worlds import DAY, MINUTE, span_of

__all__ = ["together", "together_in"]

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")

_SLOW = 1.0
"""Seconds that a reply takes while others start."""


@attrs.frozen
class Wish:
    """What one of several runs is asked for."""

    span: Span
    datasets: tuple[str, ...]

    def words(self) -> list[str]:
        """Return the arguments of the command line."""
        words = ["--start", str(self.span.start), "--end", str(self.span.end), "--concurrency", "4"]
        words += [word for name in _SYMBOLS for word in ("--symbol", name)]
        return words + [word for name in self.datasets for word in ("--dataset", name)]

    def query(self) -> Query:
        """Return the same for the library."""
        return Query(symbols=_SYMBOLS, datasets=self.datasets, start=self.span.start, end=self.span.end)


@attrs.frozen
class Scene:
    """Runs that go on at once, and the one run that wants what they all want."""

    name: str
    wishes: Sequence[Wish]
    killed: bool = False

    @property
    def union(self) -> Wish:
        """What they want together."""
        spans = [wish.span for wish in self.wishes]
        datasets = dict.fromkeys(name for wish in self.wishes for name in wish.datasets)
        whole = Span(min(span.start for span in spans), max(span.end for span in spans))
        return Wish(whole, tuple(datasets))


def _scenes(days: int) -> list[Scene]:
    start = span_of("2024-06-01", "2024-06-02").start - days * DAY // 2
    whole = Span(start, start + days * DAY)
    first, second = Span(start, start + days * DAY * 2 // 3), Span(start + days * DAY // 3, whole.end)
    every = ("ohlcv", "premium_index", "funding_rate")
    return [
        Scene("four, each overlapping two", [Wish(s, (d,)) for s in (first, second) for d in every[:2]]),
        Scene("one of two is killed and started again", [Wish(whole, every)] * 2, killed=True),
        Scene("two that want the same", [Wish(whole, every)] * 2),
        Scene("two that overlap", [Wish(first, every), Wish(second, every)]),
        Scene("two with different datasets", [Wish(whole, every[:1]), Wish(whole, every[1:])]),
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


def together(scale: Scale) -> Iterator[Outcome]:
    """Let runs meet in every kind of store."""
    for kind in KINDS:
        with place_for(kind) as place:
            yield from together_in(place, scale)


def together_in(place: Place, scale: Scale) -> Iterator[Outcome]:
    """Let runs meet in one kind of store: as commands, and in one process."""
    commands = Trial(f"several runs at once, {place.kind}: the union, once", "meetings")
    pipelines = Trial(f"several pipelines in one process, {place.kind}: the union, once", "meetings")
    scenes = _scenes(scale.choose(6, 20))[: scale.choose(2, 5)]
    with _exchange() as exchange:
        for number in range(scale.choose(1, 1, 20)):
            for scene in scenes:
                oracle, alone = Oracle(exchange.market, scene.union.span), place.fresh()
                exchange.record.clear()
                with backfill(exchange, alone, scene.union.words()) as command:
                    command.finish()
                pages = _pages(exchange)
                name = f"{place.kind}, seed {scale.seed}, {number}: {scene.name}"
                with commands.attempt(name):
                    url = place.fresh()
                    if scene.killed:
                        last = scale.chance(name).randint(pages // 4, pages * 3 // 4)
                        _one_killed(exchange, url, scene, last, pages)
                    else:
                        _commands(exchange, url, scene.wishes)
                    _compare(url, alone, oracle)
                if not scene.killed:
                    with pipelines.attempt(name):
                        _compare(_pipelines(exchange, place.fresh(), scene), alone, oracle)
    yield commands.outcome()
    yield pipelines.outcome()


def _pages(exchange: SimulatedExchange) -> int:
    """Count the pages that were asked for."""
    return len(windows(exchange.record.latest, "1m"))


def _commands(exchange: SimulatedExchange, url: str, wishes: Sequence[Wish]) -> None:
    with ExitStack() as stack:
        for command in [stack.enter_context(backfill(exchange, url, wish.words())) for wish in wishes]:
            command.finish()


def _one_killed(exchange: SimulatedExchange, url: str, scene: Scene, last: int, pages: int) -> None:
    """Kill the first run when it has asked for its `last` of so many pages, and start it again.

    It has an exchange of its own, which counts what it asks for, and is slow until the others are at work.
    """
    first, *others = scene.wishes
    with ExitStack() as stack:
        apart = stack.enter_context(_exchange())
        apart.latency = _SLOW
        run = stack.enter_context(backfill(apart, url, first.words()))
        assert run.until(lambda _: _pages(apart) > 0), "it has ended without a page"
        exchange.record.clear()
        running = [stack.enter_context(backfill(exchange, url, wish.words())) for wish in others]
        assert run.until(lambda _: _pages(exchange) > 0), "it has ended before the others were at work"
        apart.latency = exchange.latency
        assert run.kill_when(lambda _: _pages(apart) >= last), "it has ended before it was killed"
        assert last <= _pages(apart) < pages, f"killed after {_pages(apart)} of {pages} pages"
        running.append(stack.enter_context(backfill(exchange, url, first.words())))
        for command in running:
            command.finish()


def _pipelines(exchange: SimulatedExchange, url: str, scene: Scene) -> str:
    venue, settings = BinanceUsdm(exchange.base_url), Settings(concurrency=4)
    pipelines = [Pipeline(venue, wish.query(), url, settings=settings) for wish in scene.wishes]

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
