"""The quick form of `python -m chaos --only together`."""

from __future__ import annotations

import pytest

from chaos.promises import Scale
from chaos.stores import place_for
from chaos.together import together_in
from tests.support.postgres import Server
from tests.support.promises import assert_kept

SCALE = Scale("quick", 20_260_601)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_several_runs_at_once_store_the_union_once(kind: str) -> None:
    with place_for(kind) as place:
        assert_kept(together_in(place, SCALE))


@pytest.mark.heavy
@pytest.mark.timeout(180)
def test_several_runs_at_once_store_the_union_once_in_postgresql(postgres_server: Server) -> None:
    with place_for("postgresql", postgres_server) as place:
        assert_kept(together_in(place, SCALE))
