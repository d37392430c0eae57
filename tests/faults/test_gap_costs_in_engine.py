"""The work for a page does not grow with the holes of a series: every second minute is missing.

The tests count the calls on the event loop; there is one for each span that is read.
"""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import numpy as np
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.composites import CompositeOhlcv
from marketfetch.engine.derivation import Derivation
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import OnWritten
from marketfetch.errors import RowsRefused
from marketfetch.planning.paginators import ProgressGuard
from marketfetch.planning.running_union import coverages, span_sets
from marketfetch.protocols import PageOutcome
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import not_split
from tests.support.worlds import DAY, MINUTE, span_of
from tests.support.wrong_rows import changing, time_of, with_field

START = span_of("2026-06-01", "2026-06-02").start
SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
PAGE = 500


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count calls of functions, in Python and in C."""
    profile, count = cProfile.Profile(), list[int]()
    with profile:
        yield count
    total: Any = pstats.Stats(profile)
    count.append(int(total.total_calls))


class SmallOhlcv(Ohlcv):
    page_sizes = (99,)  # type: ignore[assignment]  # the base class has four


class SmallPages(BinanceUsdm):
    """Many pages, so that work that grows with their number shows soon."""

    sources = (SmallOhlcv,)


def unusable(row: Any) -> Any:
    """Make the row of every second minute impossible."""
    return with_field(5, "-1")(row) if time_of(row) // MINUTE % 2 == 1 else row


def calls_of_a_run(name: str, hours: int) -> int:
    """Fill so many hours of which every second minute is missing, through the simulated exchange."""
    later, end = START + 400 * DAY, START + hours * 60 * MINUTE
    minutes = range(START + MINUTE, end, 2 * MINUTE)
    gaps = [Span(minute, minute + MINUTE) for minute in minutes] if name == "absent" else []
    edit = changing(unusable, "klines") if name == "unusable" else None
    options = SimulatorOptions(limits=None, now=lambda: later, edit=edit)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=1, gaps=gaps), options) as exchange:
        query = Query(symbols="BTCUSDT", start=START, end=end)
        settings = Settings(concurrency=4, clock=lambda: later)
        pipeline = Pipeline(SmallPages(exchange.base_url), query, MemorySink(), settings=settings)

        async def work() -> tuple[Report, int]:
            with counting() as count:
                report = await pipeline.run()
            return report, count[0]

        report, calls = anyio.run(work)
    assert report.complete
    assert len(report.series[0].empty) + len(report.series[0].unusable) == hours * 30
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["absent", "unusable"])
def test_four_times_the_holes_are_about_four_times_the_work(name: str) -> None:
    calls_of_a_run(name, 2)  # imports what is imported late
    few, many = (calls_of_a_run(name, hours) for hours in (24, 96))
    # Uniting by halves adds a little for each doubling; uniting whole sets would double it.
    assert many < 5.5 * few, (few, many)


def outcomes(pages: int) -> list[PageOutcome]:
    """What pages prove, each with a row in every second minute of its window."""
    made = []
    for number in range(pages):
        times = START + (number * PAGE + np.arange(0, PAGE, 2)) * MINUTE
        made.append(PageOutcome(SERIES.interval.cover(times)))
    return made


def work_on(pages: int, *, shuffled: bool) -> int:
    """Record so many pages in the given order, and read once at the end what is known."""
    found = outcomes(pages)
    if shuffled:
        np.random.default_rng(1).shuffle(found)
    state, guard, nothing = (
        SeriesState(SERIES, Coverage()),
        ProgressGuard(),
        Columns.empty(SERIES.dataset),
    )
    with counting() as count:
        for each in found:
            state.record_page(Page(nothing), each)
            state.record_written(Batch(SERIES, nothing, each.coverage))
            state.give_up(each.present, Reason(MissingReason.TOO_OLD, "a reason"))
            guard.observe(each)
        known, durable = state.known, state.durable
    assert known == durable
    assert len(known.covered) == pages * PAGE // 2
    return count[0]


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_state_of_a_series_grows_page_by_page(*, shuffled: bool) -> None:
    few, many = work_on(32, shuffled=shuffled), work_on(256, shuffled=shuffled)
    # Eight times the pages and three more levels of halves; uniting whole sets would be 64 times as much.
    assert many < 20 * few


def test_uniting_one_by_one_is_uniting() -> None:
    random = np.random.default_rng(7)
    running, learnt = span_sets(), coverages()
    plain, known = SpanSet(), Coverage()
    for _ in range(300):
        spans = [Span(int(at), int(at) + int(length)) for at, length in random.integers(1, 400, (3, 2))]
        covered, empty, unusable = map(SpanSet.of, spans)
        part = Coverage(covered, covered & empty - unusable, covered & unusable)
        running.add(covered)
        learnt.add(part)
        plain, known = plain | covered, known | part
        if random.integers(10) == 0:
            assert (running.value, learnt.value) == (plain, known)
    assert (running.value, learnt.value) == (plain, known)


def test_a_large_set_is_asked_about_a_small_one_for_little() -> None:
    large = SpanSet(tuple(Span(at, at + 1) for at in range(0, 200_000, 2)))
    small = SpanSet.of(Span(100_000, 100_003))
    with counting() as count:
        assert small & large == SpanSet.of(Span(100_000, 100_001), Span(100_002, 100_003))
        assert small - large == SpanSet.of(Span(100_001, 100_002))
        assert 100_002 in large
        assert 100_003 not in large
    assert count[0] < 100


class CountingStore(MemorySink):
    """Counts how often it is read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def read(self, series: Series, span: Span) -> Columns:
        self.calls["read"] += 1
        return super().read(series, span)

    def _write(self, batch: Batch) -> None:
        self.calls["write"] += 1
        super()._write(batch)


def test_a_composite_of_members_with_holes_is_computed_in_few_steps() -> None:
    """Nothing is known of every second minute: what can be computed are 720 spans of a minute each."""
    composite, *members = (Series.of("okx", "ohlcv", name, "1m") for name in ("MT", "A", "B"))
    times = START + np.arange(0, 1440, 2) * MINUTE
    store = CountingStore()
    with store.writer() as write:
        for number, member in enumerate(members):
            rows = Columns(times, np.full((9, 720), float(number)))
            write(Batch(member, rows, Coverage(member.interval.cover(times))))
    store.calls.clear()
    written: list[Batch] = []
    retrier = StoreRetrier(RetryPolicy(), lambda _: None)
    day = SpanSet.of(Span(START, START + DAY))
    source = CompositeOhlcv(tuple(members))
    state = SeriesState(composite, Coverage(), wanted=day)

    def on_durable(batch: Batch) -> None:
        written.append(batch)
        state.record_written(batch)

    def on_refused(_: Batch, error: RowsRefused) -> None:
        raise error

    async def deliver(batch: Batch) -> None:
        assert written[-1] == batch

    on_written = OnWritten(on_durable, on_refused, deliver, not_split)
    anyio.run(Derivation(store, retrier, on_written, 500).run, [(state, source)])
    assert store.calls == {"read": 6, "write": 3}
    assert store.coverage([composite])[composite] == Coverage(composite.interval.cover(times))
    assert store.read(composite, Span(START, START + DAY)).times.tolist() == times.tolist()
    assert sum(batch.rows for batch in written) == state.rows_to_compute == 720
    assert [reason.detail for reason in state.given_up] == ["not known of every input (A, B)"]
