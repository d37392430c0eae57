"""Instrument, one entry of an exchange's listing, and Composite, a symbol that is computed from others."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import attrs

from marketfetch.common.name_lists import names_of
from marketfetch.values.spans import MAX_TIMESTAMP

__all__ = ["KINDS", "Composite", "Instrument"]

KINDS = ("spot", "perpetual", "future")
"""The kinds of instruments."""


@attrs.frozen
class Instrument:
    """One entry of an exchange's listing.

    `listed_at` and `delisted_at` are UTC milliseconds, None if the exchange does not publish them; a contract
    with `delisted_at` is one with a last day. `settle` is the settlement currency of a contract, None for
    spot. `active` is False for what is not traded now: `AllSymbols` leaves it out. Raises ValueError for an
    empty symbol and for a time beyond the year 9999.
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
                raise ValueError(f"{self.symbol} begins or ends at {moment}, which is not a time")

    @property
    def unified(self) -> str:
        """The spelling that is the same for every exchange.

        >>> Instrument("BTCUSDT", "BTC", "USDT", "USDT").unified
        'BTC/USDT:USDT'
        """
        pair = f"{self.base}/{self.quote}"
        return f"{pair}:{self.settle}" if self.settle else pair

    @property
    def kind(self) -> str:
        """`spot`, `perpetual`, or `future`: a contract that has a last day.

        >>> Instrument("BTCUSDT_260925", "BTC", "USDT", "USDT", delisted_at=1_790_323_200_000).kind
        'future'
        """
        if self.settle is None:
            return "spot"
        return "perpetual" if self.delisted_at is None else "future"


def _members(given: object) -> tuple[str, ...]:
    """Return the members of a composite; one text may name several: "ETHUSDT, BTCUSDT"."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return names_of("members", given)
    # One at a time: a member that is listed twice stays in twice, and is refused when the run begins.
    return tuple(chain.from_iterable(names_of("members", [name]) for name in given))


def _named(_composite: object, _argument: attrs.Attribute[str], value: object) -> None:
    names_of("symbol", [value])


@attrs.frozen
class Composite:
    """A derived symbol: mean prices and summed volumes of its members, for candles that all members have.

    >>> Composite("MT", ["ETHUSDT", "BTCUSDT"]).members
    ('ETHUSDT', 'BTCUSDT')
    """

    symbol: str = attrs.field(validator=_named)
    members: tuple[str, ...] = attrs.field(converter=_members)
