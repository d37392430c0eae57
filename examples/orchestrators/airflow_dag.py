"""Airflow from 3.3 on: hourly candles of many symbols, a run for each day.

Put it into the DAG folder. MARKET_STORE is in the environment of the worker.
"""

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable, dag, task

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


@task(retries=3, retry_delay=timedelta(minutes=5))
def candles(
    data_interval_start: datetime | None = None,
    data_interval_end: datetime | None = None,
) -> dict:
    """Fetch what the store lacks of the span; fail if rows are missing."""
    import marketfetch as mf  # on the worker, not in the scheduler

    table = mf.fetch(
        "binance-usdm",
        "ohlcv",
        SYMBOLS,
        interval="1h",
        start=data_interval_start.date(),  # midnight, UTC
        end=data_interval_end.date(),
        to=os.environ["MARKET_STORE"],
        on_missing="raise",
    )
    return {"rows": len(table), "requests": table.report.requests}


@dag(
    # A plain "5 0 * * *" has no span: its interval ends where it starts.
    # At midnight the last candle of the day would not be final yet.
    schedule=CronDataIntervalTimetable("5 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 6, 1, tzinfo=UTC),
    catchup=True,  # days before today, and days that were missed
    max_active_runs=1,
)
def market_data() -> None:
    candles()


market_data()
