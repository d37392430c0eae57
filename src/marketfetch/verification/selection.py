"""Select series of a store: filters by symbol, dataset, interval and exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

import attrs

from marketfetch.common.name_lists import names_of
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable, unknown
from marketfetch.planning.held_symbols import symbol_meant
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
    """Filters for the series of a store; a filter that is left out selects all series.

    Event series match every interval.

    >>> series = [Series.of("okx", "ohlcv", symbol, "1h") for symbol in ("BTC-USDT", "ETH-USDT")]
    >>> [each.symbol for each in Selection.of(symbols="ETH-USDT").choose(dict.fromkeys(series, Coverage()))]
    ['ETH-USDT']
    """

    symbols: tuple[str, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    interval: Interval | None = None
    exchange: str | None = None
    everything: bool = False
    """Whether AllSymbols() was given: to forget all series, a caller must say so."""

    @classmethod
    def of(
        cls,
        *,
        symbols: str | Iterable[str] | AllSymbols | None = None,
        datasets: str | Dataset | Iterable[str | Dataset] | None = None,
        interval: str | timedelta | Interval | None = None,
        exchange: str | None = None,
    ) -> Selection:
        """Make a selection from a caller's arguments.

        Raises ConfigurationError for a value that is not a name, and for an empty list: a list that a program
        computes, and that is empty, must not select all series.
        """
        if isinstance(symbols, AllSymbols) and symbols != AllSymbols():
            raise ConfigurationError(
                f"symbols: a store does not know which series {symbols!r} means; write AllSymbols() for all "
                "series, or names"
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
                f"exchange: {redact(repr(exchange))} is not a name; write one such as 'binance-usdm', "
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
    def is_unspecified(self) -> bool:
        """Whether the caller gave neither a filter nor AllSymbols()."""
        return not (self.symbols or self.datasets or self.interval or self.exchange or self.everything)

    def held(self, store: Store) -> dict[Series, Coverage]:
        """Return the selected series with what the store knows of each.

        Series that are named in full are read one by one; otherwise the whole ledger is read. Raises
        ConfigurationError, with near matches, for names that the store does not hold.
        """
        named = self._named()
        if named:
            try:
                found = store.coverage(named)
            except SinkUnavailable:
                raise
            except SinkError:
                # `coverage` raises for a missing or damaged file; `ledger` leaves out such a file.
                return self.choose(store.ledger())
            if all(found[series].covered for series in named):
                return {series: found[series] for series in named}
        return self.choose(store.ledger())

    def choose(self, ledger: Mapping[Series, Coverage]) -> dict[Series, Coverage]:
        """Return the selected part of a ledger.

        A symbol may be spelt in another way than the exchange does, if that means one. Raises
        ConfigurationError, with near matches, for unknown names, and for any name if the ledger is empty.
        """
        chosen = dict(ledger)
        if not chosen and (self.symbols or self.datasets or self.interval or self.exchange):
            raise ConfigurationError("store: holds nothing yet; fetch into it first, or name another store")
        filters: Sequence[tuple[str, Sequence[str], Callable[[Series], str]]] = (
            ("exchange", (self.exchange,) if self.exchange else (), lambda series: series.exchange),
            ("datasets", [kind.name for kind in self.datasets], lambda series: series.dataset.name),
            ("interval", (self.interval.name,) if self.interval else (), self._interval_of),
        )
        for argument, names, of in filters:
            if not names:
                continue
            held = set(map(of, chosen))
            for name in names:
                if name not in held:
                    raise unknown(argument, name, held, "is not held")
            chosen = {series: known for series, known in chosen.items() if of(series) in names}
        symbols = {symbol_meant(name, chosen) for name in self.symbols}
        return {series: known for series, known in chosen.items() if not symbols or series.symbol in symbols}

    def _interval_of(self, series: Series) -> str:
        """Return the interval name to compare; an event series always matches."""
        return self.interval.name if self.interval and series.dataset.event else series.interval.name

    def _named(self) -> list[Series]:
        """Return the series that are named in full; an empty list if a part of their names is left out."""
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
