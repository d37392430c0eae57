"""The script that people write first: one session, one task per symbol, page after page, a dict per candle.

One thread with one connection executes the upserts, so that the loop is not blocked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from typing import Any, TypeAlias

import psycopg2
import psycopg2.extras
from curl_cffi.requests import AsyncSession

from benchmarks.competitors.job import Job, run

_LIMIT = 1500
_BATCH = 20_000
# The position of each column in Binance's rows.
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
_Save: TypeAlias = Callable[[int, Sequence[_Row]], Awaitable[None]]


def _row(candle: list[Any]) -> _Row:
    return {"open_time": candle[0]} | {name: float(candle[index]) for name, index in _COLUMNS.items()}


async def _history(session: AsyncSession[Any], job: Job, number: int, save: _Save) -> list[_Row]:
    rows: list[_Row] = []
    stored, start = 0, job.start
    while start < job.end:
        params = {"symbol": job.symbols[number], "interval": job.interval, "limit": _LIMIT}
        window = {"startTime": start, "endTime": job.end - 1}
        response = await session.get(f"{job.base_url}/fapi/v1/klines", params={**params, **window})
        response.raise_for_status()
        page = response.json()
        rows += [_row(candle) for candle in page]
        if len(rows) - stored >= _BATCH:
            await save(number, rows[stored : stored + _BATCH])
            stored += _BATCH
        if len(page) < _LIMIT:
            break
        start = page[-1][0] + job.step
    if stored < len(rows):
        await save(number, rows[stored:])
    return rows


async def _nowhere(series_id: int, rows: Sequence[_Row]) -> None:
    """Save nothing: without a database the rows stay in memory."""


@contextmanager
def _database(job: Job) -> Iterator[_Save]:
    """Yield a function that saves rows in a thread of its own, which also owns the connection."""
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in _COLUMNS)
    statement = (
        f"INSERT INTO {job.table} (series_id, open_time, {', '.join(_COLUMNS)}) VALUES %s"
        f" ON CONFLICT (series_id, open_time) DO UPDATE SET {updates}"
    )
    values = ", ".join(f"%({name})s" for name in _COLUMNS)

    def execute(series_id: int, rows: Sequence[_Row]) -> None:
        template = f"({series_id}, to_timestamp(%(open_time)s / 1000.0), {values})"
        with connection, connection.cursor() as cursor:
            psycopg2.extras.execute_values(cursor, statement, rows, template, page_size=1000)

    async def save(series_id: int, rows: Sequence[_Row]) -> None:
        await asyncio.get_running_loop().run_in_executor(thread, execute, series_id, rows)

    with closing(psycopg2.connect(job.dsn)) as connection, ThreadPoolExecutor(max_workers=1) as thread:
        yield save


async def _gather(job: Job) -> list[list[_Row]]:
    async with AsyncSession() as session:
        with _database(job) if job.dsn else nullcontext(_nowhere) as save:
            histories = (_history(session, job, number, save) for number in range(len(job.symbols)))
            return await asyncio.gather(*histories)


def _numbers(rows: list[_Row]) -> list[list[float]]:
    names = ("open_time", "open", "high", "low", "close", "volume")
    return [[row[name] for name in names] for row in rows]


if __name__ == "__main__":
    run(lambda job: asyncio.run(_gather(job)), _numbers)
