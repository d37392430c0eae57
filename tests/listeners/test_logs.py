from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from marketfetch.events import (
    BatchWritten,
    Event,
    Heartbeat,
    PageFetched,
    RequestFailed,
    RoundStarted,
    SeriesRefused,
    SymbolUnknown,
)
from marketfetch.listeners.logs import LogListener, log_to_console
from marketfetch.reports import EgressReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

SERIES = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
ROUND = RoundStarted(round=1, series=1, rows=5)


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger("marketfetch")


class Stuck(logging.Handler):
    """A handler that hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.let_go.wait(250)
        self.seen.append(record.getMessage())


@pytest.mark.parametrize(
    ("event", "level", "words"),
    [
        (ROUND, "INFO", "round 1: 5 rows of 1 series are missing"),
        (SymbolUnknown("FOO", "unknown symbol"), "WARNING", "FOO: unknown symbol"),
        (
            SeriesRefused(SERIES, "a CHECK forbids it"),
            "WARNING",
            f"{SERIES} is given up, the others go on: a CHECK forbids it",
        ),
        (PageFetched(SERIES, "Proxy 1", 499, {}), "DEBUG", f"{SERIES}: 499 rows through Proxy 1"),
        (
            PageFetched(SERIES, "Proxy 1", 1, {"off_grid": 2}),
            "DEBUG",
            f"{SERIES}: 1 row through Proxy 1, rejected: 2 off_grid",
        ),
        (
            RequestFailed("ProxyError", "refused", "Proxy 2", attempt=8, final=True),
            "WARNING",
            "ProxyError through Proxy 2, attempt 8, given up: refused",
        ),
        (
            Heartbeat(10.0, 60, 50, 100, 3, [EgressReport("Proxy 1", rows=60, state="circuit open 2 s")]),
            "INFO",
            "10 s: 50 of 100 rows written (50%), 5 rows/s; Proxy 1: 60 rows, circuit open 2 s",
        ),
        (
            Heartbeat(1.0, 0, 0, 0, 0, [EgressReport(f"Proxy {n}") for n in range(100)]),
            "INFO",
            (
                "1 s: requesting clock and symbol list; "
                f"{', '.join(f'Proxy {n}: 0 rows' for n in range(6))} and 94 more"
            ),
        ),
    ],
)
def test_each_event_has_its_level_and_its_words(
    caplog: pytest.LogCaptureFixture, event: Event, level: str, words: str
) -> None:
    caplog.set_level("DEBUG", "marketfetch")
    with LogListener() as log:
        log(event)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, words)
    assert record.event is event  # type: ignore[attr-defined]


def test_rows_do_not_wait_in_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "marketfetch")
    rows = Columns(np.array([0]), np.ones((4, 1)))
    with LogListener() as log:
        log(BatchWritten(Batch(SERIES, rows, Coverage())))
    assert not caplog.records


def test_handler_that_hangs_holds_up_nobody(logger: logging.Logger) -> None:
    handler = Stuck()
    logger.addHandler(handler)
    logger.setLevel("INFO")
    with LogListener() as log:
        for _ in range(50_000):
            log(ROUND)
        assert not handler.seen, "events waited for the handler"
    assert not handler.seen, "the end waited for the handler"
    handler.let_go.set()
    give_up = time.monotonic() + 60
    while len(handler.seen) < 10_000 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert 10_000 <= len(handler.seen) <= 10_010, "what waits is bounded"
    assert any("events are not logged here" in line for line in handler.seen)


def test_thread_that_holds_a_handlers_lock_may_wait_for_the_run(logger: logging.Logger) -> None:
    handler = Stuck()
    handler.let_go.set()
    logger.addHandler(handler)
    logger.setLevel("INFO")
    with LogListener() as log, handler.lock:  # type: ignore[union-attr]
        log(ROUND)  # on the very thread that holds it, as the event loop might
    assert handler.seen == ["round 1: 5 rows of 1 series are missing"]


def test_listener_may_be_used_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "marketfetch")
    log = LogListener()
    for _ in range(2):
        with log:
            log(ROUND)
    assert len(caplog.records) == 2


def test_console_shows_what_is_asked_for(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_console("WARNING")
    log_to_console("INFO")
    with LogListener() as log:
        log(ROUND)
        log(PageFetched(SERIES, "Direct", 1, {}))
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("INFO    round 1: 5 rows of 1 series are missing")


def test_host_that_does_not_log_sees_warnings_only_and_keeps_its_handlers() -> None:
    code = """
import logging
from marketfetch.listeners.logs import LogListener
from marketfetch.events import RoundStarted, SymbolUnknown
with LogListener() as log:
    log(RoundStarted(1, 1, 5))
    log(SymbolUnknown("FOO", "unknown"))
print(logging.getLogger().handlers, logging.getLogger("marketfetch").propagate)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[] True\n"
    assert result.stderr == "FOO: unknown\n"  # as Python shows them
