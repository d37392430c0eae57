"""Errors are retried or reported: no wrong row is stored, and no row is lost, without a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import attrs
import pytest

from marketfetch.errors import ProxyError, RestrictedLocation, SinkError, SinkUnavailable
from marketfetch.events import BatchWritten, Event, RequestFailed, RunFinished
from marketfetch.protocols import Writer
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, LocalProxies, ProxyMode, SimulatedExchange
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.worlds import World, assert_holds, run

KLINES = "/fapi/v1/klines"
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
QUICK = Settings(concurrency=8, retries=RetryPolicy(attempts=6, initial=0.01, cap=0.05), deadline=5)
CURABLE = [
    FaultKind.STATUS_500,
    FaultKind.STATUS_502,
    FaultKind.STATUS_503,
    FaultKind.EMPTY_BODY,
    FaultKind.TRUNCATED_JSON,
    FaultKind.OBJECT_INSTEAD_OF_LIST,
    FaultKind.NULL,
    FaultKind.WRONG_WINDOW,
    FaultKind.REVERSED_ORDER,
    FaultKind.SHORT_PAGE,
    FaultKind.EMPTY_PAGE,
    FaultKind.REPEATED_ROWS,
    FaultKind.UNSORTED_ROWS,
    FaultKind.OFF_GRID_ROW,
    FaultKind.OUT_OF_RANGE_ROW,
    FaultKind.IMPOSSIBLE_ROW,
    FaultKind.NEGATIVE_VOLUME,
    FaultKind.NAN_TEXT,
    FaultKind.TEXT_VALUE,
    FaultKind.NO_VALUE,
    FaultKind.HUGE_NUMBER,
    FaultKind.PLAIN_NUMBERS,
]


@pytest.fixture
def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS, seed=5)


@pytest.fixture
def world(market: GeneratedMarket) -> Iterator[World]:
    with SimulatedExchange(market) as exchange:
        yield World(exchange, settings=QUICK)


@pytest.mark.parametrize("fault", CURABLE)
async def test_a_temporary_fault_leaves_no_trace(
    world: World, market: GeneratedMarket, fault: FaultKind
) -> None:
    world.exchange.faults = Faults(rate=0.7, kinds=[fault], seed=1, paths=[KLINES], times=1)
    store = MemorySink()
    report = await world.pipeline(store, symbols=SYMBOLS)
    assert world.exchange.request_log.faults[fault] > 0
    assert report.complete, report.as_dict()
    for line in report.series:
        assert_holds(store, market, line.series, line.wanted)


async def test_what_never_passes_is_missing_with_its_reason(world: World) -> None:
    world.exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_503], paths=[KLINES], times=1000)
    report = await world.pipeline(MemorySink())
    (line,) = report.series
    assert (line.rows, report.complete) == (0, False)
    assert line.missing[0].spans.hull == line.wanted
    assert "ExchangeNotAvailable" in line.missing[0].reason
    assert report.retries["ExchangeNotAvailable"] > 0
    assert any(event.final for event in world.events_of(RequestFailed))


async def test_impossible_rows_are_counted_and_reported(world: World) -> None:
    world.exchange.faults = Faults(rate=1, kinds=[FaultKind.IMPOSSIBLE_ROW], paths=[KLINES], times=1000)
    store = MemorySink()
    report = await world.pipeline(store)
    (line,) = report.series
    assert line.rejected["impossible"] > 0
    assert report.complete
    assert line.unusable_moments > 0
    held = store.read(line.series, line.wanted)
    assert (held.values[1] >= held.values[2]).all()
    assert len(held) == 1440 - line.unusable_moments
    world.settings = attrs.evolve(QUICK, unusable="retry")
    report = await world.pipeline(store)
    (again,) = report.series
    assert not report.complete
    assert "impossible" in again.missing[0].reason
    assert again.missing[0].spans == line.unusable


def test_a_legal_refusal_ends_the_run_and_is_not_tried_elsewhere(world: World) -> None:
    world.exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_451], paths=[KLINES], times=1000)
    with LocalProxies(3) as proxies, pytest.raises(RestrictedLocation) as refusal:
        run(world.pipeline(MemorySink(), proxies=proxies.urls, end="2026-07-01"))
    report = refusal.value.report
    assert isinstance(report, Report)
    assert not report.complete
    # Only the requests that were in flight at the first refusal were made.
    assert world.asked(KLINES) <= QUICK.concurrency


def test_a_dead_proxy_does_not_stop_the_others(world: World, market: GeneratedMarket) -> None:
    store = MemorySink()
    with LocalProxies(3) as proxies:
        proxies[0].mode = ProxyMode.REFUSE
        proxies[1].mode = ProxyMode.RESET
        report = run(world.pipeline(store, proxies=proxies.urls, symbols=SYMBOLS))
    assert report.complete
    for line in report.series:
        assert_holds(store, market, line.series, line.wanted)


def test_all_proxies_dead_is_one_clear_error(world: World) -> None:
    with LocalProxies(2, credentials=("anna", "hunter2")) as proxies:
        for proxy in proxies:
            proxy.mode = ProxyMode.REFUSE
        with pytest.raises(ProxyError) as error:
            run(world.pipeline(MemorySink(), proxies=proxies.urls))
    assert "hunter2" not in str(error.value)
    assert not isinstance(error.value, BaseExceptionGroup)


@attrs.define
class FailingSink(MemorySink):
    """Raises each of the errors once."""

    failures: list[Exception] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def failing(batch: Batch) -> None:
                if self.failures:
                    raise self.failures.pop()
                write(batch)

            yield failing


async def test_a_store_that_comes_back_loses_nothing(world: World, market: GeneratedMarket) -> None:
    store = FailingSink([SinkUnavailable("the connection is lost") for _ in range(3)])
    report = await world.pipeline(store)
    assert report.complete
    assert_holds(store, market, report.series[0].series, report.series[0].wanted)


async def test_a_store_that_refuses_ends_the_run_with_one_error(world: World) -> None:
    store = FailingSink([SinkError("no permission") for _ in range(9)])
    with pytest.raises(SinkError, match="no permission") as error:
        await world.pipeline(store, symbols=SYMBOLS)
    assert isinstance(error.value.report, Report)
    assert not error.value.report.complete
    assert error.value.report.rows_written == 0


@pytest.mark.parametrize("error", [SinkError("no permission"), ZeroDivisionError("a defect")])
async def test_a_failed_run_ends_with_an_event_that_has_its_report(world: World, error: Exception) -> None:
    with pytest.raises(type(error)):
        await world.pipeline(FailingSink([error]), symbols=SYMBOLS)
    finished = world.events[-1]
    assert isinstance(finished, RunFinished)
    assert str(error) in str(finished.report.error)
    assert finished.report.requests > 0
    assert len(world.events_of(RunFinished)) == 1


@attrs.define
class RefusingComposites(MemorySink):
    """Cannot write the composite MT."""

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def refuse(batch: Batch) -> None:
                if batch.series.symbol == "MT":
                    raise SinkError("no permission")
                write(batch)

            yield refuse


async def test_a_composite_that_could_not_be_written_is_missing_for_that_reason(world: World) -> None:
    composite = Composite("MT", tuple(SYMBOLS))
    with pytest.raises(SinkError) as error:
        await world.pipeline(RefusingComposites(), symbols=SYMBOLS, composites=[composite])
    assert error.value.report is not None
    *members, line = error.value.report.series
    assert not any(member.missing for member in members)
    assert [(gap.spans.hull, gap.reason) for gap in line.missing] == [(line.wanted, "no permission")]


async def test_a_composite_lacks_what_a_member_lacks(world: World) -> None:
    composite = Composite("MT", ("BTCUSDT", "NONEUSDT"))
    report = await world.pipeline(MemorySink(), composites=[composite])
    line = report.series[-1]
    assert [(gap.spans.hull, gap.reason) for gap in line.missing] == [
        (line.wanted, "not known of every input (BTCUSDT, NONEUSDT)")
    ]


async def test_a_cancelled_run_leaves_nothing_behind_and_can_be_finished(
    world: World, market: GeneratedMarket
) -> None:
    store, scope = MemorySink(), anyio.CancelScope()

    def cancel_once_something_is_stored(event: Event) -> None:
        if isinstance(event, BatchWritten):
            scope.cancel()

    world.listeners.append(cancel_once_something_is_stored)
    pipeline = world.pipeline(store, symbols=SYMBOLS, end="2026-07-01")
    with scope:
        await pipeline
    assert scope.cancelled_caught
    assert not world.events_of(RunFinished)
    stopped = pipeline.report()
    assert not stopped.complete
    assert stopped.rows_written > 0

    world.listeners.clear()
    report = await world.pipeline(store, symbols=SYMBOLS, end="2026-07-01")
    assert report.complete
    assert report.rows_written < 2 * 30 * 1440
    for line in report.series:
        assert_holds(store, market, line.series, line.wanted)


async def test_leaving_the_iteration_early_stops_the_run(world: World) -> None:
    world.exchange.latency = 0.02
    batches = aiter(world.pipeline(None, symbols=SYMBOLS, end="2026-08-01"))
    await anext(batches)
    await batches.aclose()
    # Requests in flight may still arrive; the hundred pages after them are not requested.
    asked = world.exchange.request_log.total
    await anyio.sleep(0.2)
    assert world.exchange.request_log.total <= asked + QUICK.concurrency < 100


def test_everything_a_run_says_is_free_of_credentials(
    market: GeneratedMarket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    shown_values: Sequence[object] = ()
    with SimulatedExchange(market) as exchange, LocalProxies(2, credentials=("anna", "hunter2")) as proxies:
        exchange.faults = Faults(rate=0.5, kinds=[FaultKind.STATUS_502], paths=[KLINES], times=2)
        world = World(exchange, settings=QUICK)
        proxies[0].mode = ProxyMode.DEMAND_CREDENTIALS
        pipeline = world.pipeline(MemorySink(), proxies=proxies.urls)
        report = run(pipeline)
        shown_values = [
            *world.events,
            report,
            report.as_dict(),
            repr(pipeline),
            pipeline.report(),
            caplog.text,
        ]
    assert world.events_of(RequestFailed)
    assert "hunter2" not in repr(shown_values)
    assert "anna" not in repr(shown_values)
