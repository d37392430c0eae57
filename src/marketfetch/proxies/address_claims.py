"""The claims of this process on the addresses of one limit pool, kept up to date on a board.

Turns on the board are taken on threads of their own: neither an event loop nor a request with a budget waits
for it. A turn is due well before the claims end, and more often while somebody here has none, or others wait.
"""

from __future__ import annotations

import logging
from functools import partial
from hashlib import blake2b
from math import floor
from random import uniform
from secrets import token_hex
from threading import Lock, Thread
from weakref import WeakKeyDictionary

import attrs

from marketfetch.common.processes import has_ended, machine_id
from marketfetch.errors import ConfigurationError, MarketfetchError, SinkError, SinkUnavailable
from marketfetch.protocols import Board
from marketfetch.proxies.address_limits import Limits, Shared
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.ratelimit.claim_notes import Note
from marketfetch.ratelimit.claims import Reply, Wish, turn
from marketfetch.ratelimit.egress_queue import Claim, EgressQueue
from marketfetch.redaction import redact

__all__ = ["Claims"]

_MARGIN = 500
"""A claim is given up so many milliseconds before it ends."""
_SETTLING = 2_000
"""What a holder that vanished had sent has arrived by then, in milliseconds."""
_SHORTEST, _LONGEST = 150, 1_000
"""Between two turns of who waits, in milliseconds."""

_log = logging.getLogger("marketfetch")


