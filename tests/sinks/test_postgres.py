from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import attrs
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.errors import SinkError
from marketfetch.protocols import Store
from marketfetch.sinks.postgres import PostgresSink, reader, writer
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Column, Dataset, datasets
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.roles import role

OHLCV = Dataset.parse("ohlcv")


@pytest.fixture
def sink(postgres_dsn: str) -> PostgresSink:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    return sink


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def write(sink: PostgresSink, *batches: Batch) -> None:
    with sink.writer() as writer:
        for one in batches:
            writer(one)


def versions(database: psycopg.Connection, table: str = "marketfetch.ohlcv") -> list[tuple[str, str]]:
    """Where each row is and who wrote it: changes whenever the row is written anew."""
    return database.execute(f"SELECT ctid::text, xmin::text FROM {table} ORDER BY ctid").fetchall()


def test_it_is_a_store(sink: PostgresSink) -> None:
    assert isinstance(sink, Store)


def test_the_view_shows_names_and_types(sink: PostgresSink, database: psycopg.Connection) -> None:
    write(sink, batch(candles(), [0], open=1.5, trades=7))
    cursor = database.execute(
        "SELECT exchange, symbol, interval, open_time = '2020-01-01Z', open, trades FROM ohlcv"
    )
    assert cursor.fetchall() == [("binance-usdm", "BTCUSDT", "1m", True, 1.5, 7)]
    columns = database.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_name = 'ohlcv' AND table_schema = 'public' ORDER BY ordinal_position"
    )
    types = {str(name): str(kind) for name, kind in columns}
    assert list(types) == ["exchange", "symbol", "interval", "open_time", *OHLCV.names]
    assert types["open_time"] == "timestamp with time zone"
    assert types["open"] == "double precision"
    assert types["trades"] == "bigint"


async def test_all_datasets_can_be_prepared_again_and_at_the_same_time(postgres_dsn: str) -> None:
    retrier = StoreRetrier(RetryPolicy(), lambda _: None)  # on a busy machine one waits long for another
    async with anyio.create_task_group() as group:
        for _ in range(8):
            prepare = partial(PostgresSink(postgres_dsn).prepare, list(datasets().values()))
            group.start_soon(retrier.call_in_thread, prepare)


def test_nothing_is_known_before_anything_is_prepared(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    assert sink.coverage([candles()]) == {candles(): Coverage()}
    assert sink.ledger() == {}
    assert len(sink.read(candles(), EVER)) == 0


def test_rows_come_back_sorted_and_only_those_inside_the_span(sink: PostgresSink) -> None:
    write(sink, batch(candles(), [5, 6], open=[5, 6]), batch(candles(), [1, 2], open=[1, 2]))
    inside = sink.read(candles(), Span(START + MINUTE + 1, START + 6 * MINUTE))
    assert ((inside.times - START) // MINUTE).tolist() == [2, 5]
    assert inside.values[0].tolist() == [2, 5]
    assert np.isnan(inside.values[1:]).all()


def test_a_span_may_reach_beyond_all_calendars(sink: PostgresSink) -> None:
    write(sink, batch(candles(), [0], open=1))
    assert len(sink.read(candles(), Span(-(2**60), 2**60))) == 1


def test_more_rows_than_the_server_sends_at_once_come_back_whole(
    sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sink, batch(candles(), range(10), open=np.arange(10)))
    monkeypatch.setattr(reader, "_PAGE", 4)
    assert sink.read(candles(), EVER).values[0].tolist() == list(range(10))


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=30))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_come_back_bit_by_bit(sink: PostgresSink, values: list[float]) -> None:
    series = candles(f"S{abs(hash(tuple(map(repr, values))))}")
    write(
        sink, batch(series, range(len(values)), open=values), batch(series, range(len(values)), close=values)
    )
    back = sink.read(series, EVER).values
    assert back[0].tobytes() == back[3].tobytes() == np.array(values).tobytes()


def test_null_never_overwrites_a_value(sink: PostgresSink) -> None:
    write(sink, batch(candles(), range(4), open=1, trades=2))
    write(sink, batch(candles(), range(1, 5), close=[3, np.nan, 4, 5]))
    back = sink.read(candles(), EVER)
    named = dict(zip(OHLCV.names, back.values.tolist(), strict=True))
    assert named["open"][:4] == [1, 1, 1, 1]
    assert named["trades"][:4] == [2, 2, 2, 2]
    assert str(named["close"]) == "[nan, 3.0, nan, 4.0, 5.0]"


