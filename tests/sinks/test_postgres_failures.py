from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import psycopg
import pytest
from anyio import to_thread
from psycopg.conninfo import make_conninfo

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import ConfigurationError, RowsRefused, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.settings import RetryPolicy
from tests.support.batches import EVER, batch, candles, not_split
from tests.support.postgres import Server, end_sessions
from tests.support.roles import role

OHLCV = Dataset.parse("ohlcv")
PASSWORD = "hunter2-$7x"


@pytest.fixture
def sink(postgres_dsn: str) -> PostgresSink:
    sink = PostgresSink(make_conninfo(postgres_dsn, password=PASSWORD))
    sink.prepare([OHLCV])
    return sink


def test_constructing_does_nothing_but_read_the_dsn() -> None:
    assert PostgresSink("host=no.such.host.example").max_writers == 2
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


def test_no_writers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"max_writers: 0 .*at least 1"):
        PostgresSink("postgresql:///", max_writers=0)


def write_patiently(write: Writer, batch: Batch) -> None:
    """Write as the engine does: what may pass is tried again."""
    for _ in range(3):
        try:
            return write(batch)
        except SinkUnavailable:
            continue
    return write(batch)


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
    sink: PostgresSink, postgres_server: Server, postgres_dsn: str
) -> None:
    # Past the pooler, which would replace it before we notice: see the test below.
    direct = PostgresSink(postgres_server.past_the_pooler(postgres_dsn))
    with direct.writer() as write:
        write(batch(candles(), range(3), open=1))
        end_sessions(postgres_server.past_the_pooler(postgres_dsn))
        with pytest.raises(SinkUnavailable, match=r"terminating connection.* write again"):
            write(batch(candles(), range(6), open=1))
        write(batch(candles(), range(6), open=1))
    assert len(sink.read(candles(), EVER)) == 6


def test_a_backend_that_is_terminated_again_and_again_costs_no_row(
    sink: PostgresSink, postgres_server: Server, postgres_dsn: str
) -> None:
    with sink.writer() as write:
        for end in range(1, 6):
            write_patiently(write, batch(candles(), range(3 * end), open=1))
            assert end_sessions(postgres_server.past_the_pooler(postgres_dsn))
    assert len(sink.read(candles(), EVER)) == 15


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


def test_a_lock_that_lasts_too_long_may_be_waited_for_again(
    sink: PostgresSink, postgres_server: Server, postgres_dsn: str
) -> None:
    postgres_server.adjust(postgres_dsn, lock_timeout="50ms")
    with psycopg.connect(postgres_dsn) as other, sink.writer() as write:
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


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("40001", "write again"),
        ("40P01", "deadlock"),
        ("40003", "another transaction was in the way"),
        ("53200", "out of memory"),
        ("53300", "max_connections"),
        ("55P03", "lock_timeout"),
        ("57014", "statement_timeout"),
        ("08006", "can be reached"),
        ("08P01", "can be reached"),
    ],
)
def test_what_may_pass_leaves_nothing_and_may_be_written_again(
    sink: PostgresSink, postgres_dsn: str, state: str, message: str
) -> None:
    with failing(postgres_dsn, state), sink.writer() as write:
        with pytest.raises(SinkUnavailable, match=message):
            write(batch(candles(), range(3), open=1))
        assert len(sink.read(candles(), EVER)) == 0
    with sink.writer() as write:
        write(batch(candles(), range(3), open=1))
    assert len(sink.read(candles(), EVER)) == 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("23514", "a CHECK of the table refuses a row"),
        ("25006", "connect to the primary"),
        ("42501", "grant the role"),
        ("53100", "make room"),
        ("58030", "the server's disk fails it"),
        ("P0001", "a trigger of the table refuses"),
        ("XX000", "mend what the server names"),
        ("XX001", "restore them from a copy"),
    ],
)
def test_what_does_not_pass_names_the_remedy_and_leaves_nothing(
    sink: PostgresSink, postgres_dsn: str, state: str, message: str
) -> None:
    with failing(postgres_dsn, state), sink.writer() as write:
        with pytest.raises(SinkError, match=message) as caught:
            write(batch(candles(), range(3), open=1))
        assert not isinstance(caught.value, SinkUnavailable)
        assert len(sink.read(candles(), EVER)) == 0


@contextmanager
def failing(dsn: str, state: str) -> Iterator[None]:
    """Make the server fail, at the last statement of a batch, with a state that is hard to bring about."""
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'as ordered' USING ERRCODE = '{state}'; END $$"
        )
        database.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON marketfetch.coverage EXECUTE FUNCTION public.fail()"
        )
        try:
            yield
        finally:
            database.execute("DROP FUNCTION public.fail CASCADE")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ALTER ROLE {role} NOLOGIN", "make the role or database"),
        ("REVOKE CONNECT ON DATABASE {database} FROM public", "GRANT CONNECT"),
    ],
)
def test_a_role_that_is_not_let_in_is_not_asked_again(
    postgres_dsn: str, statement: str, message: str
) -> None:
    with role(postgres_dsn, statement) as dsn, pytest.raises(SinkError, match=message) as caught:
        PostgresSink(dsn).ledger()
    assert not isinstance(caught.value, SinkUnavailable)


def test_a_role_that_has_too_many_connections_may_get_one_later(postgres_dsn: str) -> None:
    with (
        role(postgres_dsn, "ALTER ROLE {role} CONNECTION LIMIT 0") as dsn,
        pytest.raises(SinkUnavailable, match=r"allow more connections there, or use fewer writers"),
    ):
        PostgresSink(dsn).ledger()


def test_settings_that_the_dsn_cannot_give_are_told_at_once(
    postgres_server: Server, postgres_dsn: str
) -> None:
    sink = PostgresSink(make_conninfo(postgres_dsn, options="-c no_such_setting=1"))
    remedy = r"ALTER ROLE \.\.\. SET" if postgres_server.pooled else "correct the options"
    with pytest.raises(SinkError, match=remedy) as caught:
        sink.ledger()
    assert not isinstance(caught.value, SinkUnavailable)


async def test_a_write_that_waits_for_a_lock_ends_when_the_run_is_stopped(
    sink: PostgresSink, postgres_dsn: str
) -> None:
    written: list[Batch] = []

    async def deliver(batch: Batch) -> None:
        assert batch in written

    def refused(batch: Batch, error: RowsRefused) -> None:
        raise AssertionError(f"{batch.series} was refused: {error}")

    def waiting() -> int:
        (count,) = other.execute(waits_here).fetchone() or (0,)
        return int(count)

    # Not those of other databases: another worker may test on the same server.
    waits_here = (
        "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE NOT granted AND datname = current_database()"
    )

    with psycopg.connect(postgres_dsn) as other:
        other.execute("LOCK TABLE marketfetch.ohlcv")
        with anyio.CancelScope() as scope:
            async with open_writers(
                sink,
                StoreRetrier(RetryPolicy(), lambda _: None),
                OnWritten(written.append, refused, deliver, not_split),
            ) as writers:
                await writers.submit(batch(candles(), [0], open=1))
                with anyio.fail_after(20):
                    while not await to_thread.run_sync(waiting):  # noqa: ASYNC110  # the server's
                        await anyio.sleep(0.01)
                scope.cancel()
        # Nobody waits any more, although the lock is still held: the thread has ended, too.
        assert not await to_thread.run_sync(waiting)
    assert not written
