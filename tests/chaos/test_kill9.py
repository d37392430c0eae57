"""The quick form of `python -m chaos --only kill9`."""

from __future__ import annotations

import pytest

from chaos.harness.store_fixtures import store_fixture
from chaos.harness.trials import Effort
from chaos.trials.kill9 import kill9_in
from tests.support.postgres import Server
from tests.support.promises import assert_kept

SEED = 20_260_601


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_killed_anywhere_the_same_bytes_in_the_end(kind: str) -> None:
    with store_fixture(kind) as fixture:
        assert_kept(kill9_in(fixture, Effort("quick", SEED)))


@pytest.mark.heavy
@pytest.mark.slow
def test_killed_anywhere_the_same_bytes_in_postgresql(postgres_server: Server) -> None:
    with store_fixture("postgresql", postgres_server) as fixture:
        assert_kept(kill9_in(fixture, Effort("quick", SEED)))
