"""The mapping of datasets onto a table of the user's: columns, unit of time, names of symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from uuid import UUID

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, RowsRefused, unknown
from marketfetch.redaction import redact
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series

__all__ = ["Name", "StripQuote", "TableMapping", "identity", "mapping_or_none", "without_quote"]

Name = str | int | UUID
"""The value of a key column for a symbol, an exchange or an interval."""


def identity(symbol: str) -> str:
    """Return the symbol as the exchange spells it."""
    return symbol


@attrs.frozen
class StripQuote:
    """Cuts the quote currency off a symbol; see `without_quote`."""

    quote: str

    def __attrs_post_init__(self) -> None:
        if not is_text(self.quote):
            raise ConfigurationError(
                f"quote: {self.quote!r} is not a currency; write one as text, such as 'USDT'"
            )

    def __call__(self, symbol: str) -> str:
        """Return the symbol without the quote, or as it is: `USDT` itself, or a symbol of another quote."""
        return symbol.removesuffix(self.quote) or symbol


def without_quote(quote: str) -> StripQuote:
    """Make a function that cuts a quote currency off symbols, and returns other symbols as they are.

    >>> rename = without_quote("USDT")
    >>> rename("BTCUSDT"), rename("MT")
    ('BTC', 'MT')
    """
    return StripQuote(quote)


def _check_name(argument: str, name: object) -> None:
    if not is_text(name):
        found = "the name is empty" if isinstance(name, str) else f"{redact(repr(name))} is not a name"
        raise ConfigurationError(f"{argument}: {found}; write that of a table or column, as text")


def mapping_or_none(_sink: object, _argument: attrs.Attribute[TableMapping | None], value: object) -> None:
    """Validate the argument `table` of a sink: ConfigurationError for anything but a mapping or None."""
    if value is not None and not isinstance(value, TableMapping):
        raise ConfigurationError(
            f"table: {redact(repr(value))} is not a mapping; "
            "write TableMapping('candles', time=..., symbol=..., columns=...)"
        )


@attrs.frozen
class TableMapping:
    """Maps datasets onto one table of the user's; several datasets may share its rows.

    `table` may name its schema (`market.candles`). `time`, `symbol` and, where the table has them,
    `exchange` and `interval` are the columns of its primary key or of a unique index. `columns` names, for
    each column of a dataset, the column of the table; columns left out are not stored. An integer `time`
    column counts `time_unit` since the epoch; a timestamp column needs no unit. `rename_symbol` gives the
    table's spelling of a symbol, or its number or UUID where the table has those.

    A value that a column would round, such as 0.00000000123 in a numeric(18,8), is refused, and with it its
    series; with `rounding="allow"` the column rounds it.

    Raises ConfigurationError for a dataset or a column that does not exist, and for a column of the table
    that is named twice.

    >>> candles = TableMapping(
    ...     "candles",
    ...     time="ts",
    ...     symbol="symbol",
    ...     columns={"ohlcv": {"open": "o", "close": "c"}, "premium_index": {"close": "pfr"}},
    ...     rename_symbol=without_quote("USDT"),
    ... )
    >>> candles.key_values(Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m"))
    {'symbol': 'BTC'}
    >>> candles.of(Dataset.parse("premium_index"))
    {'close': 'pfr'}
    """

    table: str
    time: str = attrs.field(kw_only=True)
    symbol: str = attrs.field(kw_only=True)
    columns: Mapping[str, Mapping[str, str]] = attrs.field(kw_only=True)
    exchange: str | None = attrs.field(default=None, kw_only=True)
    interval: str | None = attrs.field(default=None, kw_only=True)
    time_unit: Literal["ms", "s"] = attrs.field(default="ms", kw_only=True)
    rename_symbol: Callable[[str], str | int | UUID] = attrs.field(default=identity, kw_only=True)
    rounding: Literal["refuse", "allow"] = attrs.field(default="refuse", kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._check_kinds()
        if not self.columns:
            raise ConfigurationError(
                f"columns: nothing is mapped onto {self.table}; name at least one dataset"
            )
        taken = list(self.key)
        for name, columns in self.columns.items():
            dataset = Dataset.parse(name)
            if not isinstance(columns, Mapping):
                raise ConfigurationError(
                    f"columns: {type(columns).__name__} of {name} is not a mapping; "
                    f"write {{'{name}': {{'{dataset.names[0]}': 'a column'}}}}"
                )
            if not columns:
                raise ConfigurationError(
                    f"columns: no column of {name} is mapped; name one or leave {name} out"
                )
            for column in columns:
                dataset.index(column)
            for column, theirs in columns.items():
                _check_name(f"columns[{name!r}][{column!r}]", theirs)
            taken += columns.values()
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"columns: {', '.join(twice)} of {self.table} is named more than once; "
                "give every value a column of its own"
            )

    def _check_kinds(self) -> None:
        """Raise ConfigurationError for an argument of the wrong type."""
        for argument in ("table", "time", "symbol", "exchange", "interval"):
            name = getattr(self, argument)
            if name is not None or argument in {"table", "time", "symbol"}:
                _check_name(argument, name)
        for argument, choices in (("time_unit", ("ms", "s")), ("rounding", ("refuse", "allow"))):
            word = getattr(self, argument)
            if not isinstance(word, str) or word not in choices:
                choose = " or ".join(map(repr, choices))
                raise ConfigurationError(f"{argument}: {redact(repr(word))} is unknown; choose {choose}")
        if not callable(self.rename_symbol):
            raise ConfigurationError(
                f"rename_symbol: {type(self.rename_symbol).__name__} is not a function; write one that "
                "returns the table's name of a symbol, such as {'BTCUSDT': 'BTC'}.__getitem__"
            )
        if not isinstance(self.columns, Mapping):
            raise ConfigurationError(
                f"columns: {type(self.columns).__name__} is not a mapping; "
                "write {'ohlcv': {'close': 'a column'}}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The key columns that name a series: symbol and, where mapped, exchange and interval."""
        names = (self.symbol, self.exchange, self.interval)
        return tuple(name for name in names if name is not None)

    @property
    def key(self) -> tuple[str, ...]:
        """All key columns: time and `labels`."""
        return self.time, *self.labels

    def of(self, dataset: Dataset) -> dict[str, str]:
        """Return the table's column for each mapped column of a dataset, in the dataset's order.

        Raises ConfigurationError if the dataset is not mapped.
        """
        try:
            columns = self.columns[dataset.name]
        except KeyError:
            raise unknown(f"dataset for table {self.table}", dataset.name, self.columns) from None
        return {name: columns[name] for name in dataset.names if name in columns}

    def key_values(self, series: Series) -> dict[str, Name]:
        """Return the values of the key columns other than time, which are the same in all rows of a series.

        Raises RowsRefused for a symbol that `rename_symbol` does not know.
        """
        try:
            name = self.rename_symbol(series.symbol)
        except LookupError:
            raise RowsRefused(
                f"rename_symbol: has nothing for {series.symbol!r}; have it return a name for this symbol, "
                "or leave the symbol out"
            ) from None
        values: dict[str, Name] = {self.symbol: name}
        if self.exchange is not None:
            values[self.exchange] = series.exchange
        if self.interval is not None:
            values[self.interval] = series.interval.name
        return values

    def stored_times(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn UTC milliseconds into the values of an integer time column.

        Raises RowsRefused for a time that the unit cannot express.
        """
        if self.time_unit == "ms":
            return times
        if np.any(times % 1000):
            raise RowsRefused(
                f"{self.table}.{self.time} counts seconds and cannot hold every time of this dataset; "
                "use a column in milliseconds (time_unit='ms') or a timestamp"
            )
        return times // 1000

    def bound(self, ms: int) -> int:
        """Turn a moment into a value of an integer time column, rounded up."""
        return ms if self.time_unit == "ms" else -(-ms // 1000)

    def times(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn the values of an integer time column into UTC milliseconds."""
        return stored if self.time_unit == "ms" else stored * 1000

    def refuse_collisions(
        self, series: Iterable[Series], folded: Mapping[str, Mapping[Name, Name]] | None = None
    ) -> None:
        """Check that no two of the series would write the same columns of the same rows.

        `folded` has, for a column that takes different names for equal, the first of the equal names for each
        name. Example: a column that ignores case has BTCUSDT for btcusdt.

        Raises ConfigurationError naming the two: one would overwrite the other, as 1m and 1h candles do
        in a table without an interval column.
        """
        first_equal = folded or {}
        seen: dict[tuple[Name, ...], Series] = {}
        for one in series:
            try:
                labels = self.key_values(one).items()
            except RowsRefused:
                continue  # no row of it can be written
            key = (
                one.dataset.name,
                *(first_equal.get(column, {}).get(name, name) for column, name in labels),
            )
            other = seen.setdefault(key, one)
            if other != one:
                raise ConfigurationError(
                    f"{other} and {one} would share rows of {self.table}; "
                    "map the column that tells them apart (exchange=, interval=), or use another table"
                )
