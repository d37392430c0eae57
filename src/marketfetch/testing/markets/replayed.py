"""A market that serves recorded candles, character by character."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, TextColumn
from marketfetch.testing.markets.generated import GeneratedMarket
from marketfetch.testing.markets.market import MarketInstrument, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["ReplayedMarket"]

_FILE = re.compile(r"(?P<symbol>.+)-(?P<interval>\d+[mhdwM])-\d{4}-\d{2}(-\d{2})?\.csv(\.gz)?")
_DECIMALS = {
    "open": 1,
    "high": 2,
    "low": 3,
    "close": 4,
    "volume": 5,
    "quote_volume": 7,
    "taker_buy_volume": 9,
    "taker_buy_quote_volume": 10,
}
_TRADES = 8
_FIELDS = 12
_Key = tuple[str, str, str]


@attrs.frozen(eq=False)
class ReplayedMarket:
    """Recorded candles, served with their recorded text; all other series are generated.

    `recorded` holds tables by (dataset, symbol, interval name). A series without a recording (such as funding
    or another interval) comes from the generated market with the same instruments.
    """

    recorded: Mapping[_Key, MarketRows]
    generated: GeneratedMarket

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        symbols: Iterable[str] | None = None,
        seed: int = 0,
    ) -> Self:
        """Read `SYMBOL-1m-YYYY-MM.csv` or `.csv.gz` files: Binance's twelve kline fields, header or not.

        `symbols` selects the symbols to read, by default all. The first recorded candle is the listing date
        of an instrument. Raises ValueError if no file is found.
        """
        wanted = None if symbols is None else set(symbols)
        recorded: dict[_Key, MarketRows] = {
            ("ohlcv", symbol, interval): _table(rows)
            for (symbol, interval), rows in _read(Path(folder), wanted).items()
        }
        starts: dict[str, int] = {}
        for (_, symbol, _), table in recorded.items():
            starts[symbol] = min(starts.get(symbol, int(table.times[0])), int(table.times[0]))
        if not starts:
            raise ValueError(f"no kline files named like BTCUSDT-1m-2024-01.csv.gz in {folder}")
        return cls(
            recorded,
            GeneratedMarket((MarketInstrument.parse(*item) for item in sorted(starts.items())), seed),
        )

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return self.generated.instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        table = self.recorded.get((dataset, symbol, interval.name))
        if table is None:
            return self.generated.rows(dataset, symbol, interval, window)
        return table.take(window.cut(table.times))


def _read(folder: Path, wanted: set[str] | None) -> dict[tuple[str, str], list[bytes]]:
    """Return the lines of all files by symbol and interval."""
    lines: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        name = _FILE.fullmatch(path.name)
        if name is None or (wanted is not None and name["symbol"] not in wanted):
            continue
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        lines[name["symbol"], name["interval"]] += [line for line in text.split() if line[:1].isdigit()]
    return lines


def _table(lines: list[bytes]) -> MarketRows:
    fields = np.array(b",".join(lines).split(b",")).reshape(len(lines), _FIELDS)
    times: NDArray[np.int64] = fields[:, 0].astype(np.int64)
    order = np.unique(times, return_index=True)[1]
    fields = fields[order]
    columns: dict[str, RenderedColumn] = {
        name: TextColumn(_narrow(fields[:, at])) for name, at in _DECIMALS.items()
    }
    columns["trades"] = FixedPointColumn(fields[:, _TRADES].astype(np.int64))
    return MarketRows(times[order], columns)


def _narrow(texts: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    return texts.astype(f"S{int(np.char.str_len(texts).max())}")
