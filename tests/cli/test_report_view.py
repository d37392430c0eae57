from __future__ import annotations

import io
import os
import pty
from collections.abc import Sequence

import pytest

from marketfetch.cli.documents import Document, to_text
from marketfetch.cli.output import print_document
from marketfetch.cli.report_view import coverage_page, ledger_as_list, report_page
from marketfetch.reports import EgressReport, Missing, Report, SeriesReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

DAY = 86_400_000
JUNE = 1_780_272_000_000
WANTED = Span(JUNE, JUNE + 20 * DAY)
ALL = SpanSet.of(WANTED)


def _series(symbol: str, dataset: str = "ohlcv") -> Series:
    return Series.of("binance-usdm", dataset, symbol, "1m")


def _complete(symbol: str, dataset: str = "ohlcv", *, empty: SpanSet | None = None) -> SeriesReport:
    return SeriesReport(_series(symbol, dataset), WANTED, 28_800, ALL, empty or SpanSet())


def _lacking(symbol: str, reason: str = "stopped", *, days: int = 10) -> SeriesReport:
    held = SpanSet.of(Span(JUNE, JUNE + (20 - days) * DAY))
    gap = Missing(ALL - held, reason)
    return SeriesReport(_series(symbol), WANTED, 100, held, SpanSet(), (gap,), {"off_grid": 2})


def _report(lines: Sequence[SeriesReport], **more: object) -> Report:
    known = {"egresses": (EgressReport("Direct", 12, 24, 20),), "retries": {}, "unknown": {}}
    rows = sum(line.rows for line in lines)
    return Report(tuple(lines), rows_written=rows, requests=12, weight=24, duration=2.0, **(known | more))  # type: ignore[arg-type]


def test_few_complete_series_are_listed_one_by_one() -> None:
    text = to_text(report_page(_report([_complete("AUSDT"), _complete("BUSDT")])))
    assert text.splitlines() == [
        "Complete: 57,600 rows written in 2.0 s (28,800 rows/s), 12 requests of weight 24",
        "",
        "Series",
        "  dataset   symbol  wanted (UTC)              covered  written  rejected",
        "  ohlcv 1m  AUSDT   2026-06-01 to 2026-06-21    100 %   28,800         0",
        "  ohlcv 1m  BUSDT   2026-06-01 to 2026-06-21    100 %   28,800         0",
        "",
        "Egresses",
        "  egress  requests  weight  rows  failures  state",
        "  Direct        12      24    20         0  ready",
    ]


def test_many_complete_series_share_a_line_and_incomplete_ones_are_listed() -> None:
    lines = [_complete(f"S{n}USDT") for n in range(400)] + [_lacking("LOSTUSDT", "TransportError: reset")]
    text = to_text(report_page(_report(lines)))
    assert "400 symbols  2026-06-01 to 2026-06-21    100 %  11,520,000         0" in text
    assert "LOSTUSDT     2026-06-01 to 2026-06-21   50.0 %         100         2" in text
    assert "LOSTUSDT  2026-06-11 to 2026-06-21  14,400  TransportError: reset" in text
    assert "Rejected rows: 2 off_grid" in text
    assert len(text.splitlines()) < 25


def test_hundreds_of_incomplete_series_stay_readable() -> None:
    same = [_lacking(f"S{n:03}USDT") for n in range(400)]
    other = [_lacking(f"T{n:03}USDT", f"BadRequest: number {n}", days=n % 9 + 1) for n in range(100)]
    text = to_text(report_page(_report(same + other)))
    assert "S000USDT, S001USDT, S002USDT, S003USDT, S004USDT and 395 more" in text
    assert "81 more" in text
    assert len(text.splitlines()) < 60


def test_what_is_almost_complete_does_not_look_complete() -> None:
    held = ALL - SpanSet.of(Span(JUNE, JUNE + 60_000))
    line = SeriesReport(_series("AUSDT"), WANTED, 1, held, SpanSet(), (Missing(ALL - held, "lost"),))
    assert "99.9 %" in to_text(report_page(_report([line])))


