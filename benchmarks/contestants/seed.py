"""A script as people write it: one session, one task per symbol, page after page, a dict per candle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from typing import Any, TypeAlias

import psycopg2
import psycopg2.extras
from curl_cffi.requests import AsyncSession

from benchmarks.contestants.job import Job, run

_LIMIT = 1500
_BATCH = 20_000
# Where a column stands in Binance's answer.
_COLUMNS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "trades": 8,
    "taker_buy_volume": 9,
    "taker_buy_quote_volume": 10,
}

_Row: TypeAlias = dict[str, Any]


def _row(candle: list[Any]) -> _Row:
    return {"open_time": candle[0]} | {name: float(candle[place]) for name, place in _COLUMNS.items()}


async def _history(session: AsyncSession[Any], job: Job, number: int) -> list[_Row]:
    rows: list[_Row] = []
    stored, start = 0, job.start
    while start < job.end:
        params = {"symbol": job.symbols[number], "interval": job.interval, "limit": _LIMIT}
        window = {"startTime": start, "endTime": job.end - 1}
        response = await session.get(f"{job.base_url}/fapi/v1/klines", params={**params, **window})
        response.raise_for_status()
        page = response.json()
        rows += [_row(candle) for candle in page]
        if job.dsn and len(rows) - stored >= _BATCH:
            await asyncio.to_thread(_save, job, number, rows[stored : stored + _BATCH])
            stored += _BATCH
        if len(page) < _LIMIT:
            break
        start = page[-1][0] + job.step
    if job.dsn and stored < len(rows):
        await asyncio.to_thread(_save, job, number, rows[stored:])
    return rows


def _save(job: Job, series_id: int, rows: Sequence[_Row]) -> None:
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in _COLUMNS)
    statement = (
        f"INSERT INTO {job.table} (series_id, open_time, {', '.join(_COLUMNS)}) VALUES %s"
        f" ON CONFLICT (series_id, open_time) DO UPDATE SET {updates}"
    )
    values = ", ".join(f"%({name})s" for name in _COLUMNS)
    template = f"({series_id}, to_timestamp(%(open_time)s / 1000.0), {values})"
    # A connection for every batch costs next to nothing beside it, and lets the server work on several.
    with closing(psycopg2.connect(job.dsn)) as connection, connection, connection.cursor() as cursor:
        psycopg2.extras.execute_values(cursor, statement, rows, template, page_size=1000)


async def _gather(job: Job) -> list[list[_Row]]:
    async with AsyncSession() as session:
        histories = (_history(session, job, number) for number in range(len(job.symbols)))
        return await asyncio.gather(*histories)


def _numbers(rows: list[_Row]) -> list[list[float]]:
    names = ("open_time", "open", "high", "low", "close", "volume")
    return [[row[name] for name in names] for row in rows]


if __name__ == "__main__":
    run(lambda job: asyncio.run(_gather(job)), _numbers)
