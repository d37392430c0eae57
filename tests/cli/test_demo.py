"""The demonstration, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Command

duckdb = pytest.importorskip("duckdb")


# 100 days: two whole months are among them at any time of the year, and their files are worth the reading.
@pytest.mark.slow  # it fetches months of history, on a machine that may be busy
def test_demonstration_tells_what_it_does_and_succeeds(marketfetch: Command, tmp_path: Path) -> None:
    path = tmp_path / "kept.duckdb"
    result = subprocess.run(
        [sys.executable, "-m", "marketfetch", "demo", "--days", "100", "--keep", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "COLUMNS": "60"},
    )
    assert result.returncode == 0, result.stderr
    first, again = [line for line in result.stdout.splitlines() if line.strip().startswith("Complete: ")]
    assert " rows/s), " in first
    assert again.strip().startswith("Complete: ")
    for words in (
        "Proxy 2",
        "0 above a",
        "AVAXUSDT",
        "  MT ",
        "marketfetch backfill --exchange binance-usdm",
    ):
        assert words in result.stdout
    messages = " ".join(result.stdout.split())
    # History comes from files, its tail from the API.
    files = re.search(r" ([\d,]+) of them from (\d+) files", first)
    rows = re.search(r"Complete: ([\d,]+) rows", first)
    assert files is not None
    assert rows is not None
    assert 0 < int(files[1].replace(",", "")) < int(rows[1].replace(",", ""))
    assert f"{files[1]} rows came from {files[2]} files." in messages
    assert re.search(r"at least \d\.\d minutes on one address, \d\.\d on these 3", messages)
    paragraphs = re.findall(r"^> .*(?:\n  .*)*", result.stdout, re.MULTILINE)
    assert max(len(line) for text in paragraphs for line in text.splitlines()) <= 60
    assert "Traceback" not in result.stderr
    with duckdb.connect(path, read_only=True) as database:
        (count,) = database.execute("SELECT count(DISTINCT symbol) FROM ohlcv").fetchone()
    assert count == 9

    result = marketfetch("demo", "--keep", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"marketfetch: --keep: {path} exists already; name a new file\n"


def test_demonstration_of_a_day_does_not_count_files_that_it_does_not_need(marketfetch: Command) -> None:
    result = marketfetch("demo", "--days", "1")
    assert result.returncode == 0, result.stderr
    assert not re.search(r"\b0 (rows came|monthly files)|\b0\.0 minutes", " ".join(result.stdout.split()))
