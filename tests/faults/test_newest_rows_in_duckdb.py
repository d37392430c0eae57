"""The documented way to read the newest rows in DuckDB reads the end of the table."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np

from marketfetch.sinks import DuckDBSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from tests.support.batches import MINUTE, candles
from tests.support.sites import moment

PROJECT = Path(__file__).parents[2]
GROUP = 122_880


def documented() -> str:
    """The query that docs/sinks.md shows."""
    text = (PROJECT / "docs" / "sinks.md").read_text("utf-8")
    found = re.search(
        r'"""\s+(SELECT open_time, close FROM ohlcv\s+WHERE symbol = \S+ AND open_time >=.*?)\s+"""',
        text,
        re.DOTALL,
    )
    assert found is not None
    return found[1]


def test_older_parts_of_the_table_are_skipped(tmp_path: Path) -> None:
    store = DuckDBSink(tmp_path / "market.duckdb")
    series = candles()
    store.prepare([series.dataset])
    times = moment("2026-06-08") - MINUTE * np.arange(4 * GROUP, 0, -1)
    values = np.ones((len(series.dataset.columns), len(times)))
    with store.writer() as write:
        write(Batch(series, Columns(times, values), Coverage(series.interval.cover(times))))
    with duckdb.connect(store.path, read_only=True) as connection:
        assert len(connection.execute(documented()).fetchall()) == 24
        ((_, plan),) = connection.execute(f"EXPLAIN ANALYZE {documented()}").fetchall()
        unbound = re.sub("AND open_time >= '[^']*'", "", documented())
        ((_, whole),) = connection.execute(f"EXPLAIN ANALYZE {unbound}").fetchall()
    assert most_rows(plan) <= GROUP
    assert most_rows(whole) == 4 * GROUP, "the bound is what makes the difference"


def most_rows(plan: str) -> int:
    """Return the largest number of rows that a step of a plan passed on."""
    return max(int(rows.replace(",", "")) for rows in re.findall(r"([\d,]+) rows?\b", plan))
