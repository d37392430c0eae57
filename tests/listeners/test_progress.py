from __future__ import annotations

import io
import os
import pty
import threading

import numpy as np
import pytest

from marketfetch.errors import BadRequest, TransportError
from marketfetch.events import (
    BatchWritten,
    Event,
    Heartbeat,
    PageFetched,
    RequestFailed,
    RoundStarted,
    RunFinished,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.progress import PlainProgress, progress_to
from marketfetch.listeners.rich_progress import RichProgress
from marketfetch.listeners.run_numbers import Outage, RunNumbers
from marketfetch.reports import EgressReport, Report
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

SERIES = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
EGRESSES = [
    EgressReport("Proxy 1", requests=3, weight=6, rows=40),
    EgressReport("Direct", requests=1, weight=2, rows=20, state="circuit open 2 s"),
]


def _batch(rows: int) -> Batch:
    return Batch(SERIES, Columns(np.arange(rows), np.ones((4, rows))), Coverage())


STORY: list[Event] = [
    SymbolUnknown("FOO", "unknown symbol"),
    RoundStarted(round=1, series=2, rows=100),
    PageFetched(SERIES, "Proxy 1", 40, {}),
    BatchWritten(_batch(50)),
    RequestFailed("ProxyError", "refused", "Proxy 1", attempt=1, final=False),
    RequestFailed("ProxyError", "refused", "Proxy 1", attempt=2, final=False),
    Heartbeat(10.0, 60, 50, 100, 4, EGRESSES),
    Heartbeat(20.0, 110, 100, 100, 5, EGRESSES),
]


def test_plain_progress_writes_a_line_for_each_heartbeat_and_round() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        for event in STORY:
            progress(event)
    egresses = "Proxy 1: 40 rows, Direct: 20 rows, circuit open 2 s"
    assert stream.getvalue().splitlines() == [
        "FOO: unknown symbol",
        "round 1: 100 rows of 2 series are missing",
        f"10 s: 50 of 100 rows written (50%), 5 rows/s; {egresses}; failed: 2 ProxyError",
        f"20 s: 100 of 100 rows written (100%), 5 rows/s; {egresses}",
    ]


def test_rows_that_were_crossed_as_empty_are_shown_and_not_planned_any_more() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress(RoundStarted(round=1, series=1, rows=525_700))
        progress(Heartbeat(10.0, 60, 50, 100, 4, [], rows_crossed=525_600))
    assert "10 s: 50 of 100 rows written (50%), 5 rows/s, 525,600 rows crossed as empty" in stream.getvalue()


def test_more_rows_than_planned_are_not_more_than_everything() -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress(Heartbeat(1.0, 110, 110, 100, 4, []))
    assert "(100%)" in stream.getvalue()


def test_a_network_that_is_dead_is_told_once_until_there_is_an_answer() -> None:
    stream = io.StringIO()
    failed: list[Event] = [
        RequestFailed("TransportError", "no route", "Direct", number, final=False, give_up_in=23.0)
        for number in range(1, 7)
    ]
    with PlainProgress(stream) as progress:
        story: list[Event] = [*failed, PageFetched(SERIES, "Direct", 40, {}), *failed[:3]]
        for event in story:
            progress(event)
    assert stream.getvalue() == "no answer: no route; attempt 4, given up in about 23.0 s\n"


def test_an_outage_goes_on_when_one_of_its_requests_is_given_up() -> None:
    """Each of a thousand requests that are given up would make a line of its own."""
    outage, lost = Outage(), TransportError("no route")

    def failed(attempt: int, error: Exception, *, final: bool = False) -> RequestFailed:
        cause = type(error).__name__
        return RequestFailed(cause, str(error), "Direct", attempt, final=final, error=error)

    story = [failed(4, lost), failed(8, lost, final=True), failed(5, lost), failed(8, lost, final=True)]
    assert [outage.note(event) for event in story] == [True, False, False, False]
    assert outage.text == "no answer: no route; attempt 8, given up"
    outage.note(failed(1, BadRequest("no such interval"), final=True))
    assert not outage.text


def test_the_waits_of_a_run_end_with_it() -> None:
    """Another run may follow in the same display, such as the next job of an update."""
    numbers = RunNumbers()
    waiting = Heartbeat(1.0, 0, 0, 100, 4, [], waiting="waiting 21 s for a limit", seconds_left=60.0)
    story: list[Event] = [RoundStarted(1, 1, 100), waiting, WaitingForStore("locked", 1, 0.5)]
    for event in story:
        numbers.note(event)
    assert numbers.time_left(1.0) != "--:--"
    numbers.note(RunFinished(Report.empty()))
    assert (numbers.request_wait, numbers.store_wait, numbers.time_left(1.0)) == ("", "", "--:--")


class Stuck(io.StringIO):
    """A terminal that somebody has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def write(self, text: str) -> int:
        self.let_go.wait(250)
        return super().write(text)


@pytest.mark.parametrize("kind", [PlainProgress, RichProgress])
def test_stopped_terminal_holds_up_nobody(kind: type[PlainProgress | RichProgress]) -> None:
    stream = Stuck()
    with kind(stream) as progress:
        for event in STORY * 1000:
            progress(event)
        assert not stream.getvalue(), "events waited for the terminal"
    assert not stream.getvalue(), "the end waited for the terminal"
    stream.let_go.set()


def test_reader_that_left_is_no_reason_to_stop() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with PlainProgress(stream) as progress:
        for event in STORY:
            progress(event)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_picture_on_a_terminal_shows_rows_egresses_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    parent, child = pty.openpty()
    wanted = (
        "100 / 100 rows",
        "100 %",
        "Proxy 1",
        "40 rows",
        "weight 6",
        "circuit open 2 s",
        "2 ProxyError",
        "FOO",
    )
    shown = ""
    with os.fdopen(child, "w") as terminal:
        progress = progress_to(terminal)
        assert isinstance(progress, RichProgress)
        with progress:
            for event in STORY:
                progress(event)
            while not all(words in shown for words in wanted):
                shown += os.read(parent, 100_000).decode(errors="replace")
    os.close(parent)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_lines_where_a_picture_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    assert isinstance(progress_to(io.StringIO()), PlainProgress)
    if term == "dumb":
        parent, child = pty.openpty()
        with os.fdopen(child, "w") as terminal:
            assert isinstance(progress_to(terminal), PlainProgress)
        os.close(parent)
