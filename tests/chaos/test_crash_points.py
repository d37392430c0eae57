"""The quick form of `python -m chaos --only crash_points`: some of the steps."""

from __future__ import annotations

import shutil

import pytest

from chaos.harness.store_fixtures import store_fixture
from chaos.harness.trials import Effort
from chaos.trials import crash_points
from chaos.trials.crash_points import crash_points_in
from tests.conftest import absent
from tests.support.postgres import Server
from tests.support.promises import assert_kept

EFFORT = Effort("quick", 20_260_601)


@pytest.fixture(autouse=True)
def compiler() -> None:
    if shutil.which("cc") is None:
        absent("No C compiler: install one, such as gcc")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_killed_at_a_step_of_a_commit_it_is_all_or_nothing(kind: str) -> None:
    with store_fixture(kind) as fixture:
        assert_kept(crash_points_in(fixture, EFFORT))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breakage", "expected_message"),
    [
        ("crash_points._look_and_repeat = lambda *_: 1 / 0", "ZeroDivisionError"),
        ("crash_points.write = lambda *_: os.kill(os.getpid(), signal.SIGTERM)", "exit code -15"),
        ("crash_points._fresh = lambda *_: 1 / 0", "ZeroDivisionError"),
        ("crash_points.main = lambda *_: sys.exit(3)", "exit code 3"),
    ],
)
def test_a_trial_that_fails_each_time_in_the_same_way_is_not_a_promise_kept(
    monkeypatch: pytest.MonkeyPatch, breakage: str, expected_message: str
) -> None:
    script = f"""
import os, signal, sys
from chaos.trials import crash_points
{breakage}
crash_points.main(sys.argv[1], *map(int, sys.argv[2:]))
"""
    monkeypatch.setattr(crash_points, "_MODULE", ("-c", script))
    with store_fixture("sqlite") as fixture:
        (result,) = crash_points_in(fixture, EFFORT)
    assert not result.holds
    assert expected_message in "".join(result.failures)


@pytest.mark.heavy
@pytest.mark.slow
def test_killed_while_it_speaks_with_postgresql_it_is_all_or_nothing(postgres_server: Server) -> None:
    with store_fixture("postgresql", postgres_server) as fixture:
        assert_kept(crash_points_in(fixture, EFFORT))
