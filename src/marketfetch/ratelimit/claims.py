"""How processes that share a board divide the addresses among themselves.

A board keeps one text for each limit pool of a host. A process reads and replaces the text in one atomic
step now and then, which is called a *turn*. By a turn, a process renews its claims, gives addresses back, and
gets others.
At any time one process holds an address, and only the holder spends the budget of the address. The holder
leaves a note that says what it has spent, so that the next holder does not spend the same weight again.

Example: process A holds addresses 1, 2 and 3. Process B comes and holds none. In its next turn A is told to
drain 3: it sends nothing more through 3. In the turn after that A gives 3 back, with a note. In B's next turn
3 is granted to B.

Everything here is a pure function of the text and the time. Times are seconds on the board's own clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from json import dumps, loads
from math import floor, isfinite
from typing import Any, Final

import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.claim_notes import StoredUsageNote, UsageNote
from marketfetch.sharing import ProcessRank

__all__ = ["ClaimRequest", "ClaimResult", "assume_running", "take_turn"]

_FORMAT: Final = 2
_FOREIGN = "board: what is there was not written by marketfetch; delete it, or name another board"


@attrs.frozen
class ClaimRequest:
    """What a process wants of a limit pool, and which addresses it holds.

    - `addresses`: all that it wants, the preferred ones first.
    - `held`: those that an earlier turn granted and whose term has not ended by the clock of the process.
    - `offers`: held addresses that it does not need just now and has stopped using, each with a note.
    - `exhausted`: offered addresses with nothing left to spend.
    - `term`: a claim that is not renewed ends after so many seconds.
    - `period`: the period of the limit, in seconds; no note is kept for longer.
    - `leaving`: the process ends and gives everything back.
    """

    holder: str
    addresses: Sequence[str]
    held: frozenset[str] = frozenset()
    offers: Mapping[str, UsageNote] = attrs.field(factory=dict)
    exhausted: frozenset[str] = frozenset()
    term: float = 30.0
    period: float = attrs.field(default=60.0, kw_only=True)
    leaving: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class ClaimResult:
    """What a process holds after its turn.

    - `notes`: what the last holder spent, for addresses that are newly granted.
    - `drain`: held addresses to stop using, and to offer once no request is in flight through them.
    - `share`: the number of addresses to expect in the long run; 0.5 if two processes share one.
    - `others`: the number of other processes that want some of the same addresses.
    - `process_rank`: the rank of the process among all that use the board, whichever addresses they want.
    """

    held: frozenset[str]
    notes: Mapping[str, UsageNote]
    drain: frozenset[str]
    share: float
    others: int
    process_rank: ProcessRank = attrs.field(factory=ProcessRank)


def assume_running(_holder: str) -> bool:
    """Say of every holder that it may still be running: the default of `take_turn`."""
    return False


def take_turn(
    text: str | None, now: float, *, request: ClaimRequest, has_ended: Callable[[str], bool] = assume_running
) -> tuple[str, ClaimResult]:
    """Take a turn: return the new text, and what the process holds from now on.

    `has_ended` tells whether the process of a holder has surely ended. Raises ConfigurationError for a text
    that marketfetch did not write, or that a newer version wrote.

    1. Time passes: claims of processes that have ended or did not renew them are freed, old notes dropped.
    2. The claims of the process are renewed. Addresses that it does not need, or that others need, are freed.
    3. The process is granted free addresses, as many as its share allows.
    4. It is told which addresses to drain, because others have less than their share.

    >>> text, result = take_turn(None, 0.0, request=ClaimRequest("one", ["a", "b"]))
    >>> sorted(result.held), result.share
    (['a', 'b'], 2.0)
    >>> text, result = take_turn(text, 1.0, request=ClaimRequest("two", ["a", "b"]))
    >>> sorted(result.held), result.share
    ([], 1.0)
    >>> text, result = take_turn(text, 2.0, request=ClaimRequest("one", ["a", "b"], held=frozenset("ab")))
    >>> sorted(result.drain)
    ['b']
    """
    board = _Board.parse(text)
    board.pass_time(now)
    board.drop_vanished(now, request, has_ended)
    board.forget(now, request.period)
    if request.leaving:
        board.leave(now, request)
        return board.text(), ClaimResult(frozenset(), {}, frozenset(), 0.0, 0)
    kept = board.enter(now, request)
    freed = board.give_back(now, request)
    board.grant(now, request, freed)
    mine = frozenset(board.claims_of(request.holder))
    notes = {
        address: board.notes[address].note(now)
        for address in mine - kept
        if address in board.notes and board.notes[address].author != request.holder
    }
    drain = frozenset(board.to_drain(now, request))
    rank = ProcessRank([*board.holders].index(request.holder), len(board.holders) - 1)
    share, others = board.share(request.holder), len(board.competitors(request))
    return board.text(), ClaimResult(mine, notes, drain, share, others, rank)


@attrs.define
class _Holder:
    until: float
    """When the process counts as vanished, unless it takes a turn before."""
    addresses: tuple[str, ...]
    waits: float | None
    """Since when the process has been without any address; None if it holds one."""


@attrs.define
class _Board:
    """The text of a board, parsed."""

    holders: dict[str, _Holder] = attrs.field(factory=dict)
    claims: dict[str, tuple[str, float]] = attrs.field(factory=dict)
    """The holder of each address, and since when."""
    notes: dict[str, StoredUsageNote] = attrs.field(factory=dict)
    at: float | None = None
    """When the last turn was taken."""
    demand: Counter[str] = attrs.field(factory=Counter)
    """How many processes want each address."""

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
                address: StoredUsageNote(
                    _name(author),
                    tuple((_time(moment), max(0, int(weight))) for moment, weight in spent),
                    _time(closed),
                    _time_or_none(vanished),
                    *map(_time_or_none, expires),  # missing in format 1
                )
                for address, (author, spent, closed, vanished, *expires) in content["notes"].items()
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
                "notes": {address: attrs.astuple(note) for address, note in self.notes.items()},
            },
            separators=(",", ":"),
        )

    def claims_of(self, name: str) -> list[str]:
        return [address for address, (holder, _) in self.claims.items() if holder == name]

    def pass_time(self, now: float) -> None:
        """Note the time; if the board's clock was set back, all stored moments move back with it."""
        step = min(0.0, now - self.at) if self.at is not None else 0.0
        self.at = now
        if step == 0.0:
            return
        for holder in self.holders.values():
            holder.until += step
            holder.waits = None if holder.waits is None else holder.waits + step
        self.claims = {address: (holder, since + step) for address, (holder, since) in self.claims.items()}
        self.notes = {address: note.shifted_by(step) for address, note in self.notes.items()}

    def drop_vanished(self, now: float, request: ClaimRequest, has_ended: Callable[[str], bool]) -> None:
        """Free the addresses of processes that have surely ended or took no turn for their term."""
        for name, holder in list(self.holders.items()):
            ended = name != request.holder and has_ended(name)
            if name == request.holder or (holder.until > now and not ended):
                continue
            for address in self.claims_of(name):
                self._add(address, StoredUsageNote(name, vanished=min(now, holder.until)))
                del self.claims[address]
            del self.holders[name]

    def forget(self, now: float, period: float) -> None:
        """Drop notes about weight that the exchange no longer counts."""
        self.notes = {
            address: note for address, note in self.notes.items() if not note.is_expired(now, period)
        }

    def enter(self, now: float, request: ClaimRequest) -> frozenset[str]:
        """Renew the claims of a process, and return the addresses that it held all the time.

        The process has read the notes of these addresses, so they are dropped. A note is not dropped when it
        is delivered, only now: the result of the turn before may have been lost.
        """
        known = self.holders.get(request.holder)
        waits = known.waits if known else None
        self.holders[request.holder] = _Holder(now + request.term, tuple(request.addresses), waits)
        kept = request.held.intersection(self.claims_of(request.holder))
        for address in kept:
            self.notes.pop(address, None)
        # Lists are long and mostly equal: each different one is counted once.
        for addresses, count in Counter(holder.addresses for holder in self.holders.values()).items():
            for address in addresses:
                self.demand[address] += count
        return kept

    def leave(self, now: float, request: ClaimRequest) -> None:
        for address in self.claims_of(request.holder):
            self._release(address, now, request)
        self.holders.pop(request.holder, None)

    def give_back(self, now: float, request: ClaimRequest) -> set[str]:
        """Free the addresses that the process no longer wants, and as many of its offers as others need.

        1. An offer with nothing left to spend: given back while another process finds no free address, or
           while `to_drain` names an address.
        2. An offer with something left: given back only while `to_drain` names an address.
        """
        mine = self.claims_of(request.holder)
        freed = {address for address in mine if address not in request.addresses}
        excess, wanted = len(self.to_drain(now, request)), self._wanted(request)
        needed = max(excess, self._without_address(request))
        offers = [address for address in mine if address in request.offers and address in wanted]
        for address in sorted(offers, key=lambda address: address not in request.exhausted):
            if len(freed) < needed and (address in request.exhausted or len(freed) < excess):
                freed.add(address)
        for address in freed:
            self._release(address, now, request)
        return freed

    def grant(self, now: float, request: ClaimRequest, freed: set[str]) -> None:
        """Grant free addresses, but leave enough for processes with none that have waited longer."""
        free = [
            address for address in request.addresses if address not in self.claims and address not in freed
        ]
        free_ones = set(free)
        mine, me = self.claims_of(request.holder), self.holders[request.holder]
        since = now if me.waits is None else me.waits
        ahead = sum(
            not free_ones.isdisjoint(other.addresses)
            and not self.claims_of(name)
            and (bool(mine) or (other.waits is not None and other.waits < since))
            for name, other in self.competitors(request).items()
        )
        room = len(free) - ahead
        if not free_ones.isdisjoint(self._wanted(request)):
            room = min(room, _whole_share(self.share(request.holder)) - len(mine))
        # Addresses without a note of another process first: their whole budget is left.
        free.sort(key=lambda address: address in self.notes and self.notes[address].author != request.holder)
        for address in free[: max(0, room)]:
            self.claims[address] = request.holder, now
        me.waits = None if self.claims_of(request.holder) else since

    def to_drain(self, now: float, request: ClaimRequest) -> list[str]:
        """Return the addresses that a process should drain, because another process wants them.

        1. The process holds more than its share, and others hold less: its newest claims above the share.
        2. The process holds its share, and another process has none: there are more processes than addresses,
           or that process wants just this one. Then the oldest claim, once it is a term old.
        3. Otherwise none.
        """
        wanted = self._wanted(request)
        mine = self.claims_of(request.holder)
        contested = sorted(
            (address for address in mine if address in wanted),
            key=lambda address: (self.claims[address][1], address),
        )
        above = len(mine) - _whole_share(self.share(request.holder))
        if above > 0:
            return contested[-above:]
        if self._without_address(request):
            return [address for address in contested[:1] if self.claims[address][1] + request.term <= now]
        return []

    def share(self, name: str) -> float:
        """Return the share of a process, if each address is divided among the processes that want it."""
        return sum(1 / self.demand[address] for address in self.holders[name].addresses)

    def competitors(self, request: ClaimRequest) -> dict[str, _Holder]:
        """Return the other processes that want any of the same addresses."""
        wished = set(request.addresses)
        return {
            name: holder
            for name, holder in self.holders.items()
            if name != request.holder and not wished.isdisjoint(holder.addresses)
        }

    def _wanted(self, request: ClaimRequest) -> set[str]:
        """Return the addresses that are wanted by processes with less than their share."""
        count = Counter(holder for holder, _ in self.claims.values())
        return {
            address
            for name, holder in self.competitors(request).items()
            if count[name] < _whole_share(self.share(name))
            for address in holder.addresses
        }

    def _without_address(self, request: ClaimRequest) -> int:
        """Return how many other processes hold no address and find none free."""
        mine = set(self.claims_of(request.holder))
        waiting = [
            holder
            for name, holder in self.competitors(request).items()
            if not self.claims_of(name) and not mine.isdisjoint(holder.addresses)
        ]
        free = {address for holder in waiting for address in holder.addresses if address not in self.claims}
        return max(0, len(waiting) - len(free))

    def _release(self, address: str, now: float, request: ClaimRequest) -> None:
        """Free an address of a process, and leave a note.

        1. The process has held the address up to now: its note replaces older ones, which it has read.
        2. Its term has ended meanwhile: another process may have left a note since, and both notes count.
        3. The process never learnt that it holds the address: it has spent nothing. The unread note stays.
        """
        if address in request.held:
            note = request.offers.get(address, UsageNote(vanished=0.0))
            self.notes[address] = StoredUsageNote.of(note, request.holder, now)
        elif address in request.offers:
            self._add(address, StoredUsageNote.of(request.offers[address], request.holder, now))
        del self.claims[address]

    def _add(self, address: str, note: StoredUsageNote) -> None:
        """Leave a note for the next holder; an older note that no process has read yet is kept, too."""
        known = self.notes.get(address)
        self.notes[address] = note if known is None else note.merged_with(known)


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


def _whole_share(share: float) -> int:
    """Return how many whole addresses a share is; every process may hold one."""
    return max(1, floor(share + 1e-9))
