"""`refetch`: rows stay until others replace them, and what has changed is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.api.upkeep import refetch as module
from marketfetch.api.upkeep.refetch import Refetch, RefetchResult
from marketfetch.errors import ConfigurationError
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.times import parse_time
from tests.support.worlds import DAY, HOUR, MINUTE, assert_holds

START = parse_time("start", "2026-06-01", 0)
SPAN = mf.Span(START, START + DAY)
BTC = mf.Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        yield exchange


def filled(exchange: SimulatedExchange, store: Any) -> Any:
    mf.fetch(
        "binance-usdm",
        symbols=["BTCUSDT", "ETHUSDT"],
        start=SPAN.start,
        end=SPAN.end,
        to=store,
        base_url=exchange.base_url,
        board=None,
    )
    return store


def again(exchange: SimulatedExchange, store: Any, **more: Any) -> RefetchResult:
    asked: dict[str, Any] = {"symbols": "BTCUSDT", "start": START, "end": START + 2 * HOUR} | more
    return mf.refetch(store, base_url=exchange.base_url, board=None, **asked)


def write_wrong_values(store: Any, first: int, count: int, column: str) -> None:
    """Write wrong values into some stored rows."""
    rows = store.read(BTC, mf.Span(START + first * MINUTE, START + (first + count) * MINUTE))
    values = rows.values.copy()
    values[BTC.dataset.index(column)] += 1.0
    covered = BTC.interval.cover(rows.times)
    with store.writer() as write:
        write(Batch(BTC, Columns(rows.times, values), mf.Coverage(covered)))


@pytest.mark.parametrize("kind", ["memory", "sqlite", "duckdb", "parquet"])
def test_wrong_values_are_replaced_and_counted(
    exchange: SimulatedExchange, kind: str, tmp_path: Path
) -> None:
    if kind in {"duckdb", "parquet"}:
        pytest.importorskip("duckdb" if kind == "duckdb" else "pyarrow")
    makers: dict[str, Callable[[], Any]] = {
        "memory": mf.MemorySink,
        "sqlite": lambda: mf.SQLiteSink(tmp_path / "a.sqlite"),
        "duckdb": lambda: mf.DuckDBSink(tmp_path / "a.duckdb"),
        "parquet": lambda: mf.ParquetSink(tmp_path / "a"),
    }
    store = filled(exchange, makers[kind]())
    write_wrong_values(store, 5, 7, "volume")

    done = again(exchange, store)

    assert done.report.complete, done.report
    (change,) = done.changes
    assert change.spans == mf.SpanSet.of(mf.Span(START, START + 2 * HOUR))
    assert (change.fields, change.new_rows, change.removed_rows) == ({"volume": 7}, 0, 0)
    assert_holds(store, GeneratedMarket(["BTCUSDT", "ETHUSDT"]), BTC, SPAN)
    assert mf.verify(store).ok
    assert done.as_dict()["changes"][0]["fields"] == {"volume": 7}
    assert "<td>7 volume</td>" in done._repr_html_()
    assert "Complete: " in done._repr_html_()


def test_rows_that_the_exchange_does_not_have_are_removed(exchange: SimulatedExchange) -> None:
    store = mf.MemorySink()
    early = mf.Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
    listed = exchange.market.instruments["BTCUSDT"].listed_at
    start = early.interval.floor(listed) - 2 * HOUR
    times = start + MINUTE * np.arange(60)
    rows = Columns(times, np.ones((9, 60)))
    with store.writer() as write:
        write(Batch(early, rows, mf.Coverage(early.interval.cover(times))))

    done = again(exchange, store, start=None, end=None)

    assert done.changes[0].removed_rows == 60
    assert len(store.read(early, SPAN)) == 0
    known = store.coverage([early])[early]
    assert known.empty == mf.SpanSet.of(mf.Span(start, start + HOUR))
    assert mf.verify(store).ok


def test_all_is_as_before_where_the_exchange_does_not_answer(
    exchange: SimulatedExchange,
) -> None:
    store = filled(exchange, mf.MemorySink())
    before = store.coverage([BTC])
    exchange.faults = Faults(rate=1.0, kinds=[FaultKind.STATUS_500], times=99)
    retries = mf.RetryPolicy(attempts=1, initial=0)

    done = again(exchange, store, settings=mf.Settings(retries=retries))

    assert not done.report.complete
    assert len(store.read(BTC, SPAN)) == 1440
    assert store.coverage([BTC]) == before
    assert done.changes[0].fields == {}


def test_a_refetch_that_is_cancelled_gives_the_coverage_back(exchange: SimulatedExchange) -> None:
    store = filled(exchange, mf.MemorySink())
    before = store.coverage([BTC])

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:

            def cancel(event: object) -> None:
                scope.cancel()

            where = {"base_url": exchange.base_url, "board": None}
            await Refetch(store, symbols="BTCUSDT", listeners=[cancel], **where)  # type: ignore[arg-type]
        assert scope.cancelled_caught

    anyio.run(cancelled)
    assert store.coverage([BTC]) == before


def test_a_symbol_that_nobody_serves_keeps_what_the_store_has(exchange: SimulatedExchange) -> None:
    store = mf.MemorySink()
    mt = mf.Composite("MT", ["BTCUSDT", "ETHUSDT"])
    mf.fetch(
        "binance-usdm",
        symbols=mt.members,
        composites=[mt],
        start=SPAN.start,
        end=SPAN.end,
        to=store,
        base_url=exchange.base_url,
        board=None,
    )
    series = mf.Series.of("binance-usdm", "ohlcv", "MT", "1m")
    before = store.coverage([series])[series]

    done = again(exchange, store, symbols="MT")

    assert list(done.report.unknown) == ["binance-usdm MT"]
    assert store.coverage([series])[series] == before
    assert again(exchange, store, symbols="MT", composites=[mt]).report.complete


def test_too_many_rows_are_fetched_and_not_compared(
    exchange: SimulatedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_COMPARED", 100)
    (change,) = again(exchange, filled(exchange, mf.MemorySink())).changes
    assert (change.fields, change.new_rows) == (None, None)


def test_relative_times_count_from_the_clock_of_the_settings(exchange: SimulatedExchange) -> None:
    store = filled(exchange, mf.MemorySink())
    settings = mf.Settings(clock=lambda: START + 2 * HOUR)
    (change,) = again(exchange, store, start="1h", end=None, settings=settings).changes
    assert change.spans.hull == mf.Span(START + HOUR, SPAN.end)


def test_what_cannot_be_meant_is_refused_and_nothing_is_forgotten(exchange: SimulatedExchange) -> None:
    store = filled(exchange, mf.MemorySink())
    exchange.request_log.clear()
    before = store.ledger()
    for more, reason in (
        ({"symbols": None}, "symbols: nothing is chosen"),
        ({"symbols": "BTCUSD"}, "symbols: 'BTCUSD' is not held; did you mean 'BTCUSDT'"),
        ({"start": "2020-01-01", "end": "2020-01-02"}, "store: .* there is nothing to refetch"),
        ({"end": START}, "is not before end"),
        ({"sources": "files"}, "sources: 'files' is unknown"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            again(exchange, store, **more)
    assert store.ledger() == before
    assert not exchange.request_log.latest
