"""Why moments are missing, as a kind for programs: in the report, in JSON, and in the documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs

from marketfetch.engine.state import SeriesState
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import candles
from tests.support.worlds import World, run


def kinds(report: Report) -> set[MissingReason]:
    return {gap.kind for line in report.series for gap in line.missing}


def fetched(options: SimulatorOptions, **query: Any) -> Report:
    settings = Settings(concurrency=4, retries=RetryPolicy(attempts=2, initial=0.001, cap=0.002))
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), options) as exchange:
        return run(World(exchange, settings=settings).pipeline(MemorySink(), **query))


def test_a_symbol_that_the_exchange_does_not_know() -> None:
    report = fetched(SimulatorOptions(limits=None), symbols=["BTCUSDT", "ABSENTUSDT"])
    assert kinds(report) == {MissingReason.SYMBOL_UNKNOWN}
    (gap,) = [gap for line in report.as_dict()["series"] for gap in line["missing"]]
    assert gap["kind"] == "symbol_unknown"
    assert gap["reason"] == report.unknown["ABSENTUSDT"]


def test_a_request_that_always_fails() -> None:
    faults = Faults(kinds=[FaultKind.STATUS_500], rate=1.0, times=99, paths=["/fapi/v1/klines"])
    assert kinds(fetched(SimulatorOptions(limits=None, faults=faults))) == {MissingReason.REQUEST_FAILED}


def test_what_is_older_than_the_exchange_serves() -> None:
    report = fetched(
        SimulatorOptions(limits=None), datasets="open_interest", interval="1h", start="60d", end="58d"
    )
    assert kinds(report) == {MissingReason.TOO_OLD}


def test_three_rejections_stop_a_series_with_their_kind() -> None:
    state = SeriesState(candles(), Coverage())
    state.wanted = SpanSet.of(Span(0, 600_000))
    for minute in range(3):
        state.record_rejection(SpanSet.of(Span(60_000 * minute, 60_000 * (minute + 1))), "BadRequest: no")
    report = state.report(Span(0, 600_000), "not asked")
    assert [gap.kind for gap in report.missing] == [MissingReason.REQUEST_REJECTED] * 2
    assert (
        report.missing[1].reason == "BadRequest: no; 3 requests in a row were rejected, and no more were made"
    )


def test_what_was_given_up_keeps_its_reason_and_the_rest_was_not_asked() -> None:
    state = SeriesState(candles(), Coverage())
    state.wanted = SpanSet.of(Span(0, 600_000))
    state.give_up(SpanSet.of(Span(0, 60_000)), Reason(MissingReason.TOO_OLD, "too old"))
    gaps = state.report(Span(0, 600_000), "stopped").missing
    assert [(gap.kind, gap.reason) for gap in gaps] == [
        (MissingReason.TOO_OLD, "too old"),
        (MissingReason.NOT_REQUESTED, "stopped"),
    ]


def test_every_kind_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text("utf-8")
    assert {kind.value for kind in MissingReason} <= {*re.findall(r"`(\w+)`", text)}
    assert attrs.fields(Reason).kind.type
