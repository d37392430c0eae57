"""The fixtures of the tests work."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest
from blockbuster import BlockingError

import marketfetch
from tests.support import postgres
from tests.support.killed import assert_tidied_up

PROJECT = Path(__file__).parents[1]


def test_database_is_empty_and_writable(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        tables = connection.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == []
        connection.execute("CREATE TABLE t (id int)")


def test_databases_do_not_see_each_other(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as one, postgres_server.database() as two:
        with psycopg.connect(one) as connection:
            connection.execute("CREATE TABLE t (id int)")
        with psycopg.connect(two) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_server_of_a_killed_run_stops_and_tidies_up(postgres_server: postgres.Server) -> None:
    if postgres_server.source.programs is None:
        pytest.skip("the server was given; it is not ours to stop")
    code = (
        "import time; from tests.support import postgres\n"
        f"source, = postgres.sources({postgres_server.source.name!r})\n"
        "with postgres.running(source) as server: print(server.dsn, flush=True); time.sleep(600)"
    )
    assert_tidied_up(code)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "PGHOST", "MARKETFETCH_TEST_DSN"])
def test_environment_is_clean(name: str) -> None:
    assert name not in os.environ


async def test_blocking_call_of_ours_on_the_loop_fails() -> None:
    ours = Path(marketfetch.__file__).with_name("imagined.py")
    with pytest.raises(BlockingError):
        exec(compile("import time; time.sleep(0)", ours, "exec"))
