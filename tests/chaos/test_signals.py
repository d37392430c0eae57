from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

import marketfetch
from chaos.harness.trials import Effort
from chaos.trials import signals
from chaos.trials.cancellation import cancelled_in_a_host
from chaos.trials.signals import interrupted_in_a_notebook, stopped_by_signals
from tests.support import postgres
from tests.support.promises import assert_kept

pytestmark = pytest.mark.slow
QUICK = Effort("quick", seed=21)


@pytest.mark.heavy
def test_a_signal_at_any_moment_ends_the_command_with_a_report(postgres_server: postgres.Server) -> None:
    if postgres_server.pooled:
        pytest.skip("a pooler keeps sessions open on purpose")
    assert_kept(stopped_by_signals(QUICK, postgres_server))


@pytest.mark.heavy
def test_a_run_cancelled_at_any_moment_leaves_nothing_in_the_hosts_loop(
    postgres_server: postgres.Server,
) -> None:
    if postgres_server.pooled:
        pytest.skip("what a cancelled run leaves is in this process, not on the server")
    assert_kept(cancelled_in_a_host(QUICK, postgres_server))


def test_an_interrupted_fetch_leaves_nothing_in_a_notebook() -> None:
    assert_kept(interrupted_in_a_notebook(QUICK))


@pytest.mark.parametrize(
    ("modules", "sound"),
    [
        ([], True),
        (["__main__.py", "cli/main.py", "cli/signals.py"], True),
        (["__main__.py", "cli/main.py", "cli/dispatch.py"], False),
    ],
)
def test_a_traceback_may_come_only_before_signals_are_handled(modules: list[str], sound: bool) -> None:
    package = Path(marketfetch.__file__).parent
    lines = [f'  File "{package / module}", line 3, in <module>' for module in modules]
    error = "\n".join(["Traceback (most recent call last):", *lines, "KeyboardInterrupt"])
    bed = object.__new__(signals._StopTestBed)
    stopped = signals._StoppedRun("SIGINT", 1.0, 1, "", error)
    with nullcontext() if sound else pytest.raises(AssertionError, match="Traceback"):
        bed._check(stopped, hung=False)


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """The host of these runs looks at files and threads between them, on its loop."""
