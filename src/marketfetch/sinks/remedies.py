"""Commands that errors of a store tell to type."""

from __future__ import annotations

import shlex
from pathlib import Path

from marketfetch.values.series import Series
from marketfetch.values.spans import Span, format_utc

__all__ = ["forget_command"]


def forget_command(root: Path, series: Series, span: Span) -> str:
    """Write the command that makes a Parquet store forget a span of a series, rows and all.

    >>> series = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
    >>> print(forget_command(Path("market"), series, Span(0, 60_000)))
    marketfetch forget --to parquet:market --exchange okx --dataset ohlcv --symbol BTC-USDT --interval 1m
    --start 1970-01-01T00:00:00Z --end 1970-01-01T00:01:00Z --rows
    """
    grid = () if series.interval.is_event else ("--interval", series.interval.name)
    words = ["--to", f"parquet:{root}", "--exchange", series.exchange, "--dataset", series.dataset.name]
    words += [
        "--symbol",
        series.symbol,
        *grid,
        "--start",
        format_utc(span.start),
        "--end",
        format_utc(span.end),
        "--rows",
    ]
    return shlex.join(["marketfetch", "forget", *words])
