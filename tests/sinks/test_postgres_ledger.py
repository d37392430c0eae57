"""The ledger of PostgreSQL: segments, rejected rows, forgetting, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import pairwise

import attrs
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from marketfetch.errors import SinkError
from marketfetch.protocols import SupportsForget, SupportsRejected
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sql import coverage_segments as segments
from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles, premium
from tests.support.roles import role

OHLCV, PREMIUM = Dataset.parse("ohlcv"), Dataset.parse("premium_index")
MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={"ohlcv": {"open": "o", "close": "c"}, "premium_index": {"close": "pfr"}},
    rename_symbol=without_quote("USDT"),
)
CANDLES = """
    CREATE TABLE candles (ts bigint, symbol text, o numeric, c numeric, pfr numeric, note text,
    twice numeric GENERATED ALWAYS AS (2 * o) STORED, PRIMARY KEY (symbol, ts))
"""


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def sink(postgres_dsn: str) -> PostgresSink:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    return sink


@pytest.fixture
def mapped(postgres_dsn: str, database: psycopg.Connection) -> PostgresSink:
    database.execute(CANDLES)
    sink = PostgresSink(postgres_dsn, table=MAPPING)
    sink.prepare([OHLCV, PREMIUM])
    return sink


def write(sink: PostgresSink, *batches: Batch) -> None:
    with sink.writer() as writer:
        for one in batches:
            writer(one)


def minutes(*bounds: tuple[int, int]) -> SpanSet:
    return SpanSet(tuple(Span(START + MINUTE * first, START + MINUTE * last) for first, last in bounds))


def covering(series: Series, coverage: Coverage, *rejected: RejectedRow) -> Batch:
    return Batch(series, Columns.empty(series.dataset), coverage, rejected)


def test_it_forgets_and_keeps_rejected_rows() -> None:
    assert isinstance(PostgresSink(""), SupportsForget)
    assert isinstance(PostgresSink(""), SupportsRejected)


# --- segments ---

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=8).map(
    lambda pairs: SpanSet(tuple(Span(start, start + length) for start, length in pairs))
)
coverages = st.tuples(spans, spans, spans).map(
    lambda sets: Coverage(sets[0] | sets[1] | sets[2], sets[1] - sets[2], sets[2])
)
steps = st.lists(st.one_of(coverages, spans), min_size=1, max_size=8)


@given(steps)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_learnt_and_forgotten_is_what_memory_would_know(
    sink: PostgresSink, monkeypatch: pytest.MonkeyPatch, steps: Sequence[Coverage | SpanSet]
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_SPANS", 4)  # so that few spans fill many
    series = candles(f"S{abs(hash(tuple(steps)))}")
    known = sink.coverage([series])[series]
    for step in steps:
        if isinstance(step, Coverage):
            write(sink, covering(series, step))
            known |= step
        else:
            sink.forget(series, step)
            known = known.without(step)
        assert sink.coverage([series])[series] == known


def test_segments_are_apart_in_order_and_small(sink: PostgresSink, database: psycopg.Connection) -> None:
    gaps = minutes(*((minute, minute + 1) for minute in range(0, 4000, 2)))
    write(sink, covering(candles(), Coverage(minutes((0, 4000)), gaps)))
    write(sink, *(batch(candles(), [minute], open=1) for minute in (1000, 3998, 4001, 4003)))
    rows = database.execute(
        "SELECT start_time, lower(covered), upper(covered), (SELECT count(*) FROM unnest(covered)) "
        "+ (SELECT count(*) FROM unnest(empty)) FROM marketfetch.coverage ORDER BY start_time"
    ).fetchall()
    assert len(rows) > 3
    assert all(start == first and count <= segments.SEGMENT_SPANS for start, first, _, count in rows)
    assert all(one[2] <= two[0] for one, two in pairwise(rows))


def test_gaps_that_are_filled_leave_one_segment(sink: PostgresSink, database: psycopg.Connection) -> None:
    write(sink, batch(candles(), range(0, 3000, 2), open=1))
    write(sink, batch(candles(), range(1, 3000, 2), open=2))
    assert database.execute("SELECT count(*) FROM marketfetch.coverage").fetchone() == (1,)
    assert sink.coverage([candles()])[candles()] == batch(candles(), range(3000)).coverage


def test_a_batch_that_tells_nothing_new_changes_no_row(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    one = batch(candles(), range(0, 3000, 2), open=1)
    write(sink, one)
    before = database.execute("SELECT ctid, xmin FROM marketfetch.coverage ORDER BY ctid").fetchall()
    write(sink, one, batch(candles(), range(10, 500, 2), open=1))
    assert database.execute("SELECT ctid, xmin FROM marketfetch.coverage ORDER BY ctid").fetchall() == before


def test_writers_of_one_series_see_what_the_others_wrote_while_they_waited(sink: PostgresSink) -> None:
    """A statement that waits for a lock has looked at the tables before it waited."""

    def work(lane: int) -> None:
        with sink.writer() as writer:
            for step in range(25):
                first = step * 80 + lane * 20
                writer(batch(candles(), range(first, first + 20, 2), open=lane))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert sink.coverage([candles()])[candles()] == batch(candles(), range(0, 2000, 2)).coverage
    assert len(sink.read(candles(), EVER)) == 1000


def test_coverage_that_a_user_has_deleted_by_hand_is_asked_for_again(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    write(sink, batch(candles(), range(100), open=1))
    hole = f"[{START + 10 * MINUTE},{START + 20 * MINUTE})"
    database.execute(
        "UPDATE marketfetch.coverage SET covered = covered - %s::int8multirange", [f"{{{hole}}}"]
    )
    assert sink.coverage([candles()])[candles()].covered == minutes((0, 10), (20, 100))
    database.execute("UPDATE marketfetch.coverage SET covered = '{}'")
    assert sink.coverage([candles()])[candles()] == Coverage()
    assert sink.ledger() == {}
    write(sink, batch(candles(), range(5, 8), open=1))
    assert sink.coverage([candles()])[candles()].covered == minutes((5, 8))


# --- rejected rows ---

LATE = RejectedRow(START + 14_789, "off the grid", '[14789,"1.5"]')
BELOW = RejectedRow(START + MINUTE, "impossible", '[60000,"-1"]')
UNUSABLE = Coverage(minutes((0, 2)), unusable=minutes((0, 2)))


def test_rejected_rows_come_back_sorted_and_once(sink: PostgresSink) -> None:
    again = attrs.evolve(LATE, reason="impossible")
    sent = covering(candles(), UNUSABLE, BELOW, LATE, again, LATE)
    write(sink, sent, sent)
    assert sink.rejected(candles(), EVER) == sorted([BELOW, LATE, again])
    assert sink.rejected(candles(), Span(START, START + MINUTE)) == sorted([LATE, again])
    assert sink.rejected(candles("ETHUSDT"), EVER) == []


def test_a_row_that_is_stored_after_all_takes_the_place_of_the_rejected_one(sink: PostgresSink) -> None:
    write(sink, covering(candles(), UNUSABLE, BELOW, LATE), batch(candles(), [0], open=1))
    assert sink.rejected(candles(), EVER) == [BELOW]
    assert sink.coverage([candles()])[candles()].unusable == minutes((1, 2))
    write(sink, covering(candles(), UNUSABLE, LATE))  # a rejected row that was removed comes again
    assert sink.rejected(candles(), EVER) == [BELOW]


@pytest.mark.parametrize(
    "raw", ["", "x" * 100_000, "NUL \0", "half \ud83d", "币安人生", "'; DROP TABLE series"]
)
def test_any_text_may_be_rejected(sink: PostgresSink, raw: str) -> None:
    write(sink, covering(candles(), UNUSABLE, attrs.evolve(LATE, raw=raw)))
    (row,) = sink.rejected(candles(), EVER)
    assert (row.time, row.reason) == (LATE.time, LATE.reason)
    if "\0" not in raw and "\ud83d" not in raw:
        assert row.raw == raw


def test_rejected_rows_and_coverage_are_durable_together_or_not_at_all(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    database.execute("ALTER TABLE marketfetch.rejected ADD CHECK (reason <> 'impossible')")
    with sink.writer() as writer, pytest.raises(SinkError, match="CHECK"):
        writer(covering(candles(), UNUSABLE, LATE, BELOW))
    assert sink.coverage([candles()])[candles()] == Coverage()
    assert sink.rejected(candles(), EVER) == []


def test_a_series_that_is_deleted_takes_all_along(sink: PostgresSink, database: psycopg.Connection) -> None:
    write(sink, covering(candles(), UNUSABLE, LATE))
    database.execute("DELETE FROM marketfetch.series")
    assert database.execute("SELECT FROM marketfetch.rejected").fetchall() == []
    assert sink.ledger() == {}


# --- forgetting ---


def test_forgotten_moments_are_asked_again_and_their_rows_stay(sink: PostgresSink) -> None:
    write(sink, batch(candles(), range(10), open=1), batch(candles("ETHUSDT"), range(10), open=1))
    sink.forget(candles(), minutes((2, 4), (7, 8)))
    assert sink.coverage([candles()])[candles()].covered == minutes((0, 2), (4, 7), (8, 10))
    assert len(sink.read(candles(), EVER)) == 10
    assert sink.coverage([candles("ETHUSDT")])[candles("ETHUSDT")].covered == minutes((0, 10))


def test_rows_are_removed_with_what_is_known_of_them(sink: PostgresSink) -> None:
    write(sink, batch(candles(), range(10), open=range(10)), batch(candles("ETHUSDT"), range(10), open=1))
    sink.forget(candles(), minutes((2, 4), (7, 8), (20, 30)), rows=True)
    assert sink.read(candles(), EVER).values[0].tolist() == [0, 1, 4, 5, 6, 8, 9]
    assert len(sink.read(candles("ETHUSDT"), EVER)) == 10
    sink.forget(candles(), SpanSet.of(Span(-(2**60), 2**60)), rows=True)
    assert len(sink.read(candles(), EVER)) == 0
    assert sink.coverage([candles()])[candles()] == Coverage()


def test_rejected_rows_are_forgotten_with_their_moments(sink: PostgresSink) -> None:
    write(sink, covering(candles(), UNUSABLE, LATE, BELOW))
    sink.forget(candles(), minutes((0, 1)))
    assert sink.rejected(candles(), EVER) == [BELOW]
    assert sink.coverage([candles()])[candles()] == UNUSABLE.without(minutes((0, 1)))


def test_forgetting_what_is_not_known_changes_nothing(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.forget(candles(), minutes((0, 5)), rows=True)
    assert database.execute("SELECT to_regnamespace('marketfetch')").fetchone() == (None,)
    sink.prepare([OHLCV])
    write(sink, batch(candles(), range(5), open=1))
    sink.forget(candles("ETHUSDT"), minutes((0, 5)), rows=True)
    sink.forget(candles(), SpanSet(), rows=True)
    assert sink.ledger() == {candles(): batch(candles(), range(5)).coverage}


def test_rows_of_a_users_table_keep_what_others_wrote(
    mapped: PostgresSink, database: psycopg.Connection
) -> None:
    database.execute("INSERT INTO candles (ts, symbol, o, c) VALUES (%s, 'DOGE', 1, 2)", [START])
    write(mapped, batch(candles(), range(4), open=1, close=2), batch(premium(), [1], close=7))
    database.execute(
        "UPDATE candles SET note = 'mine' WHERE ts = %s AND symbol = 'BTC'", [START + 2 * MINUTE]
    )
    mapped.forget(candles(), minutes((0, 3)), rows=True)
    rows = database.execute("SELECT symbol, ts, o, c, pfr, note FROM candles ORDER BY symbol, ts").fetchall()
    assert rows == [
        ("BTC", START + MINUTE, None, None, Decimal(7), None),
        ("BTC", START + 2 * MINUTE, None, None, None, "mine"),
        ("BTC", START + 3 * MINUTE, Decimal(1), Decimal(2), None, None),
        ("DOGE", START, Decimal(1), Decimal(2), None, None),
    ]
    assert mapped.ledger()[premium()] == batch(premium(), [1]).coverage
    write(mapped, batch(candles(), range(4), open=1, close=2))
    assert mapped.ledger()[candles()] == batch(candles(), range(4)).coverage


def test_a_column_that_must_not_be_null_is_no_obstacle_where_the_row_goes(
    mapped: PostgresSink, database: psycopg.Connection
) -> None:
    database.execute("ALTER TABLE candles ALTER o SET NOT NULL")
    write(mapped, batch(candles(), range(4), open=1))
    database.execute("UPDATE candles SET pfr = 7 WHERE ts = %s", [START + MINUTE])
    mapped.forget(candles(), minutes((2, 4)), rows=True)
    before = database.execute("SELECT ts, o, pfr FROM candles ORDER BY ts").fetchall()
    assert len(before) == 2
    with pytest.raises(SinkError, match="DROP NOT NULL"):
        mapped.forget(candles(), minutes((0, 2)), rows=True)
    assert database.execute("SELECT ts, o, pfr FROM candles ORDER BY ts").fetchall() == before
    assert mapped.ledger()[candles()] == batch(candles(), range(2)).coverage


def test_a_writer_and_who_forgets_take_turns(sink: PostgresSink) -> None:
    with sink.writer() as writer, ThreadPoolExecutor(2) as threads:
        for step in range(10):
            first = 100 * step
            writing = threads.submit(writer, batch(candles(), range(first, first + 100), open=1))
            forgetting = threads.submit(sink.forget, candles(), minutes((first, first + 100)), rows=True)
            writing.result(), forgetting.result()
            held = sink.coverage([candles()])[candles()].within(minutes((first, first + 100)).spans[0])
            stored = sink.read(candles(), minutes((first, first + 100)).spans[0])
            assert held.covered == candles().interval.cover(stored.times)


# --- rights ---


@pytest.fixture
def clerk(postgres_dsn: str) -> Iterator[str]:
    """A DSN that names a role without any rights."""
    with role(postgres_dsn) as dsn:
        yield dsn


def test_a_role_that_may_only_read_reads_all_there_is(
    sink: PostgresSink, clerk: str, database: psycopg.Connection
) -> None:
    write(sink, batch(candles(), range(5, 9), open=1), covering(candles(), UNUSABLE, LATE))
    name = conninfo_to_dict(clerk)["user"]
    database.execute(f"GRANT USAGE ON SCHEMA marketfetch TO {name}")
    database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA marketfetch TO {name}")
    reader = PostgresSink(clerk)
    assert reader.coverage([candles()]) == reader.ledger() == sink.ledger()
    assert len(reader.read(candles(), EVER)) == 4
    assert reader.rejected(candles(), EVER) == [LATE]
    with pytest.raises(SinkError, match="permission denied"):
        reader.forget(candles(), minutes((5, 6)))


@pytest.mark.parametrize(
    ("table", "right"),
    [("coverage", "DELETE"), ("coverage", "UPDATE"), ("rejected", "INSERT"), ("rejected", "DELETE")],
)
def test_a_right_that_a_writer_lacks_is_told_before_anything_is_written(
    sink: PostgresSink, clerk: str, database: psycopg.Connection, table: str, right: str
) -> None:
    name = conninfo_to_dict(clerk)["user"]
    database.execute(f"GRANT USAGE ON SCHEMA marketfetch TO {name}")
    database.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA marketfetch TO {name}")
    database.execute(f"REVOKE {right} ON marketfetch.{table} FROM {name}")
    writer = PostgresSink(clerk)
    with pytest.raises(
        SinkError, match=rf"marketfetch\.{table}: {name} lacks rights; GRANT {right}"
    ) as caught:
        writer.prepare([OHLCV])
    database.execute(str(caught.value).partition("; ")[2])
    writer.prepare([OHLCV])
    write(writer, batch(candles(), range(3), open=1))
    writer.forget(candles(), minutes((0, 2)), rows=True)
