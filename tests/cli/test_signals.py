from __future__ import annotations

import subprocess
import sys

from marketfetch.testing import SimulatedExchange

AFTER_THE_LOOP = """
import os, signal, sys, time
from functools import partial
import anyio
from marketfetch.values.query import Query
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.signals import SignalHandler
from marketfetch.cli.runner import run_with_signals
from marketfetch.sinks.memory import MemorySink

query = Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")
pipeline = Pipeline(exchange_from("binance-usdm", sys.argv[1]), query, MemorySink())
with SignalHandler() as signals:
    outcome = anyio.run(partial(run_with_signals, pipeline, signals, lambda outcome: None))
    print(outcome.report.complete, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)
"""

FAILING = """
import os, signal, time
from marketfetch.cli.signals import SignalHandler

def fail():
    raise ValueError("it cannot be stopped")

with SignalHandler() as signals:
    signals.begin_cancellable(fail, lambda: print("given up", signals.received, flush=True))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)
"""

INTERRUPTED = """
import signal, sys
from marketfetch.cli.signals import SignalHandler

sys.setswitchinterval(5.0)  # the thread that listens comes late
with SignalHandler() as signals:
    signals.begin_interruptible()
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        print("stopped by", signals.received)
"""

COLLECTED = """
import gc, sys
from functools import partial
import anyio
from marketfetch.cli.runner import run_with_signals
from marketfetch.cli.signals import SignalHandler

class Job:
    def __await__(self):
        print(gc.get_freeze_count() > len(sys.modules))
        return anyio.sleep(0).__await__()

for whole_process in (False, True):
    with SignalHandler(whole_process=whole_process) as signals:
        anyio.run(partial(run_with_signals, Job(), signals, lambda outcome: None))
"""


def _run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)


def test_a_signal_after_the_loop_is_closed_still_limits_the_end(exchange: SimulatedExchange) -> None:
    result = _run_script(AFTER_THE_LOOP, exchange.base_url)
    assert (result.returncode, result.stdout, result.stderr) == (1, "True\n", "")


def test_what_fails_to_stop_a_run_does_not_keep_the_process_from_ending() -> None:
    result = _run_script(FAILING)
    assert (result.returncode, result.stdout) == (1, "given up SIGTERM\n")


def test_an_interrupted_command_knows_the_signal_at_once() -> None:
    result = _run_script(INTERRUPTED)
    assert (result.returncode, result.stdout, result.stderr) == (0, "stopped by SIGTERM\n", "")


def test_full_collections_leave_out_what_was_imported_if_the_process_is_ours() -> None:
    """Each would look through all objects of all modules while the event loop waits."""
    result = _run_script(COLLECTED)
    assert (result.returncode, result.stdout) == (0, "False\nTrue\n"), result.stderr
