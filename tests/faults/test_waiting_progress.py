"""A run that waits for its budget says so, and what is left is reckoned with the waits."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
from threading import Event as Flag

import numpy as np
import pytest
from rich.console import Console

from marketfetch.events import BatchWritten, Heartbeat, RoundStarted, RunFinished
from marketfetch.listeners.logs import LogListener
from marketfetch.listeners.progress import PlainProgress
from marketfetch.listeners.rich_progress import RichProgress
from marketfetch.listeners.text import time_left
from marketfetch.reports import EgressReport, Report
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

SERIES = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
WAITING = "waiting 21 s for the weight limit of binance-futures (2,388 of 2,388 used)"
EGRESSES = [
    EgressReport("Proxy 1", 300, 2388, 586_824, 0, "waiting 21 s"),
    EgressReport("Direct", 100, 24, 0, 0, "ready"),
]


def beat(waiting: str) -> Heartbeat:
    return Heartbeat(21.0, 600_000, 586_824, 4_320_000, 400, EGRESSES, waiting=waiting)


def written(rows: int) -> BatchWritten:
    return BatchWritten(Batch(SERIES, Columns(np.arange(rows), np.ones((4, rows))), Coverage()))


def drawn(progress: RichProgress, columns: int) -> str:
    """What the picture looks like now, without colours."""
    from marketfetch.listeners.rich_progress import _bar  # the painter makes it on a thread of its own

    console = Console(file=io.StringIO(), width=columns, highlight=False)
    progress._console = console
    console.print(progress._render(_bar(console)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_picture_says_what_is_waited_for(columns: int) -> None:
    progress = RichProgress(io.StringIO())
    for event in (RoundStarted(1, 20, 4_320_000), written(586_824), beat(WAITING)):
        progress(event)
    picture = drawn(progress, columns)
    assert WAITING in " ".join(picture.split())
    assert "586,824 / 4,320,000 rows" in picture
    assert "…" not in picture, "nothing is cut off"
    assert max(map(len, picture.splitlines())) <= columns
    progress(beat(""))
    assert "2,388 of 2,388" not in drawn(progress, columns)


def test_picture_counts_what_is_left_after_a_stretch_was_crossed() -> None:
    progress = RichProgress(io.StringIO())
    for run in (1, 2):  # a progress may be used for one run after another
        progress(RoundStarted(1, 1, 525_700))
        progress(Heartbeat(2.0, 60, 50, 100, 9, EGRESSES, rows_crossed=525_600))
        assert f"0 / {100 * run} rows" in drawn(progress, 100)
        assert "525,600 rows crossed as empty" in drawn(progress, 100)
        progress(RunFinished(Report.empty()))


def test_terminal_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("NO_COLOR", "1")
    parent, child = pty.openpty()
    shown = ""
    with os.fdopen(child, "w") as terminal, RichProgress(terminal) as progress:
        for event in (RoundStarted(1, 20, 4_320_000), written(586_824), beat(WAITING)):
            progress(event)
        while WAITING not in shown:
            shown += os.read(parent, 100_000).decode()
    os.close(parent)


def test_lines_and_logs_say_it(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress(beat(WAITING))
        progress(beat(""))
    waits, goes_on = stream.getvalue().splitlines()
    assert f"; {WAITING}; Proxy 1: " in waits
    assert "2,388" not in goes_on

    events, logger = Flag(), logging.getLogger("marketfetch")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if WAITING in record.getMessage():
                events.set()

    handler = Handler()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    try:
        with LogListener() as log:
            log(beat(WAITING))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert events.is_set()


@pytest.mark.parametrize(
    ("bursts", "left"),
    [
        # Rows come in the first two seconds of every minute: 100,000 a minute, and 300,000 are left.
        ([(2, 100_000)], 6),
        ([(60, 100_000)], 180),
        ([(62, 200_000), (119, 200_000)], 119),
        ([(180, 300_000)], 60),
        ([(240, 400_000)], 0),
    ],
)
def test_time_left_counts_the_waits(bursts: list[tuple[int, int]], left: int) -> None:
    elapsed, done = bursts[-1]
    minutes, seconds = divmod(left, 60)
    assert time_left(done, 400_000, elapsed) == f"{minutes:02}:{seconds:02}"


def test_time_left_of_a_picture_grows_while_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("marketfetch.listeners.run_numbers.monotonic", lambda: clock[0])
    progress = RichProgress(io.StringIO())
    progress(RoundStarted(1, 20, 1_000_000))
    progress(written(100_000))
    times_left = []
    for clock[0] in (2.0, 20.0, 60.0):
        (left,) = re.findall(r"\d+:\d\d(?::\d\d)?", drawn(progress, 140))
        times_left.append(left)
    assert times_left == ["00:18", "03:00", "09:00"]
