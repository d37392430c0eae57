"""A store of format 1 is read as it is, migrated by `prepare`, and not changed by older processes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sql.coverage_segments import SEGMENT_SPANS
from marketfetch.values.datasets import Dataset
from tests.support import postgres_formats
from tests.support.batches import EVER, batch, candles, premium
from tests.support.postgres import Server, running
from tests.support.postgres_formats import FUNDING, MAPPED, MAPPING, OWN
from tests.support.roles import role

OHLCV, PREMIUM = Dataset.parse("ohlcv"), Dataset.parse("premium_index")

# Word for word what a process of format 1 sends: to read, to begin and to end a batch.
BTC = "('', 'binance-usdm', 'ohlcv', 'BTCUSDT', '1m')"
FIND = f"SELECT id FROM marketfetch.series WHERE (target, exchange, dataset, symbol, interval) = {BTC}"
READ_ALL = """
    SELECT s.exchange, s.dataset, s.symbol, s.interval, c.covered, c.empty FROM marketfetch.series AS s
    JOIN marketfetch.coverage AS c ON c.series_id = s.id WHERE s.target = '' ORDER BY s.id
"""
BEGIN = f"SELECT ({FIND}) FROM pg_advisory_xact_lock(1)"
END = """
    INSERT INTO marketfetch.coverage AS c (series_id, covered, empty) VALUES (1, '{[1,2)}', '{}')
    ON CONFLICT (series_id) DO UPDATE SET covered = c.covered + EXCLUDED.covered
"""


@pytest.fixture
def old(postgres_dsn: str) -> str:
    """A database with a store of format 1."""
    postgres_formats.restore(postgres_dsn)
    return postgres_dsn


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def everything(database: psycopg.Connection) -> list[object]:
    """Return what the catalogue and the ledger's tables say: equal where nothing was touched."""
    shape = database.execute(
        "SELECT c.relname, a.attname, a.atttypid, c.relfilenode, c.relacl::text, "
        "obj_description(c.oid, 'pg_class') FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
        "WHERE c.relnamespace IN ('marketfetch'::regnamespace, 'public'::regnamespace) "
        "ORDER BY c.oid, a.attnum"
    ).fetchall()
    tables = ("series", "coverage", "ohlcv")
    rows = [database.execute(f"SELECT *, xmin::text FROM marketfetch.{name}").fetchall() for name in tables]
    return [shape, rows]


def clerk(dsn: str, *grants: str) -> AbstractContextManager[str]:
    """Make a role that may do little; the block gets a DSN that names it."""
    return role(dsn, *(f"GRANT {grant} TO {{role}}" for grant in grants))


def name_in(dsn: str) -> str:
    """Return the name of the role in a DSN."""
    return str(conninfo_to_dict(dsn)["user"])


READ = ("USAGE ON SCHEMA marketfetch", "SELECT ON ALL TABLES IN SCHEMA marketfetch")
WRITE = (READ[0], "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA marketfetch")


def test_it_is_read_as_it_is_and_left_as_it_is(old: str, database: psycopg.Connection) -> None:
    with clerk(old, *READ, "SELECT ON candles") as dsn:
        before = everything(database)
        sink, mapped = PostgresSink(dsn), PostgresSink(dsn, table=MAPPING)
        assert sink.ledger() == sink.coverage([*OWN]) == OWN
        assert mapped.ledger() == mapped.coverage([*MAPPED]) == MAPPED
        assert sink.read(candles(), EVER).values[0].tolist() == [1.5] * 10 + [3, 3]
        assert mapped.read(premium(), EVER).values[3].tolist() == [7e-5, 8e-5, 9e-5]
        assert not sink.rejected(candles(), EVER)
        assert everything(database) == before


