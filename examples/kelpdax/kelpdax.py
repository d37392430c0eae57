"""An exchange with an API and an archive: Kelpdax is invented, its adapter is complete.

The API sends candles as rows, oldest first, and allows twenty requests a second from each address. The
archive has a zip for each month and each day in Singapore, with times in seconds and the close first.
"""

import marketfetch.adapter as mf

CALL = mf.Cost(mf.LimitPool("kelpdax calls", capacity=20, period=1000))
FILE = mf.Cost(mf.LimitPool("kelpdax files", capacity=50, period=1000))
STEPS = {"1m": "1min", "1h": "1hour"}


class Candles(mf.Endpoint):
    dataset = "ohlcv"
    intervals = STEPS
    page_sizes = (300,)

    def cost(self, rows: int) -> mf.Cost:
        return CALL

    def request(self, part: mf.Slice) -> mf.Request:
        params: dict[str, str | int] = {
            "market": part.series.symbol,
            "step": self.native_interval(part.series.interval),
            "from": part.span.start,
            "until": part.span.end,
            "limit": part.rows,
        }
        return mf.Request("/candles", params, cost=CALL)

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        columns = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}
        return mf.RowLayout(columns, width=6).decode(body, part.series.dataset)


class Files(mf.Archive):
    dataset = "ohlcv"
    intervals = STEPS
    files_url = "https://files.kelpdax.example"
    listing_url = "https://s3.kelpdax.example/history"
    layout = mf.CsvLayout({"close": 1, "high": 2, "low": 3, "open": 4, "volume": 5}, width=6)
    utc_offset = 8 * mf.HOUR

    def folder(self, series: mf.Series, grain: mf.Grain) -> str:
        return f"candles/{grain}/{series.symbol}/{self.native_interval(series.interval)}/"

    def stem(self, series: mf.Series) -> str:
        return f"{series.symbol}-"

    def cost(self) -> mf.Cost:
        return FILE


class Kelpdax(mf.Exchange):
    name = "kelpdax"
    default_url = "https://api.kelpdax.example"
    sources = (Candles, Files)
