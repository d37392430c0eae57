"""What the command line says and ends with where the exchange has rows wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.support.commands import Command
from tests.support.worlds import MINUTE, span_of
from tests.support.wrong_rows import at_times, changing, with_field

JUNE = span_of("2026-06-01", "2026-06-02")
TIME = JUNE.start + 100 * MINUTE


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """One candle has a negative volume."""
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as running:
        running.edit = changing(at_times({TIME}, with_field(5, "-1")), "klines")
        yield running


def words(exchange: SimulatedExchange, store: str) -> list[str]:
    where = f"--to {store} --base-url {exchange.base_url}"
    what = "--exchange binance-usdm --symbol BTCUSDT --start 2026-06-01 --end 2026-06-02"
    return ["backfill", *f"{what} {where}".split()]


def test_a_row_that_is_wrong_is_told_and_no_failure(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    job = words(exchange, f"sqlite:{tmp_path}/market.sqlite")
    result = marketfetch(*job)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Complete, 1 moment unusable: 1,439 rows written")
    assert "2026-06-01 01:40 to 2026-06-01 01:41 1 unusable rows" in " ".join(result.stdout.split())
    assert "1 moment is unusable: the exchange has rows there, and they are wrong" in result.stdout
    assert "--unusable retry" in result.stdout
    asked = exchange.request_log.total
    assert marketfetch(*job).returncode == 0
    assert exchange.request_log.total == asked


def test_the_report_has_it_in_json(marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path) -> None:
    result = marketfetch(*words(exchange, f"sqlite:{tmp_path}/market.sqlite"), "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["unusable_moments"] == 1
    unusable = {"start": "2026-06-01T01:40:00Z", "end": "2026-06-01T01:41:00Z"}
    assert report["series"][0]["unusable"] == [unusable]


@pytest.mark.parametrize(("policy", "rows"), [("keep", 1439), ("store", 1440)])
def test_rows_may_be_stored_as_they_are(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, policy: str, rows: int
) -> None:
    job = words(exchange, f"sqlite:{tmp_path}/market.sqlite")
    result = marketfetch(*job, "--unusable", policy, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows_written"] == rows


def test_a_policy_that_there_is_not_is_named(
    marketfetch_process: Command, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    result = marketfetch_process(*words(exchange, f"sqlite:{tmp_path}/market.sqlite"), "--unusable", "kep")
    assert result.returncode == 2
    assert "--unusable: 'kep' is unknown; did you mean 'keep'?" in result.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_coverage_shows_the_row_and_a_retry_gets_it_once_it_is_mended(
    marketfetch: Command, exchange: SimulatedExchange, tmp_path: Path, scheme: str
) -> None:
    pytest.importorskip("sqlite3" if scheme == "sqlite" else scheme)
    store = f"{scheme}:{tmp_path}/market"
    job = words(exchange, store)
    assert marketfetch(*job).returncode == 0
    shown = marketfetch("coverage", "--to", store)
    assert shown.returncode == 0, shown.stderr
    assert "2026-06-01T01:40:00Z" in shown.stdout
    (series,) = json.loads(marketfetch("coverage", "--to", store, "--json").stdout)
    assert series["unusable"] == [{"start": "2026-06-01T01:40:00Z", "end": "2026-06-01T01:41:00Z"}]
    (row,) = series["rejected"]
    assert (row["time"], row["reason"]) == ("2026-06-01T01:40:00Z", "impossible")
    assert json.loads(row["raw"])[5] == "-1"
    retried = marketfetch(*job, "--unusable", "retry")
    assert retried.returncode == 1
    assert "the exchange's rows could not be used: 1 impossible" in retried.stdout
    exchange.edit = None
    assert marketfetch(*job, "--unusable", "retry").returncode == 0
    (series,) = json.loads(marketfetch("coverage", "--to", store, "--json").stdout)
    assert series["unusable"] == []
    assert "rejected" not in series
