from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.testing import GeneratedMarket, MarketInstrument, ReplayedMarket, Window
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

MINUTE = 60_000
DAY = 86_400_000
LISTED = 1_600_000_020_000
NOW = 1_700_000_000_000
CANDLES = ("ohlcv", "premium_index", "mark_price", "index_price")
INTERVALS = ("1m", "5m", "1h", "8h", "1d", "3d", "1w", "1M")

symbols = st.sampled_from(["BTCUSDT", "ETHUSDT", "DOGEUSDT"])
market = GeneratedMarket(["BTCUSDT", "ETHUSDT", "DOGEUSDT"], seed=3, listed_at=LISTED)


def interval(name: str) -> Interval:
    return Interval.parse(name)


@given(
    st.sampled_from(CANDLES),
    symbols,
    st.sampled_from(INTERVALS),
    st.integers(LISTED, NOW),
    st.integers(1, 40),
)
def test_any_page_of_any_window_is_the_same(
    dataset: str, symbol: str, name: str, start: int, limit: int
) -> None:
    step = interval(name)
    page = market.rows(dataset, symbol, step, Window(start, NOW * 2, limit))
    assert step.aligned(page.times).all()
    again = GeneratedMarket([symbol], seed=3, listed_at=LISTED)
    last = int(page.times[-1])
    from_the_end = again.rows(dataset, symbol, step, Window(0, last + 1, limit, newest=True))
    assert from_the_end.times.tolist() == page.times.tolist()
    for column, values in page.floats().items():
        assert values.tolist() == from_the_end.floats()[column].tolist()


@given(symbols, st.sampled_from(INTERVALS), st.integers(LISTED, NOW))
def test_candles_keep_the_rules_of_candles(symbol: str, name: str, start: int) -> None:
    rows = market.rows("ohlcv", symbol, interval(name), Window(start, NOW * 2, 200))
    for table in (rows, rows.unfinished()):
        row = table.floats()
        assert (row["low"] <= np.minimum(row["open"], row["close"])).all()
        assert (row["high"] >= np.maximum(row["open"], row["close"])).all()
        assert (row["low"] > 0).all()
        assert ((row["volume"] == 0) == (row["trades"] == 0)).all()
        assert (row["taker_buy_volume"] <= row["volume"]).all()
        assert (row["taker_buy_quote_volume"] <= row["quote_volume"]).all()
        quiet = row["volume"] == 0
        assert (row["high"][quiet] == row["low"][quiet]).all()


def test_some_minutes_are_quiet_and_premiums_are_negative_at_times() -> None:
    window = Window(LISTED, NOW, 5000)
    assert 0 < (market.rows("ohlcv", "BTCUSDT", interval("1m"), window).floats()["trades"] == 0).sum() < 500
    year = market.rows("premium_index", "BTCUSDT", interval("1h"), Window(LISTED, LISTED + 365 * DAY))
    assert (year.floats()["low"] < 0).any()
    assert (year.floats()["high"] > 0).any()


def test_an_unfinished_candle_differs_from_the_final_one() -> None:
    rows = market.rows("ohlcv", "BTCUSDT", interval("1h"), Window(LISTED, NOW, 3))
    now, later = rows.unfinished().floats(), rows.floats()
    assert now["open"].tolist() == later["open"].tolist()
    assert now["volume"].tolist()[:2] == later["volume"].tolist()[:2]
    assert now["volume"][-1] < later["volume"][-1]


def test_opens_agree_between_intervals() -> None:
    hours = market.rows("ohlcv", "ETHUSDT", interval("1h"), Window(LISTED + DAY, NOW, 5))
    for time, opened in zip(hours.times, hours.floats()["open"], strict=True):
        minute = market.rows("mark_price", "ETHUSDT", interval("1m"), Window(int(time), NOW, 1))
        assert minute.times[0] == time
        assert abs(minute.floats()["open"][0] / opened - 1) < 0.01


