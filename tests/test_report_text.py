"""`print(report)` and a report in a notebook."""

from __future__ import annotations

import attrs
import pytest

from marketfetch.cli.report_view import report_page
from marketfetch.reports import ArchiveReport, EgressReport, Missing, Report, SeriesReport
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, Span, SpanSet

START = 1_780_272_000_000  # 2026-06-01
WANTED = Span(START, START + 2 * DAY)
FIRST, LAST = SpanSet.of(Span(START, START + DAY)), SpanSet.of(Span(START + DAY, START + 2 * DAY))


def line(symbol: str, *missing: Missing, empty: SpanSet | None = None) -> SeriesReport:
    series = Series.of("okx", "ohlcv", symbol, "1h")
    return SeriesReport(series, WANTED, 24, SpanSet.of(WANTED), empty or SpanSet(), missing)


def report(*lines: SeriesReport) -> Report:
    return attrs.evolve(Report.empty(), series=lines, rows_written=24, duration=2.0, requests=3)


def test_it_reads_like_a_report() -> None:
    found = attrs.evolve(
        report(line("A"), line("B", Missing(LAST, "the last attempt failed"), empty=FIRST)),
        unknown={"FOO": "unknown symbol"},
        retries={"ProxyError": 2},
        egresses=(EgressReport("Direct", requests=3, failures=1), EgressReport("Proxy 1")),
        archive=ArchiveReport(rejected=1),
        error="stopped by SIGINT",
    )
    assert str(found).splitlines() == [
        "Incomplete: 24 rows written in 2.0 s (12 rows/s), 3 requests of weight 0",
        "  okx ohlcv B 1h  2026-06-01 to 2026-06-03  24 rows",
        "    missing 2026-06-02 to 2026-06-03: the last attempt failed",
        "    confirmed empty 2026-06-01 to 2026-06-02",
        "  okx ohlcv A 1h  2026-06-01 to 2026-06-03  24 rows",
        "  FOO: unknown symbol",
        "  ended early: stopped by SIGINT",
        "  repeated requests: 2 ProxyError",
        "  1 file or listings of the archive could not be used",
        "  egresses: Direct 3 requests, 1 failure",
    ]


def test_it_tells_which_decoder_worked_where_that_takes_longer() -> None:
    note = "  decoded in Python, which takes longer: no compiled decoder works here"
    slow = attrs.evolve(report(line("A")), decoder="Python")
    assert str(slow).splitlines()[2:] == [note]
    assert note.strip() in slow._repr_html_()
    assert note.strip() in report_page(slow).notes
    assert "decoded" not in str(report(line("A")))
    assert "decoded" not in str(attrs.evolve(slow, rows_written=0))
    assert Report.merged([slow, slow]).as_dict()["decoder"] == "Python"


def test_many_series_are_not_all_written() -> None:
    lines = str(report(*(line(f"S{number}") for number in range(30)))).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more series; .series has all of them"


@pytest.mark.parametrize("hostile", ["<script>", "\x1b[2J"])
def test_texts_of_a_server_are_harmless(hostile: str) -> None:
    found = attrs.evolve(report(line("A", Missing(LAST, hostile))), error=hostile)
    assert hostile not in found._repr_html_()
    assert "\x1b" not in str(found)


def test_html_has_what_the_text_has() -> None:
    html = report(line("A", Missing(LAST, "too old"), empty=FIRST), line("B"))._repr_html_()
    assert "<td>okx ohlcv A 1h</td>" in html
    assert "Incomplete: 24 rows written" in html
    # Not in the table: a narrow page would cut it off.
    why = "missing 2026-06-02 to 2026-06-03: too old; confirmed empty 2026-06-01 to 2026-06-02"
    assert f"</table><p>Without rows:</p><ul><li>okx ohlcv A 1h: {why}</li></ul>" in html
    assert "Without rows" not in report(line("B"))._repr_html_()


def test_series_of_which_nothing_has_closed() -> None:
    waiting = attrs.evolve(line("A"), rows=0, covered=SpanSet(), nothing_closed=True)
    assert "    nothing has closed in this span yet" in str(report(waiting)).splitlines()
