"""Which symbols are meant: the exchange's listing against what the caller wrote. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import attrs

from marketfetch.engine.query import Everything
from marketfetch.values.series import Instrument

__all__ = ["Listing"]


@attrs.frozen(eq=False)
class Listing:
    """The symbols of an exchange; an empty listing knows nothing and believes every name.

    >>> listing = Listing.of([Instrument("BTCUSDT", "BTC", "USDT", "USDT")])
    >>> listing.find("BTC/USDT").symbol
    'BTCUSDT'
    >>> listing.hint("BTCUSD")
    "unknown symbol; did you mean 'BTCUSDT'?"
    """

    by_symbol: Mapping[str, Instrument]
    by_unified: Mapping[str, tuple[Instrument, ...]]

    @classmethod
    def of(cls, instruments: Iterable[Instrument]) -> Listing:
        """Index a listing by the exchange's spelling and by the unified one, with and without settlement."""
        by_symbol = {instrument.symbol: instrument for instrument in instruments}
        unified: dict[str, tuple[Instrument, ...]] = {}
        for instrument in by_symbol.values():
            for name in {instrument.unified, instrument.unified.partition(":")[0]}:
                unified[name] = (*unified.get(name, ()), instrument)
        return cls(by_symbol, unified)

    def find(self, name: str) -> Instrument | None:
        """Return the instrument that a name means; None if it is unknown or ambiguous."""
        if not self.by_symbol:
            return Instrument(name, "", "")
        if name in self.by_symbol:
            return self.by_symbol[name]
        candidates = self.by_unified.get(name, ())
        # Dated contracts share a pair with the perpetual one, which has no end and is what is meant.
        endless = [candidate for candidate in candidates if candidate.delisted_at is None]
        return endless[0] if len(endless) == 1 else None

    def hint(self, name: str) -> str:
        """Say what could be meant by a name that `find` does not know."""
        if candidates := self.by_unified.get(name):
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

    def all(self, wanted: Everything) -> list[str]:
        """Return every symbol that trades now, of one quote currency if asked."""
        return [
            instrument.symbol
            for instrument in self.by_symbol.values()
            if instrument.active and wanted.quote in {None, instrument.quote}
        ]
