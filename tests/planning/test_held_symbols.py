"""A symbol in any spelling means the series of the store that it can only mean."""

from __future__ import annotations

import pytest

from marketfetch.errors import ConfigurationError
from marketfetch.planning.held_symbols import series_meant
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series


def held(*symbols: str, exchange: str = "binance-usdm", interval: str = "1m") -> list[Series]:
    return [Series.of(exchange, "ohlcv", symbol, interval) for symbol in symbols]


USDM = held("BTCUSDT", "ETHUSDT", "BTCUSDT_260925", "1000PEPEUSDT", "币安人生USDT", "MT")
COINM = held("BTCUSD_PERP", "BTCUSD_260925", exchange="binance-coinm")
OKX = held("BTC-USDT", "ETH-USDT", "ETH-USDT-SWAP", "BTC-USD-260925", "BTC-USD-SWAP", exchange="okx")


@pytest.mark.parametrize(
    ("name", "series", "symbol"),
    [
        *(
            (name, USDM, "BTCUSDT")
            for name in ("BTCUSDT", "btcusdt", "BTC/USDT", "BTC-USDT", "btc/usdt:usdt")
        ),
        *((name, USDM, "BTCUSDT_260925") for name in ("BTC/USDT:USDT-260925", "btcusdt_260925")),
        ("1000PEPE/USDT", USDM, "1000PEPEUSDT"),
        ("币安人生/USDT", USDM, "币安人生USDT"),
        ("mt", USDM, "MT"),
        *((name, COINM, "BTCUSD_PERP") for name in ("BTC/USD:BTC", "btcusd", "BTCUSD_PERP")),
        ("BTC/USD:BTC-260925", COINM, "BTCUSD_260925"),
        *((name, OKX, "BTC-USDT") for name in ("BTC-USDT", "BTC/USDT", "btcusdt")),
        *((name, OKX, "ETH-USDT-SWAP") for name in ("ETH/USDT:USDT", "eth-usdt-swap")),
        ("ETH-USDT", OKX, "ETH-USDT"),
        ("BTC/USD:BTC", OKX, "BTC-USD-SWAP"),
        ("BTC/USD:BTC-260925", OKX, "BTC-USD-260925"),
    ],
)
def test_a_spelling_means_one_symbol(name: str, series: list[Series], symbol: str) -> None:
    assert [found.symbol for found in series_meant([name], series)] == [symbol]


@pytest.mark.parametrize(
    ("name", "series", "expected_message"),
    [
        ("BTCUSD", USDM, r"symbols: 'BTCUSD' is not held; did you mean 'BTCUSDT'"),
        ("btcusd", USDM, r"symbols: 'btcusd' is not held; did you mean 'BTCUSDT'"),
        ("DOGE/USDT", [], r"symbols: 'DOGE/USDT' is not held; none is available"),
        ("BTC/USDT:USDT-270101", USDM, "is not held; choose one of 1000PEPEUSDT, BTCUSDT, BTCUSDT_260925"),
        ("/", USDM, "symbols: '/' is not held; choose one of"),
        ("ETH/USDT", OKX, "'ETH/USDT' is ambiguous; write symbols='ETH-USDT' or symbols='ETH-USDT-SWAP'"),
        ("abcusdt", held("ABCUSDT", "AbCUSDT"), "ambiguous; write symbols='ABCUSDT' or symbols='AbCUSDT'"),
        (
            "BTCUSDT",
            [*USDM, *held("BTCUSDT", exchange="binance-spot")],
            "'BTCUSDT' is held from several; write exchange='binance-spot' or exchange='binance-usdm'",
        ),
        (
            "BTCUSDT",
            [*USDM, *held("BTCUSDT", interval="1h")],
            "interval: several are held; write interval='1h' or interval='1m'",
        ),
    ],
)
def test_a_name_that_means_none_or_several_is_refused_with_the_choice(
    name: str, series: list[Series], expected_message: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected_message):
        series_meant([name], series)


def test_two_names_are_not_of_two_intervals() -> None:
    series = [*held("BTCUSDT"), *held("ETHUSDT", interval="1h")]
    with pytest.raises(ConfigurationError, match="interval: several are held"):
        series_meant(["BTCUSDT", "ETHUSDT"], series)
    with pytest.raises(ConfigurationError, match="interval: '1m' of ETHUSDT is not held; choose one of 1h"):
        series_meant(["BTCUSDT", "ETHUSDT"], series, Interval.parse("1m"))


def test_order_and_number_are_those_of_the_names() -> None:
    assert [one.symbol for one in series_meant(["eth/usdt", "BTCUSDT", "ETHUSDT"], USDM)] == [
        "ETHUSDT",
        "BTCUSDT",
    ]
    assert series_meant([], USDM) == USDM
