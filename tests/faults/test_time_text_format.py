"""Text times in one column have one format: tools guess the format of all by the first."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marketfetch.sinks import SQLiteSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import datasets
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from tests.support.batches import START


def hold(store: SQLiteSink, dataset: str, times: list[int]) -> None:
    series = Series.of("binance-usdm", dataset, "BTCUSDT", "1m")
    moments = np.array(times, np.int64)
    columns = Columns(moments, np.ones((len(series.dataset.columns), len(times))))
    with store.writer() as write:
        write(Batch(series, columns, Coverage(series.interval.cover(moments))))


@pytest.fixture
def store(tmp_path: Path) -> SQLiteSink:
    store = SQLiteSink(tmp_path / "market.db")
    store.prepare([*datasets().values()])
    return store


def shown(store: SQLiteSink, dataset: str) -> list[str]:
    with closing(sqlite3.connect(store.path)) as connection:
        found = connection.execute(f"SELECT open_time FROM {dataset} ORDER BY open_time").fetchall()
    return [text for (text,) in found]


def test_funding_with_and_without_milliseconds(store: SQLiteSink) -> None:
    hold(store, "funding_rate", [START, START + 9, START + 28_800_123])
    assert shown(store, "funding_rate") == [
        "2020-01-01 00:00:00.000",
        "2020-01-01 00:00:00.009",
        "2020-01-01 08:00:00.123",
    ]
    times = pd.to_datetime(pd.Series(shown(store, "funding_rate")))
    assert times.tolist() == [pd.Timestamp(START + ms, unit="ms") for ms in (0, 9, 28_800_123)]


@pytest.mark.parametrize("dataset", sorted(datasets()))
def test_every_dataset_can_be_read_at_one_go(store: SQLiteSink, dataset: str) -> None:
    """Also candles whose time is off the grid, where they are stored as the exchange has them."""
    hold(store, dataset, [START, START + 60_000, START + 134_789])
    assert pd.to_datetime(pd.Series(shown(store, dataset))).is_monotonic_increasing
    assert {len(text) for text in shown(store, dataset)} == {len("2020-01-01 00:00:00.000")}


def test_text_can_be_compared_and_joined_across_datasets(store: SQLiteSink) -> None:
    hold(store, "ohlcv", [START])
    hold(store, "funding_rate", [START])
    with closing(sqlite3.connect(store.path)) as connection:
        joined = connection.execute("SELECT count(*) FROM ohlcv JOIN funding_rate USING (symbol, open_time)")
        assert joined.fetchone() == (1,)
        since = connection.execute("SELECT count(*) FROM ohlcv WHERE open_time >= '2020-01-01'")
        assert since.fetchone() == (1,)


def test_a_view_of_an_older_file_is_made_anew(store: SQLiteSink) -> None:
    hold(store, "funding_rate", [START, START + 9])
    with closing(sqlite3.connect(store.path)) as connection:
        (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'funding_rate'").fetchone()
        connection.execute("DROP VIEW funding_rate")
        connection.execute(made.replace("|| printf('.%03d', r.open_time % 1000)", ""))
    assert shown(store, "funding_rate") == ["2020-01-01 00:00:00"] * 2
    store.prepare([*datasets().values()])
    assert len(set(shown(store, "funding_rate"))) == 2
