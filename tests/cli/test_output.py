"""What commands print: status, dry runs, progress, quiet, narrow and light terminals."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from marketfetch.cli.documents import Document, TextTable, to_text
from marketfetch.cli.main import main
from marketfetch.cli.output import print_document
from marketfetch.cli.reported_run import printing_warnings
from marketfetch.errors import ConfigurationError
from marketfetch.events import Heartbeat, RequestFailed, RoundStarted
from marketfetch.listeners.progress import progress_to
from marketfetch.reports import EgressReport
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.support.commands import Command

ROWS = [("binance-usdm", "2026-06-01 12:30 to 2026-06-02, 2026-06-05 to 2026-06-09", "12,345")]
TABLE = TextTable("Held", ("exchange", "where (UTC)", "rows "), ROWS)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def warn(message: str) -> None:
    logging.getLogger("marketfetch").warning(message)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (io.StringIO(), {"command": "backfill"}),
        (Terminal(), {"command": "follow"}),
        (Terminal(), {"command": "backfill", "quiet": True}),
        (Terminal(), {"command": "backfill", "progress": "json"}),
    ],
)
def test_a_warning_of_the_log_is_printed_at_once(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, words: dict[str, Any]
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with printing_warnings(Namespace(**words)):
        logging.getLogger("marketfetch").info("nobody needs this")
        warn("budgets are those of this process alone")
        while not stream.getvalue().endswith("\n"):  # it is printed on a thread
            sleep(0.001)
        assert stream.getvalue() == "marketfetch: budgets are those of this process alone\n"
    warn("not a warning of the command")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_message_that_does_not_fit_its_arguments_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("marketfetch")
    with printing_warnings(Namespace(command="backfill")):
        logger.handlers[-1].handle(logger.makeRecord("", logging.WARNING, "", 0, "%d things", ("x",), None))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_on_a_terminal_a_warning_is_printed_after_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, threads = Terminal(), set(threading.enumerate())
    monkeypatch.setattr("sys.stderr", terminal)
    with printing_warnings(Namespace(command="backfill", verbose=False)):
        warn("one of http://user:secret@10.0.0.1:3128")
        assert set(threading.enumerate()) <= threads, "a thread prints"
        assert terminal.getvalue() == ""
    assert terminal.getvalue() == "marketfetch: one of http://***@10.0.0.1:3128\n"


def test_with_verbose_a_warning_is_left_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_warnings(Namespace(verbose=True)):
        warn("the log has it")
    assert capsys.readouterr().err == ""


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as simulated:
        yield simulated


def job(simulated: SimulatedExchange, store: Path, *more: str) -> list[str]:
    place = ["--base-url", simulated.base_url, "--board", "none", "--store", f"sqlite:{store}"]
    what = ["-e", "binance-usdm", "-s", "BTCUSDT,ETHUSDT", "-i", "1h", "--start", "2026-06-01"]
    return ["backfill", *what, "--end", "2026-06-03", *place, *more]


@pytest.mark.parametrize("width", [40, 60, 100, 140])
def test_a_table_breaks_no_word_and_no_time(width: int) -> None:
    shown = to_text(Document("One series, without holes", [TABLE]), width)
    assert all(len(line) <= width for line in shown.splitlines())
    for word in ("binance-usdm", "2026-06-01", "2026-06-09", "12,345", "exchange"):
        assert word in shown
    assert "2026-06-01 12:30" in shown


def test_a_table_is_wrapped_and_if_that_is_not_enough_packed() -> None:
    assert to_text(Document("", [TABLE]), 60).splitlines() == [
        "Held",
        "  exchange      where (UTC)                        rows",
        "  binance-usdm  2026-06-01 12:30 to 2026-06-02,  12,345",
        "                2026-06-05 to 2026-06-09",
    ]
    assert to_text(Document("", [TABLE]), 36).splitlines() == [
        "Held",
        "  exchange binance-usdm",
        "    where (UTC) 2026-06-01 12:30 to",
        "      2026-06-02, 2026-06-05 to",
        "      2026-06-09",
        "    rows 12,345",
    ]


def test_several_wide_columns_are_wrapped_side_by_side_and_many_rows_are_packed() -> None:
    span = "2026-05-31 16:00:00.005 to 2026-06-01"
    wide = TextTable("", ("symbol", "present (UTC)", "empty (UTC)"), [("BTCUSDT", span, span)])
    assert to_text(Document("", [wide]), 70).splitlines() == [
        "  symbol   present (UTC)               empty (UTC)",
        "  BTCUSDT  2026-05-31 16:00:00.005 to  2026-05-31 16:00:00.005 to",
        "           2026-06-01                  2026-06-01",
    ]
    listed = ("1000SHIBUSDT", "1000SHIB/USDT:USDT", "perpetual", "yes", "2020-01-01", "–")
    header = ("symbol", "unified", "kind", "active", "listed", "last day")
    assert to_text(Document("", [TextTable("", header, [listed, listed])]), 60).splitlines() == 2 * [
        "  symbol 1000SHIBUSDT · unified 1000SHIB/USDT:USDT",
        "    kind perpetual · active yes · listed 2020-01-01",
        "    last day –",
    ]


def test_a_terminal_gets_bold_titles_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    print_document(Document("Complete", [TABLE]), terminal)
    assert set(re.findall(r"\x1b\[[\d;]*m", terminal.getvalue())) == {"\x1b[1m", "\x1b[0m"}
    for name in ("NO_COLOR", "CI"):
        monkeypatch.setenv(name, "1")
        terminal = Terminal()
        print_document(Document("Complete", [TABLE]), terminal)
        assert "\x1b" not in terminal.getvalue()
        monkeypatch.delenv(name)


def test_the_bar_has_no_colour_in_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    from rich.console import Console
    from rich.progress import Progress

    from marketfetch.listeners.rich_progress import RichProgress, _bar

    monkeypatch.setenv("TERM", "xterm-256color")
    progress = RichProgress(Terminal())
    egress = EgressReport("Direct", requests=3, weight=9, rows=500, failures=1, state="circuit open 7 s")
    progress(RoundStarted(1, 2, 1000))
    progress(RequestFailed("Banned", "no", "Direct", 1, final=False))
    progress(Heartbeat(5.0, 500, 500, 1000, 3, [egress], "waiting 21 s for the weight limit of okx"))
    for width in (60, 140):
        console = Console(file=Terminal(), force_terminal=True, color_system="truecolor", width=width)
        bar: Progress = _bar(console)
        console.print(progress._render(bar))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "waiting 21 s for the weight limit of okx" in shown
        for codes, text in re.findall(r"\x1b\[([\d;]*)m([^\x1b]*)", shown):
            coloured = {"3", "4", "9", "10"} & {code[:-1] for code in codes.split(";") if len(code) > 1}
            assert not coloured or not re.search(r"\w", text), (codes, text)


def test_progress_as_json_is_one_object_a_line(
    marketfetch: Command, simulated: SimulatedExchange, tmp_path: Path
) -> None:
    words = job(simulated, tmp_path / "m.sqlite", "--progress", "json", "--heartbeat", "0.01")
    result = marketfetch(*words)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert lines[0]["event"] in {"heartbeat", "round_started"}
    started = next(line for line in lines if line["event"] == "round_started")
    assert started == {
        "event": "round_started",
        "message": "round 1: 96 rows of 2 series are missing",
        "round": 1,
        "series": 2,
        "rows": 96,
        "events": 0,
    }
    assert lines[-1].pop("message").startswith("Complete: 96 rows written in ")
    assert lines[-1].pop("requests") > 0
    assert lines[-1] == {"event": "run_finished", "complete": True, "rows_written": 96}


def test_quiet_prints_what_is_wrong_alone(
    marketfetch: Command, simulated: SimulatedExchange, tmp_path: Path
) -> None:
    result = marketfetch(*job(simulated, tmp_path / "m.sqlite", "-q"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = marketfetch(*job(simulated, tmp_path / "m.sqlite", "-q", "-s", "BTCUSD"))
    assert result.returncode == 1
    assert result.stdout.startswith("Incomplete: ")
    assert result.stderr == ""


def test_progress_that_cannot_be_shown_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["backfill", "-e", "okx", "-s", "A", "--start", "1d", "-t", "memory:"]
    for more, reason in (
        (["-q", "-v"], "--quiet: shows no progress; leave out --verbose and --progress"),
        (["-q", "--progress", "log"], "--quiet: shows no progress"),
        (["-v", "--progress", "json"], "--verbose: the log takes the place of the progress"),
        (["--progress", "bar"], "--progress: a bar needs a terminal; write log"),
    ):
        assert main([*words, *more]) == 2
        assert reason in capfd.readouterr().err
    with pytest.raises(ConfigurationError, match="progress: 'jsn' is unknown; did you mean 'json'"):
        progress_to(io.StringIO(), "jsn")  # type: ignore[arg-type]


def test_a_dry_run_tells_what_is_missing_and_writes_nothing(
    simulated: SimulatedExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "m.sqlite"
    assert main(job(simulated, store, "--dry-run", "--json")) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert (parsed["rows"], parsed["unknown_symbols"]) == (96, {})
    assert [line["rest"]["rows"] for line in parsed["series"]] == [48, 48]
    assert parsed["series"][0]["missing"] == [
        {"start": "2026-06-01T00:00:00Z", "end": "2026-06-03T00:00:00Z"}
    ]
    assert not store.exists()
    assert {seen.path for seen in simulated.request_log.latest} == {"/fapi/v1/time", "/fapi/v1/exchangeInfo"}

    assert main(job(simulated, store, "-q")) == 0
    assert main(job(simulated, store, "-n", "-s", "BTCUSDT", "BTCUSD")) == 1
    page = capsys.readouterr().out
    assert page.startswith("Nothing to fetch; nothing was fetched or written")
    assert "BTCUSD: unknown symbol; did you mean 'BTCUSDT'" in page


def test_status_tells_lag_and_gaps(
    simulated: SimulatedExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "m.sqlite"
    assert main(job(simulated, store, "-q")) == 0
    at = ["status", "-t", f"sqlite:{store}"]
    assert main([*at, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)[0]
    assert (line["symbol"], line["covered_until"], line["gaps"]) == ("BTCUSDT", "2026-06-03T00:00:00Z", 0)
    assert (line["missing_rows"], line["stale"], line["ok"]) == (0, False, True)
    assert line["lag_s"] > 0

    assert main([*at, "--max-lag", "2h"]) == 1
    assert "2 series, 2 with gaps or stale" in capsys.readouterr().out
    hole = ["--start", "2026-06-01T05:00Z", "--end", "2026-06-01T07:00Z"]
    assert main(["forget", *at[1:], "-s", "ETHUSDT", *hole]) == 0
    capsys.readouterr()
    assert main(at) == 1
    page = capsys.readouterr().out.splitlines()
    assert page[0] == "2 series, 1 with gaps or stale"
    assert re.search(r"ETHUSDT +2026-06-03 00:00 .* 2  gaps$", page[3])
    assert main([*at, "-s", "BTCUSDT"]) == 0
    assert main([*at, "--max-lag", "soon"]) == 2
    assert "--max-lag: 'soon' is not a time" in capsys.readouterr().err


def test_rows_in_memory_are_said_to_be_gone(
    simulated: SimulatedExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backfill", "--to", "memory:", *job(simulated, tmp_path, "-q")[1:-3], "-q"]) == 0
    assert "memory: is empty again when this command ends" in capsys.readouterr().err
