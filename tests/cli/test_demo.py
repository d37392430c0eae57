from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

duckdb = pytest.importorskip("duckdb")


def test_demonstration_tells_what_it_does_and_succeeds(marketfetch: Command, tmp_path: Path) -> None:
    path = tmp_path / "kept.duckdb"
    said = marketfetch("demo", "--days", 1, "--keep", path)
    assert said.returncode == 0, said.stderr
    first, again = [line for line in said.stdout.splitlines() if line.strip().startswith("Complete: ")]
    assert " rows/s), " in first
    assert again.strip().startswith("Complete: ")
    for words in (
        "Proxy 2",
        "0 above a limit",
        "AVAXUSDT",
        "  MT ",
        "marketfetch backfill --exchange binance-usdm",
    ):
        assert words in said.stdout
    assert "Traceback" not in said.stderr
    with duckdb.connect(path, read_only=True) as database:
        (count,) = database.execute("SELECT count(DISTINCT symbol) FROM ohlcv").fetchone()
    assert count == 21

    said = marketfetch("demo", "--keep", path)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"marketfetch: --keep: {path} exists already; name a new file\n"
