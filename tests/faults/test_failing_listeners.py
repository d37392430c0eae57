"""A listener that raises is logged once and left out; what cannot be a listener is refused."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import attrs
import pytest

import marketfetch as mf
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import ConfigurationError
from marketfetch.events import BatchWritten, Event, Listener, PageFetched, RoundStarted, RunFinished
from marketfetch.listeners.logs import LogListener
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.query import Query
from tests.support.worlds import World, assert_holds, run

SECRET = "https://chat.example/token-hunter2"


@attrs.define
class Failing:
    """Raises at the first event of a kind, and would at every later one."""

    kind: type[Event]
    error: Callable[[], BaseException] = attrs.field(default=lambda: ValueError("a bug of the listener"))
    calls: int = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, self.kind):
            self.calls += 1
            raise self.error()


def log_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "marketfetch"]


@pytest.mark.parametrize("kind", [RoundStarted, PageFetched, BatchWritten, RunFinished])
def test_a_listener_that_raises_does_not_end_the_run(
    kind: type[Event], caplog: pytest.LogCaptureFixture
) -> None:
    failing, events = Failing(kind), list[Event]()
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        world, store = World(exchange, listeners=[failing, events.append]), MemorySink()
        pipeline = world.pipeline(store)
        report = run(pipeline)
        again = run(pipeline)
        assert report.complete
        assert again.complete
        assert_holds(store, exchange.market, report.series[0].series, report.series[0].wanted)
    assert failing.calls == 1, "left out from then on, also in later runs"
    assert events == world.events, "the others hear everything"
    (record,) = log_records(caplog)
    assert record.levelno == logging.ERROR
    assert "Failing" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug of the listener"


def test_a_listener_that_raises_does_not_end_an_iteration_or_a_fetch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        pipeline = World(exchange, listeners=[Failing(PageFetched)]).pipeline(None)

        async def rows() -> int:
            return sum([batch.rows async for batch in pipeline])

        assert anyio.run(rows) == 24 * 60
        listeners: list[Listener] = [Failing(PageFetched), Failing(RoundStarted)]
        table = mf.fetch(
            "binance-usdm",
            "ohlcv",
            "BTCUSDT",
            start="2026-06-01",
            end="2026-06-02",
            base_url=exchange.base_url,
            listeners=listeners,
        )
    assert len(table) == 24 * 60
    assert len(log_records(caplog)) == 3


def test_a_failed_run_is_told_to_those_who_still_listen() -> None:
    """The last event comes before the error; a listener that fails on it does not hide the error."""
    query = Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")
    failing = Failing(RunFinished)
    pipeline = Pipeline(
        "binance-usdm",
        query,
        base_url="http://127.0.0.1:1",
        listeners=[failing],
        settings=mf.Settings(retries=mf.RetryPolicy(attempts=1)),
    )
    with pytest.raises(mf.errors.TransportError):
        run(pipeline)
    assert failing.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_stops_a_program_passes(error: type[BaseException]) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        pipeline = World(exchange, listeners=[Failing(RoundStarted, error)]).pipeline(None)
        with pytest.raises(error):
            run(pipeline)


async def asynchronous(event: Event) -> None:
    """Never awaited by anybody."""


async def generating(event: Event) -> AsyncGenerator[Event]:
    yield event


class Asynchronous:
    async def __call__(self, event: Event) -> None:
        """Never awaited by anybody."""

    async def method(self, event: Event) -> None:
        """Never awaited by anybody."""


WRONG: dict[str, tuple[Any, str]] = {
    "async function": ([asynchronous], "asynchronous is asynchronous .* plain function"),
    "async method": ([Asynchronous().method], "Asynchronous.method is asynchronous"),
    "async callable": ([Asynchronous()], "a Asynchronous is asynchronous"),
    "partial of async": ([functools.partial(asynchronous)], r"partial\(asynchronous\) is asynchronous"),
    "async generator": ([generating], "generating is asynchronous"),
    "class": ([LogListener], r"LogListener is a class; give an object of it, such as LogListener\(\)"),
    "text": (["print"], "a str cannot be called; give functions"),
    "none in a list": ([None], "None cannot be called"),
    "one function": (print, r"print is not a list of listeners; write \[print\]"),
    "one object": (Failing(PageFetched), "a Failing is not a list of listeners; write"),
    "nothing": (None, "None is not a list of listeners; write a list of functions, or leave it out"),
    "a text for all": ("log", "a str is not a list of listeners"),
    "a number": (5, "5 is not a list of listeners"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_listen_is_refused_when_it_is_given(what: str) -> None:
    listeners, message = WRONG[what]
    query = Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")
    with pytest.raises(ConfigurationError, match=f"^listeners: {message}"):
        Pipeline("binance-usdm", query, listeners=listeners)
    with pytest.raises(ConfigurationError, match=f"^listeners: {message}"):
        mf.fetch("binance-usdm", symbols="BTCUSDT", start="2026-06-01", end="2026-06-02", listeners=listeners)


def test_a_listener_that_turns_out_to_be_asynchronous_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A lambda does not show what it returns; Python's own warning about it would be an error here."""
    calls = []

    def hidden(event: Event) -> Any:
        calls.append(event)
        return asynchronous(event)

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        assert run(World(exchange, listeners=[hidden]).pipeline(None)).complete
    assert len(calls) == 1
    (record,) = log_records(caplog)
    assert record.exc_info is not None
    assert "something to await" in str(record.exc_info[1])


def test_nothing_that_a_listener_was_made_with_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def post(address: str, event: Event) -> None:
        raise OSError("no route to host")

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        assert run(World(exchange, listeners=[functools.partial(post, SECRET)]).pipeline(None)).complete
    assert "hunter2" not in caplog.text
    assert "partial(" in caplog.text
