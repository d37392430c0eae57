"""Datasets: what kinds of rows there are and which columns they have, the same for every exchange."""

from __future__ import annotations

import attrs

from marketfetch.errors import unknown

__all__ = ["Column", "Dataset", "datasets"]


@attrs.frozen
class Column:
    """One value of a row, held in memory as float64 with NaN for NULL.

    `integer` columns are stored as 64-bit integers; only `optional` columns may be NULL. `flag` columns,
    which tables have and stores have not, hold 1 for True and 0 for False.
    """

    name: str
    integer: bool = False
    optional: bool = False
    flag: bool = False

    @property
    def kind(self) -> type[bool | int | float]:
        """The Python type of its values."""
        if self.flag:
            return bool
        return int if self.integer else float


@attrs.frozen(cache_hash=True)
class Dataset:
    """A kind of market data: its name and its columns beside exchange, symbol, interval and open time.

    >>> Dataset.parse("premium_index").names
    ('open', 'high', 'low', 'close')
    """

    name: str
    columns: tuple[Column, ...]
    event: bool = False
    """Whether its rows come when something happens (funding) and not on a grid of open times."""
    names: tuple[str, ...] = attrs.field(
        default=attrs.Factory(lambda self: tuple(column.name for column in self.columns), takes_self=True),
        init=False,
        eq=False,
        repr=False,
    )
    """Names of the columns, in order."""

    @property
    def kinds(self) -> dict[str, type]:
        """The Python type of each column, by name."""
        return {column.name: column.kind for column in self.columns}

    @classmethod
    def parse(cls, text: object) -> Dataset:
        """Return the dataset with a name; ConfigurationError, with near matches, for an unknown name."""
        if isinstance(text, Dataset):
            return text
        known = datasets()
        if not isinstance(text, str) or text not in known:
            raise unknown("dataset", text, known)
        return known[text]

    def index(self, name: str) -> int:
        """Return the position of a column; ConfigurationError, with near matches, if there is none."""
        try:
            return self.names.index(name)
        except ValueError:
            raise unknown(f"column of {self.name}", name, self.names) from None

    def __str__(self) -> str:
        return self.name


def datasets() -> dict[str, Dataset]:
    """Return every dataset by name, in a new dictionary that the caller may change.

    >>> sorted(datasets())[:3]
    ['funding_rate', 'index_price', 'long_short_ratio']
    """
    price = tuple(map(Column, ("open", "high", "low", "close")))
    # Some exchanges do not publish turnover, trades and the taker side: their rows have NULL there.
    flow = (
        Column("volume"),
        Column("quote_volume", optional=True),
        Column("trades", integer=True, optional=True),
        Column("taker_buy_volume", optional=True),
        Column("taker_buy_quote_volume", optional=True),
    )
    # A `Special` funding event (a dividend adjustment) may have the same time as the regular one. It has a
    # column of its own, so that one moment is one row.
    funding = (
        Column("funding_rate", optional=True),
        Column("mark_price", optional=True),
        Column("special_funding_rate", optional=True),
    )
    known = (
        Dataset("ohlcv", price + flow),
        Dataset("premium_index", price),
        Dataset("mark_price", price),
        Dataset("index_price", price),
        Dataset("funding_rate", funding, event=True),
        Dataset("open_interest", (Column("open_interest"), Column("open_interest_value", optional=True))),
        Dataset(
            "long_short_ratio",
            (Column("long_short_ratio"), Column("long_account"), Column("short_account")),
        ),
        # Where nothing was sold there is no ratio.
        Dataset(
            "taker_volume",
            (Column("buy_volume"), Column("sell_volume"), Column("buy_sell_ratio", optional=True)),
        ),
    )
    return {dataset.name: dataset for dataset in known}
