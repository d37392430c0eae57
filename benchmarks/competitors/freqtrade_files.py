"""freqtrade's reader of Binance's archive: daily files to data frames with five columns of numbers."""

from __future__ import annotations

import asyncio

import numpy as np
from freqtrade.enums import CandleType
from freqtrade.exchange import binance_public_data
from numpy.typing import NDArray
from pandas import DataFrame

from benchmarks.competitors.job import Job, run

_HOST = "https://data.binance.vision"
_url = binance_public_data.binance_vision_ohlcv_zip_url


async def _gather(job: Job) -> list[DataFrame]:
    return list(
        await asyncio.gather(
            *(
                binance_public_data.download_archive_ohlcv(
                    CandleType.FUTURES,
                    symbol,
                    job.interval,
                    since_ms=job.start,
                    until_ms=job.end,
                    markets={symbol: {"id": symbol}},
                )
                for symbol in job.symbols
            )
        )
    )


def _fetch(job: Job) -> list[DataFrame]:
    assert job.archive_url
    host = job.archive_url
    binance_public_data.binance_vision_ohlcv_zip_url = lambda *file: _url(*file).replace(_HOST, host)
    return asyncio.run(_gather(job))


def _numbers(frame: DataFrame) -> NDArray[np.float64]:
    times = frame["date"].to_numpy("datetime64[ms]").astype(np.int64)
    return np.column_stack([times, *(frame[name] for name in ("open", "high", "low", "close", "volume"))])


if __name__ == "__main__":
    run(_fetch, _numbers)
