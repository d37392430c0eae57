"""A fresh database for each attempt, a role with the least rights that a run needs, and runs into it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from chaos.harness.store_contents import Oracle, check_contents, fingerprint
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import SinkUnavailable
from marketfetch.events import BatchWritten, Event
from marketfetch.protocols import Writer
from marketfetch.reports import Report
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sources import Endpoint
from marketfetch.testing import GeneratedMarket, Market, SimulatedExchange, SimulatorOptions
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span
from tests.support.postgres import SETTINGS, Server
from tests.support.worlds import run, span_of

__all__ = [
    "BATCHES",
    "DURABLE_SETTINGS",
    "RETRIES",
    "Database",
    "ProgressGates",
    "await_that",
    "database_on",
    "the_exchange",
]

DURABLE_SETTINGS = {**SETTINGS, "synchronous_commit": "on", "autovacuum": "off", "max_wal_size": "64MB"}
"""Settings of a server that keeps every commit when it is killed."""

TIMEOUT = 20.0
"""Seconds after which an event that must happen counts as absent; most take milliseconds."""

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
_SPAN = ("2026-06-01", "2026-06-02")
_ROWS = 99
BATCHES = len(_SYMBOLS) * 1440 // _ROWS
"""The number of batches of one run, roughly."""

RETRIES = RetryPolicy(attempts=80, initial=0.01, cap=0.25)


class _SmallOhlcv(Ohlcv):
    """Candles in small pages, so that a short run has many batches."""

    page_sizes = (_ROWS,)  # type: ignore[assignment]  # a tuple of one size, not of four


class _SmallPages(BinanceUsdm):
    """Binance futures with small pages of candles alone."""

    sources: ClassVar[Sequence[type[Endpoint]]] = (_SmallOhlcv,)


@contextmanager
def the_exchange(seed: int) -> Iterator[tuple[SimulatedExchange, Market]]:
    """Run an exchange without candles from 05:00 to 05:20, so that stores also record confirmed absence."""
    day = span_of(*_SPAN)
    hole = Span(day.start + 5 * 3_600_000, day.start + 5 * 3_600_000 + 20 * 60_000)
    market = GeneratedMarket(_SYMBOLS, seed=seed, gaps=[hole])
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange:
        yield exchange, market


@attrs.frozen
class _Watched:
    """A PostgreSQL store that records each transient error of its writers.

    While a fault is in progress (`busy`), a writer repeats its batch, so that the run cannot end before it.
    """

    inner: PostgresSink
    transient_errors: list[SinkUnavailable]
    busy: Callable[[], bool]

    @property
    def max_writers(self) -> int:
        return self.inner.max_writers

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        self.inner.prepare(datasets)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with self.inner.writer() as write:

            def watched(batch: Batch) -> None:
                try:
                    write(batch)
                    while self.busy():
                        write(batch)
                except SinkUnavailable as error:
                    self.transient_errors.append(error)
                    raise

            yield watched

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        return self.inner.coverage(series)

    def ledger(self) -> Mapping[Series, Coverage]:
        return self.inner.ledger()

    def read(self, series: Series, span: Span) -> Columns:
        return self.inner.read(series, span)


@attrs.define(eq=False)
class ProgressGates:
    """Injects a fault after certain batches, up to 10 ms later and in a separate thread."""

    act: Callable[[], object]
    after: Collection[int]
    rng: random.Random
    _written: int = 0
    _acts: list[Future[None]] = attrs.field(factory=list)
    _thread: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1))

    def __call__(self, event: Event) -> None:
        """Count the batches that a run reports as written."""
        if isinstance(event, BatchWritten):
            self._written += 1
            if self._written in self.after:
                self._acts.append(self._thread.submit(self._act_after, self.rng.uniform(0, 0.01)))

    def busy(self) -> bool:
        """Tell whether a fault is in progress."""
        return not all(act.done() for act in self._acts)

    def finish(self) -> None:
        """Wait for every fault; raises an error of the injection, and fails if a fault was not injected."""
        self._thread.shutdown()
        for act in self._acts:
            act.result()
        assert len(self._acts) == len(self.after), f"only {len(self._acts)} of {len(self.after)} faults"

    def _act_after(self, seconds: float) -> None:
        time.sleep(seconds)
        self.act()


@attrs.frozen(eq=False)
class Database:
    """A fresh database with prepared tables, their owner, and a role that may only write rows."""

    server: Server
    exchange: SimulatedExchange
    oracle: Oracle
    dsn: str
    """How runs connect: as the restricted role, through the pooler if there is one."""
    owner: str
    """How the owner connects: directly, without the pooler."""
    role: str
    transient_errors: list[SinkUnavailable] = attrs.field(factory=list)
    """The transient errors that the writers of its runs had."""

    def run(
        self,
        *,
        dsn: str = "",
        end: str = _SPAN[1],
        gates: ProgressGates | None = None,
        retries: RetryPolicy = RETRIES,
    ) -> Report:
        """Run the whole pipeline into this database, and wait for the faults that `gates` injects."""
        pipeline = Pipeline(
            _SmallPages(self.exchange.base_url),
            Query(symbols=_SYMBOLS, interval="1m", start=_SPAN[0], end=end),
            _Watched(
                PostgresSink(dsn or self.dsn), self.transient_errors, gates.busy if gates else lambda: False
            ),
            settings=Settings(concurrency=8, batch_rows=_ROWS, retries=retries),
            listeners=[gates] if gates else [],
        )
        try:
            return run(pipeline)
        finally:
            if gates is not None:
                gates.finish()

    def provoke(self, message: str, act: Callable[[], object]) -> None:
        """Repeat an action until a writer of the run has a transient error that contains `message`."""
        before = len(self.transient_errors)

        def hit() -> bool:
            act()
            return any(message in str(error) for error in self.transient_errors[before:])

        await_that(hit, f"no writer was told: {message}")

    def prepare(self) -> None:
        """Create missing tables as the owner, and grant the role the rights to write."""
        PostgresSink(self.owner).prepare([Dataset.parse("ohlcv")])
        self.execute(
            "GRANT USAGE ON SCHEMA marketfetch TO {role}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA marketfetch TO {role}",
        )

    def execute(self, *statements: str) -> Any:
        """Execute statements as the owner, each in its own transaction; return the last one's first value."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for text in statements:
                cursor = connection.execute(self.statement(text))
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def statement(self, text: str) -> sql.Composed:
        """Insert the names of role and database into a statement."""
        names = {"role": sql.Identifier(self.role), "database": sql.Identifier(_database_of(self.owner))}
        return sql.SQL(text).format(**names, who=sql.Literal(self.role))

    def check(self) -> None:
        """Fail unless the stored rows are exactly those that the ledger claims, with the true values."""
        check_contents(self.owner, self.oracle)

    def fingerprint(self) -> str:
        """Return the digest of all rows and coverage."""
        return fingerprint(self.owner)


@contextmanager
def database_on(server: Server, exchange: SimulatedExchange, market: Market) -> Iterator[Database]:
    """Create and prepare a database, and drop it when the block is left."""
    with server.database() as dsn:
        name = _database_of(dsn)
        url = dsn.replace("user=postgres", f"user={name}")
        assert url != dsn
        owner = server.past_the_pooler(dsn)
        oracle = Oracle(market, span_of(*_SPAN))
        database = Database(server, exchange, oracle, url, owner, name)
        database.execute("CREATE ROLE {role} LOGIN")
        try:
            database.prepare()
            yield database
        finally:
            database.execute("DROP OWNED BY {role}", "DROP ROLE {role}")


def await_that(holds: Callable[[], Any], what: str) -> None:
    """Poll until `holds()` is true; fails after TIMEOUT seconds."""
    give_up = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < give_up, f"waited {TIMEOUT:.0f} s in vain: {what}"
        time.sleep(0.002)


def _database_of(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])
