"""Prefect 3: hourly candles of several exchanges, a task for each exchange.

`PREFECT_SERVER_ANALYTICS_ENABLED=false python prefect_flow.py` serves the flow
without telemetry. The store is in MARKET_STORE: parameters are shown to all.
"""

import os

from prefect import flow, task, unmapped

import marketfetch as mf

SYMBOLS = {
    "binance-usdm": ["BTCUSDT", "ETHUSDT", "SOLUSDT"],
    "okx": ["BTC-USDT-SWAP", "ETH-USDT-SWAP"],
}


@task(task_run_name="{exchange}", retries=3, retry_delay_seconds=300)
def candles(exchange: str, symbols: list[str], start: str, end: str) -> dict:
    """Fetch what the store lacks of the span; fail if rows are missing."""
    table = mf.fetch(
        exchange,
        "ohlcv",
        symbols,
        interval="1h",
        start=start,
        end=end,
        to=os.environ["MARKET_STORE"],
        on_missing="raise",
    )
    return {"rows": len(table), "requests": table.report.requests}


@flow
def market_data(start: str = "7d", end: str = "now") -> list[dict]:
    """Fetch a span of all exchanges; by default the last seven days."""
    exchanges, symbols = list(SYMBOLS), list(SYMBOLS.values())
    done = candles.map(exchanges, symbols, unmapped(start), unmapped(end))
    return done.result()


if __name__ == "__main__":
    market_data.serve(name="hourly", cron="5 * * * *", limit=1)