class Claims:
    """Which addresses of a limit pool this process may spend, as far as one board is concerned.

    Everything but `board` and the constants is guarded by the lock of the registry.
    """

    def __init__(self, registry: Shared, limits: Limits, board: Board) -> None:
        self.board = board
        self.required = False
        self.queues: WeakKeyDictionary[EgressQueue, int] = WeakKeyDictionary()
        """Who wants addresses of it; for each of them, which of its boards this is."""
        self.share: float | None = None
        self.away = ""
        """Why the board cannot be reached, if so."""
        self.failure: MarketfetchError | None = None
        self.due = 0
        self._registry, self._limits = registry, limits
        self._name = f"{limits.host} {limits.pool.name}"
        self._claims: dict[str, Claim] = {}
        self._held: dict[str, int] = {}  # until when, by our clock
        self._unused: set[str] = set()  # offered, or to be offered once nothing is in flight
        self._others = 0
        self._weight = 1
        self._pause = float(_SHORTEST)
        self._worked = self._without = self._running = False
        self._turning = Lock()  # held on threads only

    @property
    def term(self) -> float:
        """Seconds that a claim lasts."""
        return self._registry.term

    def join(self, queue: EgressQueue, number: int, *, required: bool) -> None:
        """Claim for a roster, too; of its boards this is the one with this `number`.

        A board that has failed is tried again: it may have been mended since.
        """
        self.queues[queue] = number
        self.required, self.failure = required, None
        if required and self._without:
            self._without = False
            for claim in self._claims.values():
                claim.until = 0
        if any(slot.address not in self._held for slot in queue.slots):
            self.due = 0

    def claim(self, address: str) -> Claim:
        """Return the claim on an address, valid or not."""
        return self._claims.setdefault(address, Claim(UNKNOWN_UNTIL_RESPONSE if self._without else 0))

    def start_if_due(self, now: int) -> None:
        """Begin a turn on a thread, if it is time for one; raises what a board has failed with for good."""
        if self.failure is not None:
            raise type(self.failure)(str(self.failure))
        if now >= self.due and not self._running and not self._without and self._any(now):
            self._running = True
            try:
                Thread(target=self._take_turn, name="marketfetch-board", daemon=True).start()
            except RuntimeError as error:  # there are too many threads, or the interpreter is about to end
                self._running = False
                self._failed(SinkUnavailable(f"board: {error}"))

    def _any(self, now: int) -> bool:
        """Whether there is anything to claim or to give back yet."""
        return bool(self._held or self._wanted(now))

    def hurry(self, weight: int, now: int) -> int:
        """Have a turn soon, since a request of this weight waits; return when it is due at the latest."""
        self._weight = weight
        if not self.away and (self._others or self._unused or not self._held):
            self.due = min(self.due, now + round(self._pause))
        return UNKNOWN_UNTIL_RESPONSE if self._without else max(self.due, now + _SHORTEST)

    def leave(self) -> None:
        """Give everything back, unless somebody here wants it still; blocks for as long as the board does."""
        with self._turning:
            with self._registry.lock:
                if self.queues or self._without or not self._worked:
                    return
                self._unused |= self._held.keys()
                self._suspend()
                wish = attrs.evolve(self._wish(self._registry.now()), leaving=True)
            try:
                self._change(wish)
            except Exception as error:  # noqa: BLE001  # a claim that is not given back ends by itself
                _log.info("claims are not given back, and end by themselves: %s", redact(str(error)))
            with self._registry.lock:
                self._held, self._unused, self.due = {}, set(), 0
                if not self.queues:
                    self._claims = {}

    def _take_turn(self) -> None:
        with self._turning:
            with self._registry.lock:
                began = self._registry.now()
                wish = self._wish(began)
                self._suspend()
            try:
                reply = self._change(wish)
            except Exception as error:  # noqa: BLE001  # it is told to those who wait
                with self._registry.lock:
                    self._failed(error)
            else:
                with self._registry.lock:
                    self._worked = True
                    self._recovered()
                    self._apply(reply, began)
            finally:
                with self._registry.lock:
                    self._running = False
                    self._registry.granted(self._claims)

    def _change(self, wish: Wish) -> Reply:
        """Take a turn, with the names that addresses have on the board."""
        key = self._registry.board_keys.get(self.board)
        if key is None:
            key = self.board.change("key", partial(_keep, candidate=token_hex(16)))
            self._registry.board_keys[self.board] = key
        names = {
            address: _name_on_board(address, key) for address in {*wish.addresses, *wish.held, *wish.offers}
        }
        told = attrs.evolve(
            wish,
            holder=self._registry.holder(self.board),
            addresses=[names[address] for address in wish.addresses],
            held=frozenset(names[address] for address in wish.held),
            offers={names[address]: note for address, note in wish.offers.items()},
            exhausted=frozenset(names[address] for address in wish.exhausted),
        )
        reply = self.board.change(self._name, partial(turn, wish=told, gone=has_ended))
        addresses = {name: address for address, name in names.items()}
        return attrs.evolve(
            reply,
            held=frozenset(addresses[name] for name in reply.held if name in addresses),
            notes={addresses[name]: note for name, note in reply.notes.items()},
            drain=frozenset(addresses[name] for name in reply.drain),
        )

    def _wish(self, now: int) -> Wish:
        """Say what is wanted; what is offered is not used from now on."""
        idle = {address for address in self._held if not self._limits.budget(address).in_flight}
        wanted = self._wanted(now)
        exhausted = {address for address in idle if self._exhausted(address, now)} if self._others else set()
        self._unused |= exhausted
        offered = (self._unused | self._held.keys() - wanted.keys()) & idle
        return Wish(
            "",
            [*wanted, *(address for address in self._held if address not in wanted and address not in idle)],
            frozenset(address for address, until in self._held.items() if until > now),
            {address: self._note(address, now) for address in offered},
            frozenset(exhausted),
            self.term,
            period=self._limits.pool.period / 1000,
        )

    def _wanted(self, now: int) -> dict[str, None]:
        """Return what to claim, in order: of several boards each is asked for what those before it grant."""
        return {
            slot.address: None
            for queue, number in self.queues.items()
            for slot in queue.slots
            if all(claim.until > now for claim in slot.claims[:number])
        }

    def _exhausted(self, address: str, now: int) -> bool:
        """Whether an address is of no use now: nothing is left of it, or another board does not grant it.

        One that came with nothing left is kept until its budget is whole again, or it would go round for
        nothing.
        """
        if not self._claims[address].used and self._granted_elsewhere(address, now):
            return False
        if self._registry.bans(address).until(self._limits.host) > now:
            return True
        if self._limits.budget(address).available_at(self._weight, now) > now:
            return True
        return not self._granted_elsewhere(address, now)

    def _granted_elsewhere(self, address: str, now: int) -> bool:
        """Whether the boards that are asked after this one grant an address, to anybody here."""
        return any(
            all(claim.until > now for claim in slot.claims[number + 1 :])
            for queue, number in self.queues.items()
            for slot in queue.slots
            if slot.address == address
        )

    def _note(self, address: str, now: int) -> Note:
        budget = self._limits.budget(address)
        closed = max(budget.blocked_until(now), self._registry.bans(address).until(self._limits.host))
        spent = tuple(((now - received) / 1000, weight) for received, weight in budget.spent(now))
        return Note(spent, max(0, closed - now) / 1000)

    def _suspend(self) -> None:
        for address in self._unused:
            self.claim(address).until = 0

    def _apply(self, reply: Reply, began: int) -> None:
        now, until = self._registry.now(), began + round(self.term * 1000) - _MARGIN
        for address, note in reply.notes.items():
            self._learn(address, note, now)
        for address in reply.held - self._held.keys():
            self.claim(address).used = False
        moved = reply.held ^ self._held.keys()
        self._held = dict.fromkeys(reply.held, until)
        self._unused = {address for address in reply.drain if self._had_its_turn(address, now)}
        for address, claim in self._claims.items():
            new = claim.until <= now
            claim.until = until if address in reply.held and address not in self._unused else 0
            if new and claim.until:
                self._requeue(address)
        self.share, self._others = reply.share, reply.others
        self._pause = float(_SHORTEST) if moved else min(_LONGEST, self._pause * 1.5)
        soon = not reply.held or self._unused
        wait = self._pause * uniform(0.7, 1.3) if soon else self.term / 3 * 1000  # noqa: S311  # spreads turns
        self.due = now + round(wait)

    def _requeue(self, address: str) -> None:
        """Let an address that was passed over serve again."""
        for queue in self.queues:
            queue.queue_address(address)

    def _had_its_turn(self, address: str, now: int) -> bool:
        """Whether an address could be spent since it was granted: before that, others do not get it back."""
        budget = self._limits.budget(address)
        return self._claims[address].used or budget.available_at(self._weight, now) <= now

    def _learn(self, address: str, note: Note, now: int) -> None:
        """Take over what the last holder has spent."""
        budget = self._limits.budget(address)
        for age, weight in note.spent:
            budget.charge(weight, now - floor(age * 1000))
        if note.closed:
            budget.block_until(now + round(note.closed * 1000))
        if note.vanished is not None:
            end = now - floor(note.vanished * 1000)
            if budget.pool.used_header is None:
                budget.charge(budget.pool.capacity, end)
            else:  # the exchange tells it
                budget.doubt()
                budget.block_until(end + _SETTLING)

    def _failed(self, error: Exception) -> None:
        """Wait for a board that is away; do without one that cannot be had, or stop where it is required."""
        message = redact(str(error))
        if not isinstance(error, MarketfetchError):
            message = f"board: {type(error).__name__}: {message}"
        if isinstance(error, SinkUnavailable) or (self._worked and not isinstance(error, ConfigurationError)):
            if not self.away:
                _log.warning("budgets that are claimed are spent, then the board is waited for: %s", message)
            self.away = message
            self._pause = min(5 * _LONGEST, max(_LONGEST, self._pause * 1.5))
            self.due = self._registry.now() + round(self._pause)
        elif self.required or isinstance(error, ConfigurationError):
            kind = type(error) if isinstance(error, MarketfetchError) else SinkError
            self.failure = kind(f"{message} ({self.board!r})")
        else:
            if self.board not in self._registry.boards_without:
                self._registry.boards_without.add(self.board)
                _log.warning("budgets are those of this process alone: %s", message)
            self._without = True
            for address, claim in self._claims.items():
                claim.until = UNKNOWN_UNTIL_RESPONSE
                self._requeue(address)

    def _recovered(self) -> None:
        if self.away:
            _log.info("the board is back")
        self.away = ""


def _keep(text: str | None, _now: float, *, candidate: str) -> tuple[str, str]:
    """Return the key that is on the board, or put one there."""
    return (text, text) if text else (candidate, candidate)


def _name_on_board(address: str, key: str) -> str:
    """Name an address so that the board does not show it; each machine has a direct one of its own."""
    name = f"direct of {machine_id()}" if address == "direct" else address
    return blake2b(name.encode(), key=key.encode()[:64], digest_size=8).hexdigest()
