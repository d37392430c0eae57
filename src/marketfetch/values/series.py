"""What is asked for and what is fetched: Series, Query, Slice, and the exchange's own listing."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketfetch.common.name_lists import names_of
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet

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
    """What is known of a series: for each moment one of four verdicts.

    | verdict | `covered` | `empty` | `unusable` | meaning |
    |---|---|---|---|---|
    | missing | no | no | no | nothing is known yet |
    | confirmed empty | yes | yes | no | the exchange has no row there |
    | unusable | yes | no | yes | the exchange has a row there, and the row is wrong |
    | present | yes | no | no | a row is stored |

    Two coverages unite moment by moment, and the verdict that stands lower in the table wins: a stored row
    beats a wrong one, and a wrong row beats the claim that there is none.

    >>> both, first, last = Span(0, 20), Span(0, 10), Span(10, 20)
    >>> known = Coverage(SpanSet.of(both), empty=SpanSet.of(first), unusable=SpanSet.of(last))
    >>> (known | Coverage(SpanSet.of(last))).present
    SpanSet(spans=(Span(start=10, end=20),))
    """

    covered: SpanSet = attrs.field(factory=SpanSet)
    empty: SpanSet = attrs.field(factory=SpanSet)
    unusable: SpanSet = attrs.field(factory=SpanSet)

    @property
    def present(self) -> SpanSet:
        """The moments for which rows are stored."""
        return self.covered - self.empty - self.unusable

    def missing(self, wanted: Span) -> SpanSet:
        """The part of a wanted span about which nothing is known yet."""
        return SpanSet.of(wanted) - self.covered

    def within(self, span: Span) -> Coverage:
        """Return what is known inside a span."""
        inside = SpanSet.of(span)
        return Coverage(self.covered & inside, self.empty & inside, self.unusable & inside)

    def without(self, spans: SpanSet) -> Coverage:
        """Return what is left when the moments of `spans` are forgotten."""
        return Coverage(self.covered - spans, self.empty - spans, self.unusable - spans)

    def __or__(self, other: Coverage) -> Coverage:
        """Unite what two observers know; see the class for which verdict wins."""
        covered = self.covered | other.covered
        if not (self.empty or other.empty or self.unusable or other.unusable):
            return Coverage(covered)
        present = self.present | other.present
        unusable = (self.unusable | other.unusable) - present
        empty = (self.empty | other.empty) - present - unusable
        return Coverage(covered, empty, unusable)


@attrs.frozen
class Slice:
    """A part of a series still to fetch, sized to one request where the endpoint allows.

    `absent_once` are the moments of it that the exchange has already answered once without a row: absence is
    believed when it is said twice. `bad_answers` counts answers that were unusable for reasons of content, and
    `invalid_rows` are the wrong rows that all of those answers had. `chunk` names the batch that the rows will be
    gathered into.
    """

    series: Series
    span: Span
    rows: int
    """How many rows the request should ask for at most."""
    absent_once: SpanSet = attrs.field(factory=SpanSet)
    bad_answers: int = 0
    chunk: int = 0
    cursor: str | None = None
    """An opaque page token, for endpoints that page by token."""
    invalid_rows: tuple[RejectedRow, ...] = attrs.field(default=(), repr=False)

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
            if moment is not None and abs(moment) >= MAX_TIMESTAMP:
                raise ValueError(f"{self.symbol} begins or ends at {moment}, which is no time")

    @property
    def unified(self) -> str:
        """The field's common spelling.

        >>> Instrument("BTCUSDT", "BTC", "USDT", "USDT").unified
        'BTC/USDT:USDT'
        """
        pair = f"{self.base}/{self.quote}"
        return f"{pair}:{self.settle}" if self.settle else pair


def _members(given: object) -> tuple[str, ...]:
    """Return the members of a composite; one text may name several, and its letters are none."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return names_of("members", given)
    members = tuple(given)
    for name in members:
        names_of("members", [name])
    return members


def _named(_composite: object, _argument: attrs.Attribute[str], value: object) -> None:
    names_of("symbol", [value])


@attrs.frozen
class Composite:
    """A derived symbol: mean of its members' prices and sum of their volumes, where all have the candle."""

    symbol: str = attrs.field(validator=_named)
    members: tuple[str, ...] = attrs.field(converter=_members)
