"""The contract compares a file with the API, and names what is wrong with an archive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from marketfetch.adapter import HOUR, CsvLayout, Slice
from marketfetch.adapters.binance_usdm import BinanceUsdm, UsdmOhlcvFiles
from marketfetch.errors import AdapterError, FetchError
from marketfetch.testing import ArchiveFaultKind, ArchiveOptions, GeneratedMarket, SimulatedArchive
from marketfetch.testing.contracts.exchange_cases import DecodeCase, check_same_rows
from marketfetch.testing.markets.market import Window
from marketfetch.testing.venues.klines import KlineRenderer, KlineSeries
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

START, NOW = 1_780_272_000_000, 1_780_704_000_000  # 2026-06-01 and 2026-06-06
ROWS = 1440
KEY = "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-06-01.zip"
SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
RIGHT = UsdmOhlcvFiles.layout.columns


class Shifted(UsdmOhlcvFiles):
    utc_offset = 8 * HOUR


class Swapped(UsdmOhlcvFiles):
    layout = CsvLayout({**RIGHT, "volume": RIGHT["quote_volume"], "quote_volume": RIGHT["volume"]}, width=12)


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(["BTCUSDT", "ETHUSDT"])


@pytest.fixture(scope="module")
def archive(market: GeneratedMarket) -> SimulatedArchive:
    return SimulatedArchive(market, ArchiveOptions(since=START, now=lambda: NOW))


@pytest.fixture(scope="module")
def case(market: GeneratedMarket) -> DecodeCase:
    span = Span(START, START + ROWS * 60_000)
    window = Window(span.start, span.end, ROWS)
    rows = KlineRenderer(market).rows(KlineSeries("ohlcv", "BTCUSDT", SERIES.interval), window, NOW)
    body = b"[" + rows.rstrip(b",") + b"]"
    return DecodeCase(BinanceUsdm().endpoint("ohlcv"), Slice(SERIES, span, ROWS), body)


def test_equal_rows_are_counted(archive: SimulatedArchive, case: DecodeCase) -> None:
    assert check_same_rows(UsdmOhlcvFiles(), case, archive.read) == ROWS


def test_without_a_file_nothing_is_compared(case: DecodeCase) -> None:
    assert check_same_rows(UsdmOhlcvFiles(), case, lambda key: None) == 0


def test_a_wrong_position_is_named(archive: SimulatedArchive, case: DecodeCase) -> None:
    with pytest.raises(AssertionError, match=r"volume of 2026-06-01T00:00:00Z is .*position in the layout"):
        check_same_rows(Swapped(), case, archive.read)


def test_a_wrong_calendar_is_named(archive: SimulatedArchive, case: DecodeCase) -> None:
    with pytest.raises(AssertionError, match="outside the window"):
        check_same_rows(Shifted(), case, archive.read)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (ArchiveFaultKind.OTHER_SYMBOL, FetchError),
        (ArchiveFaultKind.OTHER_VALUES, AssertionError),
        (ArchiveFaultKind.TRUNCATED_ZIP, FetchError),
        (ArchiveFaultKind.WRONG_CRC, FetchError),
    ],
)
def test_a_wrong_file_fails(
    market: GeneratedMarket, case: DecodeCase, kind: ArchiveFaultKind, error: type[Exception]
) -> None:
    archive = SimulatedArchive(market, ArchiveOptions(since=START, now=lambda: NOW))
    archive.reissue(KEY, kind)
    with pytest.raises(error):
        check_same_rows(UsdmOhlcvFiles(), case, archive.read)


def test_a_checksum_of_another_file_fails(archive: SimulatedArchive, case: DecodeCase) -> None:
    def read(other: str, key: str) -> bytes:
        return archive.read(key.replace("BTCUSDT", other) if key.endswith(".CHECKSUM") else key)

    file: Callable[[str], bytes] = partial(read, "ETHUSDT")
    with pytest.raises(FetchError, match="expected the digest of BTCUSDT"):
        check_same_rows(UsdmOhlcvFiles(), case, file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**RIGHT, "quote_volum": 7}, "did you mean 'quote_volume'"),
        ({"open": 1}, "lacks high, low, close, volume"),
        ({**RIGHT, "close": RIGHT["open"]}, "name a field twice"),
        ({**RIGHT, "close": 0}, "name a field twice"),
    ],
)
def test_a_layout_that_would_leave_columns_blank_is_refused(columns: dict[str, int], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        type("Mine", (UsdmOhlcvFiles,), {"layout": CsvLayout(columns, width=12)})
