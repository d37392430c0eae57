"""Fill an SQLite file, and act on every batch after it was committed.

Run it as often as you like, such as from a timer: every run fetches what is missing by then.
"""

import asyncio
import sys

import marketfetch as mf

QUERY = mf.Query(
    symbols=["BTCUSDT", "ETHUSDT"],
    datasets=["ohlcv", "funding_rate"],
    interval="1h",
    start="2026-06-01",
    end="2026-06-08",
)


async def main() -> int:
    pipeline = mf.Pipeline("binance-usdm", QUERY, mf.SQLiteSink("market.sqlite"))
    async for batch in pipeline:
        print(f"stored: {batch.series}, {batch.rows} rows")
    report = pipeline.report()
    for line in report.series:
        for missing in line.missing:
            print(f"missing: {line.series} {missing.spans}: {missing.reason}")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
