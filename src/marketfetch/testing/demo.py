"""The demonstration, `marketfetch demo`: the library at work against a simulated exchange and its archive."""

from __future__ import annotations

import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import attrs
import duckdb

from marketfetch.api.pipeline import Pipeline
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.documents import Document, TextTable
from marketfetch.cli.output import print_document
from marketfetch.cli.report_view import report_page
from marketfetch.common import event_loop
from marketfetch.errors import ConfigurationError
from marketfetch.events import BatchWritten, Event, Listener, RoundStarted
from marketfetch.exchange import Exchange
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.progress import progress_to
from marketfetch.listeners.terminals import has_styles
from marketfetch.listeners.text import headline, pluralize
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report
from marketfetch.sinks.urls import sink_from
from marketfetch.sources import Endpoint
from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    LocalProxies,
    LocalProxy,
    ProxyMode,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
    simulate_binance,
)
from marketfetch.values.instruments import Composite
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["run"]

_NAMES = "AVAX ETH BTC XRP SOL BNB DOGE ADA"
_SYMBOLS = tuple(f"{name}USDT" for name in _NAMES.split())
_MT = Composite("MT", ("ETHUSDT", "BTCUSDT", "XRPUSDT", "SOLUSDT"))
_PROXIES = 2
_FILES = tuple(
    f"data/futures/um/monthly/{kind}/{symbol}/1m/"
    for kind in ("klines", "premiumIndexKlines")
    for symbol in _SYMBOLS
)
_SELECT = """\
  SELECT symbol, count(*) AS candles,
         min(open_time)::DATE AS first,
         max(open_time)::DATE AS last,
         arg_max(close, open_time) AS close
  FROM ohlcv WHERE symbol IN ('AVAXUSDT', 'BTCUSDT', 'MT')
  GROUP BY symbol ORDER BY symbol"""
_LIVE = """\
  marketfetch backfill --exchange binance-usdm \\
      --symbol AVAXUSDT --symbol BTCUSDT \\
      --dataset ohlcv --dataset premium_index \\
      --interval 1m --start 150d --to duckdb:market.duckdb"""


def run(*, days: int = 150, keep: Path | None = None) -> int:
    """Show the library at work, explaining each step on standard output; return the exit code.

    `keep` is where the DuckDB file shall stay; without it, it is gone afterwards. Raises ConfigurationError
    for a file that exists: made-up candles must not get between real ones.
    """
    if keep is not None and keep.exists():
        raise ConfigurationError(f"keep: {keep} exists already; name a new file")
    start = datetime.now(UTC).date() - timedelta(days=days)
    month = datetime(start.year, start.month, 1, tzinfo=UTC)
    with (
        tempfile.TemporaryDirectory() if keep is None else nullcontext(keep.parent) as folder,
        simulate_binance(
            GeneratedMarket(_SYMBOLS),
            SimulatorOptions(latency=0.02),
            ArchiveOptions(latency=0.02, since=round(month.timestamp() * 1000)),
        ) as (exchange, archive),
        LocalProxies(_PROXIES) as proxies,
    ):
        job = _DemoJob(
            exchange_from("binance-usdm", exchange.base_url, archive.base_url),
            tuple(proxies.urls),
            keep or Path(folder) / "market.duckdb",
            start,
        )
        _introduce(job, exchange, archive)
        return _run_and_explain(job, exchange, proxies)


@attrs.frozen
class _DemoJob:
    """The job of the demonstration, as a service would write it."""

    exchange: Exchange
    proxies: tuple[str, ...]
    path: Path
    start: date

    def run(self, *listeners: Listener) -> Report:
        """Do it and show progress on standard error."""
        query = Query(
            symbols=_SYMBOLS,
            datasets=["ohlcv", "premium_index"],
            interval="1m",
            start=self.start,
            composites=[_MT],
        )
        with progress_to(sys.stderr) as progress:
            pipeline = Pipeline(
                self.exchange,
                query,
                sink_from(f"duckdb:{self.path}"),
                proxies=RotatingProxies(self.proxies),
                settings=Settings(heartbeat=1.0),
                listeners=[progress, *listeners],
                board=None,
            )
            return event_loop.run(pipeline.run)


