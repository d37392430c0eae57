"""The quick form of `python -m chaos --only concurrent_runs`."""

from __future__ import annotations

import pytest

from chaos.harness.store_fixtures import store_fixture
from chaos.harness.trials import Effort
from chaos.trials.concurrent_runs import concurrent_runs_in
from tests.support.postgres import Server
from tests.support.promises import assert_kept

EFFORT = Effort("quick", 20_260_601)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_several_runs_at_once_store_the_union_once(kind: str) -> None:
    with store_fixture(kind) as fixture:
        assert_kept(concurrent_runs_in(fixture, EFFORT))


@pytest.mark.heavy
@pytest.mark.slow
def test_several_runs_at_once_store_the_union_once_in_postgresql(postgres_server: Server) -> None:
    with store_fixture("postgresql", postgres_server) as fixture:
        assert_kept(concurrent_runs_in(fixture, EFFORT))
