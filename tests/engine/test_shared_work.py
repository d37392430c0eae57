"""Several processes with the same query and the same store: each takes what nobody has stored yet.

The processes are pipelines on one event loop, each with budgets of its own, and a pool that says how many
others there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.pages import shared_work
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.engine.pages.shared_work import BatchPlans, PageSizes
from marketfetch.engine.state import SeriesState
from marketfetch.errors import SinkUnavailable
from marketfetch.events import Event, PageFetched
from marketfetch.planning import shared_order
from marketfetch.planning.batches import BatchSizing, FetchTask
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.planning.shared_order import SharedOrder
from marketfetch.protocols import ProcessRank, SupportsProcessRank
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import assert_holds, span_of

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
SPAN = ("2026-05-01", "2026-05-11")
ROWS = len(SYMBOLS) * 10 * 1440


class Among(RotatingProxies):
    """The direct connection of one process among others."""

    def __init__(self, rank: ProcessRank) -> None:
        super().__init__([], registry=Registry())
        self.seen = rank

    def process_rank(self) -> ProcessRank:
        return self.seen


@attrs.frozen(eq=False)
class Process:
    """A pipeline, and the rows that it has been sent."""

    pipeline: Pipeline
    pages: list[PageFetched]

    @property
    def rows(self) -> int:
        return sum(page.rows for page in self.pages)


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS)


@pytest.fixture
def exchange(market: GeneratedMarket) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.005)) as running:
        yield running


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is looked at before each batch: these runs take less than a second."""
    monkeypatch.setattr(shared_work, "_MIN_READ_INTERVAL", 0.001)
    monkeypatch.setattr(shared_work, "_MIN_PAUSE_READS", 0)
    monkeypatch.setattr(shared_order, "_MIN_UNCHANGED_SECONDS", 0.2)


def process(
    exchange: SimulatedExchange,
    store: MemorySink,
    rank: ProcessRank | Among,
    **query: Any,
) -> Process:
    pages: list[PageFetched] = []

    def listen(event: Event) -> None:
        if isinstance(event, PageFetched):
            pages.append(event)

    archive_url: str | None = query.pop("archive_url", None)
    asked: dict[str, Any] = {"symbols": SYMBOLS, "start": SPAN[0], "end": SPAN[1]} | query
    pipeline = Pipeline(
        BinanceUsdm(exchange.base_url, archive_url=archive_url),
        Query(**asked),
        store,
        proxies=rank if isinstance(rank, Among) else Among(rank),
        board=None,
        settings=Settings(
            concurrency=4,
            batch_rows=3000,
            heartbeat=60,
            retries=RetryPolicy(attempts=4, initial=0.01, cap=0.02),
        ),
        listeners=[listen],
    )
    return Process(pipeline, pages)


def run_all(processes: Sequence[Process]) -> list[Report]:
    reports: list[Report] = []

    async def run(one: Process) -> None:
        reports.append(await one.pipeline.run())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for one in processes:
                group.start_soon(run, one)

    anyio.run(main)
    return reports


def test_the_built_in_pool_knows_its_rank() -> None:
    assert isinstance(RotatingProxies([], registry=Registry()), SupportsProcessRank)
    assert RotatingProxies([], registry=Registry()).process_rank() == ProcessRank(0, 0)


async def test_what_was_planned_of_many_gaps_stays_one_span() -> None:
    """Else each of a quarter million gaps of a year would cost as much as all those before it."""
    series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
    missing = SpanSet(tuple(Span(at, at + 60_000) for at in range(0, 100 * 120_000, 120_000)))
    task = FetchTask(series, missing, TimeWindowPaginator(), 1500)
    states = {series: SeriesState(series, Coverage())}
    plans = BatchPlans([task], BatchSizing(3000), states, None, SharedOrder(shares=1), RowBudget())
    taken = SpanSet()
    while (plan := await plans.next()) is not None:
        taken |= SpanSet.of(*(part.span for part in plan.slices))
        assert len(plans._alone.planned[series]) == 1
    assert taken == missing


