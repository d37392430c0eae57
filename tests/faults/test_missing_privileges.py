"""`prepare` names each privilege that a role lacks, with the statement that grants it."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.datasets import Dataset
from tests.support.batches import EVER, batch, candles
from tests.support.postgres import Server, end_sessions
from tests.support.roles import role
from tests.support.worlds import World, run

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping("market.candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
TABLE = (
    "CREATE SCHEMA market",
    "CREATE TABLE market.candles (ts bigint, symbol text, o numeric, note text, PRIMARY KEY (symbol, ts))",
)
OURS = ("CREATE SCHEMA marketfetch AUTHORIZATION {role}",)
USAGE = "GRANT USAGE ON SCHEMA market TO {role}"
RIGHTS = "GRANT SELECT, INSERT, UPDATE ON market.candles TO {role}"


def assert_remedy_works(postgres_server: Server, dsn: str, sink: PostgresSink, says: str) -> None:
    """`prepare` fails and says a statement; once an owner has typed it, rows are written and read."""
    with pytest.raises(SinkError, match=says) as caught:
        sink.prepare([OHLCV])
    assert not isinstance(caught.value, SinkUnavailable)
    statement = re.search(r"; ((?:GRANT|CREATE|ALTER) .*?)(?:, or .*)?$", str(caught.value))
    assert statement is not None, caught.value
    direct = postgres_server.past_the_pooler(dsn)
    with psycopg.connect(make_conninfo(direct, user="postgres"), autocommit=True) as owner:
        owner.execute(statement[1])
    end_sessions(make_conninfo(direct, user="postgres"))  # settings of a role begin with a session
    sink.prepare([OHLCV])
    one = batch(candles(), range(3), open=1)
    with sink.writer() as write:
        write(one)
        write(batch(candles(), range(3), open=[1, 2, 3]))
    assert sink.read(candles(), EVER).values[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ((USAGE, "GRANT SELECT ON market.candles TO {role}"), r'INSERT \("ts", "symbol", "o"\), UPDATE'),
        ((USAGE, "GRANT INSERT, UPDATE ON market.candles TO {role}"), r"GRANT SELECT \("),
        ((USAGE, "GRANT SELECT, INSERT ON market.candles TO {role}"), r'GRANT UPDATE \("o"\) ON "market"'),
        (
            (USAGE, RIGHTS, "REVOKE INSERT ON market.candles FROM {role}",
             "GRANT INSERT (ts, symbol) ON market.candles TO {role}"),
            r'GRANT INSERT \("o"\) ON "market"\."candles" TO',
        ),
        ((RIGHTS,), r'GRANT USAGE ON SCHEMA "market" TO'),
        (
            (USAGE, RIGHTS, "REVOKE TEMPORARY ON DATABASE {database} FROM public"),
            "GRANT TEMPORARY ON DATABASE",
        ),
        ((USAGE, RIGHTS, "ALTER TABLE market.candles ENABLE ROW LEVEL SECURITY"), "CREATE POLICY"),
        (
            (
                USAGE,
                RIGHTS,
                "ALTER TABLE market.candles ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY reading ON market.candles FOR SELECT USING (true)",
                "CREATE POLICY adding ON market.candles FOR INSERT WITH CHECK (true)",
            ),
            "no policy that lets mf_[0-9a-f]+ UPDATE; CREATE POLICY marketfetch",
        ),
        (
            (USAGE, RIGHTS, "ALTER ROLE {role} SET default_transaction_read_only = on"),
            "SET default_transaction_read_only = off",
        ),
    ],
)  # fmt: skip
def test_what_is_lacking_on_a_table_of_yours_is_said_by_prepare(
    postgres_server: Server, postgres_dsn: str, statements: tuple[str, ...], says: str
) -> None:
    with role(postgres_dsn, *TABLE, *OURS, *statements) as dsn:
        assert_remedy_works(postgres_server, postgres_dsn, PostgresSink(dsn, table=MAPPING), says)


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (("REVOKE UPDATE ON marketfetch.ohlcv FROM {role}",), r"marketfetch\.ohlcv: .* GRANT UPDATE"),
        (("REVOKE INSERT ON marketfetch.series FROM {role}",), r"marketfetch\.series: .* GRANT INSERT"),
        (("REVOKE ALL ON marketfetch.coverage FROM {role}",), r"marketfetch\.coverage: .* GRANT SELECT"),
        (("REVOKE DELETE ON marketfetch.rejected FROM {role}",), r"marketfetch\.rejected: .* GRANT DELETE"),
        (("REVOKE USAGE ON SCHEMA marketfetch FROM {role}",), "GRANT USAGE ON SCHEMA"),
        (("ALTER TABLE marketfetch.ohlcv ENABLE ROW LEVEL SECURITY",), r"marketfetch\.ohlcv has row-level"),
        (("ALTER TABLE marketfetch.coverage ENABLE ROW LEVEL SECURITY",), r"marketfetch\.coverage has row-l"),
        (("REVOKE TEMPORARY ON DATABASE {database} FROM public",), "GRANT TEMPORARY ON DATABASE"),
    ],
)
def test_what_is_lacking_on_tables_of_our_own_is_said_too(
    postgres_server: Server, postgres_dsn: str, statements: tuple[str, ...], says: str
) -> None:
    """The owner has prepared them; another role writes."""
    PostgresSink(postgres_dsn).prepare([OHLCV])
    granted = (
        "GRANT USAGE ON SCHEMA marketfetch TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA marketfetch TO {role}",
    )
    with role(postgres_dsn, *granted, *statements) as dsn:
        assert_remedy_works(postgres_server, postgres_dsn, PostgresSink(dsn), says)


def test_a_schema_that_a_role_cannot_make_is_asked_for(postgres_server: Server, postgres_dsn: str) -> None:
    with role(postgres_dsn, *TABLE, USAGE, RIGHTS) as dsn:
        sink = PostgresSink(dsn, table=MAPPING)
        assert_remedy_works(postgres_server, postgres_dsn, sink, 'CREATE SCHEMA "marketfetch" AUTHORIZATION')


def test_a_schema_that_a_role_cannot_fill_is_said(postgres_server: Server, postgres_dsn: str) -> None:
    with role(
        postgres_dsn, "CREATE SCHEMA marketfetch", "GRANT USAGE ON SCHEMA marketfetch TO {role}"
    ) as dsn:
        sink = PostgresSink(dsn, views=False)
        assert_remedy_works(postgres_server, postgres_dsn, sink, 'GRANT CREATE ON SCHEMA "marketfetch" TO')


def test_a_view_that_a_role_cannot_make_is_said(postgres_server: Server, postgres_dsn: str) -> None:
    with role(postgres_dsn, *OURS, "REVOKE CREATE ON SCHEMA public FROM public") as dsn:
        assert_remedy_works(
            postgres_server, postgres_dsn, PostgresSink(dsn), 'GRANT CREATE ON SCHEMA "public" TO'
        )


def test_a_role_with_all_that_it_takes_and_no_more_writes(postgres_dsn: str) -> None:
    least = (
        USAGE,
        "GRANT SELECT (ts, symbol, o), INSERT (ts, symbol, o), UPDATE (o) ON market.candles TO {role}",
    )
    with role(postgres_dsn, *TABLE, *OURS, *least) as dsn:
        sink = PostgresSink(dsn, table=MAPPING)
        sink.prepare([OHLCV])
        with sink.writer() as write:
            write(batch(candles(), range(3), open=1))
            write(batch(candles(), range(3), open=2))
        assert sink.read(candles(), EVER).values[0].tolist() == [2, 2, 2]


def test_nothing_is_asked_of_the_exchange_before_the_rights_are_there(postgres_dsn: str) -> None:
    with (
        role(postgres_dsn, *TABLE, *OURS, USAGE, "GRANT SELECT ON market.candles TO {role}") as dsn,
        SimulatedExchange(GeneratedMarket()) as exchange,
    ):
        world = World(exchange)
        with pytest.raises(SinkError, match="GRANT INSERT"):
            run(world.pipeline(PostgresSink(dsn, table=MAPPING)))
        assert not world.asked()


def test_names_in_a_statement_are_quoted(postgres_dsn: str) -> None:
    statements = (
        'CREATE SCHEMA "My ""Market"""',
        'CREATE TABLE "My ""Market""".candles (ts bigint, symbol text, o numeric, PRIMARY KEY (symbol, ts))',
    )
    with role(postgres_dsn, *statements, *OURS) as dsn:
        mapping = TableMapping('My "Market".candles', time="ts", symbol="symbol", columns=MAPPING.columns)
        with pytest.raises(SinkError) as caught:
            PostgresSink(dsn, table=mapping).prepare([OHLCV])
        user = conninfo_to_dict(dsn)["user"]
        assert f'GRANT USAGE ON SCHEMA "My ""Market""" TO "{user}"' in str(caught.value)
