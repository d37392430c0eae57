"""The quick form of `python -m chaos --only archives`."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from chaos.harness.store_fixtures import StoreFixture, store_fixture
from chaos.harness.trials import Effort, Result
from chaos.trials import archive_steps
from chaos.trials.archive_steps import killed_at_steps
from chaos.trials.archives import faulty_archive, faulty_network, killed_runs
from marketfetch.archives.downloads import Download
from tests.conftest import absent
from tests.support.postgres import Server
from tests.support.promises import assert_kept

QUICK = Effort("quick", seed=1)

TRIALS = pytest.mark.parametrize("trial", [faulty_archive, killed_runs])


@TRIALS
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_files_that_are_wrong_or_half_read(
    trial: Callable[[StoreFixture, Effort], Result], kind: str
) -> None:
    with store_fixture(kind) as fixture:
        assert_kept(trial(fixture, QUICK))


@TRIALS
@pytest.mark.heavy
@pytest.mark.slow
def test_files_that_are_wrong_or_half_read_into_postgresql(
    trial: Callable[[StoreFixture, Effort], Result], postgres_server: Server
) -> None:
    with store_fixture("postgresql", postgres_server) as fixture:
        assert_kept(trial(fixture, QUICK))


def test_proxies_that_fail_while_files_are_read() -> None:
    assert_kept(faulty_network(QUICK))


@pytest.fixture
def compiler() -> None:
    if shutil.which("cc") is None:
        absent("No C compiler: install one, such as gcc")


@pytest.mark.usefixtures("compiler")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_killed_at_a_step_of_reading_files(kind: str) -> None:
    with store_fixture(kind) as fixture:
        assert_kept(killed_at_steps(fixture, QUICK))


@pytest.mark.usefixtures("compiler")
@pytest.mark.heavy
@pytest.mark.slow
def test_killed_at_a_step_of_reading_files_into_postgresql(postgres_server: Server) -> None:
    with store_fixture("postgresql", postgres_server) as fixture:
        assert_kept(killed_at_steps(fixture, QUICK))


@pytest.mark.usefixtures("compiler")
@pytest.mark.slow
def test_a_step_to_which_no_run_comes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(archive_steps._PLACES["sqlite"], "nothing happens", (Download, "append"))
    with store_fixture("sqlite") as fixture, pytest.raises(AssertionError, match="after nothing happens"):
        killed_at_steps(fixture, QUICK)
