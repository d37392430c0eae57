"""`marketfetch follow`: catches up, shows a status, and ends cleanly at a signal."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketfetch.cli.documents import to_text
from marketfetch.cli.main import main
from marketfetch.cli.status_view import health_page
from marketfetch.listeners.follow_status import FollowStatus
from marketfetch.reports import SeriesHealth
from marketfetch.sinks import SQLiteSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.series import Series

BTC = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as simulated:
        yield simulated


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_report(
    simulated: SimulatedExchange, tmp_path: Path, kind: signal.Signals
) -> None:
    words = ["follow", "-e", "binance-usdm", "-s", "BTCUSDT", "--start", "3h", "--board", "none"]
    where = ["-t", f"sqlite:{tmp_path}/m.sqlite", "--base-url", simulated.base_url]
    shown = ["--progress", "json", "--heartbeat", "0.1", "--json"]
    command = [sys.executable, "-m", "marketfetch", *words, *where, *shown]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        statuses = (json.loads(line) for line in process.stderr)
        caught_up = next(
            status
            for status in statuses
            if status["event"] == "follow_status" and status["covered_until"] is not None
        )
        process.send_signal(kind)
        out, _ = process.communicate(timeout=250)
    assert process.returncode == 0
    assert (caught_up["series"], caught_up["errors"]) == (1, 0)
    assert "lag" in caught_up["message"]
    (health,) = json.loads(out)
    assert (health["symbol"], health["last_error"]) == ("BTCUSDT", None)
    assert SQLiteSink(tmp_path / "m.sqlite").coverage([BTC])[BTC].covered


@pytest.mark.parametrize("width", [60, 100, 140])
def test_the_report_names_what_is_wrong_first(width: int) -> None:
    ether = Series.of("binance-usdm", "ohlcv", "ETHUSDT", "1m")
    health = [SeriesHealth(BTC, 1_780_272_000_000, 3.5), SeriesHealth(ether, last_error="RateLimited: wait")]
    page = to_text(health_page(health), width)
    assert page.startswith("Followed 2 series, 1 with an error")
    assert page.index("ETHUSDT") < page.index("BTCUSDT")
    assert "RateLimited: wait" in page
    assert "2026-06-01 00:00" in page
    assert all(len(line) <= width for line in page.splitlines())


@pytest.mark.parametrize(
    ("more", "expected_message"),
    [
        (["--sources", "archive"], "--sources: files come days late"),
        (["--end", "now"], "'--end' is not an option of follow"),
        (["--progress", "jsn"], "--progress: 'jsn' is unknown; did you mean 'json'?"),
        (["-q", "-v"], "--quiet: shows no progress"),
    ],
)
def test_a_wrong_call_is_refused(
    more: list[str], expected_message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["follow", "-e", "binance-usdm", "-s", "BTCUSDT", "--start", "1h", "-t", "memory:", *more]
    try:
        code: object = main(words)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert expected_message in err


def test_a_status_line_that_is_drawn_again_fits_and_an_error_has_its_own_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream, sick = (
        io.StringIO(),
        SeriesHealth(BTC, 1_780_272_000_000, 3.5, last_error="RateLimited: " + 30 * "wait "),
    )
    with FollowStatus(stream, live=True) as status:
        for _ in range(3):
            status.show([sick])
    drawn = stream.getvalue().split("\r\x1b[2K")
    assert drawn.count(f"{BTC}: {sick.last_error}\n") == 1
    assert drawn.count("1 series, 1 error, lag 3.5 s, 0 rows") == 3


def test_an_error_of_all_series_has_one_line() -> None:
    stream, names = io.StringIO(), [f"A{number}USDT" for number in range(600)]
    series = [Series.of("binance-usdm", "ohlcv", name, "1m") for name in names]
    with FollowStatus(stream, live=True) as status:
        for error in ("no route", "no route", "no answer"):
            status.show([SeriesHealth(each, None, None, last_error=error) for each in series])
    error_lines = [line for line in stream.getvalue().split("\r\x1b[2K") if line.endswith("\n")]
    first = f"{series[0]} and 599 more"
    assert error_lines == [f"{first}: no route\n", f"{first}: no answer\n"]