def test_nothing_exists_before_listing_after_delisting_or_in_gaps() -> None:
    delisted = LISTED + 10 * MINUTE
    gap = Span(LISTED + 3 * MINUTE, LISTED + 5 * MINUTE + 1)
    short = GeneratedMarket([MarketInstrument.parse("BTCUSDT", LISTED, delisted)], gaps=[gap])
    rows = short.rows("ohlcv", "BTCUSDT", interval("1m"), Window(0, NOW))
    assert ((rows.times - LISTED) // MINUTE).tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    newest = short.rows("ohlcv", "BTCUSDT", interval("1m"), Window(0, NOW, 6, newest=True))
    assert ((newest.times - LISTED) // MINUTE).tolist() == [2, 5, 6, 7, 8, 9]
    assert len(short.rows("ohlcv", "BTCUSDT", interval("1m"), Window(NOW, NOW))) == 0


def test_weeks_open_on_mondays_and_months_on_the_first() -> None:
    weeks = market.rows("ohlcv", "BTCUSDT", interval("1w"), Window(NOW - 60 * DAY, NOW)).times
    assert set((weeks // DAY) % 7) == {4}
    months = market.rows("ohlcv", "BTCUSDT", interval("1M"), Window(NOW - 90 * DAY, NOW)).times
    assert all(str(np.datetime64(int(time), "ms"))[8:] == "01T00:00:00.000" for time in months)


def test_funding_is_late_now_and_then_special_and_pages_fit_together() -> None:
    everything = market.rows("funding_rate", "BTCUSDT", interval("1m"), Window(0, NOW))
    rows = everything.floats()
    assert set(everything.times % 28_800_000) <= set(range(16))
    assert {0.0, 1.0} == set(rows["special"].tolist())
    assert np.isnan(rows["mark_price"]).any()
    assert not np.isnan(rows["mark_price"]).all()
    special = np.flatnonzero(rows["special"])
    assert (everything.times[special] == everything.times[special - 1]).all()
    half = int(everything.times[len(everything) // 2])
    first = market.rows("funding_rate", "BTCUSDT", interval("1m"), Window(0, half))
    second = market.rows("funding_rate", "BTCUSDT", interval("1m"), Window(half, NOW))
    assert np.concatenate((first.times, second.times)).tolist() == everything.times.tolist()


@pytest.mark.parametrize(
    "dataset", ["open_interest", "long_short_ratio", "top_account_ratio", "taker_volume"]
)
def test_statistics_lie_on_their_grid(dataset: str) -> None:
    rows = market.rows(dataset, "BTCUSDT", interval("5m"), Window(NOW - DAY, NOW))
    assert len(rows) == 288
    assert all((values > 0).all() for values in rows.floats().values())
    with pytest.raises(KeyError):
        market.rows("weather", "BTCUSDT", interval("5m"), Window(NOW - DAY, NOW))


def test_symbols_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(ValueError, match="XYZ"):
        GeneratedMarket(["XYZ"])


RECORDED = """open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_base,taker_quote,ignore
1693526400000,1.1530,1.1600,1.153,1.1540,10.50,1693526459999,12.10000,3,4.5,5.2,0
1693526460000,1.1540,1.1540,1.1540,1.1540,0,1693526519999,0.0000,0,0,0.0000,0
"""


def test_recorded_text_is_played_back_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "NEARUSDT-1m-2023-09.csv.gz").write_bytes(gzip.compress(RECORDED.encode()))
    (tmp_path / "NEARUSDT-1m-2023-10.csv").write_text(
        RECORDED.splitlines()[1].replace("16935264", "16961184")
    )
    (tmp_path / "notes.txt").write_text("nothing")
    replayed = ReplayedMarket.from_folder(tmp_path)
    assert replayed.instruments["NEARUSDT"].listed_at == 1_693_526_400_000
    rows = replayed.rows("ohlcv", "NEARUSDT", interval("1m"), Window(0, NOW))
    assert len(rows) == 3
    assert rows.columns["low"].cells().T.tobytes().replace(b"\0", b"") == b"1.1531.15401.153"
    assert rows.floats()["volume"].tolist() == [10.5, 0, 10.5]
    assert rows.floats()["trades"].tolist() == [3, 0, 3]
    forming = rows.unfinished().floats()
    assert (forming["high"][-1], forming["volume"][-1]) == (1.153, 4.5)
    premium = replayed.rows("premium_index", "NEARUSDT", interval("1m"), Window(0, NOW, 5))
    assert len(premium) == 5
    with pytest.raises(ValueError, match="no kline files"):
        ReplayedMarket.from_folder(tmp_path, symbols=["BTCUSDT"])
