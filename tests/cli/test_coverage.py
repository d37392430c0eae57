from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketfetch.testing import SimulatedExchange
from tests.support.commands import Command


def _fill(marketfetch: Command, exchange: SimulatedExchange, store: str, start: str, end: str) -> None:
    words = f"--exchange binance-usdm --symbol BTCUSDT --start {start} --end {end} --to {store}"
    result = marketfetch("backfill", *words.split(), "--base-url", exchange.base_url)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_coverage_tells_what_is_held_and_where_the_holes_are(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, scheme: str
) -> None:
    pytest.importorskip("sqlite3" if scheme == "sqlite" else scheme)
    store = f"{scheme}:{tmp_path}/market.db"
    _fill(marketfetch, exchange, store, "2026-06-01", "2026-06-02")
    result = marketfetch("coverage", "--to", store)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("1 series, without holes")

    _fill(marketfetch, exchange, store, "2026-06-03", "2026-06-04")
    result = marketfetch("coverage", "--to", store)
    assert result.returncode == 1
    assert result.stdout.startswith("1 series, 1 of them with holes")
    assert "2026-06-02 to 2026-06-03" in result.stdout
    result = marketfetch("coverage", "--to", store, "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == [
        {
            "exchange": "binance-usdm",
            "dataset": "ohlcv",
            "symbol": "BTCUSDT",
            "interval": "1m",
            "present": [
                {"start": "2026-06-01T00:00:00Z", "end": "2026-06-02T00:00:00Z"},
                {"start": "2026-06-03T00:00:00Z", "end": "2026-06-04T00:00:00Z"},
            ],
            "empty": [],
            "unusable": [],
            "missing": [{"start": "2026-06-02T00:00:00Z", "end": "2026-06-03T00:00:00Z"}],
        }
    ]
    assert result.stderr == ""


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
def test_asking_for_a_store_that_is_not_there_does_not_make_it(
    marketfetch: Command, tmp_path: Path, scheme: str
) -> None:
    path = tmp_path / "market"
    result = marketfetch("coverage", "--to", f"{scheme}:{path}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("marketfetch: ")
    assert len(result.stderr.splitlines()) == 1
    assert not path.exists()


def test_series_are_chosen_by_any_spelling_of_their_symbol(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    store = f"sqlite:{tmp_path}/market.sqlite"
    _fill(marketfetch, exchange, store, "2026-06-01", "2026-06-02")
    for command in ("coverage", "status", "verify", "forget"):
        result = marketfetch(command, "--to", store, "--symbol", "btc/usdt", "--json")
        assert result.returncode == 0, result.stderr
        assert "BTCUSDT" in result.stdout or '"series":1' in result.stdout


@pytest.mark.parametrize("command", ["coverage", "verify", "forget", "update", "refetch"])
def test_an_empty_store_is_told_as_one(marketfetch: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "market.sqlite").touch()
    result = marketfetch(command, "--to", f"sqlite:{tmp_path}/market.sqlite", "--symbol", "BTCUSDT")
    assert result.returncode == 2
    assert result.stderr.startswith("marketfetch: --to: ")
    assert "holds nothing yet; fetch into it first" in result.stderr


def test_unreachable_database_is_named_without_its_password(marketfetch: Command) -> None:
    result = marketfetch("coverage", "--to", "postgresql://anna:hunter2@127.0.0.1:1/market")
    assert (result.returncode, result.stdout) == (2, "")
    assert "127.0.0.1" in result.stderr
    assert "hunter2" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
