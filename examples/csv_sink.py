"""Your own sink: one CSV file for each series.

This sink only writes, so every run fetches everything. A sink with `coverage`, `ledger` and `read` is a
Store: a run reads its coverage first and fetches only what is missing.
"""

import asyncio
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import marketfetch as mf


class CsvSink:
    max_writers = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, datasets: Sequence[mf.adapter.Dataset]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def writer(self) -> Iterator[mf.protocols.Writer]:
        yield self.write

    def write(self, batch: mf.Batch) -> None:
        series, columns = batch.series, batch.columns
        path = self.folder / f"{series.symbol}-{series.dataset}-{series.interval}.csv"
        with path.open("a", newline="") as file:
            rows = csv.writer(file)
            if not file.tell():
                rows.writerow(["open_time", *series.dataset.names])
            rows.writerows(zip(columns.times.tolist(), *columns.values.tolist(), strict=True))


async def main() -> None:
    query = mf.Query(symbols="BTCUSDT", interval="1h", start="2026-06-01", end="2026-06-08")
    report = await mf.Pipeline("binance-usdm", query, CsvSink(Path("candles")))
    print(f"{report.rows_written} rows in {report.duration:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