async def test_pages_are_planned_anew_once_others_share_the_addresses() -> None:
    series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
    missing = SpanSet.of(Span(0, 20_000 * 60_000))
    task = FetchTask(series, missing, TimeWindowPaginator(), 1500)
    share = [3.0]
    sizes = PageSizes(lambda: share[0], lambda: [attrs.evolve(task, page_size=499)], planned=3.0)
    states = {series: SeriesState(series, Coverage())}
    plans = BatchPlans([task], BatchSizing(3000), states, None, SharedOrder(shares=1), RowBudget(), sizes)
    found = list[Slice]()
    while (plan := await plans.next()) is not None:
        found += plan.slices
        if len(found) == 4:
            share[0] = 2.5  # hardly less
        if len(found) == 8:
            share[0] = 1.0
    assert [part.rows for part in found[:8]] == [1500] * 8
    assert {part.rows for part in found[8:-1]} == {499}
    assert SpanSet.of(*(part.span for part in found)) == missing
    assert sum(part.span.length for part in found) == 20_000 * 60_000, "no moment twice"


@pytest.mark.parametrize("count", [2, 3])
def test_the_work_is_shared(exchange: SimulatedExchange, market: GeneratedMarket, count: int) -> None:
    store = MemorySink()
    processes = [process(exchange, store, ProcessRank(number, count - 1)) for number in range(count)]
    reports = run_all(processes)
    assert all(report.complete for report in reports), reports
    for series in store.ledger():
        assert_holds(store, market, series, span_of(*SPAN))
    asked = sum(one.rows for one in processes)
    assert ROWS <= asked < 1.5 * ROWS, "each row once, and a few twice; alone each would ask for all of them"
    assert all(one.rows < 0.9 * ROWS for one in processes)


def test_what_a_process_leaves_behind_is_fetched_by_the_others(
    exchange: SimulatedExchange, market: GeneratedMarket
) -> None:
    store = MemorySink()
    first, second = (process(exchange, store, ProcessRank(number, 1)) for number in range(2))

    async def main() -> Report:
        async with anyio.create_task_group() as group:
            group.start_soon(first.pipeline.run)
            while len(first.pages) < 5:  # noqa: ASYNC110  # pages have no event to wait for
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        return await second.pipeline.run()

    report = anyio.run(main)
    assert report.complete, report
    for series in store.ledger():
        assert_holds(store, market, series, span_of(*SPAN))


class AwayAtTimes(MemorySink):
    """A store that does not answer some looks; the first one is that of the run's beginning."""

    def __init__(self, away: range) -> None:
        super().__init__()
        self.away, self.looks = away, 0

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        self.looks += 1
        if self.looks in self.away:
            raise SinkUnavailable("the store is away")
        return super().coverage(series)


def test_a_store_that_goes_away_meanwhile_is_waited_for(
    exchange: SimulatedExchange, market: GeneratedMarket
) -> None:
    store = AwayAtTimes(range(4, 7))  # as long as one process alone may try: it looks four times
    processes = [process(exchange, store, ProcessRank(number, 1)) for number in range(2)]
    reports = run_all(processes)
    assert store.looks > 7
    assert all(report.complete for report in reports), reports
    for series in store.ledger():
        assert_holds(store, market, series, span_of(*SPAN))


def test_a_store_that_stays_away_ends_the_run(exchange: SimulatedExchange) -> None:
    one = process(exchange, AwayAtTimes(range(2, 1_000_000)), ProcessRank(0, 1))
    with pytest.raises(SinkUnavailable, match="the store is away") as ended:
        anyio.run(one.pipeline.run)
    assert ended.value.report is not None


def test_events_are_shared_page_by_page(exchange: SimulatedExchange, market: GeneratedMarket) -> None:
    store = MemorySink()
    query = {"datasets": ["funding_rate"], "start": "2025-05-01"}
    processes = [process(exchange, store, ProcessRank(number, 1), **query) for number in range(2)]
    assert all(report.complete for report in run_all(processes))
    for series in store.ledger():
        assert_holds(store, market, series, span_of("2025-05-01", SPAN[1]))


