from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.datasets import Dataset
from tests.support.batches import candles, premium


def mapping(**changed: Any) -> TableMapping:
    plain: dict[str, Any] = {"table": "t", "time": "ts", "symbol": "s", "columns": {"ohlcv": {"open": "o"}}}
    return TableMapping(**(plain | changed))


def test_the_key_is_time_symbol_and_what_else_is_mapped() -> None:
    assert mapping().key == ("ts", "s")
    assert mapping(exchange="e", interval="i").key == ("ts", "s", "e", "i")
    assert mapping(exchange="e", interval="i").key_values(candles()) == {
        "s": "BTCUSDT",
        "e": "binance-usdm",
        "i": "1m",
    }


@pytest.mark.parametrize(
    ("symbol", "table"),
    [("BTCUSDT", "BTC"), ("MT", "MT"), ("USDT", "USDT"), ("USDTBTC", "USDTBTC"), ("", "")],
)
def test_without_quote(symbol: str, table: str) -> None:
    assert without_quote("USDT")(symbol) == table


def test_two_renamings_of_the_same_quote_are_equal() -> None:
    assert without_quote("USDT") == without_quote("USDT") != without_quote("USDC")
    with pytest.raises(ValueError, match="quote"):
        without_quote("")


def test_columns_are_in_the_order_of_the_dataset() -> None:
    columns = {"ohlcv": {"close": "c", "open": "o"}}
    assert list(mapping(columns=columns).of(Dataset.parse("ohlcv"))) == ["open", "close"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": ""}, "the name is empty; write that of a table"),
        ({"time_unit": "us"}, "choose 'ms' or 's'"),
        ({"columns": {}}, "name at least one dataset"),
        ({"columns": {"ohlcv": {}}}, "no column of ohlcv is mapped"),
        ({"columns": {"ohclv": {"open": "o"}}}, "did you mean 'ohlcv'"),
        ({"columns": {"ohlcv": {"opens": "o"}}}, "did you mean 'open'"),
        (
            {"columns": {"ohlcv": {"open": "o"}, "mark_price": {"open": "o"}}},
            "o of t is named more than once",
        ),
        ({"columns": {"ohlcv": {"open": "ts"}}}, "ts of t is named more than once"),
        ({"exchange": "s"}, "s of t is named more than once"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        mapping(**changed)


def test_a_dataset_that_is_not_mapped_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dataset for table t: 'premium_index' is unknown"):
        mapping().of(premium().dataset)


def test_times_are_stored_in_the_unit() -> None:
    times = np.array([0, 60_000, -1000])
    assert mapping().stored_times(times).tolist() == [0, 60_000, -1000]
    seconds = mapping(time_unit="s")
    assert seconds.stored_times(times).tolist() == [0, 60, -1]
    assert seconds.times(seconds.stored_times(times)).tolist() == times.tolist()
    with pytest.raises(SinkError, match=r"t\.ts counts seconds"):
        seconds.stored_times(np.array([1]))


def test_series_that_would_share_values_are_refused() -> None:
    shared = mapping(columns={"ohlcv": {"open": "o"}, "premium_index": {"close": "p"}})
    shared.refuse_collisions([candles(), premium(), candles("ETHUSDT"), candles()])
    with pytest.raises(ConfigurationError, match="would share rows of t"):
        shared.refuse_collisions([candles(), candles(interval="1h")])
    mapping(interval="i").refuse_collisions([candles(), candles(interval="1h")])
    with pytest.raises(ConfigurationError, match="would share rows of t"):
        mapping(rename_symbol=without_quote("USDT")).refuse_collisions([candles("BTC"), candles("BTCUSDT")])