def test_confirmed_empty_spans_are_told_apart_from_missing_ones() -> None:
    before = SpanSet.of(Span(JUNE, JUNE + 2 * DAY))
    text = to_text(report_page(_report([_complete("NEWUSDT", empty=before)])))
    assert text.startswith("Complete")
    assert "NEWUSDT  2026-06-01 to 2026-06-03  2,880  confirmed empty" in text


def test_unknown_symbols_and_retries_are_noted() -> None:
    report = _report(
        [_complete("AUSDT"), _lacking("FOOUSDT", "unknown symbol")],
        unknown={"FOOUSDT": "unknown symbol; did you mean 'FOXUSDT'?"},
        retries={"Banned": 1, "TransportError": 12},
    )
    text = to_text(report_page(report))
    assert "FOOUSDT: unknown symbol; did you mean 'FOXUSDT'?" in text
    assert text.count("FOOUSDT") == 1
    assert "Repeated requests: 12 TransportError, 1 Banned" in text


def test_nothing_at_all_can_be_shown() -> None:
    assert to_text(report_page(_report([], egresses=()))).count("\n") == 1


def test_holes_are_what_lies_between_the_first_and_the_last_moment_known() -> None:
    known = SpanSet.of(Span(JUNE, JUNE + DAY), Span(JUNE + 2 * DAY, JUNE + 3 * DAY))
    coverage = Coverage(known, SpanSet.of(Span(JUNE, JUNE + 60_000)))
    assert coverage.gaps == SpanSet.of(Span(JUNE + DAY, JUNE + 2 * DAY))
    assert not Coverage().gaps
    text = to_text(coverage_page({_series("AUSDT"): coverage, _series("BUSDT"): Coverage(ALL)}))
    assert text.startswith("2 series, 1 of them with holes")
    assert "2026-06-02 to 2026-06-03" in text
    assert ledger_as_list({_series("AUSDT"): coverage}) == [
        {
            "exchange": "binance-usdm",
            "dataset": "ohlcv",
            "symbol": "AUSDT",
            "interval": "1m",
            "present": [
                {"start": "2026-06-01T00:01:00Z", "end": "2026-06-02T00:00:00Z"},
                {"start": "2026-06-03T00:00:00Z", "end": "2026-06-04T00:00:00Z"},
            ],
            "empty": [{"start": "2026-06-01T00:00:00Z", "end": "2026-06-01T00:01:00Z"}],
            "unusable": [],
            "missing": [{"start": "2026-06-02T00:00:00Z", "end": "2026-06-03T00:00:00Z"}],
        }
    ]


def test_pipe_gets_plain_text_and_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    page = report_page(_report([_complete("AUSDT")], unknown={"FOO": "unknown [symbol]"}))
    stream = io.StringIO()
    print_document(page, stream)
    assert stream.getvalue() == to_text(page)
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        print_document(page, terminal)
        terminal.flush()
        # A terminal hands out what it was given in pieces; the notes come last.
        shown = ""
        while "[symbol]" not in shown:
            shown += os.read(parent, 100_000).decode()
    os.close(parent)
    assert "\x1b[" in shown
    assert "AUSDT" in shown
    assert "FOO: unknown [symbol]" in shown


@pytest.mark.parametrize("columns", [40, 60, 100, 140])
def test_narrow_terminal_breaks_no_command_and_loses_no_time(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    command = (
        "marketfetch forget --to sqlite:m.sqlite " + "--symbol BTCUSDT --start 2026-06-01 " * 5 + "--rows"
    )
    held = {_series(symbol): Coverage(ALL, SpanSet()) for symbol in ("AUSDT", "BUSDT")}
    page = coverage_page(held)
    stream = _Terminal()
    print_document(Document(page.headline, page.tables, ["To mend it:", command]), stream)
    assert command in stream.getvalue()  # copied from the terminal it is one line, or it would forget more
    assert "…" not in stream.getvalue()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
