from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from marketfetch.cli.cluster import job_from
from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.main import main
from marketfetch.cli.parsing.command_line import parse
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LocalProxies,
    SimulatedExchange,
    SimulatorOptions,
)
from tests.support.commands import Command

DAY = ("--start", "2026-06-01", "--end", "2026-06-02")


def _job(exchange: SimulatedExchange, store: object, *symbols: str) -> list[object]:
    named = [word for symbol in symbols for word in ("--symbol", symbol)]
    return [
        "backfill",
        "--exchange",
        "binance-usdm",
        "--base-url",
        exchange.base_url,
        "--to",
        store,
        *named,
        *DAY,
    ]


def _series(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["dataset"], line["symbol"]): line for line in report["series"]}


def _count(path: Path, dataset: str = "ohlcv") -> dict[str, int]:
    database = sqlite3.connect(path)
    try:
        return dict(database.execute(f"SELECT symbol, count(*) FROM {dataset} GROUP BY symbol"))
    finally:
        database.close()


def test_people_get_a_report_on_standard_output_and_progress_on_standard_error(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    path = tmp_path / "market.db"
    result = marketfetch(*_job(exchange, f"sqlite:{path}", "BTCUSDT", "ETHUSDT"), "--dataset", "ohlcv")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Complete: 2,880 rows written in ")
    assert "2026-06-01 to 2026-06-02" in result.stdout
    assert result.stderr == "round 1: 2,880 rows of 2 series are missing\n"
    assert _count(path) == {"BTCUSDT": 1440, "ETHUSDT": 1440}


def test_programs_get_one_json_object_and_nothing_else(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    job = _job(exchange, f"duckdb:{tmp_path}/market.duckdb", "BTCUSDT", "ETHUSDT")
    job += ["--dataset", "ohlcv", "--dataset", "premium_index", "--composite", "MT=BTCUSDT,ETHUSDT", "--json"]
    result = marketfetch(*job, "--heartbeat", "0.05")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["complete"] is True
    assert report["rows_written"] == 5 * 1440
    assert set(report) >= {"requests", "duration_s", "series", "egresses", "retries"}
    line = _series(report)["ohlcv", "MT"]
    assert (line["rows"], line["missing"]) == (1440, [])
    assert line["covered"] == [{"start": "2026-06-01T00:00:00Z", "end": "2026-06-02T00:00:00Z"}]
    assert "Direct" in result.stderr

    seen = exchange.request_log.total
    again = marketfetch(*job)
    assert again.returncode == 0
    assert json.loads(again.stdout)["requests"] == 0
    assert exchange.request_log.total == seen, "what is held is not asked for again"


def test_unknown_symbol_is_reported_and_stops_nobody_else(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    path = tmp_path / "market.db"
    result = marketfetch(*_job(exchange, f"sqlite:{path}", "BTCUSD", "ETHUSDT"), "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert "did you mean 'BTCUSDT'" in report["unknown_symbols"]["BTCUSD"]
    assert report["complete"] is False
    assert _count(path) == {"ETHUSDT": 1440}


def test_symbols_come_from_a_file_or_from_the_exchange(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    names = tmp_path / "symbols.txt"
    names.write_text("# majors\nBTCUSDT\n\nETH/USDT:USDT  # unified\n")
    result = marketfetch(
        *_job(exchange, f"sqlite:{tmp_path}/one.db"), "--symbols-from", names, "--interval", "1h"
    )
    assert result.returncode == 0, result.stderr
    assert _count(tmp_path / "one.db") == {"BTCUSDT": 24, "ETHUSDT": 24}

    job = _job(exchange, f"sqlite:{tmp_path}/all.db")
    result = marketfetch(*job, "--all-symbols", "--quote", "USDT", "--interval", "1h")
    assert result.returncode == 0, result.stderr
    assert set(_count(tmp_path / "all.db")) == {"AVAXUSDT", "ETHUSDT", "BTCUSDT", "XRPUSDT", "SOLUSDT"}


def _names(report: dict[str, Any]) -> list[str]:
    return [egress["name"] for egress in report["egresses"] if egress["requests"]]


def test_requests_leave_through_proxies_and_no_credential_is_shown(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    with LocalProxies(2, credentials=("anna", "hunter2")) as proxies:
        (tmp_path / "proxies.txt").write_text(f"{proxies.urls[1]}  # the second\n")
        job = _job(exchange, f"sqlite:{tmp_path}/a.db", "BTCUSDT", "ETHUSDT", "XRPUSDT")
        through = ["--proxy", proxies.urls[0], "--proxies-from", tmp_path / "proxies.txt"]
        result = marketfetch(*job, *through, "--no-direct", "--json", "--verbose", "--heartbeat", "0.05")
        assert result.returncode == 0, result.stderr
        assert _names(json.loads(result.stdout)) == ["Proxy 1", "Proxy 2"]
        assert set(exchange.request_log.requests) == {proxy.source for proxy in proxies}
        assert "hunter2" not in result.stdout + result.stderr

        exchange.request_log.clear()
        job = _job(exchange, f"sqlite:{tmp_path}/b.db", "BTCUSDT", "ETHUSDT", "XRPUSDT")
        result = marketfetch(*job, *through, "--json")
        assert _names(json.loads(result.stdout)) == ["Proxy 1", "Proxy 2", "Direct"]


@pytest.mark.parametrize("form", ["", "--json"])
def test_refusal_of_the_location_ends_the_run_with_report_and_reason(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, form: str
) -> None:
    exchange.faults = Faults(rate=1, kinds=(FaultKind.STATUS_451,), paths={"/fapi/v1/klines"})
    result = marketfetch(*_job(exchange, f"sqlite:{tmp_path}/market.db", "BTCUSDT"), *form.split())
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("marketfetch: ")
    assert "refuses this location for legal reasons" in result.stderr
    if form:
        assert json.loads(result.stdout)["series"][0]["missing"]
    else:
        assert result.stdout.startswith("Incomplete: 0 rows written")


def test_private_mirror_is_trusted_by_its_certificate(marketfetch: Command, tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(tls=True)) as exchange:
        job = _job(exchange, f"sqlite:{tmp_path}/market.db", "BTCUSDT")
        result = marketfetch(*job, "--certificate", exchange.certificate)
        assert result.returncode == 0, result.stderr


def test_verbose_logs_every_page(
    marketfetch_process: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    result = marketfetch_process(*_job(exchange, f"sqlite:{tmp_path}/market.db", "BTCUSDT"), "--verbose")
    assert result.returncode == 0
    assert "DEBUG   binance-usdm ohlcv BTCUSDT 1m: " in result.stderr
    assert "DEBUG" not in result.stdout


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


GOOD = {"--exchange": "binance-usdm", "--symbol": "BTCUSDT", "--start": "2026-06-01", "--end": "2026-06-02"}


def _job_with(words: Sequence[str], base_url: str) -> list[str]:
    """A good call, in which the given words take the place of its own."""
    good = {"--to": "sqlite:market.db", "--base-url": base_url, **GOOD}
    kept = {option: value for option, value in good.items() if option == "--symbol" or option not in words}
    return [*(word for pair in kept.items() for word in pair), *words]


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (["--exchange", "binance-usd"], "--exchange: 'binance-usd' is unknown; did you mean 'binance-usdm'"),
        (["--dataset", "premium"], "--dataset: 'premium' is unknown; did you mean 'premium_index'?"),
        (["--interval", "25m"], "--interval: '25m' does not divide a day; did you mean"),
        (["--interval", "1s"], "1s"),
        (["--start", "2026-06-03"], "--start: 2026-06-03T00:00:00Z is not before end 2026-06-02T00:00:00Z"),
        (["--end", "2026-06-01"], "--start: 2026-06-01T00:00:00Z is not before end 2026-06-01T00:00:00Z"),
        (
            ["--start", "2026-06-01T12:00"],
            "--start: '2026-06-01T12:00' has no time zone; write '2026-06-01T12:00Z'",
        ),
        (["--start", "yesterday"], "--start: 'yesterday' is not a time"),
        (["--end", "2222-01-01"], "--end: 2222-01-01 is in the future"),
        (["--proxy", "anna:hunter2@nowhere"], "proxies: --proxy 1 is malformed"),
        (["--proxies-from", "nowhere.txt"], "--proxies-from: nowhere.txt cannot be read"),
        (["--no-direct"], "--no-direct: there are no proxies"),
        (["--symbols-from", "nowhere.txt"], "--symbols-from: nowhere.txt cannot be read"),
        (["--all-symbols"], "--symbol: name some or say --all-symbols, not both"),
        (["--quote", "USDT"], "--quote: works only with --all-symbols"),
        (["--delisted"], "--delisted: works only with --all-symbols"),
        (["--composite", "MT"], "--composite: 'MT' is not a composite; write it like MT=ETHUSDT,BTCUSDT"),
        (["--composite", "MT=BTCUSDT"], "--composite: MT needs two or more different members"),
        (["--certificate", "nowhere.pem"], "--certificate: nowhere.pem cannot be read"),
        (["--base-url", "nowhere"], "nowhere"),
        (["--to", "oracle:market"], "oracle"),
        (["--to", "market.duckdb"], "market.duckdb"),
        (["--to", "sqlite:missing/folder/market.db"], "missing/folder"),
        (["--to", "duckdb:missing/folder/market.duckdb"], "missing/folder"),
        (
            ["--to", "postgresql://anna:hunter2@127.0.0.1:port/market"],
            "--to: cannot be read; write postgresql://",
        ),
        (["--symbol", "http://anna:hunter2@10.0.0.1:3128"], "--symbol: one of the names is an address with"),
        (["hunter2"], "arguments: word 14 (after --end) belongs to no option"),
        (["--concurrency", "0"], "argument --concurrency: '0' is not a whole number above zero"),
        (["--heartbeat", "soon"], "argument --heartbeat: 'soon' is not a number of seconds above zero"),
        (
            ["--symbols", "BTCUSDT"],
            "arguments: '--symbols' is not an option of backfill; did you mean '--symbol'",
        ),
        (
            ["--proxies", "http://anna:hunter2@10.0.0.1:3128"],
            "arguments: '--proxies' is not an option of backfill; did you mean",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_call_is_refused_in_one_line_and_nothing_is_sent(
    capfd: pytest.CaptureFixture[str],
    exchange: SimulatedExchange,
    words: Sequence[str],
    expected_message: str,
) -> None:
    message = _refused(capfd, "backfill", *_job_with(words, exchange.base_url))
    assert expected_message in message
    assert "hunter2" not in message
    assert exchange.request_log.total == 0


@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (["backfil"], "argument command: 'backfil' is unknown; did you mean 'backfill'?"),
        (["--token", "hunter2", "backfill"], "arguments: options come after the command"),
        (["backfill"], "the following arguments are required: --store, --exchange, --start"),
        (["backfill", "--to", "memory:", "--exchange", "okx", "--start", "1d"], "--symbol: name one or more"),
    ],
)
def test_incomplete_call_is_refused(
    capfd: pytest.CaptureFixture[str], words: Sequence[str], expected_message: str
) -> None:
    assert expected_message in _refused(capfd, *words)


def _refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """Call the command in this process, which is quicker, and return its one line."""
    try:
        code: object = main(words)
    except SystemExit as exit_:  # how argparse refuses
        code = exit_.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("marketfetch: ")
    assert len(err.splitlines()) == 1
    return err


def test_refusal_of_a_real_process_is_the_same(marketfetch: Command) -> None:
    result = marketfetch("backfill", "--to", "memory:", "--exchange", "okxx", "--start", "1d")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "marketfetch: --exchange: 'okxx' is unknown; did you mean 'okx'?\n"


def test_reader_of_the_report_may_leave_early(exchange: SimulatedExchange, tmp_path: Path) -> None:
    job = [sys.executable, "-m", "marketfetch", *_job(exchange, f"sqlite:{tmp_path}/market.db", "BTCUSDT")]
    with subprocess.Popen(
        list(map(str, job)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        assert "Traceback" not in run.stderr.read()
        assert run.wait(250) == 1


def test_a_job_for_a_cluster_names_files_by_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "-e",
        "okx",
        "-s",
        "BTC-USDT",
        "--start",
        "1d",
        "-t",
        "postgresql:///market",
        "--dask",
        "tcp://a:1",
    ]
    commands = {command.name: command for command in COMMANDS}
    given = ["--proxies-from", "proxies.txt", "--certificate", "ca.pem"]
    (tmp_path / "proxies.txt").write_text("http://127.0.0.1:1\n")
    job = job_from(parse(["backfill", *words, *given], commands))
    assert job.proxies == str(tmp_path / "proxies.txt")
    assert isinstance(job.fetcher, CurlFetcher)
    assert job.fetcher.certificate == tmp_path / "ca.pem"
