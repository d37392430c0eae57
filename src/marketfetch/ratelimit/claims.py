"""Who may spend the budget of which address, among processes that share a board.

A board keeps one text for each limit pool of an exchange. A process takes a *turn* on it now and then: it
renews its claims, gives addresses back, and is granted others. An address has one holder at a time. What a
holder has spent goes with the address to the next one, so that nobody spends it twice:

    one holds 1, 2, 3  →  another comes  →  one stops using 3, and gives it back with what it spent of it
                       →  the other is granted 3 in its next turn

All of it is a function of the text and the time. Times are seconds on the board's own clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from json import dumps, loads
from math import floor, isfinite
from typing import Any, Final

import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.claim_notes import LeftNote, Note

__all__ = ["Reply", "Wish", "nobody", "turn"]

_FORMAT: Final = 1
_FOREIGN = "board: what is there was not written by marketfetch; delete it, or name another board"


@attrs.frozen
class Wish:
    """What a process wants of a limit pool, and what it has.

    `addresses` come in the order in which they are preferred; `held` are those that it was told to hold and
    whose term is not over by its own clock: of others it does not know what happened to them meanwhile.
    `offers` are the held ones that it can do without just now and has stopped using, with what it leaves;
    `exhausted` are those of them that have nothing left to spend. A claim that is not renewed ends after
    `term` seconds, and nothing is remembered for longer than the limit's `period`. Who is `leaving` gives
    everything back.
    """

    holder: str
    addresses: Sequence[str]
    held: frozenset[str] = frozenset()
    offers: Mapping[str, Note] = attrs.field(factory=dict)
    exhausted: frozenset[str] = frozenset()
    term: float = 30.0
    period: float = attrs.field(default=60.0, kw_only=True)
    leaving: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Reply:
    """What a process holds now.

    `notes` are of addresses that are new to it and were last held by somebody else. It should stop using
    what is in `drain`, and offer it once nothing is in flight. `share` is how many addresses it may count on
    in the long run: half an address where two share one. `others` is how many other processes want the same.
    """

    held: frozenset[str]
    notes: Mapping[str, Note]
    drain: frozenset[str]
    share: float
    others: int


def nobody(_holder: str) -> bool:
    """Know of no holder for certain that it is gone."""
    return False


def turn(
    text: str | None, now: float, *, wish: Wish, gone: Callable[[str], bool] = nobody
) -> tuple[str, Reply]:
    """Take a turn: return the new text and what the process holds from now on.

    `gone` tells of a holder whether it has surely ended. Raises ConfigurationError for a text that no
    marketfetch wrote, or a newer one.

    >>> text, reply = turn(None, 0.0, wish=Wish("one", ["a", "b"]))
    >>> sorted(reply.held), reply.share
    (['a', 'b'], 2.0)
    >>> text, reply = turn(text, 1.0, wish=Wish("two", ["a", "b"]))
    >>> sorted(reply.held), reply.share
    ([], 1.0)
    >>> text, reply = turn(text, 2.0, wish=Wish("one", ["a", "b"], held=frozenset("ab")))
    >>> sorted(reply.drain)
    ['b']
    """
    board = _Board.parse(text)
    board.pass_time(now)
    board.drop_vanished(now, wish, gone)
    board.forget(now, wish.period)
    if wish.leaving:
        board.leave(now, wish)
        return board.text(), Reply(frozenset(), {}, frozenset(), 0.0, 0)
    kept = board.enter(now, wish)
    given = board.give_back(now, wish)
    board.grant(now, wish, given)
    mine = frozenset(board.claims_of(wish.holder))
    notes = {
        address: board.notes[address].note(now)
        for address in mine - kept
        if address in board.notes and board.notes[address].author != wish.holder
    }
    drain = frozenset(board.to_part_with(now, wish))
    return board.text(), Reply(mine, notes, drain, board.share(wish.holder), len(board.rivals(wish)))


@attrs.define
class _Holder:
    until: float
    """When it counts as vanished, unless it takes a turn before."""
    addresses: tuple[str, ...]
    waits: float | None
    """Since when it has been without any address."""


@attrs.define
class _Board:
    """The text, read."""

    holders: dict[str, _Holder] = attrs.field(factory=dict)
    claims: dict[str, tuple[str, float]] = attrs.field(factory=dict)
    """Who holds an address, and since when."""
    notes: dict[str, LeftNote] = attrs.field(factory=dict)
    at: float | None = None
    """When the last turn was taken."""
    demand: Counter[str] = attrs.field(factory=Counter)
    """How many want each address."""

    @classmethod
    def parse(cls, text: str | None) -> _Board:
        if text is None:
            return cls()
        try:
            content: dict[str, Any] = {"at": None, **loads(text)}
            written = int(content["format"])
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ConfigurationError(_FOREIGN) from error
        if written > _FORMAT:
            raise ConfigurationError(
                f"board: it was written by a newer marketfetch (format {written}; this one knows {_FORMAT}): "
                "upgrade marketfetch, or do without it (board=None)"
            )
        try:
            lists = {name: tuple(map(_name, addresses)) for name, addresses in content["lists"].items()}
            holders = {
                name: _Holder(_time(until), lists[known], _time_or_none(waits))
                for name, (until, known, waits) in content["holders"].items()
            }
            claims = {
                address: (_name(holder), _time(since))
                for address, (holder, since) in content["claims"].items()
            }
            notes = {
                address: LeftNote(
                    _name(author),
                    tuple((_time(moment), max(0, int(weight))) for moment, weight in spent),
                    _time(closed),
                    _time_or_none(vanished),
                )
                for address, (author, spent, closed, vanished) in content["notes"].items()
            }
            at = _time_or_none(content["at"])
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(_FOREIGN) from error
        return cls(holders, claims, notes, at)

    def text(self) -> str:
        lists: dict[tuple[str, ...], str] = {}
        for holder in self.holders.values():
            lists.setdefault(holder.addresses, str(len(lists)))
        return dumps(
            {
                "format": _FORMAT,
                "at": self.at,
                # Most processes have the same addresses: each list is written once.
                "lists": {name: addresses for addresses, name in lists.items()},
                "holders": {
                    name: (holder.until, lists[holder.addresses], holder.waits)
                    for name, holder in self.holders.items()
                },
                "claims": self.claims,
                "notes": {address: attrs.astuple(left) for address, left in self.notes.items()},
            },
            separators=(",", ":"),
        )

    def claims_of(self, name: str) -> list[str]:
        return [address for address, (holder, _) in self.claims.items() if holder == name]

    def pass_time(self, now: float) -> None:
        """Note the time; where the board's clock was set back, everything noted moves back with it."""
        step = min(0.0, now - self.at) if self.at is not None else 0.0
        self.at = now
        if step == 0.0:
            return
        for holder in self.holders.values():
            holder.until += step
            holder.waits = None if holder.waits is None else holder.waits + step
        self.claims = {address: (holder, since + step) for address, (holder, since) in self.claims.items()}
        self.notes = {address: left.moved(step) for address, left in self.notes.items()}

    def drop_vanished(self, now: float, wish: Wish, gone: Callable[[str], bool]) -> None:
        """Take from those who have not been heard of for their term, or have surely ended, what they hold."""
        for name, holder in list(self.holders.items()):
            ended = name != wish.holder and gone(name)
            if name == wish.holder or (holder.until > now and not ended):
                continue
            for address in self.claims_of(name):
                self._add(address, LeftNote(name, vanished=min(now, holder.until)))
                del self.claims[address]
            del self.holders[name]

    def forget(self, now: float, period: float) -> None:
        """Drop notes of what the exchange has forgiven by now."""
        self.notes = {address: left for address, left in self.notes.items() if not left.over(now, period)}

    def enter(self, now: float, wish: Wish) -> frozenset[str]:
        """Renew, and return what was held all the time.

        What is left of these by others has been read. A note stays until its reader says that it holds the
        address: an answer of the board may have been lost on its way.
        """
        known = self.holders.get(wish.holder)
        waits = known.waits if known else None
        self.holders[wish.holder] = _Holder(now + wish.term, tuple(wish.addresses), waits)
        kept = wish.held.intersection(self.claims_of(wish.holder))
        for address in kept:
            self.notes.pop(address, None)
        # Lists are long and mostly the same.
        for addresses, count in Counter(holder.addresses for holder in self.holders.values()).items():
            for address in addresses:
                self.demand[address] += count
        return kept

    def leave(self, now: float, wish: Wish) -> None:
        for address in self.claims_of(wish.holder):
            self._release(address, now, wish)
        self.holders.pop(wish.holder, None)

    def give_back(self, now: float, wish: Wish) -> set[str]:
        """Give back what is not wished any more, and of the offers as many as others have a right to."""
        mine = self.claims_of(wish.holder)
        given = {address for address in mine if address not in wish.addresses}
        excess, wanted = len(self.to_part_with(now, wish)), self._wanted(wish)
        due = max(excess, self._hungry(wish))
        offers = [address for address in mine if address in wish.offers and address in wanted]
        for address in sorted(offers, key=lambda address: address not in wish.exhausted):
            # What still has something to spend is parted with only by who has had too much, or too long.
            if len(given) < due and (address in wish.exhausted or len(given) < excess):
                given.add(address)
        for address in given:
            self._release(address, now, wish)
        return given

    def grant(self, now: float, wish: Wish, given: set[str]) -> None:
        """Grant what is free, those without any first, longest waiting first."""
        free = [address for address in wish.addresses if address not in self.claims and address not in given]
        free_ones = set(free)
        mine, me = self.claims_of(wish.holder), self.holders[wish.holder]
        since = now if me.waits is None else me.waits
        before = sum(
            not free_ones.isdisjoint(other.addresses)
            and not self.claims_of(name)
            and (bool(mine) or (other.waits is not None and other.waits < since))
            for name, other in self.rivals(wish).items()
        )
        room = len(free) - before
        if not free_ones.isdisjoint(self._wanted(wish)):
            room = min(room, _entitled(self.share(wish.holder)) - len(mine))
        # Those with the least to wait for come first; of equals those that are preferred.
        free.sort(key=lambda address: address in self.notes and self.notes[address].author != wish.holder)
        for address in free[: max(0, room)]:
            self.claims[address] = wish.holder, now
        me.waits = None if self.claims_of(wish.holder) else since

    def to_part_with(self, now: float, wish: Wish) -> list[str]:
        """Choose what a holder should give back, so that it can stop using it.

        What is above its share, while others have less than theirs: the newest first. Where it has no more
        than its share and somebody has none at all, there are more processes than addresses, or the other
        one wants just this address: then it parts with one that it has held for a term.
        """
        wanted = self._wanted(wish)
        mine = self.claims_of(wish.holder)
        theirs = sorted(
            (address for address in mine if address in wanted),
            key=lambda address: (self.claims[address][1], address),
        )
        above = len(mine) - _entitled(self.share(wish.holder))
        if above > 0:
            return theirs[-above:]
        if self._hungry(wish):
            return [address for address in theirs[:1] if self.claims[address][1] + wish.term <= now]
        return []

    def share(self, name: str) -> float:
        """Return how many addresses fall to a holder if each is divided among those who want it."""
        return sum(1 / self.demand[address] for address in self.holders[name].addresses)

    def rivals(self, wish: Wish) -> dict[str, _Holder]:
        """Return the others who want any of the same addresses."""
        wished = set(wish.addresses)
        return {
            name: holder
            for name, holder in self.holders.items()
            if name != wish.holder and not wished.isdisjoint(holder.addresses)
        }

    def _wanted(self, wish: Wish) -> set[str]:
        """Return the addresses wanted by those who have less than they are entitled to."""
        count = Counter(holder for holder, _ in self.claims.values())
        return {
            address
            for name, holder in self.rivals(wish).items()
            if count[name] < _entitled(self.share(name))
            for address in holder.addresses
        }

    def _hungry(self, wish: Wish) -> int:
        """Return how many others have no address at all and find none free."""
        mine = set(self.claims_of(wish.holder))
        hungry = [
            holder
            for name, holder in self.rivals(wish).items()
            if not self.claims_of(name) and not mine.isdisjoint(holder.addresses)
        ]
        free = {address for holder in hungry for address in holder.addresses if address not in self.claims}
        return max(0, len(hungry) - len(free))

    def _release(self, address: str, now: float, wish: Wish) -> None:
        """Let go, and leave a note.

        1. The address is held up to now: the holder knows all that there is to know.
        2. The address was held, and the term is over: others may have left a note since, and both count.
        3. The holder never learnt that it holds the address: it has spent nothing, and the unread note stays.
        """
        if address in wish.held:
            note = wish.offers.get(address, Note(vanished=0.0))
            self.notes[address] = LeftNote.of(note, wish.holder, now)
        elif address in wish.offers:
            self._add(address, LeftNote.of(wish.offers[address], wish.holder, now))
        del self.claims[address]

    def _add(self, address: str, left: LeftNote) -> None:
        """Leave a note, beside one that nobody has read yet."""
        known = self.notes.get(address)
        self.notes[address] = left if known is None else left.united(known)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(value)
    return value


def _time_or_none(value: object) -> float | None:
    return None if value is None else _time(value)


def _entitled(share: float) -> int:
    """Return how many whole addresses a share is; everybody has a right to one."""
    return max(1, floor(share + 1e-9))
