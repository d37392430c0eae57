"""While a store is unavailable, a run waits, emits WaitingForStore, and can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import anyio
import pytest
from anyio import to_thread

from marketfetch.engine.blocking import StoreRetrier, run_in_thread
from marketfetch.errors import RowsRefused, SinkError, SinkUnavailable
from marketfetch.events import Event, StoreRecovered, WaitingForStore
from marketfetch.protocols import Writer
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span
from tests.support.worlds import World, run

QUICK = RetryPolicy(attempts=4, initial=0.001, cap=0.001)


class FlakySink(MemorySink):
    """A store that is unavailable at the first two calls of each method."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def _fail_twice(self, what: str) -> None:
        self.calls[what] = self.calls.get(what, 0) + 1
        if self.calls[what] <= 2:
            raise SinkUnavailable(f"{what}: away")

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        self._fail_twice("prepare")
        super().prepare(datasets)

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        self._fail_twice("coverage")
        return super().coverage(series)

    def read(self, series: Series, span: Span) -> object:  # type: ignore[override]  # it is what it was
        self._fail_twice("read")
        return super().read(series, span)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        self._fail_twice("writer")
        with super().writer() as take:

            def write(batch: object) -> None:
                self._fail_twice("write")
                take(batch)  # type: ignore[arg-type]

            yield write


def test_every_call_of_a_store_is_retried() -> None:
    store = FlakySink()
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        world = World(exchange, settings=Settings(retries=QUICK))
        symbols = ["BTCUSDT", "ETHUSDT"]
        report = run(world.pipeline(store, symbols=symbols, composites=[Composite("MIX", tuple(symbols))]))
    assert report.complete
    assert set(store.calls) == {"prepare", "coverage", "writer", "write", "read"}
    messages = [event.message for event in world.events_of(WaitingForStore)]
    assert sorted(messages) == sorted(f"{what}: away" for what in store.calls for _ in range(2))


def _call(retrier: StoreRetrier, work: Callable[[], object]) -> object:
    async def main() -> object:
        return await retrier.call_in_thread(work)

    return anyio.run(main)


def test_the_error_of_the_last_attempt_is_raised() -> None:
    events: list[Event] = []
    calls = iter(range(10))

    def away() -> None:
        raise SinkUnavailable(f"call {next(calls)}")

    with pytest.raises(SinkUnavailable, match="call 3"):
        _call(StoreRetrier(QUICK, events.append), away)
    assert [event.attempt for event in events if isinstance(event, WaitingForStore)] == [1, 2, 3]


def test_a_permanent_error_is_raised_at_once() -> None:
    events: list[Event] = []

    def refuse() -> None:
        raise SinkError("no")

    with pytest.raises(SinkError, match="no"):
        _call(StoreRetrier(QUICK, events.append), refuse)
    assert not events


@pytest.mark.parametrize("refused", [False, True])
def test_that_the_store_answers_again_is_told(*, refused: bool) -> None:
    """Also if it refuses the rows: the run goes on with the other series, and waits no more."""
    events: list[Event] = []
    errors: list[SinkError | None] = [SinkUnavailable("away"), RowsRefused("no") if refused else None]

    def work() -> None:
        if error := errors.pop(0):
            raise error

    async def main() -> None:
        with suppress(RowsRefused):
            await StoreRetrier(QUICK, events.append).call_in_thread(work)

    anyio.run(main)
    assert [type(event) for event in events] == [WaitingForStore, StoreRecovered]


def test_a_wait_for_a_store_can_be_cancelled() -> None:
    def away() -> None:
        raise SinkUnavailable("away")

    async def main() -> None:
        waiting = anyio.Event()
        retrier = StoreRetrier(RetryPolicy(initial=1000, cap=1000), lambda _: waiting.set())
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(retrier.call_in_thread, away)
                await waiting.wait()
                group.cancel_scope.cancel()

    before = set(threading.enumerate())
    anyio.run(main)
    assert len(set(threading.enumerate()) - before) <= 1


async def test_a_thread_that_was_left_behind_emits_no_event() -> None:
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    events: list[Event] = []

    def come_too_late() -> None:
        begun.set()
        let_go.wait(60)
        raise SinkUnavailable("too late")

    def work() -> None:
        try:
            StoreRetrier(QUICK, events.append).call(come_too_late)
        finally:
            ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(run_in_thread, work)
        assert await to_thread.run_sync(begun.wait, 20)
        group.cancel_scope.cancel()
    let_go.set()
    assert await to_thread.run_sync(ended.wait, 20)
    assert not events
