"""A server that is no longer what it was: altered, set back, gone, or of another mind."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from chaos.faults.commit_proxy import commit_proxy
from marketfetch.errors import SinkError
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.postgres.connections import DsnConnections
from marketfetch.sinks.postgres.session import PostgresSession
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.commands import Command
from tests.support.postgres import Server


@pytest.fixture
def sink(postgres_dsn: str) -> PostgresSink:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([candles().dataset])
    return sink


def test_a_column_whose_type_was_changed_takes_no_bytes_of_the_old_one(
    postgres_dsn: str, sink: PostgresSink
) -> None:
    """A float and a bigint have 8 bytes each, and COPY would take the one for the other."""
    with psycopg.connect(postgres_dsn, autocommit=True) as database, sink.writer() as write:
        write(batch(candles(), range(3), open=2))
        database.execute("DROP VIEW ohlcv")
        database.execute("ALTER TABLE marketfetch.ohlcv ALTER COLUMN open TYPE bigint")
        with pytest.raises(
            SinkError, match=r"marketfetch\.ohlcv\.open is bigint instead of double precision"
        ):
            write(batch(candles(), range(3, 6), open=1.5))
        database.execute("ALTER TABLE marketfetch.ohlcv ALTER COLUMN open TYPE double precision")
        write(batch(candles(), range(3, 6), open=1.5))
    assert sink.read(candles(), EVER).values[0].tolist() == [2, 2, 2, 1.5, 1.5, 1.5]


def test_a_server_that_lost_its_last_transactions_does_not_mix_up_series(
    postgres_dsn: str, sink: PostgresSink
) -> None:
    """As after a failover to one that lagged behind: what was one series' id may be another's by then."""
    with psycopg.connect(postgres_dsn, autocommit=True) as database, sink.writer() as write:
        write(batch(candles(), range(3), open=1))
        database.execute(
            "TRUNCATE marketfetch.series, marketfetch.coverage, marketfetch.rejected, marketfetch.files, "
            "marketfetch.ohlcv RESTART IDENTITY"
        )
        with sink.writer() as another:
            another(batch(candles("ETHUSDT"), range(2), open=2))
        write(batch(candles(), range(3, 6), open=1))
    assert sink.read(candles("ETHUSDT"), EVER).values[0].tolist() == [2, 2]
    assert sink.read(candles(), EVER).values[0].tolist() == [1, 1, 1]
    covered = Span(START + 3 * MINUTE, START + 6 * MINUTE)
    assert sink.coverage([candles()])[candles()].covered == SpanSet.of(covered)


def test_a_server_that_is_gone_without_a_word_is_noticed(postgres_server: Server, postgres_dsn: str) -> None:
    if postgres_server.guard is None:
        pytest.skip("the server was given; where its socket is, is not known")
    with commit_proxy(postgres_server.socket) as relay, ExitStack() as stack:
        dsn = make_conninfo(postgres_dsn, host="127.0.0.1", port=relay.port)
        session = stack.enter_context(closing(PostgresSession(DsnConnections(Secret(dsn)))))
        with session.transaction("look") as connection:
            wire = stack.enter_context(socket.socket(fileno=os.dup(connection.fileno())))
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


def test_the_command_line_tells_in_one_line_what_stays_and_ends_with_exit_code_1(
    sink: PostgresSink, postgres_dsn: str, marketfetch: Command
) -> None:
    words = "--exchange binance-usdm --symbol BTCUSDT --interval 1m --start 2026-06-01 --end 2026-06-02 --to"
    with (
        SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange,
        psycopg.connect(postgres_dsn, autocommit=True) as database,
    ):
        database.execute("ALTER TABLE marketfetch.ohlcv ADD CONSTRAINT lower CHECK (open < 0)")
        command = ["backfill", *words.split(), postgres_dsn, "--base-url", exchange.base_url]
        said = marketfetch(*command)
        assert said.returncode == 1, said.stderr
        assert [
            line for line in said.stderr.splitlines() if "a CHECK of the table refuses a row" in line
        ] == [said.stderr.splitlines()[-1]]
        assert "Traceback" not in said.stderr
        database.execute("ALTER TABLE marketfetch.ohlcv DROP CONSTRAINT lower")
        said = marketfetch(*command)
        assert said.returncode == 0, said.stderr
        assert database.execute("SELECT count(*) FROM ohlcv").fetchone() == (1440,)