def test_a_value_overwrites_another(sink: PostgresSink) -> None:
    write(sink, batch(candles(), range(4), open=1, close=1), batch(candles(), [1], open=2))
    assert sink.read(candles(), EVER).values[[0, 3]].tolist() == [[1, 2, 1, 1], [1, 1, 1, 1]]


def test_an_identical_rewrite_makes_no_new_row_version(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    one = batch(candles(), range(500), open=np.arange(500) / 7, trades=3)
    write(sink, one)
    before = versions(database), versions(database, "marketfetch.coverage")
    write(sink, one, one)
    assert (versions(database), versions(database, "marketfetch.coverage")) == before


def test_only_the_rows_that_differ_are_written_anew(sink: PostgresSink, database: psycopg.Connection) -> None:
    write(sink, batch(candles(), range(10), open=1))
    before = set(versions(database))
    write(sink, batch(candles(), range(10), open=[1] * 9 + [2]))
    assert len(before - set(versions(database))) == 1


@pytest.mark.parametrize("merge_since", [0, 10**9], ids=["merge", "before PostgreSQL 15"])
def test_overlapping_batches_in_any_order_give_the_same_rows(
    sink: PostgresSink, monkeypatch: pytest.MonkeyPatch, merge_since: int
) -> None:
    monkeypatch.setattr(writer, "_MERGE_SINCE", max(merge_since, writer._MERGE_SINCE))
    parts = [range(50, 60), range(55, 70), range(40), range(20, 80, 3), range(80)]
    write(sink, *(batch(candles(), part, open=list(part)) for part in parts))
    back = sink.read(candles(), EVER)
    assert back.values[0].tolist() == list(range(80))
    assert ((back.times - START) // MINUTE).tolist() == list(range(80))


def test_unsorted_rows_of_a_batch_are_sorted_and_the_last_of_two_stays(sink: PostgresSink) -> None:
    write(sink, batch(candles(), [2, 0, 2], open=[1, 2, 3]))
    assert sink.read(candles(), EVER).values[0].tolist() == [2, 3]


def test_series_do_not_touch_each_other(sink: PostgresSink) -> None:
    series = [candles(), candles("ETHUSDT"), candles(interval="1h"), candles(exchange="okx")]
    write(sink, *(batch(one, [0], open=i) for i, one in enumerate(series)))
    assert [sink.read(one, EVER).values[0, 0] for one in series] == [0, 1, 2, 3]
    assert list(sink.ledger()) == series


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=4).map(
    lambda pairs: SpanSet(tuple(Span(start, start + length) for start, length in pairs))
)
coverages = st.tuples(spans, spans).map(lambda pair: Coverage(pair[0] | pair[1], pair[1]))


@given(st.lists(coverages, min_size=1, max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_coverage_is_united_as_in_memory(sink: PostgresSink, parts: list[Coverage]) -> None:
    series = candles(f"S{abs(hash(tuple(parts)))}")
    known = sink.coverage([series])[series]
    write(sink, *(Batch(series, Columns.empty(OHLCV), part) for part in parts))
    for part in parts:
        known |= part
    assert sink.coverage([series])[series] == known


def test_rows_and_coverage_are_durable_together_or_not_at_all(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    database.execute(
        "CREATE FUNCTION marketfetch.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no room for coverage'; END $$"
    )
    database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON marketfetch.coverage EXECUTE FUNCTION marketfetch.refuse()"
    )
    with sink.writer() as write_batch:
        with pytest.raises(SinkError, match="no room for coverage"):
            write_batch(batch(candles(), range(3), open=1))
        assert len(sink.read(candles(), EVER)) == 0
        database.execute("DROP TRIGGER refuse ON marketfetch.coverage")
        write_batch(batch(candles(), range(3), open=1))
    assert len(sink.read(candles(), EVER)) == 3
    assert sink.coverage([candles()])[candles()].covered == SpanSet.of(Span(START, START + 3 * MINUTE))


def test_many_writers_of_the_same_and_of_other_series_lose_nothing(sink: PostgresSink) -> None:
    def work(lane: int) -> None:
        with sink.writer() as write_batch:
            for step in range(8):
                write_batch(
                    batch(candles(), range(step * 5, step * 5 + 20), **{OHLCV.names[lane]: float(lane)})
                )
                write_batch(batch(candles(f"S{step}"), [lane], open=lane))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    back = sink.read(candles(), EVER)
    assert len(back) == 55
    assert [set(line) for line in back.values[:4].tolist()] == [{0.0}, {1.0}, {2.0}, {3.0}]
    assert all(sink.read(candles(f"S{step}"), EVER).values[0].tolist() == [0, 1, 2, 3] for step in range(8))
    assert len(sink.ledger()) == 9


def test_a_dataset_of_an_application_gets_a_table_too(sink: PostgresSink) -> None:
    mood = Dataset("Fear & greed", (Column("index"), Column("select", integer=True, optional=True)))
    series = Series("alternative", mood, "BTC", candles().interval)
    sink.prepare([mood])
    write(sink, batch(series, [0, 1], index=[1, 2], select=[3, np.nan]), batch(series, [1], select=4))
    assert sink.read(series, EVER).values.tolist() == [[1, 2], [3, 4]]
    assert sink.coverage([series])[series].covered
    assert sink.ledger() == {}  # marketfetch does not know its columns


def test_a_column_that_a_dataset_has_got_since_is_added(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([attrs.evolve(OHLCV, columns=OHLCV.columns[:5])])
    sink.prepare([OHLCV])
    write(sink, batch(candles(), [0], trades=3))
    assert sink.read(candles(), EVER).values[6].tolist() == [3]
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT trades FROM ohlcv").fetchall() == [(3,)]


def test_a_relation_in_the_place_of_the_view_is_left_alone(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    database.execute("CREATE TABLE ohlcv (mine int)")
    with pytest.raises(
        SinkError, match=r"public\.ohlcv exists .* rename it, map it with table=, or pass views=False"
    ):
        PostgresSink(postgres_dsn).prepare([OHLCV])
    assert database.execute("SELECT to_regnamespace('marketfetch')").fetchone() == (None,)
    PostgresSink(postgres_dsn, views=False).prepare([OHLCV])


def test_tables_of_another_program_in_our_schema_are_refused(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    database.execute("CREATE SCHEMA marketfetch CREATE TABLE series (id int)")
    with pytest.raises(SinkError, match=r"marketfetch\.series was not made by marketfetch; .*schema="):
        PostgresSink(postgres_dsn).prepare([OHLCV])
    other = PostgresSink(postgres_dsn, schema='My "own"')
    other.prepare([OHLCV])
    write(other, batch(candles(), [0], open=1))
    assert len(other.read(candles(), EVER)) == 1


def test_a_percent_sign_in_the_schema_is_no_placeholder(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn, schema="a%b %s")
    sink.prepare([OHLCV])
    write(sink, batch(candles(), range(3), open=1), batch(candles(), range(4), open=2))
    assert sink.read(candles(), EVER).values[0].tolist() == [2, 2, 2, 2]
    assert sink.coverage([candles()]) == sink.ledger() == {candles(): sink.ledger()[candles()]}
    assert sink.rejected(candles(), EVER) == []
    sink.forget(candles(), SpanSet.of(Span(START, START + MINUTE)), rows=True)
    assert len(sink.read(candles(), EVER)) == 3
    assert sink.board().change("x", lambda text, _: ("1", text)) is None
    assert sink.board().change("x", lambda text, _: ("2", text)) == "1"


def test_a_role_that_may_only_write_finds_everything_prepared(sink: PostgresSink, postgres_dsn: str) -> None:
    rights = (
        "GRANT USAGE ON SCHEMA marketfetch TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA marketfetch TO {role}",
    )
    with role(postgres_dsn, *rights) as dsn:
        clerk = PostgresSink(dsn)
        clerk.prepare([OHLCV])
        write(clerk, batch(candles(), range(3), open=1), batch(candles(), range(4), open=2))
        assert clerk.read(candles(), EVER).values[0].tolist() == [2, 2, 2, 2]
        with pytest.raises(
            SinkError, match=r"GRANT CREATE ON SCHEMA .* or have its owner call prepare\(\) once"
        ):
            clerk.prepare([Dataset.parse("funding_rate")])


def test_nothing_stays_on_the_server_between_transactions(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    """What PgBouncer in transaction mode asks for."""
    with sink.writer() as write_batch:
        write_batch(batch(candles(), range(5), open=1))
        write_batch(batch(candles(), range(5), open=2))
        assert isinstance(write_batch, writer.BatchWriter)
        connection = write_batch._session._connection
        assert connection is not None
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SHOW enable_nestloop").fetchone() == ("on",)
        assert connection.execute("SELECT to_regclass('pg_temp.marketfetch_staged')").fetchone() == (None,)
        held = (
            "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        )
        assert connection.execute(held).fetchone() == (0,)
    assert connection.closed
