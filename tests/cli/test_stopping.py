from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marketfetch.testing import SimulatedExchange
from tests.support.commands import Command


def _job(exchange: SimulatedExchange, path: Path, start: str) -> list[str]:
    words = (
        f"--exchange binance-usdm --symbol BTCUSDT --symbol ETHUSDT --start {start} --end 2026-06-01 --json"
    )
    return ["backfill", *words.split(), "--base-url", exchange.base_url, "--to", f"sqlite:{path}"]


def _rows(path: Path) -> int:
    database = sqlite3.connect(path)
    try:
        (count,) = database.execute("SELECT count(*) FROM ohlcv").fetchone()
    finally:
        database.close()
    return int(count)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_run_keeps_what_is_committed_and_prints_the_report(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, kind: signal.Signals
) -> None:
    exchange.latency = 0.05
    path = tmp_path / "market.db"
    job = [*_job(exchange, path, "2025-11-01"), "--heartbeat", "0.1", "--concurrency", "8"]
    command = [sys.executable, "-m", "marketfetch", *job]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        for line in run.stderr:
            if " rows written (" in line and " 0 of " not in f" {line}":
                break
        run.send_signal(kind)
        out, err = run.communicate(timeout=250)
    assert run.returncode == 1
    assert err.splitlines()[-1] == f"marketfetch: stopped by {kind.name}; what was committed stays"
    assert "Traceback" not in err
    report = json.loads(out)
    assert 0 < report["rows_written"] == _rows(path)
    assert report["complete"] is False
    held = [span for line in report["series"] for span in line["covered"]]
    assert held

    exchange.latency = 0.0
    result = marketfetch(*_job(exchange, path, "2026-02-20"))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["complete"]


def test_signal_before_anything_arrived_is_no_success(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.latency = 600.0
    command = [sys.executable, "-m", "marketfetch", *_job(exchange, tmp_path / "market.db", "2026-05-01")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not exchange.request_log.total:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=250)  # less than the latency: no answer is waited for
    assert run.returncode == 1
    assert json.loads(out)["rows_written"] == 0
    assert err == "marketfetch: stopped by SIGTERM; what was committed stays\n"


HANGING = """
import os, signal, sys, time
from contextlib import contextmanager
from functools import partial
import anyio
from marketfetch.values.query import Query
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.signals import SignalHandler
from marketfetch.cli.runner import run_with_signals

class Hanging:
    max_writers = 1
    def prepare(self, datasets): pass
    @contextmanager
    def writer(self):
        def write(batch):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        yield write

def print_outcome(outcome):
    print(outcome.message, len(outcome.report.series), flush=True)

query = Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")
pipeline = Pipeline(exchange_from("binance-usdm", sys.argv[1]), query, Hanging())
with SignalHandler() as signals:
    outcome = anyio.run(partial(run_with_signals, pipeline, signals, print_outcome))
    signals.begin_final_phase()
    print_outcome(outcome)
"""


def test_store_that_hangs_does_not_hold_up_the_end(exchange: SimulatedExchange) -> None:
    command = [sys.executable, "-c", HANGING, exchange.base_url]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert result.returncode == 1, result.stderr
    assert result.stdout == "stopped by SIGTERM; what was committed stays 1\n"
