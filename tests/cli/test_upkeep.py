"""`marketfetch update`, `refetch` and `export`: thin, with the exit codes of the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketfetch.cli.main import main
from marketfetch.sinks import SQLiteSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.commands import Command
from tests.support.worlds import HOUR, span_of

BTC = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")
DAYS = span_of("2026-06-01", "2026-06-03")


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as simulated:
        yield simulated


@pytest.fixture
def store(simulated: SimulatedExchange, tmp_path: Path) -> str:
    """Two days of hours of two symbols."""
    url = f"sqlite:{tmp_path}/m.sqlite"
    what = ["-e", "binance-usdm", "-s", "BTCUSDT,ETHUSDT", "-i", "1h", "--start", "2026-06-01"]
    more = ["--end", "2026-06-03", "--base-url", simulated.base_url, "--board", "none"]
    assert main(["backfill", *what, *more, "-q", "-t", url]) == 0
    return url


def place(simulated: SimulatedExchange, store: str, *more: str) -> list[str]:
    return ["-t", store, "--base-url", simulated.base_url, "--board", "none", "--progress", "none", *more]


def test_update_brings_all_up_to_now_and_costs_nothing_the_second_time(
    simulated: SimulatedExchange, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["update", *place(simulated, store, "--json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    assert report["rows_written"] > 2 * 24
    assert {line["symbol"] for line in report["series"]} == {"BTCUSDT", "ETHUSDT"}

    assert main(["update", *place(simulated, store), "-s", "BTCUSDT"]) in {0, 1}  # an hour may have begun
    assert capsys.readouterr().out.startswith(("Complete: ", "Incomplete: "))


def test_update_of_an_empty_store_is_a_wrong_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["update", "-t", f"sqlite:{tmp_path}/none.sqlite"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "nothing" in err or "not exist" in err
    assert len(err.splitlines()) == 1
    assert not [*tmp_path.iterdir()]


def test_refetch_says_what_it_would_do_and_then_what_has_changed(
    simulated: SimulatedExchange, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = SQLiteSink(tmp_path / "m.sqlite")
    chosen = ["-s", "BTCUSDT", "--start", "2026-06-01", "--end", "2026-06-02"]
    before = sink.coverage([BTC])[BTC]
    simulated.request_log.clear()
    assert main(["refetch", *place(simulated, store), *chosen, "-n"]) == 0
    assert capsys.readouterr().out.startswith("Would fetch again spans of 1 series")
    assert sink.coverage([BTC])[BTC] == before
    assert not simulated.request_log.latest

    sink.forget(BTC, SpanSet.of(Span(DAYS.start, DAYS.start + 3 * HOUR)), rows=True)
    assert main(["refetch", *place(simulated, store), *chosen]) == 0
    assert "1 series with the same rows as before" in capsys.readouterr().out
    assert len(sink.read(BTC, DAYS)) == 45, "what is not covered is left to backfill and update"

    assert main(["refetch", *place(simulated, store, "--json"), *chosen]) == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["fields"], change["new_rows"], change["removed_rows"]) == ({}, 0, 0)


def test_export_writes_a_file_and_says_what_is_in_it(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "btc.csv"
    words = ["export", "-t", store, "-s", "BTCUSDT", "-o", str(file)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"48 rows of 1 series written to {file}\n"
    assert main(words) == 2
    assert f"--out: {file} exists" in capsys.readouterr().err
    assert main([*words, "--force", "--json"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert (parsed["rows"], parsed["complete"], parsed["file"]) == (48, True, str(file))


def test_export_to_standard_output_is_csv_and_nothing_else(
    marketfetch: Command, store: str, tmp_path: Path
) -> None:
    SQLiteSink(tmp_path / "m.sqlite").forget(BTC, SpanSet.of(Span(DAYS.start + HOUR, DAYS.start + 2 * HOUR)))
    result = marketfetch("export", "-t", store, "-o", "-", "--times", "ms")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert (len(rows), rows[0]["open_time"], result.stderr) == (96, str(DAYS.start), "")
    assert result.returncode == 1, "a moment is missing"


@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (["export", "-o", "-", "--json"], "--json: the rows go to standard output"),
        (["export", "-o", "-", "--format", "parquet"], "--format: parquet needs a file"),
        (["export", "-o", "a.txt"], "--format: the name 'a.txt' tells none"),
        (["export", "-o", "a.csv", "--format", "cvs"], "--format: 'cvs' is unknown; did you mean 'csv'?"),
        (["export", "-o", "a.parquet", "--times", "ms"], "--times: 'ms' is for CSV"),
        (["export", "-o", "a.csv", "-d", "ohlcv,mark_price"], "--dataset: a file holds one, not 2"),
        (["export", "-o", "a.csv", "-s", "BTCUSD"], "'BTCUSD' is not held; did you mean 'BTCUSDT'"),
        (["export", "-o", "nowhere/a.csv"], "--out: the folder nowhere does not exist"),
        (["export"], "the following arguments are required: --out"),
        (["update", "-s", "BTCUSD"], "--symbol: 'BTCUSD' is not held; did you mean 'BTCUSDT'"),
        (["update", "--composite", "MT"], "--composite: 'MT' is not a composite"),
        (["update", "--composite", "NT=A,B"], "--composite: 'NT' is not held"),
        (["update", "--no-direct"], "--no-direct: there are no proxies"),
        (["refetch"], "--symbol: nothing is chosen"),
        (["refetch", "-s", "BTCUSDT", "--start", "2027-01-01", "--end", "2026-01-01"], "is not before end"),
        (["refetch", "-s", "BTCUSDT", "--start", "2020-01-01", "--end", "2020-02-01"], "nothing to refetch"),
        (["refetch", "-s", "BTCUSDT", "--all-symbols"], "--symbol: name some or say --all-symbols, not both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_refused_in_one_line_and_nothing_is_sent(
    simulated: SimulatedExchange,
    store: str,
    words: list[str],
    expected_message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    simulated.request_log.clear()
    try:
        code: object = main([*words, "-t", store])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert expected_message in err
    assert len(err.splitlines()) == 1
    assert not simulated.request_log.latest
