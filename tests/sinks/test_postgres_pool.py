"""A sink connects by itself, or borrows connections from the pool of a service."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, NullConnectionPool

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.sinks.postgres import PostgresBoard, PostgresSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.testing.contracts.sink import SinkContract
from marketfetch.values.pages import Batch
from tests.support.batches import EVER, batch, candles
from tests.support.postgres import Server, end_sessions
from tests.support.refusing_postgres import refusing
from tests.support.worlds import World, run

SERIES = candles()
PASSWORD = "hunter2-$7x"

# What a service may have set on its connections; none of it may reach our statements.
OF_SERVICE: dict[str, Any] = {
    "row_factory": dict_row,
    "cursor_factory": psycopg.ClientCursor,
    "prepare_threshold": None,
}


def serializable_and_read_only(connection: psycopg.Connection[Any]) -> None:
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = True


@pytest.fixture
def pool(postgres_dsn: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(
        postgres_dsn,
        kwargs=OF_SERVICE,
        configure=serializable_and_read_only,
        min_size=0,
        max_size=3,
        timeout=20,
        open=False,
    ) as pool:
        yield pool


@pytest.fixture(params=["dsn", "pool"])
def sink(request: pytest.FixtureRequest, postgres_dsn: str, pool: ConnectionPool[Any]) -> PostgresSink:
    sink = PostgresSink(postgres_dsn) if request.param == "dsn" else PostgresSink(pool=pool)
    sink.prepare([SERIES.dataset])
    return sink


class TestServicePool(SinkContract):
    dsn: str
    pool: ConnectionPool[Any]

    @pytest.fixture(autouse=True)
    def database(self, postgres_dsn: str, pool: ConnectionPool[Any]) -> None:
        self.dsn, self.pool = postgres_dsn, pool

    def make_store(self, place: Path) -> PostgresSink:
        return PostgresSink(pool=self.pool)

    def write_format(self, place: Path, version: int) -> int:
        with psycopg.connect(self.dsn) as connection:
            (found,) = connection.execute("SELECT version FROM marketfetch.format").fetchone() or (0,)
            connection.execute("UPDATE marketfetch.format SET version = %s", [version])
        return int(found)


def write_patiently(write: Writer, batch: Batch) -> None:
    """Write as the engine does: what may pass is tried again."""
    for _ in range(5):
        try:
            return write(batch)
        except SinkUnavailable:
            continue
    return write(batch)


def test_connections_that_are_killed_again_and_again_cost_no_row(
    sink: PostgresSink, postgres_server: Server, postgres_dsn: str
) -> None:
    with sink.writer() as one, sink.writer() as two:
        for end in range(1, 6):
            write_patiently(one, batch(SERIES, range(3 * end), open=1))
            write_patiently(two, batch(candles("ETHUSDT"), range(2 * end), open=1))
            assert end_sessions(postgres_server.past_the_pooler(postgres_dsn))
        write_patiently(one, batch(SERIES, range(16), open=1))
    # A connection of a service's pool may have been killed since it was given back.
    for _ in range(5):
        try:
            found = [len(sink.read(series, EVER)) for series in (SERIES, candles("ETHUSDT"))]
        except SinkUnavailable:
            continue
        break
    assert found == [16, 10]


def test_a_pool_that_checks_its_connections_costs_not_even_an_error(
    postgres_server: Server, postgres_dsn: str
) -> None:
    direct = postgres_server.past_the_pooler(postgres_dsn)
    checked = ConnectionPool(
        direct, min_size=0, max_size=2, timeout=20, check=ConnectionPool.check_connection, open=False
    )
    with checked as pool:
        sink = PostgresSink(pool=pool)
        sink.prepare([SERIES.dataset])
        with sink.writer() as write:
            for end in range(1, 4):
                write(batch(SERIES, range(3 * end), open=1))
                assert end_sessions(direct)
        assert len(sink.read(SERIES, EVER)) == 9


def test_a_dsn_needs_no_thread(postgres_dsn: str) -> None:
    sink, before = PostgresSink(postgres_dsn), set(threading.enumerate())
    sink.prepare([SERIES.dataset])
    with sink.writer() as write:
        write(batch(SERIES, [0], open=1))
        assert set(threading.enumerate()) <= before
    assert set(threading.enumerate()) <= before


def test_no_thread_waits_for_the_connection_of_another() -> None:
    with ExitStack() as connected:
        with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(4) as threads:
            silent.settimeout(30)
            sink = PostgresSink(f"host=127.0.0.1 port={silent.getsockname()[1]} connect_timeout=120")
            calls = [threads.submit(sink.ledger) for _ in range(4)]
            try:
                for _ in calls:  # no call has ended by then: nobody answers
                    connected.enter_context(silent.accept()[0])
            finally:
                silent.close()
                connected.close()
        for call in calls:
            assert isinstance(call.exception(), SinkUnavailable)


def test_nothing_is_left_after_a_run(
    sink: PostgresSink, pool: ConnectionPool[Any], postgres_dsn: str, postgres_server: Server
) -> None:
    before = set(threading.enumerate())
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        report = run(World(exchange).pipeline(sink, start="2026-06-01", end="2026-06-02"))
    assert report.complete
    assert {thread for thread in threading.enumerate() if "anyio" not in thread.name.lower()} <= before
    # Every connection of the service's pool is back in the pool, and those of the DSN are closed.
    give_up = time.monotonic() + 20
    while (held := pool.get_stats())["pool_available"] != held["pool_size"]:
        assert time.monotonic() < give_up, held  # the pool's own threads put them back
        time.sleep(0.01)
    if not postgres_server.pooled:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            for _ in range(400):  # a server notices a moment later that a client has left
                connected = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name = 'marketfetch'"
                ).fetchone()
                if connected == (0,):
                    break
                connection.execute("SELECT pg_sleep(0.05)")
            assert connected == (0,)


def test_a_borrowed_connection_goes_back_as_it_was(pool: ConnectionPool[Any]) -> None:
    sink = PostgresSink(pool=pool)
    sink.prepare([SERIES.dataset])
    with sink.writer() as write:
        write(batch(SERIES, [0], open=1))
        with pytest.raises(SinkError, match="NUL"):
            write(batch(candles("BTC\0"), [0], open=1))
    with pool.connection() as connection:
        assert connection.isolation_level == psycopg.IsolationLevel.SERIALIZABLE
        assert connection.read_only
        assert connection.row_factory is dict_row
        assert connection.cursor_factory is psycopg.ClientCursor
        assert connection.execute("SELECT count(*) AS n FROM ohlcv").fetchone() == {"n": 1}


def test_a_pool_without_a_free_connection_may_have_one_later(pool: ConnectionPool[Any]) -> None:
    sink = PostgresSink(pool=pool)
    sink.prepare([SERIES.dataset])
    pool.timeout = 0.2
    with (
        pool.connection(20),
        pool.connection(20),
        pool.connection(20),
        pytest.raises(SinkUnavailable, match=r"cannot read .*can be reached: raise the pool's max_size"),
    ):
        sink.read(SERIES, EVER)
    pool.timeout = 20
    assert len(sink.read(SERIES, EVER)) == 0


@pytest.mark.parametrize("kind", [ConnectionPool, NullConnectionPool])
@pytest.mark.parametrize(
    ("state", "error", "remedy"),
    [("28P01", SinkError, "correct the DSN"), ("57P03", SinkUnavailable, "starting or stopping")],
)
@pytest.mark.parametrize("hidden", [False, True], ids=["fixed", "function"])
def test_a_refusal_behind_a_pool_has_its_reason(
    kind: type[ConnectionPool[Any]], state: str, error: type[SinkError], remedy: str, *, hidden: bool
) -> None:
    with refusing(state, f"refused, whatever {PASSWORD} is", password=True) as server:
        dsn = f"host=127.0.0.1 port={server.port} user=ann dbname=market"
        place: Any = (lambda: dsn) if hidden else dsn
        with (
            kind(place, kwargs={"password": PASSWORD}, min_size=0, max_size=2, timeout=1, open=False) as pool,
            pytest.raises(SinkError, match=remedy) as caught,
        ):
            PostgresSink(pool=pool).ledger()
    assert type(caught.value) is error
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_pool_that_is_not_open_is_named(postgres_dsn: str) -> None:
    pool = ConnectionPool(postgres_dsn, min_size=0, max_size=1, open=False)
    sink = PostgresSink(pool=pool)
    with pytest.raises(SinkError, match="not open; open it before the run"):
        sink.ledger()
    with pool:
        assert sink.ledger() == {}
    with pytest.raises(SinkError, match="not open; open it before the run"):
        sink.ledger()


def test_connections_of_another_encoding_are_refused(postgres_dsn: str) -> None:
    latin = ConnectionPool(
        postgres_dsn, kwargs={"client_encoding": "LATIN1"}, min_size=0, max_size=1, open=False
    )
    with latin as pool, pytest.raises(SinkError, match=r"iso8859-1; .*'client_encoding': 'UTF8'"):
        PostgresSink(pool=pool).ledger()


@pytest.mark.parametrize("kind", [PostgresSink, PostgresBoard])
def test_a_dsn_or_a_pool_is_needed_and_not_both(kind: type[PostgresSink | PostgresBoard]) -> None:
    pool = ConnectionPool(min_size=0, max_size=1, open=False)
    with pytest.raises(ConfigurationError, match=r"dsn: there is none; .*or pass pool="):
        kind()
    with pytest.raises(ConfigurationError, match="pool: there is a dsn as well"):
        kind("host=db", pool=pool)
    with pytest.raises(
        ConfigurationError, match="pool: AsyncConnectionPool is not a pool; pass a psycopg_pool"
    ):
        kind(pool=AsyncConnectionPool(min_size=0, max_size=1, open=False))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="pool: str is not a pool"):
        kind(pool="host=db")  # type: ignore[arg-type]


def test_it_shows_where_a_pool_leads_and_no_password() -> None:
    dsn = f"postgresql://ann:{PASSWORD}@db.example/market"
    pool = ConnectionPool(dsn, min_size=0, max_size=1, open=False)
    assert repr(PostgresSink(pool=pool)) == "PostgresSink(pool='postgresql://db.example/market')"
    named = ConnectionPool(lambda: dsn, name="vault", min_size=0, max_size=1, open=False)
    assert repr(PostgresSink(pool=named)) == "PostgresSink(pool='pool vault')"


def test_a_board_uses_the_pool_and_equals_that_of_a_dsn(pool: ConnectionPool[Any], postgres_dsn: str) -> None:
    board = PostgresSink(pool=pool).board()
    assert board == PostgresBoard(pool=pool) == PostgresBoard(postgres_dsn)
    assert board.change("x", lambda text, _: ("1", text)) is None
    assert PostgresBoard(postgres_dsn).change("x", lambda text, _: ("2", text)) == "1"


def test_a_write_that_is_interrupted_gives_no_cancelled_connection_back(
    sink: PostgresSink, pool: ConnectionPool[Any], postgres_dsn: str
) -> None:
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE NOT granted AND datname = current_database()"
    )
    with (
        psycopg.connect(postgres_dsn) as other,
        sink.writer() as write,
        ThreadPoolExecutor(1) as threads,
    ):
        interrupt = write.interrupt  # type: ignore[attr-defined]
        other.execute("LOCK TABLE marketfetch.ohlcv")
        writing = threads.submit(write, batch(SERIES, [0], open=1))
        while other.execute(waiting).fetchone() == (0,):
            assert not writing.done()
        interrupt()
        with pytest.raises(SinkUnavailable, match="cancel"):
            writing.result(20)
        other.rollback()
        interrupt()  # nothing is under way
        write_patiently(write, batch(SERIES, [0], open=1))
    with ExitStack() as stack:  # all that the pool may have were given back, and each works
        for _ in range(pool.max_size):
            stack.enter_context(pool.connection()).execute("SELECT 1")
    assert pool.get_stats().get("returns_bad", 0) == (1 if sink == PostgresSink(pool=pool) else 0)
    assert len(sink.read(SERIES, EVER)) == 1


def in_child(work: Callable[[], object]) -> str:
    """Fork, do something in the child, and return what came of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)  # a child that hangs is ended
        try:
            result = str(work())
        except BaseException as error:  # noqa: BLE001  # the parent gets its text
            result = f"{type(error).__name__}: {error}"
        os.write(writer, result.encode()[:4000])
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        result = pipe.read()
    return result if os.WIFEXITED(status) else f"killed by {status}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the fork is what is tested
def test_a_forked_child_connects_by_itself(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([SERIES.dataset])

    def write_anew() -> int:
        with sink.writer() as own:
            own(batch(SERIES, [1], open=1))
        return len(sink.read(SERIES, EVER))

    with sink.writer() as write:
        write(batch(SERIES, [0], open=1))
        assert "SinkError" in (said := in_child(lambda: write(batch(SERIES, [7], open=1)))), said
        assert "was forked while its parent had the connection open" in said
        assert in_child(write_anew) == "2"
        write(batch(SERIES, [2], open=1))
    assert in_child(write_anew) == "3"
    assert len(sink.read(SERIES, EVER)) == 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_the_pool_is_its_parent_s(pool: ConnectionPool[Any]) -> None:
    sink = PostgresSink(pool=pool)
    assert sink.ledger() == {}
    assert "forked from the one that opened the pool; open a pool of its own" in in_child(sink.ledger)
    assert sink.ledger() == {}
