"""No character that a server chooses steers a terminal or forges a line of a log."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest

import marketfetch as mf
from marketfetch.api.fetch import fetch
from marketfetch.cli.documents import to_text
from marketfetch.cli.output import print_error
from marketfetch.cli.report_view import coverage_page, report_page
from marketfetch.errors import DecodeError, MarketfetchError
from marketfetch.events import FileRejected, RequestFailed, SymbolUnknown
from marketfetch.listeners.logs import LogListener
from marketfetch.listeners.progress import PlainProgress
from marketfetch.listeners.text import describe_event
from marketfetch.redaction import printable
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.plain import PlainExchange, PlainServer
from tests.support.worlds import at

EVIL = "A\x1b[2J\x07\x9b31m\r\n\u202e\x00B"
SHOWN = r"A\x1b[2J\x07\x9b31m\r\n\u202e\x00B"
SERIES = Series.of("plain", "mark_price", EVIL, "1m")


class EvilServer(PlainServer):
    """Lists one symbol, whose name would clear the screen, and has no rows of it."""

    def answer(self, path: str, asked: dict[str, str]) -> Any:
        rows = super().answer(path, asked)
        return [{**entry, "symbol": EVIL} for entry in rows] if path == "/listing" else rows


def test_they_are_written_as_escapes_and_all_other_text_stays() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("BTC-USDT ✓ 币安人生") == "BTC-USDT ✓ 币安人生"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize(
    "event",
    [
        RequestFailed("DecodeError", EVIL, "direct", 1, final=True),
        SymbolUnknown(EVIL, "unknown symbol"),
        FileRejected(SERIES, EVIL, "is cut"),
    ],
)
def test_in_events_logs_and_progress(event: Any, caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    with (
        caplog.at_level(logging.DEBUG, "marketfetch"),
        LogListener() as log,
        PlainProgress(stream) as progress,
    ):
        log(event)
        progress(event)
    lines = [describe_event(event), *(record.getMessage() for record in caplog.records)]
    assert len(lines) == 2
    for line in [*lines, *stream.getvalue().splitlines()]:
        assert line.isprintable()
        assert SHOWN in line


def test_in_messages_of_errors_and_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    error = DecodeError(f"two lines\n{EVIL}")
    assert str(error) == "two lines\n" + SHOWN.replace(r"\n", "\n")
    assert error.args == (f"two lines\n{EVIL}",)
    print_error(f"to: {EVIL}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_in_tables_of_the_command_line_and_in_notebooks() -> None:
    ledger: Mapping[Series, Coverage] = {SERIES: Coverage(SpanSet.of(Span(0, 60_000)))}
    assert SHOWN in to_text(coverage_page(ledger))
    now = at("2026-06-02")
    with EvilServer(range(1), listed_at=None).serving() as server, catch_warnings(record=True) as warned:
        simplefilter("always")
        table = fetch(
            PlainExchange(server.address),
            "mark_price",
            mf.AllSymbols(),
            start="2026-06-01",
            end="2026-06-01T01:00Z",
            settings=mf.Settings(clock=now),
        )
    assert warned
    for text in (
        to_text(report_page(table.report)),
        table._repr_html_(),
        *(str(each.message) for each in warned),
    ):
        assert SHOWN in text
        assert text.replace("\n", "").isprintable()


def test_in_every_error_class() -> None:
    kinds = [MarketfetchError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert kind.__str__ is MarketfetchError.__str__
