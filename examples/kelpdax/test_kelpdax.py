"""The test of an adapter with an archive: the contract compares a file with an answer of the API."""

import io
import zipfile

from kelpdax import Kelpdax

from marketfetch.testing.contracts.exchange import ExchangeContract, Recording

# 31 May 2026, 16:00 UTC: the first minutes of June where the exchange is.
PAGE = b'[[1780243200000,"71.5","72","71.4","71.8","12.5"],[1780243260000,"71.8","71.9","70","70.2","3"]]'
TEXT = b"1780243200,71.8,72,71.4,71.5,12.5\n1780243260,70.2,71.9,70,71.8,3\n"


class TestKelpdax(ExchangeContract):
    exchange = Kelpdax
    symbol = "BTC_USD"
    recordings = (Recording("ohlcv", PAGE, start="2026-05-31T16:00Z", end="2026-05-31T16:02Z"),)

    def file(self, key: str) -> bytes | None:
        if key != "candles/day/BTC_USD/1min/BTC_USD-2026-06-01.zip":
            return None
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as file:
            file.writestr("BTC_USD-2026-06-01.csv", TEXT)
        return body.getvalue()
