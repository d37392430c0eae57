"""Find the series of a store that a caller's spelling of a symbol means, without a listing. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Self

import attrs

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series

__all__ = ["Spelling", "series_meant", "symbol_meant"]

_PARTS = re.compile(
    r"(?P<pair>.+?)(?P<settle>:[^:-]*)?(?P<contract>[-_](?:SWAP|PERP))?(?:[-_](?P<day>\d{6}))?", re.IGNORECASE
)
_DIVIDERS = re.compile(r"[-_/]")


@attrs.frozen
class Spelling:
    """What a spelling of a symbol says: the pair, the last day of a dated contract, and whether it is one.

    `contract` is True for a spelling that only contracts have; other spellings may mean a contract, too.

    >>> Spelling.of("BTC/USDT:USDT") == Spelling.of("btc-usdt-swap")
    True
    >>> Spelling.of("BTCUSDT_260925")
    Spelling(pair='BTCUSDT', day='260925', contract=True)
    """

    pair: str
    day: str
    contract: bool

    @classmethod
    def of(cls, name: str) -> Self:
        """Read a symbol of an exchange or a unified name; the case does not matter."""
        found = _PARTS.fullmatch(name)
        if found is None:
            return cls(name, "", contract=False)
        pair, day = _DIVIDERS.sub("", found["pair"]).upper(), found["day"] or ""
        return cls(pair, day, contract=bool(found["settle"] or found["contract"] or day))

    @property
    def meaning(self) -> tuple[str, str]:
        """What two spellings of one symbol have in common: pair and day."""
        return self.pair, self.day


@attrs.frozen(eq=False)
class _SymbolIndex:
    """The series of a store by symbol, and by the pair and the date that their symbols say."""

    by_symbol: Mapping[str, list[Series]]
    by_meaning: Mapping[tuple[str, str], list[Series]]

    @classmethod
    def of(cls, held: Iterable[Series]) -> Self:
        by_symbol: dict[str, list[Series]] = {}
        by_meaning: dict[tuple[str, str], list[Series]] = {}
        for series in held:
            by_symbol.setdefault(series.symbol, []).append(series)
            by_meaning.setdefault(Spelling.of(series.symbol).meaning, []).append(series)
        return cls(by_symbol, by_meaning)

    def candidates(self, name: str) -> list[Series]:
        """Return the series that a name may mean; raises ConfigurationError, with near matches, for none."""
        if name in self.by_symbol:
            return self.by_symbol[name]
        asked = Spelling.of(name)
        alike = self.by_meaning.get(asked.meaning, [])
        if not alike:
            raise unknown("symbols", name, self.by_symbol, "is not held")
        if asked.contract:  # of BTC-USDT and BTC-USDT-SWAP, BTC/USDT:USDT means the latter
            return [series for series in alike if Spelling.of(series.symbol).contract] or alike
        return alike


def series_meant(
    names: Sequence[str], held: Collection[Series], interval: Interval | None = None
) -> list[Series]:
    """Return the series that each name means, in the order of the names; no names stand for all series.

    `held` are series of one dataset. A symbol as the exchange writes it is preferred to a spelling that means
    it. All series of the result have the same interval, and those of one name the same exchange.

    >>> held = [Series.of("okx", "ohlcv", symbol, "1h") for symbol in ("BTC-USDT", "BTC-USDT-SWAP")]
    >>> print(*series_meant(["BTC/USDT:USDT"], held))
    okx ohlcv BTC-USDT-SWAP 1h

    Raises ConfigurationError for a name or interval that is not held, with near matches, and for one that is
    ambiguous, with the candidates.
    """
    index = _SymbolIndex.of(held)
    found = [(name, index.candidates(name)) for name in names] or [("", list(held))]
    meant = [(name, _of_interval(name, candidates, interval)) for name, candidates in found]
    intervals = {series.interval.name for _, candidates in meant for series in candidates}
    if len(intervals) > 1:
        raise _ambiguous("interval", "several are held", intervals)
    for name, candidates in meant if names else ():
        exchanges = {series.exchange for series in candidates}
        if len(exchanges) > 1:
            raise _ambiguous("exchange", f"{name!r} is held from several", exchanges)
        if len(candidates) > 1:
            raise _ambiguous("symbols", f"{name!r} is ambiguous", {series.symbol for series in candidates})
    return list(dict.fromkeys(series for _, candidates in meant for series in candidates))


def symbol_meant(name: str, held: Iterable[Series]) -> str:
    """Return the symbol that a name means among series, also of several exchanges and intervals.

    >>> symbol_meant("btc/usdt", [Series.of("okx", "ohlcv", "BTC-USDT", each) for each in ("1h", "1d")])
    'BTC-USDT'

    Raises ConfigurationError as `series_meant` does.
    """
    symbols = {series.symbol for series in _SymbolIndex.of(held).candidates(name)}
    if len(symbols) > 1:
        raise _ambiguous("symbols", f"{name!r} is ambiguous", symbols)
    return symbols.pop()


def _of_interval(name: str, candidates: list[Series], interval: Interval | None) -> list[Series]:
    """Return the candidates of an interval, None for all; an event series has no interval to choose."""
    if interval is None or any(series.dataset.event for series in candidates):
        return candidates
    chosen = [series for series in candidates if series.interval == interval]
    if not chosen:
        verdict = f"of {name} is not held" if name else "is not held"
        raise unknown("interval", interval.name, {series.interval.name for series in candidates}, verdict)
    return chosen


def _ambiguous(argument: str, what: str, candidates: Collection[str]) -> ConfigurationError:
    choices = " or ".join(f"{argument}={name!r}" for name in sorted(candidates))
    return ConfigurationError(f"{argument}: {what}; write {choices}")
