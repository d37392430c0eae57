"""The market of a simulated exchange: its instruments and the rows of every series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Market", "MarketInstrument", "MarketRows", "Window"]

_FAR_FUTURE = 4_133_404_800_000
"""2100-01-01, which exchanges use for "never"."""
_QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "EUR", "USD", "BTC", "ETH", "BNB")


@attrs.frozen
class MarketInstrument:
    """One tradable instrument. Times are UTC milliseconds; `delisted_at` is None while it trades."""

    symbol: str
    base: str
    quote: str
    settle: str
    listed_at: int
    delisted_at: int | None = None

    @classmethod
    def parse(cls, symbol: str, listed_at: int, delisted_at: int | None = None) -> MarketInstrument:
        """Return the instrument of a symbol such as `BTCUSDT`, settled in its quote currency.

        A contract in US dollars, such as `BTCUSD_PERP` or `BTCUSD_260626`, is settled in its base coin.

        >>> MarketInstrument.parse("1000SHIBUSDT", 0).base, MarketInstrument.parse("BTCUSD_PERP", 0).settle
        ('1000SHIB', 'BTC')
        """
        pair, _, contract = symbol.partition("_")
        for quote in _QUOTES:
            base = pair.removesuffix(quote)
            if base and base != pair:
                settle = base if contract and quote == "USD" else quote
                return cls(symbol, base, quote, settle, listed_at, delisted_at)
        raise ValueError(f"cannot tell base from quote in {symbol!r}: give an Instrument instead")

    @property
    def coin_margined(self) -> bool:
        """Whether it is a contract that is settled in its base coin."""
        return self.settle == self.base

    def trades_at(self, now: int) -> bool:
        """Whether the instrument is listed and not yet delisted at `now`."""
        return self.listed_at <= now < (self.delisted_at or _FAR_FUTURE)

    def existing(self, interval: Interval, gaps: Iterable[Span] = ()) -> SpanSet:
        """Return the span of candles from listing to delisting, without candles wholly inside a gap."""
        life = Span(interval.floor(self.listed_at), self.delisted_at or _FAR_FUTURE)
        lost = ((interval.ceil(gap.start), interval.floor(gap.end)) for gap in gaps)
        return SpanSet.of(life) - SpanSet.of(*(Span(start, end) for start, end in lost if start < end))


@attrs.frozen
class Window:
    """The requested rows: times in `[start, end)`, at most `limit` of them.

    If the window has more rows than `limit`, `newest` selects the newest ones instead of the oldest. A window
    whose end is not after its start is empty.
    """

    start: int
    end: int
    limit: int | None = None
    newest: bool = False

    def cut(self, times: NDArray[np.int64]) -> slice:
        """Return the slice of sorted times that the window selects."""
        first, last = (int(i) for i in np.searchsorted(times, (self.start, self.end)))
        last = max(first, last)
        if self.limit is None:
            return slice(first, last)
        return (
            slice(max(first, last - self.limit), last)
            if self.newest
            else slice(first, min(last, first + self.limit))
        )

    def opens(self, interval: Interval, existing: SpanSet) -> NDArray[np.int64]:
        """Return the open times of the candles that the window selects from the existing spans."""
        if self.start >= self.end:
            return np.empty(0, np.int64)
        spans = (existing & SpanSet.of(Span(self.start, self.end))).spans
        parts: list[NDArray[np.int64]] = []
        left = self.limit
        for span in reversed(spans) if self.newest else spans:
            start, end = interval.ceil(span.start), interval.ceil(span.end)
            if left is not None:
                if self.newest:
                    start = max(start, interval.shift(end, -left))
                else:
                    end = min(end, interval.shift(start, left))
            if start < end:
                parts.append(interval.grid(Span(start, end)))
                left = None if left is None else left - len(parts[-1])
            if left == 0:
                break
        return np.concatenate(parts[::-1] if self.newest else parts) if parts else np.empty(0, np.int64)


@attrs.frozen(eq=False)
class MarketRows:
    """Rows of one series: sorted times (UTC ms, shape (n,)) and the columns of their values."""

    times: NDArray[np.int64]
    columns: Mapping[str, RenderedColumn]

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: slice | NDArray[np.int64]) -> MarketRows:
        """Return the given rows, in the given order."""
        return MarketRows(
            self.times[rows], {name: column.take(rows) for name, column in self.columns.items()}
        )

    def newest_first(self) -> MarketRows:
        """Return the same rows in reverse order."""
        return self.take(slice(None, None, -1))

    def floats(self) -> dict[str, NDArray[np.float64]]:
        """Return every column as `float(text)` reads it: the expected values for tests."""
        return {name: column.floats() for name, column in self.columns.items()}

    def unfinished(self) -> MarketRows:
        """Return the table as it was while its last candle was forming: fewer trades and a smaller range.

        The last row is a valid candle with the same open, but its other values differ from the final ones.
        """
        known = dict(self.columns)
        still = {"high": "open", "low": "open", "close": "open"}
        if "volume" in known:
            still |= {"volume": "taker_buy_volume", "quote_volume": "taker_buy_quote_volume"}
        columns = {
            name: column.with_last_value_of(known[still.get(name, name)]) for name, column in known.items()
        }
        if isinstance(trades := known.get("trades"), FixedPointColumn) and not columns["volume"].floats()[-1]:
            columns["trades"] = FixedPointColumn(np.append(trades.values[:-1], 0))
        return MarketRows(self.times, columns)


class Market(Protocol):
    """The source of a simulated exchange's rows. It is stateless: the same call returns the same rows."""

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        """Every instrument by its symbol."""
        ...

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        """Return the rows of a series inside a window, oldest first, all with their final values.

        Candles (`ohlcv`, `premium_index`, `mark_price`, `index_price`) and statistics (`open_interest`,
        `long_short_ratio`, `top_account_ratio`, `top_position_ratio`, `taker_volume`) are on the grid of
        `interval`; `funding_rate` is an event dataset and ignores it. KeyError for an unknown symbol.
        """
        ...