def _introduce(job: _DemoJob, exchange: SimulatedExchange, archive: SimulatedArchive) -> None:
    """Explain the setting, and render the files that a listing would render while the run waits for it."""
    _print_step(
        f"A simulated Binance USD-M at {exchange.base_url}: {len(_SYMBOLS)} symbols, 20 ms away, with the"
        f" published limits for each address. {_PROXIES} local proxies are {_PROXIES} addresses more."
    )
    keys = [key for prefix in _FILES for key in archive.keys(prefix)]
    for key in keys:
        archive.read(key)
    count = sum(key.endswith(".zip") for key in keys)
    files = f"{pluralize(count, 'monthly file')} of them, with checksums" if count else "no whole month yet"
    _print_step(f"Its archive at {archive.base_url} has {files}.")
    _print_step(
        f"Wanted: 1m candles and premium index from {job.start} up to now, and MT, the mean of"
        f" {len(_MT.members)} symbols. Whole months are read from files, the rest comes from the API. To make"
        " it harder, a proxy dies when a third of that rest is there."
    )


def _run_and_explain(job: _DemoJob, exchange: SimulatedExchange, proxies: Sequence[LocalProxy]) -> int:
    with _ProxyFailure(proxies[1]) as proxy_failure:
        first = job.run(proxy_failure)
    print_document(report_page(first), sys.stdout)
    endpoint, addresses = job.exchange.endpoint("ohlcv"), 1 + len(proxies)
    alone, together = (_api_seconds(first.rows_written, endpoint, count) / 60 for count in (1, addresses))
    if first.archive.files:  # a few days are sooner had from the API
        _print_step(
            f"{first.archive.rows:,} rows came from {pluralize(first.archive.files, 'file')}. For all rows"
            f" the API alone needs at least {alone:.1f} minutes on one address, {together:.1f} on these"
            f" {addresses} (computed from the published limits: pages × weight ÷ budget)."
        )
    refused = sum(count for status, count in exchange.request_log.statuses.items() if status in {418, 429})
    _print_step(
        f"The exchange counted, too: {pluralize(exchange.request_log.total, 'request')},"
        f" {refused} above a limit."
    )
    size = job.path.stat().st_size / 2**20
    _print_step(f"The rows are in a DuckDB file ({size:.0f} MiB; `marketfetch demo --keep FILE` keeps it):")
    _write(f"{_SELECT}\n")
    print_document(Document("", [_select(job.path)]), sys.stdout)
    _print_step("The same again, which asks for nothing but what has closed meanwhile:")
    again = job.run()
    _write(_wrapped(headline(again), "  "))
    _print_step("For the live exchange it is one line:")
    _write(_LIVE + "\n")
    return 0 if first.complete and again.complete else 1


def _api_seconds(rows: int, endpoint: Endpoint, addresses: int) -> float:
    """Return how long pages with so many rows take at least, by the published limit of each address.

    The budget of the first minute is spent at once; what exceeds it has to wait.
    """
    pool = endpoint.cost(1).pool
    weight = min(-(-rows // size) * endpoint.cost(size).weight for size in endpoint.page_sizes)
    return max(0.0, weight / (addresses * pool.capacity) - 1) * pool.period / 1000


def _select(path: Path) -> TextTable:
    with duckdb.connect(path, read_only=True) as database:
        found = database.execute(_SELECT)
        names = [column[0] for column in found.description or ()]
        rows = [tuple(map(_cell, row)) for row in found.fetchall()]
    # A space marks a column of numbers; here all are, but the symbol and the dates.
    return TextTable(
        "", tuple(name if name in {"symbol", "first", "last"} else f"{name} " for name in names), rows
    )


def _cell(value: object) -> str:
    return f"{value:,.9g}" if isinstance(value, int | float) else str(value)


class _ProxyFailure(BackgroundQueue[ProxyMode]):
    """A listener that switches a proxy off when a third of the rows of the API is written."""

    def __init__(self, proxy: LocalProxy) -> None:
        super().__init__(lambda mode: setattr(proxy, "mode", mode))
        self._left = 0

    def __call__(self, event: Event) -> None:
        match event:
            case RoundStarted(round=1):
                self._left = event.rows // 3
            case BatchWritten() if self._left > 0:
                self._left -= event.batch.rows
                if self._left <= 0:
                    # It waits for the proxy's connections, which an event loop must not.
                    self.submit(ProxyMode.REFUSE)
            case _:
                pass


def _print_step(text: str) -> None:
    mark = "\x1b[1;36m>\x1b[0m" if has_styles(sys.stdout) else ">"
    _write(f"\n{mark} {_wrapped(text, '  ').lstrip()}")


def _wrapped(text: str, indent: str) -> str:
    """Cut text into lines that fit the terminal, of at most 90 columns."""
    width = min(90, shutil.get_terminal_size().columns)
    wrapped = textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"{wrapped}\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
