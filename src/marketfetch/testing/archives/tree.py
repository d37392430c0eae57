"""The directories of an archive: which files markets can fill, in the order of a listing."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import attrs

from marketfetch.testing.archives.csv_text import has_rows
from marketfetch.testing.archives.paths import (
    CANDLES,
    CHECKSUM,
    DATA_TYPES,
    GRAINS,
    SECTIONS,
    ArchivePath,
    archived_intervals,
    data_types,
)
from marketfetch.testing.markets.coin_margined import CoinMarginedMarket
from marketfetch.testing.markets.market import Market, MarketInstrument
from marketfetch.values.intervals import EVENT
from marketfetch.values.spans import Span

__all__ = ["ArchiveSource", "ArchiveTree"]

_PERPETUAL = "_PERP"
_OF_DATED = {"klines", "markPriceKlines"}
"""The types of files that coin-margined contracts with an expiry have, such as BTCUSD_260626."""


@attrs.frozen
class ArchiveSource:
    """A market, and its instrument whose rows are in the files of a symbol."""

    market: Market
    instrument: MarketInstrument

    def has_rows(self, path: ArchivePath) -> bool:
        """Whether the market has rows for a file."""
        return has_rows(self.market, self.instrument.symbol, path)


class ArchiveTree:
    """All files that markets fill, published or not.

    The coin-margined section has the instruments that settle in their base, and its candles count contracts;
    the other sections have the rest. OKX's tree has a spot pair and a swap of each of the rest.
    If several markets have a symbol, its files have the rows of all of them, in the order of the markets. No
    file is older than `since` (UTC ms).

    >>> from marketfetch.testing import GeneratedMarket
    >>> tree = ArchiveTree([GeneratedMarket(["BTCUSDT"])])
    >>> next(tree.paths("data/futures/um/monthly/funding", "", 1_590_000_000_000)).name
    'BTCUSDT-fundingRate-2020-01.zip'
    """

    def __init__(self, markets: Sequence[Market], since: int = 0) -> None:
        self._markets = markets
        self._since = since
        self._filled: dict[str, bool] = {}

    def sources(self, path: ArchivePath) -> tuple[ArchiveSource, ...]:
        """Return where the rows of a file come from; empty if no market has its symbol."""
        return self._sources[path.section, path.type].get(path.symbol, ())

    def has_rows(self, path: ArchivePath) -> bool:
        """Whether a market has rows for a file. The answer is remembered."""
        key = path.key
        if key not in self._filled:
            exists = path.span.end > self._since
            self._filled[key] = exists and any(source.has_rows(path) for source in self.sources(path))
        return self._filled[key]

    def neighbour(self, path: ArchivePath) -> ArchivePath:
        """Return the same file of the next symbol that has rows for it; the file itself if there is none."""
        symbols = sorted(self._sources[path.section, path.type])
        behind = symbols.index(path.symbol) + 1
        others = (attrs.evolve(path, symbol=symbol) for symbol in symbols[behind:] + symbols[:behind])
        return next(other for other in others if self.has_rows(other))

    def paths(self, prefix: str, after: str, now: int) -> Iterator[ArchivePath]:
        """Yield the files whose days or months began before `now` (UTC ms), in the byte order of their keys.

        The files cover all keys with the prefix behind `after`; some files more may come.
        """
        names, directories = self._directories
        start = max(prefix, after)
        first = bisect_right(names, start)
        if first and start.startswith(names[first - 1]):
            first -= 1
        for place in range(first, len(names)):
            if not names[place].startswith(prefix) and not prefix.startswith(names[place]):
                return
            for path in self._files(directories[place], now):
                # The key of the digest file follows that of the zip file.
                if path.key + CHECKSUM > start:
                    yield path

    def _files(self, directory: ArchivePath, now: int) -> Iterator[ArchivePath]:
        grain = GRAINS[directory.grain]
        starts: set[int] = set()
        for source in self.sources(directory):
            life = source.instrument
            first, end = grain.floor(max(life.listed_at, self._since)), min(now, life.delisted_at or now)
            if first < end:
                starts.update(grain.grid(Span(first, end)).tolist())
        for start in sorted(starts):
            yield attrs.evolve(directory, start=start)

    @cached_property
    def _directories(self) -> tuple[list[str], list[ArchivePath]]:
        """The names of all directories of files, in byte order, and for each the path of a file in it."""
        found = [
            ArchivePath(section, grain, kind, symbol, interval, 0)
            for section in SECTIONS
            for grain in GRAINS
            for kind in data_types(section, grain)
            for symbol in self._sources[section, kind]
            for interval in (archived_intervals(section, grain) if kind in CANDLES else (EVENT,))
        ]
        found.sort(key=lambda path: path.directory)
        return [path.directory for path in found], found

    @cached_property
    def _sources(self) -> Mapping[tuple[str, str], Mapping[str, tuple[ArchiveSource, ...]]]:
        """The sources of each symbol, by section and type."""
        binance = {
            (section, kind): self._symbols(section, kind) for section in SECTIONS for kind in DATA_TYPES
        }
        return {**binance, ("okx", "candlesticks"): self._okx_symbols()}

    def _okx_symbols(self) -> Mapping[str, tuple[ArchiveSource, ...]]:
        found: defaultdict[str, tuple[ArchiveSource, ...]] = defaultdict(tuple)
        for market in self._markets:
            for instrument in market.instruments.values():
                if not instrument.coin_margined:
                    for kind in ("", "-SWAP"):
                        name = f"{instrument.base}-{instrument.quote}{kind}"
                        found[name] += (ArchiveSource(market, instrument),)
        return found

    def _symbols(self, section: str, kind: str) -> Mapping[str, tuple[ArchiveSource, ...]]:
        found: defaultdict[str, tuple[ArchiveSource, ...]] = defaultdict(tuple)
        for market in self._markets:
            for symbol, instrument in market.instruments.items():
                coin_margined = instrument.settle == instrument.base
                if coin_margined != (section == "futures/cm"):
                    continue
                if coin_margined and kind not in _OF_DATED and not symbol.endswith(_PERPETUAL):
                    continue
                # The index of a coin-margined contract is that of its pair: BTCUSD, not BTCUSD_PERP.
                of_pair = coin_margined and kind == "indexPriceKlines"
                name = symbol.removesuffix(_PERPETUAL) if of_pair else symbol
                shown = CoinMarginedMarket(market) if coin_margined else market
                found[name] += (ArchiveSource(shown, instrument),)
        return found
