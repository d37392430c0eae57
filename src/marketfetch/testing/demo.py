"""The demonstration `marketfetch demo`: a back-fill from a simulated exchange on loopback."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import attrs
import duckdb

from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.documents import Document, TextTable
from marketfetch.cli.output import print_document
from marketfetch.cli.report_view import report_page
from marketfetch.errors import ConfigurationError
from marketfetch.events import BatchWritten, Event, Listener, RoundStarted
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.progress import progress_to
from marketfetch.listeners.text import headline, pluralize
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import (
    GeneratedMarket,
    LocalProxies,
    LocalProxy,
    ProxyMode,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.instruments import Composite
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["run"]

_NAMES = "AVAX ETH BTC XRP SOL BNB DOGE ADA LINK DOT LTC TRX ATOM NEAR UNI APT ARB OP FIL SUI"
_SYMBOLS = tuple(f"{name}USDT" for name in _NAMES.split())
_MT = Composite("MT", ("ETHUSDT", "BTCUSDT", "XRPUSDT", "SOLUSDT"))
_SELECT = """\
  SELECT symbol, count(*) AS candles, min(open_time) AS first, max(open_time) AS last,
         arg_max(close, open_time) AS close, sum(volume) AS volume
  FROM ohlcv WHERE symbol IN ('AVAXUSDT', 'BTCUSDT', 'MT') GROUP BY symbol ORDER BY symbol"""
_LIVE = """\
  .venv/bin/marketfetch backfill --exchange binance-usdm --symbol AVAXUSDT --symbol BTCUSDT \\
      --dataset ohlcv --dataset premium_index --interval 1m --start 2026-06-01 --to duckdb:market.duckdb"""


def run(*, days: int = 10, keep: Path | None = None) -> int:
    """Run the demonstration, print each step on standard output, and return the exit code.

    `keep` is the path of the DuckDB file; without it the file is deleted afterwards. Raises
    ConfigurationError for a file that exists: generated candles must not mix with real ones.
    """
    if keep is not None and keep.exists():
        raise ConfigurationError(f"keep: {keep} exists already; name a new file")
    with (
        tempfile.TemporaryDirectory() as folder,
        SimulatedExchange(GeneratedMarket(_SYMBOLS), SimulatorOptions(latency=0.02)) as exchange,
        LocalProxies(3) as proxies,
    ):
        path = keep or Path(folder) / "market.duckdb"
        return _tell(_Job(exchange.base_url, tuple(proxies.urls), path, days), exchange, proxies)


@attrs.frozen
class _Job:
    """The pipeline of the demonstration, as a service would write it."""

    base_url: str
    proxies: tuple[str, ...]
    path: Path
    days: int

    def run(self, *listeners: Listener) -> Report:
        """Run the pipeline and show progress on standard error."""
        query = Query(
            symbols=_SYMBOLS,
            datasets=["ohlcv", "premium_index"],
            interval="1m",
            start=datetime.now(UTC).date() - timedelta(days=self.days),
            composites=[_MT],
        )
        with progress_to(sys.stderr) as progress:
            pipeline = Pipeline(
                exchange_from("binance-usdm", self.base_url),
                query,
                sink_from(f"duckdb:{self.path}"),
                proxies=RotatingProxies(self.proxies),
                settings=Settings(heartbeat=1.0),
                listeners=[progress, *listeners],
                board=None,
            )
            return anyio.run(pipeline.run)


def _tell(job: _Job, exchange: SimulatedExchange, proxies: Sequence[LocalProxy]) -> int:
    _say(
        f"A simulated Binance USD-M at {exchange.base_url}: {len(_SYMBOLS)} symbols, 20 ms away,\n"
        "  with the published limits for each address. Three local proxies are three addresses more."
    )
    _say(
        f"Wanted: {job.days} days of 1m candles and premium index up to now, and MT, the mean of\n"
        f"  {len(_MT.members)} symbols. To make it harder, a proxy dies when a third is there."
    )
    with _ProxyFailure(proxies[1]) as mishap:
        first = job.run(mishap)
    print_document(report_page(first), sys.stdout)
    refused = sum(count for status, count in exchange.record.statuses.items() if status in {418, 429})
    _say(
        f"The exchange counted, too: {pluralize(exchange.record.total, 'request')}, {refused} above a limit."
    )
    size = job.path.stat().st_size / 2**20
    _say(f"The rows are in a DuckDB file ({size:.0f} MiB; `marketfetch demo --keep FILE` keeps it):")
    _write(f"{_SELECT}\n")
    print_document(Document("", [_select(job.path)]), sys.stdout)
    _say("The same again, which asks for nothing but what has closed meanwhile:")
    again = job.run()
    _write(f"  {headline(again)}\n")
    _say("For the live exchange it is one line:")
    _write(_LIVE + "\n")
    return 0 if first.complete and again.complete else 1


def _select(path: Path) -> TextTable:
    with duckdb.connect(path, read_only=True) as database:
        found = database.execute(_SELECT)
        names = [column[0] for column in found.description or ()]
        rows = [tuple(map(_cell, row)) for row in found.fetchall()]
    # A trailing space in a name marks a column of numbers: all but the symbol and the times.
    return TextTable(
        "", tuple(name if name in {"symbol", "first", "last"} else f"{name} " for name in names), rows
    )


def _cell(value: object) -> str:
    return f"{value:,.9g}" if isinstance(value, int | float) else str(value)


class _ProxyFailure:
    """A listener that lets a proxy fail after a third of the rows."""

    def __init__(self, proxy: LocalProxy) -> None:
        self._left = 0
        self._aside: BackgroundQueue[ProxyMode] = BackgroundQueue(lambda mode: setattr(proxy, "mode", mode))

    def __call__(self, event: Event) -> None:
        match event:
            case RoundStarted(round=1):
                self._left = event.rows // 3
            case BatchWritten() if self._left > 0:
                self._left -= event.batch.rows
                if self._left <= 0:
                    # In the background: changing the mode waits for the proxy's connections.
                    self._aside.submit(ProxyMode.REFUSE)
            case _:
                pass

    def __enter__(self) -> Self:
        self._aside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.__exit__(kind, error, trace)


def _say(text: str) -> None:
    mark = "\x1b[1;36m>\x1b[0m" if sys.stdout.isatty() else ">"
    _write(f"\n{mark} {text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
