"""Find the symbols that a caller means in the exchange's listing. Pure."""

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
    """The symbols of an exchange; an empty listing takes every name as it is written.

    >>> listing = InstrumentIndex.of([Instrument("BTCUSDT", "BTC", "USDT", "USDT")])
    >>> listing.find("BTC/USDT").symbol
    'BTCUSDT'
    >>> listing.hint("BTCUSD")
    "unknown symbol; did you mean 'BTCUSDT'?"
    """

    by_symbol: Mapping[str, Instrument]
    by_unified: Mapping[str, tuple[Instrument, ...]]
    archived: frozenset[str] = frozenset()
    """The symbols of which the archive has files, listed or not; empty if nobody asked."""
    delisted: frozenset[str] = frozenset()
    """Those of them that the exchange does not list."""
    remark: str = ""
    """What to add to the hint about an unknown name."""

    @classmethod
    def of(cls, instruments: Iterable[Instrument]) -> InstrumentIndex:
        """Index a listing by exchange symbol and by unified name, with and without settlement currency."""
        by_symbol = {instrument.symbol: instrument for instrument in instruments}
        unified: dict[str, tuple[Instrument, ...]] = {}
        for instrument in by_symbol.values():
            for name in {each.upper() for each in _spellings(instrument)}:
                unified[name] = (*unified.get(name, ()), instrument)
        return cls(by_symbol, unified)

    def with_archived(self, symbols: Iterable[str], quote: str | None = None) -> InstrumentIndex:
        """Add the symbols of an archive; those that are not in the listing are delisted.

        What a symbol is made of is read by the quote currencies of the listing, and by `quote`: the shortest
        base before one of them. What follows the quote currency, such as `_240628` or `SETTLED`, is left out.
        A symbol that cannot be read so has no quote currency. A unified name means a listed symbol if it can.

        >>> listing = InstrumentIndex.of([Instrument("BTCUSDT", "BTC", "USDT", "USDT")])
        >>> listing.with_archived(["BTCUSDT", "LUNAUSDT_220624"]).find("LUNA/USDT:USDT")
        Instrument(symbol='LUNAUSDT_220624', base='LUNA', quote='USDT', settle='USDT', listed_at=None, \
delisted_at=None, active=False)
        """
        if not self.by_symbol:
            return self
        archived = frozenset(symbols)
        delisted = sorted(archived - self.by_symbol.keys())
        quotes = self.quotes | ({quote} if quote else set())
        like = next(iter(self.by_symbol.values()))
        added = InstrumentIndex.of(_delisted_instrument(symbol, quotes, like) for symbol in delisted)
        return attrs.evolve(
            self,
            by_symbol={**self.by_symbol, **added.by_symbol},
            by_unified={**added.by_unified, **self.by_unified},
            archived=archived,
            delisted=frozenset(delisted),
        )

    def find(self, name: str) -> Instrument | None:
        """Return the instrument of a name; None if the name is unknown or ambiguous.

        A unified name may be in lower case, and may end with the last day of a dated contract, as in
        `BTC/USDT:USDT-260925`. An exchange symbol must be exact: two symbols may differ in case only.
        """
        if not self.by_symbol:
            return Instrument(name, "", "")
        if name in self.by_symbol:
            return self.by_symbol[name]
        candidates = self._unified(name)
        if len(candidates) == 1 and _DATED.search(name):
            return candidates[0]
        # Dated contracts share a pair with the perpetual contract; without a date, the latter is meant.
        perpetual = [candidate for candidate in candidates if candidate.delisted_at is None]
        # A delisted pair of spot has a last day, too, and is no dated contract.
        meant = perpetual or [candidate for candidate in candidates if candidate.kind == "spot"]
        return meant[0] if len(meant) == 1 else None

    def _unified(self, name: str) -> tuple[Instrument, ...]:
        """Return the candidates for a unified name; those of the same case alone if there are any."""
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
        """Suggest symbols for a name that `find` does not know."""
        if candidates := self._unified(name):
            choices = " or ".join(repr(candidate.symbol) for candidate in candidates)
            problem = "ambiguous symbol" if len(candidates) > 1 else "a contract with a last day"
            return f"{problem}; write {choices}"
        letters = _letters(name)
        same = [symbol for symbol in self.by_symbol if _letters(symbol) == letters]
        near = same or get_close_matches(name.upper(), self.by_symbol, n=3, cutoff=0.6)
        choices = " or ".join(map(repr, near))
        advice = f"did you mean {choices}?" if near else "mf.instruments and `marketfetch symbols` list all"
        return f"unknown symbol; {advice}{self.remark}"

    @property
    def quotes(self) -> set[str]:
        """The quote currencies of all symbols."""
        return {instrument.quote for instrument in self.by_symbol.values()}

    def all(self, wanted: AllSymbols) -> list[str]:
        """Return every symbol that is traded now or, if wanted, has files; of one quote and kind or all."""
        former = self.archived if wanted.delisted else frozenset()
        return [
            instrument.symbol
            for instrument in self.by_symbol.values()
            if (instrument.active or instrument.symbol in former)
            and wanted.quote in {None, instrument.quote}
            and wanted.kind in {None, _kind(instrument)}
        ]


def _delisted_instrument(symbol: str, quotes: Iterable[str], like: Instrument) -> Instrument:
    """Return an instrument by its symbol; it is settled as `like` is: in its base, its quote, or not."""
    longest_first = "|".join(re.escape(quote) for quote in sorted(quotes, key=len, reverse=True) if quote)
    found = (
        re.fullmatch(rf"(.+?)[-_]?({longest_first})(?:[-_].*|SETTLED.*)?", symbol) if longest_first else None
    )
    if found is None:
        return Instrument(symbol, symbol, "", active=False)
    base, quote = found.groups()
    contract = base if like.settle == like.base else quote
    return Instrument(symbol, base, quote, contract if like.settle else None, active=False)


def _kind(instrument: Instrument) -> str:
    """Return the kind; of a contract that is only in the archive, the last day is at the end of its name.

    >>> _kind(Instrument("LUNAUSDT_220624", "LUNA", "USDT", "USDT", active=False))
    'future'
    """
    return "future" if re.search(r"[-_]\d{6}$", instrument.symbol) else instrument.kind


def _spellings(instrument: Instrument) -> tuple[str, str]:
    """Return the unified name with and without settlement."""
    return instrument.unified, instrument.unified.partition(":")[0]


def _letters(name: str) -> str:
    """Return what is left of a name without case and separators.

    >>> _letters("btc-usdt_swap")
    'BTCUSDTSWAP'
    """
    return re.sub(r"[\W_]", "", name).upper()


def _day(ms: int) -> str:
    """Format the day of a time as ccxt does.

    >>> _day(1_790_323_200_000)
    '260925'
    """
    return format_utc(ms)[2:10].replace("-", "")
