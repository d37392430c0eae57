from __future__ import annotations

import traceback
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.values.datasets import Dataset
from marketfetch.values.redaction import Secret
from tests.support.batches import EVER, batch, candles

OHLCV = Dataset.parse("ohlcv")
PASSWORD = "hunter2-$7x"


@pytest.fixture
def sink(postgres_dsn: str) -> PostgresSink:
    sink = PostgresSink(make_conninfo(postgres_dsn, password=PASSWORD))
    sink.prepare([OHLCV])
    return sink


def test_constructing_does_nothing_but_read_the_dsn() -> None:
    assert PostgresSink("host=no.such.host.example").lanes == 2
    assert PostgresSink.from_url("postgresql://no.such.host.example/db") == PostgresSink(
        Secret("postgresql://no.such.host.example/db")
    )


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://ann:{PASSWORD}@db.example:5432/market",
        f"postgresql://db.example:5432/market?user=ann&password={PASSWORD}",
        f"host=db.example port=5432 dbname=market user=ann password={PASSWORD}",
    ],
)
def test_it_shows_where_it_writes_to_and_no_password(dsn: str) -> None:
    assert (
        repr(PostgresSink(dsn))
        == str(PostgresSink(dsn))
        == "PostgresSink('postgresql://db.example:5432/market')"
    )


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://ann:hun%zz2@db.example/market",
        "postgresql://ann:hun/zz2@db.example/market",
        "postgresql://ann:5432/hunzz2@db.example/market",
        "postgresql://ann:hun@zz2@db.example/market",
        "postgresql://ann:hun zz2@db.example/market",
        "host=db.example password=hun zz2",
        "postgresql://db.example:hunzz2/market",
    ],
)
def test_a_dsn_that_cannot_be_read_is_refused_without_quoting_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"percent-encoded") as caught:
        PostgresSink(dsn)
    assert "zz2" not in "".join(traceback.format_exception(caught.value))


def test_no_lanes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"lanes: 0 .*at least 1"):
        PostgresSink("postgresql:///", lanes=0)


def write(sink: PostgresSink) -> None:
    with sink.writer() as writer:
        writer(batch(candles(), [0], open=1))


@pytest.mark.parametrize(
    "call",
    [
        write,
        PostgresSink.ledger,
        lambda sink: sink.prepare([OHLCV]),
        lambda sink: sink.coverage([candles()]),
        lambda sink: sink.read(candles(), EVER),
    ],
)
def test_a_server_that_is_not_there_may_come_back(call: Callable[[PostgresSink], object]) -> None:
    sink = PostgresSink(f"postgresql://ann:{PASSWORD}@127.0.0.1:1/market?connect_timeout=2")
    with pytest.raises(
        SinkUnavailable, match=r"127\.0\.0\.1:1/market: cannot .*check that the server runs"
    ) as caught:
        call(sink)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_database_that_does_not_exist_is_not_asked_again(postgres_dsn: str) -> None:
    with pytest.raises(SinkError, match=r'database "nowhere" does not exist; correct the DSN') as caught:
        PostgresSink(make_conninfo(postgres_dsn, dbname="nowhere", password=PASSWORD)).ledger()
    assert not isinstance(caught.value, SinkUnavailable)


def test_writing_unprepared_says_what_to_call(postgres_dsn: str) -> None:
    with (
        PostgresSink(postgres_dsn).writer() as write,
        pytest.raises(SinkError, match=r"call prepare\(\) first"),
    ):
        write(batch(candles(), [0], open=1))


def test_a_backend_that_is_terminated_between_batches_is_replaced(
    sink: PostgresSink, postgres_dsn: str
) -> None:
    with sink.writer() as write:
        write(batch(candles(), range(3), open=1))
        _terminate(postgres_dsn)
        with pytest.raises(SinkUnavailable):
            write(batch(candles(), range(6), open=1))
        write(batch(candles(), range(6), open=1))
    assert len(sink.read(candles(), EVER)) == 6


def test_a_backend_that_is_terminated_amid_a_batch_leaves_nothing_of_it(
    sink: PostgresSink, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        # Coverage comes after the rows: there the writer ends its own server process.
        database.execute(
            "CREATE FUNCTION public.fall() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
        )
        database.execute(
            "CREATE TRIGGER fall BEFORE INSERT ON marketfetch.coverage EXECUTE FUNCTION public.fall()"
        )
        with sink.writer() as write:
            with pytest.raises(SinkUnavailable, match=r"terminating connection.* write again") as caught:
                write(batch(candles(), range(3), open=1))
            assert PASSWORD not in "".join(traceback.format_exception(caught.value))
            database.execute("DROP TRIGGER fall ON marketfetch.coverage")
            assert len(sink.read(candles(), EVER)) == 0
            write(batch(candles(), range(3), open=1))
    assert len(sink.read(candles(), EVER)) == 3


def test_a_lock_that_lasts_too_long_may_be_waited_for_again(sink: PostgresSink, postgres_dsn: str) -> None:
    impatient = PostgresSink(make_conninfo(postgres_dsn, options="-c lock_timeout=50"))
    with psycopg.connect(postgres_dsn) as other, impatient.writer() as write:
        other.execute("LOCK TABLE marketfetch.ohlcv")
        with pytest.raises(SinkUnavailable, match="lock timeout"):
            write(batch(candles(), [0], open=1))
        other.rollback()
        write(batch(candles(), [0], open=1))
    assert len(sink.read(candles(), EVER)) == 1


def test_an_error_of_ours_inside_a_transaction_leaves_the_writer_usable(sink: PostgresSink) -> None:
    with sink.writer() as write:
        with pytest.raises(SinkError, match="NUL"):
            write(batch(candles("BTC\0"), [0], open=1))
        write(batch(candles(), [0], open=1))
    assert len(sink.read(candles(), EVER)) == 1


def _terminate(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
