"""Derived series: a name that was computed from other members is noticed, and the report has their source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import duckdb
import numpy as np
import pytest

from marketfetch.adapter import AdapterError, Exchange
from marketfetch.api.maintenance import forget
from marketfetch.engine.composites import CompositeOhlcv
from marketfetch.errors import ConfigurationError
from marketfetch.events import Heartbeat
from marketfetch.protocols import Store, Writer
from marketfetch.sinks import DuckDBSink, TableMapping, sink_from
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import HOUR, World, run, span_of

MEMBERS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
JUNE = span_of("2026-06-01", "2026-06-02")
MT = Series.of("binance-usdm", "ohlcv", "MT", "1h")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with SimulatedExchange(GeneratedMarket(MEMBERS, seed=3)) as exchange:
        yield World(exchange)


def query(*members: str, **changed: Any) -> dict[str, Any]:
    return {"symbols": [], "interval": "1h", "composites": [Composite("MT", members)]} | changed


def replace(store: Store, series: Series, first: int, factor: float) -> None:
    """Write one row of a series anew, with all its values multiplied."""
    span = Span(first, first + HOUR)
    rows = store.read(series, span)
    with store.writer() as write:
        write(Batch(series, Columns(rows.times, rows.values * factor), Coverage(SpanSet.of(span))))


@pytest.mark.parametrize("kind", ["memory", "duckdb", "sqlite", "parquet"])
def test_a_name_that_has_other_members_in_the_store_is_refused(
    world: World, kind: str, tmp_path: Path
) -> None:
    sink = MemorySink() if kind == "memory" else sink_from(f"{kind}:{tmp_path / 'store'}")
    assert isinstance(sink, Store)
    assert run(world.pipeline(sink, **query("BTCUSDT", "ETHUSDT"))).complete
    before = sink.read(MT, JUNE)
    with pytest.raises(
        ConfigurationError, match="MT in the store does not follow from BTCUSDT, XRP"
    ) as found:
        run(world.pipeline(sink, **query("BTCUSDT", "XRPUSDT")))
    assert "forget it with its rows" in str(found.value)
    np.testing.assert_array_equal(sink.read(MT, JUNE).values, before.values)
    forget(sink, symbols="MT", rows=True)
    assert run(world.pipeline(sink, **query("BTCUSDT", "XRPUSDT"))).complete
    assert (sink.read(MT, JUNE).values[0] < before.values[0]).all()


def test_the_same_members_in_another_order_are_the_same_composite(world: World) -> None:
    store = MemorySink()
    assert run(world.pipeline(store, **query(*MEMBERS))).complete
    again = run(world.pipeline(store, **query(*reversed(MEMBERS), end="2026-06-03")))
    assert again.complete
    assert again.sources["derived"].rows == 24


class SlowMemory(MemorySink):
    """Writes a composite so slowly that several heartbeats come meanwhile."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def write_slowly(batch: Batch) -> None:
                write(batch)
                sleep(0.1 if batch.series == MT else 0)

            yield write_slowly


def test_progress_counts_the_rows_of_composites(world: World) -> None:
    slow = World(world.exchange, settings=Settings(heartbeat=0.02, batch_rows=4))
    assert run(slow.pipeline(SlowMemory(), **query("BTCUSDT", "ETHUSDT"))).complete
    beats = [(beat.rows_written, beat.rows_planned) for beat in slow.events_of(Heartbeat)]
    assert any(written < planned == 72 for written, planned in beats)
    assert all(written <= planned for written, planned in beats)


def test_members_that_have_no_row_in_common_with_it_prove_nothing(world: World) -> None:
    """The store has the composite of one day, and of its new member another day."""
    store = MemorySink()
    run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT")))
    later = {"start": "2026-06-03", "end": "2026-06-04"}
    assert run(world.pipeline(store, **query("BTCUSDT", "XRPUSDT", **later))).complete


@pytest.mark.parametrize(("first", "factor"), [(JUNE.start, 1 + 1e-9), (JUNE.end - HOUR, 2.0)])
def test_a_rounded_row_and_a_revised_newest_row_are_no_other_members(
    world: World, first: int, factor: float
) -> None:
    store = MemorySink()
    run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT")))
    replace(store, MT, first, factor)
    assert run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT"))).complete


@pytest.mark.parametrize("kind", ["REAL", "DECIMAL(18, 0)", "DECIMAL(18, 2)"])
def test_a_table_that_rounds_knows_its_members(world: World, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rounded.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(
            f"CREATE TABLE candles (ts BIGINT, symbol TEXT, o {kind}, v {kind}, PRIMARY KEY (symbol, ts))"
        )
    columns = {"ohlcv": {"open": "o", "volume": "v"}}
    mapping = TableMapping("candles", time="ts", symbol="symbol", columns=columns, rounding="allow")
    store = DuckDBSink(path, table=mapping)
    for _ in range(2):
        assert run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT", "XRPUSDT"))).complete
    with pytest.raises(ConfigurationError, match="does not follow from BTCUSDT, XRPUSDT"):
        run(world.pipeline(store, **query("BTCUSDT", "XRPUSDT")))


def test_a_column_that_only_one_of_the_rows_has_is_not_compared(world: World) -> None:
    store = MemorySink()
    run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT")))
    replace(store, MT, JUNE.start, float("nan"))
    assert run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT"))).complete


def test_the_report_has_rows_and_seconds_of_each_source(world: World) -> None:
    store = MemorySink()
    report = run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT", sources="rest")))
    assert {name: source.rows for name, source in report.sources.items()} == {"rest": 48, "derived": 24}
    assert 0 < sum(source.seconds for source in report.sources.values()) <= report.duration
    assert report.as_dict()["sources"]["derived"]["rows"] == 24
    again = run(world.pipeline(store, **query("BTCUSDT", "ETHUSDT", sources="rest")))
    assert [*again.sources] == ["derived"]
    assert again.sources["derived"].rows == 0
    assert run(world.pipeline(store, symbols="BTCUSDT", interval="1h")).sources == {}


def test_a_composite_of_composites_is_refused(world: World) -> None:
    composites = [Composite("MT", ("BTCUSDT", "ETHUSDT")), Composite("TWO", ("MT", "XRPUSDT"))]
    with pytest.raises(ConfigurationError, match="TWO has the composite MT as a member; name its members"):
        run(world.pipeline(MemorySink(), symbols="BTCUSDT", composites=composites))


def test_an_exchange_has_no_derived_series_of_its_own() -> None:
    with pytest.raises(AdapterError, match="sources"):
        type(
            "Own",
            (Exchange,),
            {"name": "own", "default_url": "https://x.org", "sources": [CompositeOhlcv]},
        )
