"""Errors of PgBouncer itself; every other test of PostgreSQL runs through PgBouncer, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from marketfetch.errors import SinkUnavailable
from marketfetch.sinks.postgres import PostgresSink
from tests.support import pgbouncer
from tests.support.batches import EVER, batch, candles
from tests.support.killed import assert_tidied_up
from tests.support.postgres import Server

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def pool(postgres_server: Server) -> Iterator[Server]:
    """A pooler of this test's own, with one connection for at most three clients."""
    if postgres_server.source.programs is None:
        pytest.skip("the server was given; what passwords a pooler needs is not known")
    if pgbouncer.program() is None:
        pytest.skip("no PgBouncer here")  # where its absence is a failure, other tests say so
    with pgbouncer.before(postgres_server, size=1, clients=3) as server:
        yield server


def test_a_client_too_many_may_come_again(pool: Server) -> None:
    with ExitStack() as clients, pool.database() as dsn:
        sink = PostgresSink(dsn)
        sink.prepare([candles().dataset])
        for _ in range(3):
            clients.enter_context(psycopg.connect(pool.dsn))
        with sink.writer() as write:
            with pytest.raises(SinkUnavailable, match=r"no more connections .* fewer writers"):
                write(batch(candles(), range(3), open=1))
            clients.close()
            write(batch(candles(), range(3), open=1))
        assert len(sink.read(candles(), EVER)) == 3


def test_a_transaction_that_waits_too_long_for_a_connection_may_be_tried_again(pool: Server) -> None:
    def wait_at_most(seconds: int) -> None:
        with psycopg.connect(make_conninfo(pool.dsn, dbname="pgbouncer"), autocommit=True) as console:
            psycopg.ClientCursor(console).execute(f"SET query_wait_timeout = {seconds}".encode())

    with pool.database() as dsn:
        sink = PostgresSink(dsn)
        sink.prepare([candles().dataset])
        with psycopg.connect(dsn) as other, sink.writer() as write:
            other.execute("SELECT 1")  # holds the only connection until its transaction ends
            wait_at_most(1)  # not before: the pooler itself needs a while to log in
            with pytest.raises(SinkUnavailable, match="query_wait_timeout"):
                write(batch(candles(), range(3), open=1))
            wait_at_most(120)
            other.rollback()
            write(batch(candles(), range(3), open=1))
        assert len(sink.read(candles(), EVER)) == 3


def test_one_connection_serves_two_writers(pool: Server) -> None:
    with pool.database() as dsn:
        sink = PostgresSink(dsn)
        sink.prepare([candles().dataset])
        with sink.writer() as one, sink.writer() as two:
            for step in range(4):
                one(batch(candles(), range(5 * step, 5 * step + 5), open=1))
                two(batch(candles("ETHUSDT"), range(5 * step, 5 * step + 8), open=step))
        assert len(sink.read(candles(), EVER)) == 20
        assert len(sink.read(candles("ETHUSDT"), EVER)) == 23


def test_the_pooler_of_a_killed_run_stops_and_tidies_up(pool: Server) -> None:
    code = (
        "import time; from tests.support import pgbouncer, postgres\n"
        f"server = postgres.Server(None, {pool.direct!r}, {pool.direct!r})\n"
        "with pgbouncer.before(server) as pool: print(pool.dsn, flush=True); time.sleep(600)"
    )
    assert_tidied_up(code)
