"""What the stores in one database file promise beyond the contract of all stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.sql.file_store import SqlFileStore
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles, premium

OHLCV, PREMIUM = Dataset.parse("ohlcv"), Dataset.parse("premium_index")
MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={
        "ohlcv": {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "trades": "n"},
        "premium_index": {"close": "pfr"},
    },
    rename_symbol=without_quote("USDT"),
)
CANDLES = (
    "CREATE TABLE candles (ts bigint, symbol text, o double, h double, l double, c double, v double, "
    "n bigint, pfr double, note text DEFAULT 'mine', PRIMARY KEY (ts, symbol))"
)

Query = Callable[..., list[Any]]
Kind = type[SqlFileStore[Any]]


@pytest.fixture(params=[DuckDBSink, SQLiteSink])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marketfetch.db"


@pytest.fixture
def query(kind: Kind, path: Path) -> Query:
    def run(sql: str) -> list[Any]:
        opened: Any = duckdb.connect(path) if kind is DuckDBSink else sqlite3.connect(path)
        with closing(opened) as connection:
            rows: list[Any] = connection.execute(sql).fetchall()
            if kind is SQLiteSink:
                connection.commit()
        return rows

    return run


@pytest.fixture
def store(kind: Kind, path: Path) -> SqlFileStore[Any]:
    store = kind(path)
    store.prepare([OHLCV, PREMIUM])
    return store


@pytest.fixture
def wide(kind: Kind, path: Path, query: Query) -> SqlFileStore[Any]:
    query(CANDLES)
    store = kind(path, table=MAPPING)
    store.prepare([OHLCV, PREMIUM])
    return store


def write(store: SqlFileStore[Any], *batches: Batch) -> None:
    with store.writer() as take:
        for one in batches:
            take(one)


@pytest.mark.parametrize("name", ["candles", "Candles", "main.candles", "MAIN.Candles"])
def test_a_table_is_found_by_each_of_its_names(kind: Kind, path: Path, query: Query, name: str) -> None:
    query(CANDLES)
    store = kind(path, table=attrs.evolve(MAPPING, table=name))
    store.prepare([OHLCV, PREMIUM])
    for _ in range(2):
        write(store, batch(candles(), range(3), open=1.5))
    assert store.read(candles(), EVER).values[0].tolist() == [1.5] * 3
    assert query("SELECT symbol, count(*) FROM candles GROUP BY symbol") == [("BTC", 3)]
    store.forget(candles(), SpanSet.of(EVER), rows=True)
    assert not len(store.read(candles(), EVER))


def test_the_statements_that_errors_tell_can_be_typed(path: Path) -> None:
    """Names with spaces, quotes and capitals in them are quoted."""
    mapping = TableMapping(
        'my "Candles', time="Open Time", symbol="symbol", columns={"ohlcv": {"open": "o p"}}
    )
    store = DuckDBSink(path, table=mapping)
    with pytest.raises(ConfigurationError, match=r'create it, with PRIMARY KEY \("Open Time", "symbol"\)'):
        store.prepare([OHLCV])
    with closing(duckdb.connect(path)) as connection:
        connection.execute('CREATE TABLE "my ""Candles" ("Open Time" BIGINT, symbol VARCHAR, "o p" FLOAT)')
    with pytest.raises(ConfigurationError) as caught:
        store.prepare([OHLCV])
    statement = str(caught.value).partition("; ")[2].partition(", or")[0]
    with closing(duckdb.connect(path)) as connection:
        connection.execute(statement)
    store.prepare([OHLCV])


def test_a_view_names_what_the_table_counts(store: SqlFileStore[Any], query: Query) -> None:
    write(store, batch(candles("我踏马来了'\"USDT"), [0], open=1.5, trades=7))
    rows = query("SELECT exchange, symbol, interval, open, trades, close, typeof(trades) FROM ohlcv")
    assert [row[:6] for row in rows] == [("binance-usdm", "我踏马来了'\"USDT", "1m", 1.5, 7, None)]
    assert rows[0][6].lower() in {"bigint", "integer"}


def test_rows_and_coverage_are_written_together_or_not_at_all(
    store: SqlFileStore[Any], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = kind._merge

    def fail(*args: Any) -> None:
        merge(*args)
        raise KeyboardInterrupt

    with store.writer() as take:
        monkeypatch.setattr(kind, "_merge", fail)
        with pytest.raises(KeyboardInterrupt):
            take(batch(candles(), range(5), open=1))
        monkeypatch.undo()
        assert store.coverage([candles()]) == {candles(): Coverage()}
        assert len(store.read(candles(), EVER)) == 0
        take(batch(candles(), range(5), open=1))  # and the writer goes on
    assert len(store.read(candles(), EVER)) == 5


def test_a_table_in_the_place_of_a_view_is_left_alone(kind: Kind, path: Path, query: Query) -> None:
    names = ("exchange", "symbol", "interval", "open_time", *PREMIUM.names)
    query(f"CREATE TABLE premium_index ({', '.join(f'{name} text' for name in names)})")
    with pytest.raises(SinkError, match=r"premium_index that marketfetch did not make; rename it"):
        kind(path).prepare([PREMIUM])
    assert query("SELECT * FROM premium_index") == []


def test_a_column_that_a_dataset_has_got_since_is_added(
    store: SqlFileStore[Any], query: Query, kind: Kind
) -> None:
    write(store, batch(premium(), [0], close=1))
    query("DROP VIEW premium_index")
    query("ALTER TABLE marketfetch_premium_index DROP COLUMN low")
    query("CREATE VIEW premium_index AS SELECT '' AS exchange, '' AS symbol, '' AS interval, 0 AS open_time")
    store.prepare([PREMIUM])
    write(store, batch(premium(), [0], low=0.5))
    assert query("SELECT low, close FROM premium_index") == [(0.5, 1.0)]


@given(
    st.lists(st.floats(allow_nan=False).filter(lambda value: str(value) != "-0.0"), min_size=1, max_size=20)
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_bit_of_a_float_comes_back(store: SqlFileStore[Any], values: list[float]) -> None:
    with store._connected():  # held open: opening a file of DuckDB takes longer than the rest
        write(store, batch(candles(), range(len(values)), open=values))
        found = store.read(candles(), EVER)
    assert found.values[0, : len(values)].tobytes() == np.array(values).tobytes()


def test_two_datasets_share_the_rows_of_your_table(wide: SqlFileStore[Any], query: Query) -> None:
    write(
        wide,
        batch(candles(), [0, 1], open=[0.1, 2], trades=[3, np.nan]),
        batch(premium(), [1, 2], close=[7e-5, 8]),
        batch(candles(), [1], open=np.nan, close=5),
    )
    assert query("SELECT ts, symbol, o, c, n, pfr, note FROM candles ORDER BY ts") == [
        (START, "BTC", 0.1, None, 3, None, "mine"),
        (START + 60_000, "BTC", 2.0, 5.0, None, 7e-5, "mine"),
        (START + 120_000, "BTC", None, None, None, 8.0, "mine"),
    ]
    assert wide.read(premium(), EVER).values[3].tolist() == [7e-5, 8]
    assert wide.read(candles(), EVER).values[0].tolist() == [0.1, 2]
    assert set(wide.ledger()) == {candles(), premium()}


def test_two_series_in_the_same_rows_are_refused(wide: SqlFileStore[Any]) -> None:
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        wide.coverage([candles(), candles(interval="1h")])


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("candles (", "others ("), "there is no candles in this file; create it, with PRIMARY KEY"),
        (("pfr double", "prf double"), r"'pfr' is unknown; did you mean 'prf'"),
        (("ts bigint", "ts boolean"), "candles.ts is .*; make it"),
        (("symbol text", "symbol bigint"), "candles.symbol is BIGINT; make it"),
        (("o double", "o text"), "candles.o is .* and cannot hold open; make it DOUBLE"),
        (("o double", "o bigint"), "candles.o is .* and cannot hold open; make it DOUBLE"),
        (("note text DEFAULT 'mine'", "note text NOT NULL"), "note must not be NULL, but rows of ohlcv"),
    ],
)
def test_a_table_that_is_not_fit_is_refused_before_anything_is_fetched(
    kind: Kind, path: Path, query: Query, change: tuple[str, str], remedy: str
) -> None:
    query(CANDLES.replace(*change))
    with pytest.raises(ConfigurationError, match=f"(?i){remedy}"):
        kind(path, table=MAPPING).prepare([OHLCV, PREMIUM])


def test_time_may_count_seconds(kind: Kind, path: Path, query: Query) -> None:
    query("CREATE TABLE candles (ts bigint, symbol text, o double, PRIMARY KEY (symbol, ts))")
    mapping = TableMapping(
        "candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}}, time_unit="s"
    )
    store = kind(path, table=mapping)
    store.prepare([OHLCV])
    write(store, batch(candles(), [0, 1], open=1))
    assert query("SELECT ts FROM candles ORDER BY ts") == [(START // 1000,), (START // 1000 + 60,)]
    assert store.read(candles(), EVER).times.tolist() == [START, START + 60_000]


def test_no_file_is_made_by_asking(kind: Kind, path: Path) -> None:
    store = kind(path)
    assert store.coverage([candles()]) == {candles(): Coverage()}
    assert len(store.read(candles(), EVER)) == 0
    with pytest.raises(ConfigurationError, match=r"does not exist; correct the path"):
        store.ledger()
    assert not path.exists()


def test_what_cannot_be_a_store_is_refused_with_a_remedy(kind: Kind, path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder"):
        kind(tmp_path / "missing" / "x.db").prepare([OHLCV])
    with pytest.raises(SinkError, match=r"is a folder; name a file in it"):
        kind(tmp_path).prepare([OHLCV])
    path.write_bytes(b"neither of the two " * 1000)
    with pytest.raises(SinkError, match=r"name another file"):
        kind(path).prepare([OHLCV])
    with pytest.raises(ConfigurationError, match="path"):
        kind(":memory:")


def test_a_writer_without_prepare_says_so(kind: Kind, path: Path) -> None:
    with kind(path).writer() as take, pytest.raises(SinkError, match=r"call prepare\(\) first"):
        take(batch(candles(), [0], open=1))


def test_forgetting_in_your_table_takes_only_what_the_dataset_has_put_there(
    wide: SqlFileStore[Any], query: Query
) -> None:
    query("INSERT INTO candles (ts, symbol, note) VALUES (1577836800000, 'MINE', 'kept')")
    write(wide, batch(candles(), range(4), open=1, trades=2), batch(premium(), [1, 9], close=3))
    write(wide, batch(candles("ETHUSDT"), range(4), open=1))
    query(f"UPDATE candles SET note = NULL WHERE symbol = 'BTC' AND ts <> {START}")
    wide.forget(candles(), SpanSet.of(Span(START, START + 3 * MINUTE)), rows=True)
    left = query("SELECT ts, o, n, pfr, note FROM candles WHERE symbol = 'BTC' ORDER BY ts")
    assert left == [
        (START, None, None, None, "mine"),  # of which the note is yours
        (START + MINUTE, None, None, 3.0, None),  # of which the premium is another dataset's
        # START + 2 * MINUTE had nothing else
        (START + 3 * MINUTE, 1.0, 2, None, None),  # is not inside the span
        (START + 9 * MINUTE, None, None, 3.0, None),
    ]
    assert query("SELECT count(*), count(o) FROM candles WHERE symbol = 'ETH'") == [(4, 4)]
    assert query("SELECT note FROM candles WHERE symbol = 'MINE'") == [("kept",)]
    assert wide.read(candles(), EVER).times.tolist() == [START + 3 * MINUTE]
    assert wide.read(premium(), EVER).times.tolist() == [START + MINUTE, START + 9 * MINUTE]
    assert wide.coverage([premium()])[premium()].covered.length == 2 * MINUTE
    assert wide.coverage([candles()])[candles()].covered.length == MINUTE
    write(wide, batch(candles(), range(4), open=5))
    assert wide.read(candles(), EVER).values[0].tolist() == [5.0] * 4


def test_forgetting_needs_a_file(kind: Kind, path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist; correct the path"):
        kind(path).forget(candles(), SpanSet.of(EVER))
    assert not path.exists()


def test_a_column_that_must_not_be_null_is_no_obstacle_where_the_whole_row_goes(
    kind: Kind, path: Path, query: Query
) -> None:
    query("CREATE TABLE candles (ts bigint, symbol text, o double NOT NULL, note text, UNIQUE (ts, symbol))")
    mapping = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
    store = kind(path, table=mapping)
    store.prepare([OHLCV])
    write(store, batch(candles(), range(3), open=1))
    store.forget(candles(), SpanSet.of(Span(START, START + MINUTE)), rows=True)
    assert store.read(candles(), EVER).times.tolist() == [START + MINUTE, START + 2 * MINUTE]
    query("UPDATE candles SET note = 'mine'")
    with pytest.raises(SinkError, match=r"(?i)not null constraint failed: candles\.o"):
        store.forget(candles(), SpanSet.of(EVER), rows=True)
    # Nothing of it has happened: neither to the rows nor to what is known of them.
    assert query("SELECT count(o) FROM candles") == [(2,)]
    assert store.coverage([candles()])[candles()].covered.length == 2 * MINUTE


def test_rows_and_coverage_are_forgotten_together_or_not_at_all(
    store: SqlFileStore[Any], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    write(store, batch(candles(), range(5), open=1))
    monkeypatch.setattr(kind, "_remove", fail)
    with pytest.raises(KeyboardInterrupt):
        store.forget(candles(), SpanSet.of(EVER), rows=True)
    assert store.coverage([candles()])[candles()].covered.length == 5 * MINUTE
    assert len(store.read(candles(), EVER)) == 5


def test_a_series_that_is_held_and_one_that_is_asked_for_do_not_share_rows(
    wide: SqlFileStore[Any],
) -> None:
    write(wide, batch(candles(), range(3), open=1))
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        wide.coverage([candles(exchange="okx")])
    wide.forget(candles(), SpanSet.of(EVER))  # whose rows are still there
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        wide.coverage([candles(interval="1h")])
    assert wide.coverage([premium(), candles("ETHUSDT")]).keys() == {premium(), candles("ETHUSDT")}
