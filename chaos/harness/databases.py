"""A database of its own for each attempt, a role that may do just what is needed, and a run into it."""

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
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import SinkUnavailable
from marketfetch.events import BatchWritten, Event
from marketfetch.exchange import Endpoint
from marketfetch.exchanges.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.protocols import Writer
from marketfetch.reports import Report
from marketfetch.sinks.postgres import PostgresSink
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
"""Settings of a server that loses nothing that it has committed when it is killed."""

TIMEOUT = 20.0
"""Seconds to wait for what must come."""

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
_SPAN = ("2026-06-01", "2026-06-02")
_ROWS = 99
BATCHES = len(_SYMBOLS) * 1440 // _ROWS
"""About as many batches as a run has."""

RETRIES = RetryPolicy(attempts=80, initial=0.01, cap=0.25)


class _SmallOhlcv(Ohlcv):
    """Candles that come a few at a time, so that a small run has many batches."""

    page_sizes = (_ROWS,)  # type: ignore[assignment]  # one size instead of four


class _SmallPages(BinanceUsdm):
    """An exchange that gives little at a time."""

    endpoints: ClassVar[Sequence[type[Endpoint]]] = (_SmallOhlcv,)


@contextmanager
def the_exchange(seed: int) -> Iterator[tuple[SimulatedExchange, Market]]:
    """Run an exchange whose history has a hole, which is remembered as confirmed to be empty."""
    day = span_of(*_SPAN)
    hole = Span(day.start + 5 * 3_600_000, day.start + 5 * 3_600_000 + 20 * 60_000)
    market = GeneratedMarket(_SYMBOLS, seed=seed, gaps=[hole])
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange:
        yield exchange, market


@attrs.frozen
class _Watched:
    """A PostgreSQL store that notes what its writers were told that may pass.

    While something is being done to it they write the same again and again: the run cannot be over before.
    """

    inner: PostgresSink
    hurts: list[SinkUnavailable]
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
                    self.hurts.append(error)
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
    """Does something after certain batches, a little later and in a thread of its own."""

    act: Callable[[], object]
    after: Collection[int]
    chance: random.Random
    _written: int = 0
    _acts: list[Future[None]] = attrs.field(factory=list)
    _thread: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1))

    def __call__(self, event: Event) -> None:
        """Listen to a run."""
        if isinstance(event, BatchWritten):
            self._written += 1
            if self._written in self.after:
                self._acts.append(self._thread.submit(self._act_after, self.chance.uniform(0, 0.01)))

    def busy(self) -> bool:
        """Tell whether something is being done."""
        return not all(act.done() for act in self._acts)

    def finish(self) -> None:
        """Wait until everything is done; raises what went wrong, and fails if something was not done."""
        self._thread.shutdown()
        for act in self._acts:
            act.result()
        assert len(self._acts) == len(self.after), f"only {len(self._acts)} of {len(self.after)} were done"

    def _act_after(self, seconds: float) -> None:
        time.sleep(seconds)
        self.act()


@attrs.frozen(eq=False)
class Database:
    """A fresh database with our tables, which belong to somebody else, and a role that may write there."""

    server: Server
    exchange: SimulatedExchange
    oracle: Oracle
    dsn: str
    """The way that is tried: of a role that may do just what is needed."""
    owner: str
    """The owner's, past any pooler."""
    role: str
    hurts: list[SinkUnavailable] = attrs.field(factory=list)
    """What writers of its runs were told that may pass."""

    def run(
        self,
        *,
        dsn: str = "",
        end: str = _SPAN[1],
        moments: ProgressGates | None = None,
        retries: RetryPolicy = RETRIES,
    ) -> Report:
        """Run the whole pipeline into it, and see to the end what is to be done meanwhile."""
        pipeline = Pipeline(
            _SmallPages(self.exchange.base_url),
            Query(symbols=_SYMBOLS, interval="1m", start=_SPAN[0], end=end),
            _Watched(PostgresSink(dsn or self.dsn), self.hurts, moments.busy if moments else lambda: False),
            settings=Settings(concurrency=8, batch_rows=_ROWS, retries=retries),
            listeners=[moments] if moments else [],
        )
        try:
            return run(pipeline)
        finally:
            if moments is not None:
                moments.finish()

    def hurt(self, says: str, act: Callable[[], object]) -> None:
        """Do something until it makes a writer of the run fail, with an error that says so and may pass."""
        before = len(self.hurts)

        def hit() -> bool:
            act()
            return any(says in str(error) for error in self.hurts[before:])

        await_that(hit, f"no writer was told: {says}")

    def prepare(self) -> None:
        """Make what is missing, as its owner, and let the role write there."""
        PostgresSink(self.owner).prepare([Dataset.parse("ohlcv")])
        self.execute(
            "GRANT USAGE ON SCHEMA marketfetch TO {role}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA marketfetch TO {role}",
        )

    def execute(self, *statements: str) -> Any:
        """Execute statements as the owner, each by itself; return the first value of the last, if any."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for text in statements:
                cursor = connection.execute(self.statement(text))
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def statement(self, text: str) -> sql.Composed:
        """Put the names of role and database into a statement."""
        names = {"role": sql.Identifier(self.role), "database": sql.Identifier(_database_of(self.owner))}
        return sql.SQL(text).format(**names, who=sql.Literal(self.role))

    def check(self) -> None:
        """Fail unless what the ledger claims is there and true, and nothing else is stored."""
        check_contents(self.owner, self.oracle)

    def fingerprint(self) -> str:
        """Digest all it holds."""
        return fingerprint(self.owner)


@contextmanager
def database_on(server: Server, exchange: SimulatedExchange, market: Market) -> Iterator[Database]:
    """Make a database that is prepared, and drop it afterwards."""
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
    """Wait until something is so; fails if it is not so in time."""
    give_up = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < give_up, f"waited {TIMEOUT:.0f} s in vain: {what}"
        time.sleep(0.002)


def _database_of(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])
