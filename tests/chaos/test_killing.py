"""The quick form of `python -m chaos --only killing`."""

from __future__ import annotations

import pytest

from chaos.killing import killed
from chaos.promises import Scale
from chaos.stores import place_for
from tests.support.postgres import Server
from tests.support.promises import assert_kept

SEED = 20_260_601


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_killed_anywhere_the_same_bytes_in_the_end(kind: str) -> None:
    with place_for(kind) as place:
        assert_kept(killed(place, Scale("quick", SEED)))


@pytest.mark.heavy
@pytest.mark.timeout(180)
def test_killed_anywhere_the_same_bytes_in_postgresql(postgres_server: Server) -> None:
    with place_for("postgresql", postgres_server) as place:
        assert_kept(killed(place, Scale("quick", SEED)))