def test_prepare_brings_it_up_to_date(old: str, database: psycopg.Connection) -> None:
    sink, mapped = PostgresSink(old), PostgresSink(old, table=MAPPING)
    sink.prepare([OHLCV])
    assert sink.ledger() == sink.coverage([*OWN]) == OWN
    assert mapped.ledger() == MAPPED
    assert database.execute("SELECT version FROM marketfetch.format").fetchall() == [(3,)]
    largest = database.execute(
        "SELECT max((SELECT count(*) FROM unnest(covered)) + (SELECT count(*) FROM unnest(empty))), count(*) "
        "FROM marketfetch.coverage WHERE start_time = lower(covered)"
    ).fetchone()
    assert largest is not None
    assert largest[0] <= SEGMENT_SPANS
    assert largest[1] > len(OWN) + len(MAPPED)
    with sink.writer() as write:
        write(batch(candles(), range(1210, 1220), open=4))
        write(batch(candles("SOLUSDT"), range(3), open=5))
    assert (
        sink.coverage([candles()])[candles()] == OWN[candles()] | batch(candles(), range(1210, 1220)).coverage
    )
    assert len(sink.read(candles(), EVER)) == 22
    assert [row[0] for row in database.execute("SELECT DISTINCT close FROM my_closes ORDER BY 1")][:2] == [
        2.5,
        4,
    ]
    assert database.execute("SELECT count(*) FROM my_gaps WHERE symbol = 'BTCUSDT'").fetchone() == (600,)


def test_a_mapped_sink_brings_it_up_to_date_as_well(old: str) -> None:
    mapped = PostgresSink(old, table=MAPPING)
    mapped.prepare([OHLCV, PREMIUM])
    with mapped.writer() as write:
        write(batch(candles(), range(3, 6), open=4))
    assert mapped.ledger()[candles()] == batch(candles(), range(6)).coverage
    assert PostgresSink(old).ledger() == OWN


