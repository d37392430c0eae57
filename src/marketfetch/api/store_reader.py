"""`open`: read a store without an exchange, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, overload

from marketfetch.api.inputs import store_of
from marketfetch.api.missing_rows import OnMissing, check_on_missing, warn_or_raise_missing
from marketfetch.api.reading import HeldSeries, RequestedSpan, chosen_series, read_latest, read_tables
from marketfetch.api.store_calls import call_store, warn_of_wait
from marketfetch.api.tables.plots import Theme, plot_coverage
from marketfetch.api.tables.table import Table
from marketfetch.common.event_loop import asyncio_loop
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.type_checks import is_whole, kind_of
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Sink, Store
from marketfetch.redaction import Secret, redact
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy
from marketfetch.values.times import TimeLike
from marketfetch.verification.selection import Selection

if TYPE_CHECKING:  # heavy and optional: imported where it is used
    from matplotlib.figure import Figure

__all__ = ["StoreReader", "open"]

_T = TypeVar("_T")
_MAX_ROWS = 2**31 - 1
"""No store has more rows of a series, and some take no larger number."""
_Symbols = str | Iterable[str] | AllSymbols | None
_Datasets = Iterable[str | Dataset]
_Interval = str | timedelta | Interval | None


def open(store: str | Path | Secret | Sink, *, retries: RetryPolicy | None = None) -> StoreReader:  # noqa: A001
    """Open a store to read it: `"duckdb:market.duckdb"`, a path, or a Store object.

    Nothing is requested from an exchange, and nothing is written. While another program holds the store,
    calls are repeated as `retries` says, each time with a RuntimeWarning.

    Raises ConfigurationError for what is not a store. Nothing is opened before the first call: a store that
    does not exist is refused then, and not made.

    >>> open("sqlite:market.sqlite")
    StoreReader(SQLiteSink('market.sqlite'))
    """
    if retries is not None and not isinstance(retries, RetryPolicy):
        raise ConfigurationError(
            f"retries: {kind_of(retries)} is not a RetryPolicy; write RetryPolicy(attempts=5)"
        )
    return StoreReader(store_of("store", store, "open needs"), retries or RetryPolicy())


class StoreReader:
    """A store that is opened to be read; `open` makes it.

    A symbol may be written as the exchange writes it or as a unified name, in any case: `BTCUSDT`,
    `BTC/USDT`, `BTC-USDT`, `btcusdt`, `BTC/USDT:USDT`. Symbols that are left out are all that the store
    holds. `interval` and `exchange` may be left out where the store holds one. Every method raises
    ConfigurationError for a store that does not exist, for a name that is not held, with near matches, and
    for an ambiguous name, with the candidates; and SinkError if the store cannot be read.

    `atable` and `alatest` are `table` and `latest` for asyncio: the store is read on a thread. Between two
    calls nothing is open, so that other processes may write. One reader may be used by several threads.

    >>> import numpy as np
    >>> from marketfetch.sinks import MemorySink
    >>> from marketfetch import Batch
    >>> from marketfetch.adapter import Columns
    >>> store, series = MemorySink(), Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> rows = Columns(np.array([0, 60_000]), np.array([[1.0, 2.0]] * 4))
    >>> with store.writer() as write:
    ...     write(Batch(series, rows, Coverage(series.interval.cover(rows.times))))
    >>> with open(store) as market:
    ...     market.latest(1, "mark_price", "BTC/USDT").to_pandas().close.tolist()
    [2.0]
    """

    def __init__(self, store: Store, retries: RetryPolicy) -> None:
        self._store = store
        self._retries = retries
        self._closed = False

    @overload
    def table(  # type: ignore[overload-overlap]  # a text is an iterable of texts
        self,
        dataset: str | Dataset = "ohlcv",
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> Table: ...

    @overload
    def table(
        self,
        dataset: _Datasets,
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> dict[str, Table]: ...

    @checks_keywords
    def table(  # noqa: PLR0913  # which series, which span, and what to do if it is not whole
        self,
        dataset: str | Dataset | _Datasets = "ohlcv",
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> Table | dict[str, Table]:
        """Return the rows whose open times lie in the half-open span, as the Table that `fetch` returns.

        Of a list of datasets it returns a dictionary with a table for each. A `start` or `end` that is left
        out is that of what is held. `report` of a table tells which moments of the span the store lacks; so
        does an IncompleteWarning or, with `on_missing="raise"`, an IncompleteError.

        Raises ConfigurationError for a start that is not before the end, and for a time without a zone.
        """
        check_on_missing(on_missing)
        chosen = _selection(dataset, symbols, interval, exchange)
        work = partial(read_tables, self._opened(), chosen, RequestedSpan.parse(start, end))
        return self._checked(dataset, call_store(work, self._retries), on_missing)

    @overload
    async def atable(  # type: ignore[overload-overlap]  # as `table`
        self,
        dataset: str | Dataset = "ohlcv",
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> Table: ...

    @overload
    async def atable(
        self,
        dataset: _Datasets,
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> dict[str, Table]: ...

    async def atable(  # noqa: PLR0913  # as `table`
        self,
        dataset: str | Dataset | _Datasets = "ohlcv",
        symbols: _Symbols = None,
        start: TimeLike | None = None,
        end: TimeLike | None = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        on_missing: OnMissing = "warn",
    ) -> Table | dict[str, Table]:
        """Do as `table` on a thread; the event loop is not blocked."""
        check_on_missing(on_missing)
        chosen = _selection(dataset, symbols, interval, exchange)
        work = partial(read_tables, self._opened(), chosen, RequestedSpan.parse(start, end))
        return self._checked(dataset, await self._in_thread(work), on_missing)

    @checks_keywords
    def latest(
        self,
        n: int,
        dataset: str | Dataset = "ohlcv",
        symbols: _Symbols = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
    ) -> Table:
        """Return the newest `n` rows of each symbol, or all if there are fewer, sorted by time.

        The built-in stores find them without reading the history before them. `report` is about the span
        from the first to the last of these rows. The newest row of a series that is being followed may be
        provisional: it counts as present here, and may still change.

        Raises ConfigurationError for an `n` that is not a positive whole number.
        """
        work = self._latest(_row_count(n), _selection(dataset, symbols, interval, exchange))
        return call_store(work, self._retries)

    async def alatest(
        self,
        n: int,
        dataset: str | Dataset = "ohlcv",
        symbols: _Symbols = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
    ) -> Table:
        """Do as `latest` on a thread; the event loop is not blocked."""
        work = self._latest(_row_count(n), _selection(dataset, symbols, interval, exchange))
        return await self._in_thread(work)

    @checks_keywords
    def coverage(
        self,
        dataset: str | Dataset | _Datasets | None = None,
        symbols: _Symbols = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
    ) -> Mapping[Series, Coverage]:
        """Return what the store knows of the chosen series: present, confirmed empty, unusable, missing."""
        chosen = _selection(dataset, symbols, interval, exchange)

        def work(store: Store) -> Mapping[Series, Coverage]:
            found = chosen_series(store, chosen).values()
            return store.coverage([series for some in found for series in some])

        return call_store(partial(work, self._opened()), self._retries)

    def plot_coverage(
        self,
        dataset: str | Dataset | _Datasets | None = None,
        symbols: _Symbols = None,
        *,
        interval: _Interval = None,
        exchange: str | None = None,
        theme: Theme = "light",
    ) -> Figure:
        """Return a heat map, series × days: the shares that are held, missing, confirmed empty or unusable.

        It is a matplotlib figure, for which the extra `plot` is needed. Raises ConfigurationError also where
        nothing is held of the chosen series.
        """
        chosen = self.coverage(dataset, symbols, interval=interval, exchange=exchange)
        return plot_coverage(chosen, theme)

    def series(self) -> list[HeldSeries]:
        """Return what the store holds: an entry for each series, with its first and last row and its gaps."""
        ledger = call_store(self._opened().ledger, self._retries)
        return [HeldSeries(series, known) for series, known in sorted(ledger.items(), key=_name)]

    def close(self) -> None:
        """Refuse all further calls; nothing is open that would have to be closed."""
        self._closed = True

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> Store:
        if self._closed:
            raise ConfigurationError(f"store: {self!r} is closed; call open again")
        return self._store

    def _latest(self, n: int, chosen: Selection) -> Callable[[], Table]:
        if len(chosen.datasets) != 1:
            raise ConfigurationError(
                f"dataset: a table holds one, not {len(chosen.datasets)}; call latest once for each"
            )
        return partial(read_latest, self._opened(), chosen, n)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        asyncio_loop("a StoreReader")
        return await StoreRetrier(self._retries, warn_of_wait).call_in_thread(work)

    def _checked(
        self, dataset: object, tables: dict[str, Table], on_missing: OnMissing
    ) -> Table | dict[str, Table]:
        """Warn of or raise for what the tables lack; return one table where the caller asked for one."""
        for name, table in tables.items():
            warn_or_raise_missing(f"{redact(repr(self._store))} {name}", table.report, table.rows, on_missing)
        return next(iter(tables.values())) if isinstance(dataset, str | Dataset) else tables

    def __repr__(self) -> str:
        return f"StoreReader({redact(repr(self._store))})"


def _row_count(n: int) -> int:
    if not is_whole(n) or n < 1:
        raise ConfigurationError(f"n: {redact(repr(n))} is not a number of rows; write 1 or more")
    return min(int(n), _MAX_ROWS)


def _selection(
    dataset: str | Dataset | _Datasets | None,
    symbols: _Symbols,
    interval: _Interval,
    exchange: str | None,
) -> Selection:
    chosen = Selection.of(symbols=symbols, datasets=dataset, interval=interval, exchange=exchange)
    if isinstance(dataset, str) and len(chosen.datasets) > 1:
        names = [kind.name for kind in chosen.datasets]
        raise ConfigurationError(f"dataset: {dataset!r} names several; write a list: {names}")
    return chosen


def _name(item: tuple[Series, Coverage]) -> str:
    return str(item[0])
