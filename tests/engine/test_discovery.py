"""The exchange's time and its listing are refused if they have times outside of the calendar."""

from __future__ import annotations

import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.decoding.layouts import decode_errors_as
from marketfetch.engine.discovery import read_time
from marketfetch.errors import DecodeError
from marketfetch.exchange import Exchange
from marketfetch.values.instruments import Instrument

BINANCE, OKX = BinanceUsdm(), Okx()


@pytest.mark.parametrize("moment", ["1780272000000000000000", "-1", "9223372036854775807", "1e300"])
@pytest.mark.parametrize(
    ("exchange", "body"),
    [(BINANCE, '{"serverTime":%s}'), (OKX, '{"data":[{"ts":%s}]}')],
    ids=["binance", "okx"],
)
def test_a_clock_beyond_the_calendar_is_refused(exchange: Exchange, body: str, moment: str) -> None:
    with pytest.raises(DecodeError, match="not a time in milliseconds"):
        read_time(exchange, (body % moment).encode())


def test_a_clock_is_read() -> None:
    assert read_time(BINANCE, b'{"serverTime":1780272000000}') == 1_780_272_000_000


@pytest.mark.parametrize(
    ("exchange", "body"),
    [
        (BINANCE, b'{"symbols":[{"symbol":"A","deliveryDate":0,"onboardDate":"99999999999999999999999"}]}'),
        (BINANCE, b'{"symbols":[{"symbol":""}]}'),
        (OKX, b'{"code":"0","data":[{"instId":"A-B","expTime":"99999999999999999999999"}]}'),
    ],
    ids=["listed", "unnamed", "ends"],
)
def test_a_listing_with_impossible_entries_is_refused(exchange: Exchange, body: bytes) -> None:
    with pytest.raises(DecodeError), decode_errors_as("a listing"):
        list(exchange.decode_listing(body))


def test_an_instrument_may_be_old_or_without_dates() -> None:
    assert Instrument("A", "A", "B", listed_at=-1).delisted_at is None
