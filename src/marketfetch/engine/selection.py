"""Which of the series that a store holds are meant: filters by symbol, dataset, interval and exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from marketfetch.common.name_lists import names_of
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable, unknown
from marketfetch.protocols import Store
from marketfetch.redaction import redact
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols, datasets_of
from marketfetch.values.series import Series

__all__ = ["Selection"]


@attrs.frozen
class Selection:
    """Series of a store, chosen by what they are; a filter that is not given chooses all.

    Event series are chosen by any interval, as everywhere.

    >>> series = [Series.of("okx", "ohlcv", symbol, "1h") for symbol in ("BTC-USDT", "ETH-USDT")]
    >>> [each.symbol for each in Selection.of(symbols="ETH-USDT").choose(dict.fromkeys(series, Coverage()))]
    ['ETH-USDT']
    """

    symbols: tuple[str, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    interval: Interval | None = None
    exchange: str | None = None
    everything: bool = False
    """Whether all series are meant, as AllSymbols() says: to forget all of them has to be said."""

    @classmethod
    def of(
        cls,
        *,
        symbols: str | Iterable[str] | AllSymbols | None = None,
        datasets: str | Dataset | Iterable[str | Dataset] | None = None,
        interval: str | Interval | None = None,
        exchange: str | None = None,
    ) -> Selection:
        """Make a selection of what a caller wrote.

        Raises ConfigurationError for what can be no name, and for filters without any: a list that came out
        empty is not meant to choose everything.
        """
        if isinstance(symbols, AllSymbols) and symbols.quote is not None:
            raise ConfigurationError(
                "symbols: a store knows no quote currencies; write AllSymbols() or names"
            )
        named = symbols is not None and not isinstance(symbols, AllSymbols)
        names = names_of("symbols", symbols) if named else ()
        if named and not names:
            raise ConfigurationError("symbols: none given; name some, or leave symbols out")
        kinds = () if datasets is None else datasets_of(datasets)
        if datasets is not None and not kinds:
            raise ConfigurationError("datasets: none given; name some, or leave datasets out")
        if exchange is not None and not is_text(exchange):
            raise ConfigurationError(
                f"exchange: {redact(repr(exchange))} is no name; write one such as 'binance-usdm', "
                "or leave it out"
            )
        return cls(
            names,
            kinds,
            None if interval is None else Interval.parse(interval),
            exchange,
            isinstance(symbols, AllSymbols),
        )

    @property
    def is_open(self) -> bool:
        """Whether nothing was chosen."""
        return not (self.symbols or self.datasets or self.interval or self.exchange or self.everything)

    def held(self, store: Store) -> dict[Series, Coverage]:
        """Return the chosen series with what the store knows of each.

        A store is asked for single series where they are named in full, and for its whole ledger where not.
        Raises ConfigurationError, with near matches, for names that it does not hold.
        """
        named = self._named()
        if named:
            try:
                found = store.coverage(named)
            except SinkUnavailable:
                raise
            except SinkError:
                # It misses rows that it counts on: what it says all the same is in its ledger.
                return self.choose(store.ledger())
            if all(found[series].covered for series in named):
                return {series: found[series] for series in named}
        return self.choose(store.ledger())

    def choose(self, ledger: Mapping[Series, Coverage]) -> dict[Series, Coverage]:
        """Return the chosen part of a ledger; ConfigurationError, with near matches, for names not in it."""
        chosen = dict(ledger)
        filters: Sequence[tuple[str, Sequence[str], Callable[[Series], str]]] = (
            ("exchange", (self.exchange,) if self.exchange else (), lambda series: series.exchange),
            ("datasets", [kind.name for kind in self.datasets], lambda series: series.dataset.name),
            ("interval", (self.interval.name,) if self.interval else (), self._interval_of),
            ("symbols", self.symbols, lambda series: series.symbol),
        )
        for argument, names, of in filters:
            if not names:
                continue
            there = set(map(of, chosen))
            for name in names:
                if name not in there:
                    raise unknown(argument, name, there, "is not held")
            chosen = {series: known for series, known in chosen.items() if of(series) in names}
        return chosen

    def _interval_of(self, series: Series) -> str:
        """Return the interval of a series; that of events is whichever was asked for."""
        return self.interval.name if self.interval and series.dataset.event else series.interval.name

    def _named(self) -> list[Series]:
        """Return the series if each is named in full."""
        if not (self.exchange and self.datasets and self.symbols):
            return []
        if self.interval is None and not all(dataset.event for dataset in self.datasets):
            return []
        interval = self.interval or "event"
        return [
            Series.of(self.exchange, dataset, symbol, interval)
            for dataset in self.datasets
            for symbol in self.symbols
        ]
