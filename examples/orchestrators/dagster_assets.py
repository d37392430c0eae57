"""Dagster: hourly candles of many symbols, with a partition for each day.

Try it: `MARKET_STORE=sqlite:market.sqlite dagster dev -f dagster_assets.py`.
"""

import os

from dagster import (
    AssetExecutionContext,
    BackfillPolicy,
    DailyPartitionsDefinition,
    Definitions,
    MaterializeResult,
    RetryPolicy,
    asset,
    build_schedule_from_partitioned_job,
    define_asset_job,
)

import marketfetch as mf

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


@asset(
    partitions_def=DailyPartitionsDefinition(start_date="2026-06-01"),
    backfill_policy=BackfillPolicy.single_run(),  # many days are one span
    retry_policy=RetryPolicy(max_retries=3, delay=300),
    pool="market",  # its limit says how many runs there are at a time
)
def candles(context: AssetExecutionContext) -> MaterializeResult:
    """Fetch what the store lacks of the span; fail if rows are missing."""
    start, end = context.partition_time_window
    table = mf.fetch(
        "binance-usdm",
        "ohlcv",
        SYMBOLS,
        interval="1h",
        start=start,
        end=end,
        to=os.environ["MARKET_STORE"],
        on_missing="raise",
    )
    return MaterializeResult(
        metadata={"rows": len(table), "requests": table.report.requests}
    )


daily = define_asset_job("daily_candles", selection=[candles])
schedule = build_schedule_from_partitioned_job(daily, minute_of_hour=5)
defs = Definitions(assets=[candles], jobs=[daily], schedules=[schedule])
