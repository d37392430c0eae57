"""Which symbols are meant: the exchange's listing against what the caller wrote. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import attrs

from marketfetch.values.instruments import Instrument
from marketfetch.values.query import AllSymbols
from marketfetch.values.spans import format_utc

__all__ = ["InstrumentIndex"]

_DATED = re.compile(r"-(?P<day>\d{6})$")


@attrs.frozen(eq=False)
class InstrumentIndex:
    """The symbols of an exchange; an empty listing knows nothing and believes every name.

    >>> listing = InstrumentIndex.of([Instrument("BTCUSDT", "BTC", "USDT", "USDT")])
    >>> listing.find("BTC/USDT").symbol
    'BTCUSDT'
    >>> listing.hint("BTCUSD")
    "unknown symbol; did you mean 'BTCUSDT'?"
    """

    by_symbol: Mapping[str, Instrument]
    by_unified: Mapping[str, tuple[Instrument, ...]]

    @classmethod
    def of(cls, instruments: Iterable[Instrument]) -> InstrumentIndex:
        """Index a listing by the exchange's spelling and by the unified one, with and without settlement."""
        by_symbol = {instrument.symbol: instrument for instrument in instruments}
        unified: dict[str, tuple[Instrument, ...]] = {}
        for instrument in by_symbol.values():
            for name in {each.upper() for each in _spellings(instrument)}:
                unified[name] = (*unified.get(name, ()), instrument)
        return cls(by_symbol, unified)

    def find(self, name: str) -> Instrument | None:
        """Return the instrument that a name means; None if it is unknown or ambiguous.

        Unified names are read in small letters, too, and a dated contract by the day on which it ends, as in
        `BTC/USDT:USDT-260925`. The exchange's own spelling has to be exact: it may tell two symbols apart.
        """
        if not self.by_symbol:
            return Instrument(name, "", "")
        if name in self.by_symbol:
            return self.by_symbol[name]
        candidates = self._unified(name)
        if len(candidates) == 1 and _DATED.search(name):
            return candidates[0]
        # Dated contracts share a pair with the perpetual one, which has no end and is what is meant.
        endless = [candidate for candidate in candidates if candidate.delisted_at is None]
        return endless[0] if len(endless) == 1 else None

    def _unified(self, name: str) -> tuple[Instrument, ...]:
        """Return what a unified name may mean; what is spelt exactly like it goes before what is not."""
        if "/" not in name:
            return ()
        pair, day = name, ""
        if dated := _DATED.search(name):
            pair, day = name[: dated.start()], dated["day"]
        alike = self.by_unified.get(pair.upper(), ())
        candidates = tuple(each for each in alike if pair in _spellings(each)) or alike
        return tuple(
            each for each in candidates if not day or (each.delisted_at and _day(each.delisted_at) == day)
        )

    def hint(self, name: str) -> str:
        """Say what could be meant by a name that `find` does not know."""
        if candidates := self._unified(name):
            choices = " or ".join(repr(candidate.symbol) for candidate in candidates)
            return f"ambiguous symbol; write {choices}"
        near = get_close_matches(name.upper(), self.by_symbol, n=3, cutoff=0.6)
        choices = " or ".join(map(repr, near))
        return (
            f"unknown symbol; did you mean {choices}?"
            if near
            else "unknown symbol; see the exchange's listing"
        )

    @property
    def quotes(self) -> set[str]:
        """The quote currencies there are."""
        return {instrument.quote for instrument in self.by_symbol.values()}

    def all(self, wanted: AllSymbols) -> list[str]:
        """Return every symbol that trades now, of one quote currency if asked."""
        return [
            instrument.symbol
            for instrument in self.by_symbol.values()
            if instrument.active and wanted.quote in {None, instrument.quote}
        ]


def _spellings(instrument: Instrument) -> tuple[str, str]:
    """Return the unified name with and without settlement."""
    return instrument.unified, instrument.unified.partition(":")[0]


def _day(ms: int) -> str:
    """Write the day of a moment as ccxt does.

    >>> _day(1_790_323_200_000)
    '260925'
    """
    return format_utc(ms)[2:10].replace("-", "")
