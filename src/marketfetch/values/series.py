"""What is asked for and what is fetched: Series, Query, Slice, and the exchange's own listing."""

from __future__ import annotations

import attrs

from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.spans import BEYOND, Span, SpanSet

__all__ = ["Composite", "Coverage", "Instrument", "Series", "Slice"]


@attrs.frozen(cache_hash=True)
class Series:
    """One line of the ledger: exchange × dataset × symbol × interval.

    >>> print(Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m"))
    binance-usdm ohlcv BTCUSDT 1m
    """

    exchange: str
    dataset: Dataset
    symbol: str
    interval: Interval

    @classmethod
    def of(cls, exchange: str, dataset: str | Dataset, symbol: str, interval: str | Interval) -> Series:
        """Make a series from names; event datasets have the interval `event` whatever is given."""
        kind = Dataset.parse(dataset)
        return cls(exchange, kind, symbol, EVENT if kind.event else Interval.parse(interval))

    def __str__(self) -> str:
        return f"{self.exchange} {self.dataset.name} {self.symbol} {self.interval.name}"


@attrs.frozen
class Coverage:
    """What is known of a series: `covered` moments, of which `empty` ones are confirmed to have no row.

    Three verdicts: present (covered, not empty), confirmed empty, and missing (not covered).
    """

    covered: SpanSet = attrs.field(factory=SpanSet)
    empty: SpanSet = attrs.field(factory=SpanSet)

    @property
    def present(self) -> SpanSet:
        """The moments for which rows are stored."""
        return self.covered - self.empty

    def missing(self, wanted: Span) -> SpanSet:
        """The part of a wanted span about which nothing is known yet."""
        return SpanSet.of(wanted) - self.covered

    def __or__(self, other: Coverage) -> Coverage:
        """Unite what two observers know; a row that one of them has makes the moment present."""
        empty = (self.empty - other.present) | (other.empty - self.present)
        return Coverage(self.covered | other.covered, empty)


@attrs.frozen
class Slice:
    """A part of a series still to fetch, sized to one request where the endpoint allows.

    `denied` are the moments of it that the exchange has already answered once without a row: absence is
    believed when it is said twice. `strikes` counts answers that were unusable for reasons of content.
    `chunk` names the batch that the rows will be gathered into.
    """

    series: Series
    span: Span
    rows: int
    """How many rows the request should ask for at most."""
    denied: SpanSet = attrs.field(factory=SpanSet)
    strikes: int = 0
    chunk: int = 0
    cursor: str | None = None
    """An opaque page token, for endpoints that page by token."""

    def __str__(self) -> str:
        return f"{self.series} {self.span}"


@attrs.frozen
class Instrument:
    """One entry of an exchange's listing.

    `listed_at` and `delisted_at` are UTC milliseconds, None where the exchange does not publish them.
    `settle` is the settlement currency of a contract, None for spot. Raises ValueError for a symbol without
    a letter and for a time that no calendar has.
    """

    symbol: str
    base: str
    quote: str
    settle: str | None = None
    listed_at: int | None = None
    delisted_at: int | None = None
    active: bool = True

    def __attrs_post_init__(self) -> None:
        if not self.symbol:
            raise ValueError("an instrument has a symbol")
        for moment in (self.listed_at, self.delisted_at):
            if moment is not None and abs(moment) >= BEYOND:
                raise ValueError(f"{self.symbol} begins or ends at {moment}, which is no time")

    @property
    def unified(self) -> str:
        """The field's common spelling.

        >>> Instrument("BTCUSDT", "BTC", "USDT", "USDT").unified
        'BTC/USDT:USDT'
        """
        pair = f"{self.base}/{self.quote}"
        return f"{pair}:{self.settle}" if self.settle else pair


@attrs.frozen
class Composite:
    """A derived symbol: mean of its members' prices and sum of their volumes, where all have the candle."""

    symbol: str
    members: tuple[str, ...]