def test_all_symbols_are_shared(exchange: SimulatedExchange, market: GeneratedMarket) -> None:
    store = MemorySink()
    query = {"symbols": AllSymbols(quote="USDT")}
    processes = [process(exchange, store, ProcessRank(number, 1), **query) for number in range(2)]
    reports = run_all(processes)
    assert all(report.complete for report in reports), reports
    assert {series.symbol for series in store.ledger()} == set(SYMBOLS)
    for series in store.ledger():
        assert_holds(store, market, series, span_of(*SPAN))
    assert sum(one.rows for one in processes) < 1.5 * ROWS


def test_composites_of_another_process_count(exchange: SimulatedExchange) -> None:
    store = MemorySink()
    query = {"symbols": SYMBOLS[:2], "composites": [Composite("PAIR", SYMBOLS[:2])]}
    reports = run_all([process(exchange, store, ProcessRank(number, 1), **query) for number in range(2)])
    assert all(report.complete for report in reports), reports
    assert all(len(report.series) == 3 for report in reports)


@pytest.fixture
def files(market: GeneratedMarket) -> Iterator[SimulatedArchive]:
    since = span_of(*MONTHS).start
    with SimulatedArchive(market, ArchiveOptions(since=since, latency=0.05)) as running:
        yield running


MONTHS = ("2025-05-01", "2026-05-01")
FILES = len(SYMBOLS) * 12


@pytest.mark.parametrize("count", [2, 3])
def test_files_of_an_archive_are_shared(
    exchange: SimulatedExchange, files: SimulatedArchive, market: GeneratedMarket, count: int
) -> None:
    store = MemorySink()
    query = {"start": MONTHS[0], "end": MONTHS[1], "interval": "1h", "sources": "archive"}
    processes = [
        process(exchange, store, ProcessRank(number, count - 1), archive_url=files.base_url, **query)
        for number in range(count)
    ]
    reports = run_all(processes)
    assert all(report.complete for report in reports), reports
    for series in store.ledger():
        assert_holds(store, market, series, span_of(*MONTHS))
    read = read_from(files)
    assert len(set(read)) == FILES
    assert len(read) < 1.6 * FILES, "each file once, and a few twice; apart they would read all of them"


def read_from(files: SimulatedArchive) -> list[str]:
    return [each.path for each in files.request_log.latest if each.kind == "file"]


def test_files_that_another_process_has_stored_are_not_read(
    exchange: SimulatedExchange, files: SimulatedArchive
) -> None:
    """The second process waits for its first address until the first one has stored everything."""
    store = MemorySink()
    query = {"start": MONTHS[0], "end": MONTHS[1], "interval": "1h", "sources": "archive"}

    async def main() -> Report:
        pool = Waiting()
        first = process(exchange, store, ProcessRank(0, 1), archive_url=files.base_url, **query)
        late = process(exchange, store, pool, archive_url=files.base_url, **query)
        pool.seen = ProcessRank(1, 1)
        async with anyio.create_task_group() as group:

            async def fill() -> None:
                await first.pipeline.run()
                pool.free.set()

            group.start_soon(fill)
            return await late.pipeline.run()
        raise AssertionError

    report = anyio.run(main)
    assert report.complete, report
    assert len(read_from(files)) == FILES, "those of the first process"


class Waiting(Among):
    """A pool that has no address until it is let go; meanwhile the others end."""

    def __init__(self) -> None:
        super().__init__(ProcessRank())
        self.free = anyio.Event()

    @asynccontextmanager
    async def lease(self, request: Any) -> Any:
        await self.free.wait()
        async with super().lease(request) as lease:
            yield lease


def test_a_process_that_waited_for_its_first_address_asks_for_nothing_that_is_stored(
    exchange: SimulatedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "_MAX_AGE_AT_ROUND", 0.0)
    store = MemorySink()
    done = process(exchange, store, ProcessRank())

    async def main() -> tuple[Report, Process]:
        pool = Waiting()
        late = process(exchange, store, pool)
        async with anyio.create_task_group() as group:

            async def fill() -> None:
                await done.pipeline.run()
                pool.free.set()

            group.start_soon(fill)
            report = await late.pipeline.run()
        return report, late

    report, late = anyio.run(main)
    assert report.complete, report
    assert late.rows == 0