def test_many_processes_may_bring_it_up_to_date_at_once(old: str) -> None:
    def run(number: int) -> None:
        sink = PostgresSink(old)
        sink.prepare([OHLCV])
        with sink.writer() as write:
            write(batch(candles(f"S{number}"), range(3), open=1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    assert PostgresSink(old).ledger().keys() == {*OWN, *(candles(f"S{number}") for number in range(4))}


def test_one_that_lacks_a_table_gets_it(old: str, database: psycopg.Connection) -> None:
    """Who drops the coverage wants everything to be asked for again."""
    database.execute("DROP TABLE marketfetch.coverage CASCADE")
    sink = PostgresSink(old)
    sink.prepare([OHLCV])
    assert sink.ledger() == {}
    with sink.writer() as write:
        write(batch(candles(), range(3), open=4))
    assert sink.ledger() == {candles(): batch(candles(), range(3)).coverage}
    database.execute("DROP TABLE marketfetch.rejected")
    sink.prepare([OHLCV])
    assert not sink.rejected(candles(), EVER)


@pytest.mark.parametrize("statement", [FIND, READ_ALL, BEGIN, END], ids=["find", "read", "begin", "end"])
def test_a_process_that_is_too_old_fails_and_changes_nothing(
    old: str, database: psycopg.Connection, statement: str
) -> None:
    database.execute(statement)
    PostgresSink(old).prepare([OHLCV])
    known = PostgresSink(old).ledger()
    with pytest.raises((psycopg.errors.UndefinedColumn, psycopg.errors.InvalidColumnReference)):
        database.execute(statement)
    assert PostgresSink(old).ledger() == known


def test_what_the_server_refuses_half_way_leaves_it_as_it_is(old: str, database: psycopg.Connection) -> None:
    database.execute("CREATE TABLE notes (series_id integer REFERENCES marketfetch.coverage)")
    before = everything(database)
    with pytest.raises(SinkError, match=r"cannot drop constraint .* depend on it, .*notes.*; mend what"):
        PostgresSink(old).prepare([OHLCV])
    assert everything(database) == before
    assert PostgresSink(old).ledger() == OWN


def test_a_role_that_may_not_alter_it_is_told_the_statement(old: str, database: psycopg.Connection) -> None:
    with clerk(old, *WRITE) as dsn:
        before = everything(database)
        with pytest.raises(
            SinkError,
            match=r"marketfetch\.coverage has format 1 .* call prepare\(\) once as postgres, "
            rf'or GRANT "postgres" TO "{name_in(dsn)}"; nothing was changed',
        ):
            PostgresSink(dsn).prepare([OHLCV])
        assert everything(database) == before


def test_an_owner_that_may_not_create_tables_is_told_the_statement(
    old: str, database: psycopg.Connection
) -> None:
    with clerk(old, "USAGE ON SCHEMA marketfetch") as dsn:
        for table in ("series", "coverage"):
            database.execute(f"ALTER TABLE marketfetch.{table} OWNER TO {name_in(dsn)}")
        before = everything(database)
        with pytest.raises(SinkError, match=rf'GRANT CREATE ON SCHEMA "marketfetch" TO "{name_in(dsn)}"'):
            PostgresSink(dsn).prepare([OHLCV])
        assert everything(database) == before
        for table in ("series", "coverage"):
            database.execute(f"ALTER TABLE marketfetch.{table} OWNER TO postgres")


def test_roles_that_could_write_and_read_still_can(old: str) -> None:
    with clerk(old, *READ) as reading, clerk(old, *WRITE) as dsn:
        PostgresSink(old).prepare([OHLCV])
        sink = PostgresSink(dsn)
        sink.prepare([OHLCV])
        with sink.writer() as write:
            write(batch(candles("ETHUSDT"), range(1060), open=1))  # many segments become one
        reader = PostgresSink(reading)
        assert reader.ledger() == {**OWN, candles("ETHUSDT"): batch(candles(), range(1060)).coverage}
        assert not reader.rejected(candles(), EVER)
        with reader.writer() as write, pytest.raises(SinkError, match="permission denied"):
            write(batch(candles(), range(3), open=1))


@pytest.mark.parametrize("version", [4, 17])
def test_a_newer_one_is_refused_untouched(old: str, database: psycopg.Connection, version: int) -> None:
    sink = PostgresSink(old)
    sink.prepare([OHLCV])
    says = rf"written by a newer marketfetch \(format {version}; this one knows 3\): upgrade marketfetch"
    with sink.writer() as write:
        write(batch(candles(), range(3), open=1))
        database.execute(f"UPDATE marketfetch.format SET version = {version}")
        before = everything(database)
        with pytest.raises(SinkError, match=says):
            write(batch(candles(), range(3, 6), open=1))
    calls = (
        lambda: sink.prepare([OHLCV]),
        sink.ledger,
        lambda: sink.coverage([candles()]),
        lambda: sink.read(candles(), EVER),
        lambda: sink.rejected(candles(), EVER),
        lambda: sink.forget(candles(), OWN[candles()].covered),
    )
    for call in calls:
        with pytest.raises(SinkError, match=says):
            call()
    assert everything(database) == before


def test_what_is_not_up_to_date_cannot_be_forgotten_or_written(
    old: str, database: psycopg.Connection
) -> None:
    before = everything(database)
    sink = PostgresSink(old)
    with pytest.raises(SinkError, match=r"has format 1: call prepare\(\) first"):
        sink.forget(candles(), OWN[candles()].covered)
    with sink.writer() as write, pytest.raises(SinkError, match=r"call prepare\(\) first"):
        write(batch(candles(), range(3), open=1))
    assert everything(database) == before


def test_a_standby_is_read_whatever_its_format(old: str, postgres_server: Server) -> None:
    if postgres_server.source.programs is None:
        pytest.skip("the server was given; a copy of it cannot be made")
    direct = Server(postgres_server.source, postgres_server.direct, postgres_server.direct)
    with running(postgres_server.source, copy_of=direct) as standby:
        dsn = standby.past_the_pooler(old)
        sink = PostgresSink(dsn)
        assert sink.ledger() == sink.coverage([*OWN]) == OWN
        assert len(sink.read(FUNDING, EVER)) == 2
        with pytest.raises(SinkError, match=r"standby.* connect to the primary"):
            sink.prepare([OHLCV])
    PostgresSink(old).prepare([OHLCV])
    with running(postgres_server.source, copy_of=direct) as standby:
        sink = PostgresSink(standby.past_the_pooler(old))
        assert sink.ledger() == sink.coverage([*OWN]) == OWN
        assert not sink.rejected(candles(), EVER)
