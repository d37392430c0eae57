"""A service that keeps 1m candles of 50 symbols up to date, and serves them.

    STORE=postgresql:///market python service.py --start 30d

`/candles?symbol=BTC/USDT&n=100` has the newest candles, `/health` is for a
supervisor and `/metrics` for Prometheus. The log is JSON, one object a line, on
standard output. SIGTERM and Ctrl-C end it with code 0.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import marketfetch as mf
from marketfetch.reports import SeriesHealth

COINS = """
AAVE ADA ALGO APT ARB ATOM AVAX AXS BCH BNB BTC CHZ COMP CRV DASH DOGE DOT
DYDX EGLD ENS ETC ETH FIL FLOW GALA GMT GRT HBAR ICP IMX INJ JUP KAVA LDO LINK
LTC NEAR NEO OP ORDI QNT RUNE SEI SOL SUI THETA TRX UNI XLM XRP
"""
SYMBOLS = [f"{coin}USDT" for coin in COINS.split()]
MAX_LAG = 180.0  # seconds; a healthy series of 1m candles has 62 at most


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


class JsonFormatter(logging.Formatter):
    """One JSON object for each record; those of LogListener have the event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (event := getattr(record, "event", None)) is not None:
            line |= {
                "event": type(event).__name__,
                "exchange": event.exchange,
                "run_id": event.run_id,
            }
        if (health := getattr(record, "health", None)) is not None:
            line["health"] = health
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def summary(lines: Sequence[SeriesHealth]) -> dict[str, Any]:
    """Return the health of the service.

    A symbol that the exchange does not list is no fault of the service.
    """
    followed = [line for line in lines if not line.stopped]
    late = [line for line in followed if line.lag is None or line.lag > MAX_LAG]
    ends = [
        line.covered_until
        for line in followed
        if line.covered_until is not None
    ]
    return {
        "healthy": bool(followed) and not late,
        "series": len(lines),
        "covered_until": utc(min(ends) / 1000) if ends else None,
        "lag": max(
            (line.lag for line in followed if line.lag is not None),
            default=None,
        ),
        "problems": [
            line.as_dict() for line in lines if line in late or line.last_error
        ],
    }


def make_app(
    market: mf.StoreReader, health: Callable[[], Sequence[SeriesHealth]]
) -> FastAPI:
    app = FastAPI(title="Candles")

    @app.get("/candles")
    async def candles(
        symbol: str, n: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> Response:
        try:
            table = await market.alatest(n, "ohlcv", symbol)
        except mf.errors.ConfigurationError as error:
            raise HTTPException(404, str(error)) from error
        except mf.errors.SinkError as error:
            raise HTTPException(503, str(error)) from error
        rows = table.to_pandas().to_json(orient="records", date_format="iso")
        return Response(rows, media_type="application/json")

    @app.get("/health")
    async def healthy(response: Response) -> dict[str, Any]:
        found = summary(health())
        response.status_code = 200 if found["healthy"] else 503
        return found

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def serve(
    options: argparse.Namespace, log: mf.listeners.LogListener
) -> None:
    market = mf.open(options.store, retries=mf.RetryPolicy(attempts=3))
    async with mf.Session() as session:
        pipeline = mf.Pipeline(
            options.exchange,
            mf.Query(symbols=SYMBOLS, interval="1m", start=options.start),
            options.store,
            base_url=options.base_url,
            listeners=[log, mf.listeners.PrometheusListener()],
            session=session,
        )
        async with pipeline.follow() as following:
            app = make_app(market, following.health)
            config = uvicorn.Config(
                app,
                options.host,
                options.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
            )
            # uvicorn stops at a signal, and then raises it again: without a
            # handler that kills the process.
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(
                    number, following.stop
                )
            # An error that ends the follow cancels the server.
            await uvicorn.Server(config).serve()
            logging.getLogger("service").info(
                "stopped", extra={"health": summary(following.health())}
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Keep candles up to date, and serve them."
    )
    # A password in an argument could be read by every user of the machine.
    parser.add_argument(
        "--store", default=os.environ.get("STORE", "sqlite:market.sqlite")
    )
    parser.add_argument("--exchange", default="binance-usdm")
    parser.add_argument(
        "--base-url", help="another host with the API of the exchange"
    )
    parser.add_argument(
        "--start",
        default="30d",
        help="where the history begins (default: 30d ago)",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)
    gc.freeze()  # the garbage collector then skips all modules
    try:
        with mf.listeners.LogListener() as log:
            asyncio.run(serve(options, log))
    except mf.MarketfetchError as error:
        logging.getLogger("service").exception("cannot go on")
        # A restart does not mend a wrong call.
        return 2 if isinstance(error, mf.errors.ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
