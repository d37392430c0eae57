"""What progress shows in a notebook."""

from __future__ import annotations

from marketfetch.events import (
    BatchWritten,
    Event,
    Heartbeat,
    RequestAnswered,
    RequestFailed,
    RoundStarted,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.notebook import NotebookFollow, NotebookProgress, in_notebook
from marketfetch.reports import SeriesHealth
from marketfetch.values.series import Series
from tests.support.batches import batch, candles

STORY: list[Event] = [
    SymbolUnknown("<b>FOO", "unknown symbol"),
    RoundStarted(round=1, series=2, rows=100),
    BatchWritten(batch(candles(), range(50))),
    RequestFailed("ProxyError", "refused", "Proxy 1", attempt=1, final=False),
]


def html_of(*events: Event) -> str:
    progress = NotebookProgress()
    for event in events:
        progress(event)
    return progress._repr_html_()


def test_pytest_is_no_notebook() -> None:
    assert not in_notebook()


def test_before_the_plan_the_bar_has_no_end() -> None:
    assert "requesting clock and symbol list" in html_of()
    assert "<progress></progress>" in html_of()


def test_rows_failures_and_unknown_symbols() -> None:
    html = html_of(*STORY)
    assert "50 of 100 rows written" in html
    assert '<progress value="50" max="100"></progress>' in html
    assert "failed: 1 ProxyError" in html
    assert "&lt;b&gt;FOO: unknown symbol" in html


def test_waits_are_shown_until_they_are_over() -> None:
    waiting = WaitingForStore(attempt=1, message="another program holds it", wait=2.0)
    assert "waiting for the store, 2.0 s more" in html_of(*STORY, waiting)
    # Another writer may work meanwhile: only the end of the wait ends it.
    assert "waiting for the store" in html_of(*STORY, waiting, BatchWritten(batch(candles(), [60])))
    assert "waiting for the store" not in html_of(*STORY, waiting, StoreRecovered())


def test_more_rows_than_planned_are_not_more_than_everything() -> None:
    html = html_of(*STORY, Heartbeat(1.0, 60, 50, 40, 4, [], rows_crossed=60))
    assert '<progress value="40" max="40"></progress>' in html
    assert "60 rows crossed as empty" in html


def test_a_network_that_is_dead_before_the_plan_is_told_with_its_end() -> None:
    failed = [
        RequestFailed("TransportError", "no <route>", "Direct", number, final=False, give_up_in=23.0)
        for number in range(1, 5)
    ]
    assert "given up" not in html_of(*failed[:3])
    text = "no answer: no &lt;route&gt;; attempt 4, given up in about 23.0 s"
    assert text in html_of(*failed)
    assert text not in html_of(*failed, RequestAnswered("/time", "Direct"))


def test_the_time_left_has_the_waits_for_a_limit() -> None:
    beat = Heartbeat(5.0, 60, 50, 100, 4, [], waiting="waiting 55 s for the weight limit", seconds_left=600.4)
    html = html_of(*STORY, beat)
    assert "10:00 left" in html
    assert "waiting 55 s for the weight limit" in html
    assert "10:00 left" not in html_of(*STORY, beat, Heartbeat(6.0, 60, 50, 100, 4, []))


def test_the_status_of_a_follow_has_rows_lag_and_troubles() -> None:
    status = NotebookFollow()
    for event in STORY:
        status(event)
    assert "&lt;b&gt;FOO: unknown symbol" in status._repr_html_()
    series = [Series.of("okx", "ohlcv", name, "1m") for name in ("A", "B", "C")]
    sick = [SeriesHealth(each, last_error="no <route>") for each in series[:2]]
    status.show([SeriesHealth(series[2], 1_780_272_000_000, 3.5), *sick])
    html = status._repr_html_()
    assert "3 series, 2 errors, lag 3.5 s, final until 2026-06-01T00:00:00Z, 50 rows written" in html
    assert "okx ohlcv A 1m and 1 more: no &lt;route&gt;" in html
    assert "failed: 1 ProxyError" in html


def test_datasets_that_are_followed_side_by_side_are_counted_together() -> None:
    status = NotebookFollow()
    for event in (*STORY, Heartbeat(1.0, 60, 50, 40, 4, []), *STORY):
        status(event)
    assert "100 rows written" in status._repr_html_()
    assert status._repr_html_().count("FOO") == 1  # each run says it
