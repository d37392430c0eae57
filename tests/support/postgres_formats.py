"""A store as marketfetch 0.1.0 left it in PostgreSQL (format 1), and what is in it."""

from __future__ import annotations

import gzip
from pathlib import Path

import psycopg
from psycopg import sql

from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import MINUTE, START, candles, premium

DUMP = Path(__file__).parents[1] / "sinks" / "data" / "postgres_format_1.sql.gz"

FUNDING = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
OKX = candles("BTC-USDT-SWAP", "1h", "okx")

MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={"ohlcv": {"open": "o", "close": "c"}, "premium_index": {"close": "pfr"}},
    rename_symbol=without_quote("USDT"),
)


def minutes(*bounds: tuple[int, int]) -> SpanSet:
    """Make spans of minutes after START."""
    return SpanSet(tuple(Span(START + MINUTE * first, START + MINUTE * last) for first, last in bounds))


OWN = {
    candles(): Coverage(
        minutes((0, 1210)), minutes(*((minute, minute + 1) for minute in range(11, 1211, 2)))
    ),
    candles("ETHUSDT"): Coverage(minutes(*((minute, minute + 1) for minute in range(0, 1060, 2)))),
    OKX: Coverage(minutes((0, 600)), minutes((0, 600))),
    FUNDING: Coverage(minutes((0, 500))),
}
"""What the ledger says of the series in tables of ours."""

MAPPED = {candles(): Coverage(minutes((0, 3))), premium(): Coverage(minutes((1, 4)))}
"""What it says of those in the user's table."""


def restore(dsn: str) -> None:
    """Fill an empty database with the store."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(gzip.decompress(DUMP.read_bytes()).decode()))
