"""Errors that several stores raise, and the commands that errors tell users to type."""

from __future__ import annotations

from pathlib import Path

from marketfetch.common.platforms import command_text
from marketfetch.errors import SinkError
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, format_utc

__all__ = ["arguments_for", "forget_command", "newer_format_error"]


def arguments_for(series: Series, span: Span) -> list[str]:
    """Return the command-line options that select a span of a series, without `--to`.

    >>> arguments_for(Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "1m"), Span(0, 60_000))[4:]
    ['--symbol', 'BTC-USDT-SWAP', '--start', '1970-01-01T00:00:00Z', '--end', '1970-01-01T00:01:00Z']
    """
    interval = [] if series.dataset.event else ["--interval", series.interval.name]
    names = ["--exchange", series.exchange, "--dataset", series.dataset.name, "--symbol", series.symbol]
    return [*names, *interval, "--start", format_utc(span.start), "--end", format_utc(span.end)]


def forget_command(root: Path, series: Series, span: Span) -> str:
    """Write the command that makes a Parquet store forget a span of a series, rows and all.

    >>> series = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
    >>> print(forget_command(Path("market"), series, Span(0, 60_000)))
    marketfetch forget --to parquet:market --exchange okx --dataset ohlcv --symbol BTC-USDT --interval 1m
    --start 1970-01-01T00:00:00Z --end 1970-01-01T00:01:00Z --rows
    """
    to = ["--to", f"parquet:{root}"]
    return command_text(["marketfetch", "forget", *to, *arguments_for(series, span), "--rows"])


def newer_format_error(store: object, found: object, known: int, otherwise: str = "") -> SinkError:
    """Return the error for a store whose format only a later version of marketfetch knows.

    >>> print(newer_format_error("market.db", 3, 2, ", or name another file"))
    market.db was written by a newer marketfetch (format 3; this one knows 2): upgrade marketfetch, or name
    another file
    """
    return SinkError(
        f"{store} was written by a newer marketfetch (format {found}; this one knows {known}): "
        f"upgrade marketfetch{otherwise}"
    )
