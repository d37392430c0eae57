"""The documented way to read the newest rows of a series does not read the whole series."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from marketfetch.sinks import SQLiteSink
from tests.support.batches import batch, candles

PROJECT = Path(__file__).parents[2]


def documented() -> str:
    """The query that docs/sinks.md shows."""
    text = (PROJECT / "docs" / "sinks.md").read_text("utf-8")
    found = re.search(
        r'"""\s+(SELECT open_time, close FROM ohlcv\s+WHERE exchange.*?)\s+"""', text, re.DOTALL
    )
    assert found is not None
    return found[1]


def test_the_newest_rows_are_found_by_the_key(tmp_path: Path) -> None:
    store = SQLiteSink(tmp_path / "market.db")
    series = candles(interval="1h")
    store.prepare([series.dataset])
    with store.writer() as write:
        write(batch(series, range(0, 60 * 500, 60), close=2.0))
    with closing(sqlite3.connect(store.path)) as connection:
        assert len(connection.execute(documented()).fetchall()) == 24
        plan = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {documented()}")]
    assert any("r USING PRIMARY KEY (series_id=?)" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), "sorted: the whole series is read"
    assert not any(step.startswith("SCAN") for step in plan), plan
