"""The claims of this process on the addresses of one limit pool: leases that are renewed on a board.

A turn reads and changes the board on a background thread, so neither an event loop nor a request with a
budget waits for the board. A turn is due long before the claims end, and more often while a request of this
process has no address, or another process waits for one.
"""

from __future__ import annotations

import logging
from functools import partial
from hashlib import blake2b
from math import ceil, inf
from random import uniform
from secrets import token_hex
from threading import Lock, Thread
from weakref import WeakKeyDictionary

import attrs

from marketfetch.common.local_resources import resource_remedy
from marketfetch.common.processes import has_ended, machine_id
from marketfetch.errors import ConfigurationError, MarketfetchError, SinkError, SinkUnavailable
from marketfetch.protocols import Board
from marketfetch.proxies.address_limits import Limits, Shared
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.ratelimit.claim_notes import UsageNote, charge_note, note_of
from marketfetch.ratelimit.claims import ClaimRequest, ClaimResult, take_turn
from marketfetch.ratelimit.egress_queue import Claim, EgressQueue
from marketfetch.redaction import redact
from marketfetch.sharing import ProcessRank

__all__ = ["Claims", "LimitQueue"]

_MARGIN = 500
"""Milliseconds before its end at which a claim is not used any more."""
_RESOURCE_TIMEOUT = 5_000
"""Milliseconds to wait for a first turn while this machine has no file descriptor or memory for it."""
_MAX_WAIT = 30_000
"""Milliseconds for which a required board that has never worked is waited for."""
_MIN_PAUSE, _MAX_PAUSE = 150, 1_000
"""Milliseconds between two turns of a process that waits for an address."""
_REMEMBER_OTHERS_FOR = 60_000
"""Milliseconds after its last turn for which another process counts as being there, for sharing the work."""
_FIRST_IDLE_PAUSE = 100
"""Milliseconds from the first turn to the second, of a process that waits for nothing; then more and more."""

_log = logging.getLogger("marketfetch")


class Claims:
    """The addresses of a limit pool that one board grants to this process.

    The lock of the registry guards all attributes but `board`.
    """

    def __init__(self, registry: Shared, limits: Limits, board: Board) -> None:
        self.board = board
        self.required = False
        self.queues: WeakKeyDictionary[EgressQueue, int] = WeakKeyDictionary()
        """The queues that use this board; the number is its place among the boards of the queue."""
        self.share: float | None = None
        self.process_rank = ProcessRank()
        """This process among all that use the board, at its last turn; others are remembered for a minute."""
        self.away = ""
        """Why the board cannot be reached; empty if it can."""
        self.failure: MarketfetchError | None = None
        self.due = 0
        self._registry, self._limits = registry, limits
        self._name = f"{limits.host} {limits.pool.name}"
        self._claims: dict[str, Claim] = {}
        self._held: dict[str, int] = {}  # address -> end of the claim, by the clock of the registry
        self._unused: set[str] = set()  # addresses to offer to other processes once nothing is in flight
        self._others = 0
        self._alone_at = 0  # from when on no other process is remembered
        self._weight = 1
        self._pause, self._idle_pause = float(_MIN_PAUSE), float(_FIRST_IDLE_PAUSE)
        self._has_worked = self._board_given_up = self._running = False
        self._resource_missing_since: int | None = None
        self._failing_since: int | None = None
        self._turn_lock = Lock()  # held on background threads only

    @property
    def term(self) -> float:
        """Seconds that a claim lasts."""
        return self._registry.term

    def join(self, queue: EgressQueue, number: int, *, required: bool) -> None:
        """Claim addresses for a queue, too; `number` is the place of this board among its boards.

        A board that has failed is tried again: it may work by now.
        """
        self.queues[queue] = number
        self.required, self.failure = required, None
        self._resource_missing_since = self._failing_since = None
        if required and self._board_given_up:
            self._board_given_up = False
            for claim in self._claims.values():
                claim.until = 0
        if any(slot.address not in self._held for slot in queue.slots):
            self.due = 0

    def claim(self, address: str) -> Claim:
        """Return the claim on an address, valid or not."""
        return self._claims.setdefault(address, Claim(UNKNOWN_UNTIL_RESPONSE if self._board_given_up else 0))

    def start_if_due(self, now: int) -> None:
        """Start a turn on a thread if one is due; raises the final error of a board."""
        if self.failure is not None:
            raise type(self.failure)(str(self.failure))
        if now >= self.due and not self._running and not self._board_given_up and self._has_work(now):
            self._running = True
            try:
                Thread(target=self._take_turn, name="marketfetch-board", daemon=True).start()
            except RuntimeError as error:  # too many threads, or the interpreter shuts down
                self._running = False
                self._failed(SinkUnavailable(f"board: {error}"))

    def _has_work(self, now: int) -> bool:
        """Whether there is an address to claim or to give back."""
        return bool(self._held or self._wanted(now))

    def hasten_turn(self, weight: int, now: int) -> int:
        """Take a turn soon, because a request of this weight waits; return the latest time of the turn."""
        self._weight = weight
        if not self.away and (self._others or self._unused or not self._held):
            self.due = min(self.due, now + round(self._pause))
        return UNKNOWN_UNTIL_RESPONSE if self._board_given_up else max(self.due, now + _MIN_PAUSE)

    def leave(self) -> None:
        """Give all addresses back, unless a queue still uses them; blocks until the board answers."""
        with self._turn_lock:
            with self._registry.lock:
                if self.queues or self._board_given_up or not self._has_worked:
                    return
                self._unused |= self._held.keys()
                self._suspend()
                request = attrs.evolve(self._claim_request(self._registry.now()), leaving=True)
            try:
                self._change(request)
            except Exception as error:  # noqa: BLE001  # the claim ends by itself after `term` seconds
                _log.info("claims are not given back, and end by themselves: %s", redact(str(error)))
            with self._registry.lock:
                self._held, self._unused, self.due = {}, set(), 0
                if not self.queues:
                    self._claims = {}

    def _take_turn(self) -> None:
        with self._turn_lock:
            with self._registry.lock:
                began = self._registry.now()
                request = self._claim_request(began)
                self._suspend()
            try:
                result = self._change(request)
            except Exception as error:  # noqa: BLE001  # `start_if_due` raises it for the requests that wait
                with self._registry.lock:
                    self._failed(error)
            else:
                with self._registry.lock:
                    self._has_worked = True
                    self._recovered()
                    self._apply(result, began)
            finally:
                with self._registry.lock:
                    self._running = False
                    self._registry.granted(self._claims)

    def _change(self, request: ClaimRequest) -> ClaimResult:
        """Take a turn on the board, where addresses have other names; see _name_on_board."""
        key = self._registry.board_keys.get(self.board)
        if key is None:
            key = self.board.change("key", partial(_key_or_candidate, candidate=token_hex(16)))
            self._registry.board_keys[self.board] = key
        names = {
            address: _name_on_board(address, key)
            for address in {*request.addresses, *request.held, *request.offers}
        }
        named_request = attrs.evolve(
            request,
            holder=self._registry.holder(self.board),
            addresses=[names[address] for address in request.addresses],
            held=frozenset(names[address] for address in request.held),
            offers={names[address]: note for address, note in request.offers.items()},
            exhausted=frozenset(names[address] for address in request.exhausted),
        )
        result = self.board.change(self._name, partial(take_turn, request=named_request, has_ended=has_ended))
        addresses = {name: address for address, name in names.items()}
        return attrs.evolve(
            result,
            held=frozenset(addresses[name] for name in result.held if name in addresses),
            notes={addresses[name]: note for name, note in result.notes.items()},
            drain=frozenset(addresses[name] for name in result.drain),
        )

    def _claim_request(self, now: int) -> ClaimRequest:
        """Return the request for a turn. An address that is offered in it is not used from now on."""
        idle = {address for address in self._held if not self._limits.budget(address).weight_in_flight}
        wanted = self._wanted(now)
        exhausted = {address for address in idle if self._exhausted(address, now)} if self._others else set()
        self._unused |= exhausted
        offered = (self._unused | self._held.keys() - wanted.keys()) & idle
        return ClaimRequest(
            "",
            [*wanted, *(address for address in self._held if address not in wanted and address not in idle)],
            frozenset(address for address, until in self._held.items() if until > now),
            {address: self._note(address, now) for address in offered},
            frozenset(exhausted),
            self.term,
            period=self._limits.pool.period / 1000,
        )

    def _wanted(self, now: int) -> dict[str, None]:
        """Return the addresses to claim, in order: those that all boards before this one have granted."""
        return {
            slot.address: None
            for queue, number in self.queues.items()
            for slot in queue.slots
            if all(claim.until > now for claim in slot.claims[:number])
        }

    def _exhausted(self, address: str, now: int) -> bool:
        """Whether an address is of no use now: its budget is spent, or another board does not grant it.

        An address that was granted with a spent budget and was not used here is kept until its budget has
        room. Otherwise it would go from process to process without serving a request.
        """
        if not self._claims[address].used and self._granted_elsewhere(address, now):
            return False
        if self._registry.bans(address).until(self._limits.host) > now:
            return True
        if self._limits.budget(address).available_at(self._weight, now) > now:
            return True
        return not self._granted_elsewhere(address, now)

    def _granted_elsewhere(self, address: str, now: int) -> bool:
        """Whether all boards after this one grant an address to a queue of this process."""
        return any(
            all(claim.until > now for claim in slot.claims[number + 1 :])
            for queue, number in self.queues.items()
            for slot in queue.slots
            if slot.address == address
        )

    def _note(self, address: str, now: int) -> UsageNote:
        return note_of(
            self._limits.budget(address), self._registry.bans(address).until(self._limits.host), now
        )

    def _suspend(self) -> None:
        for address in self._unused:
            self.claim(address).until = 0

    def _apply(self, result: ClaimResult, began: int) -> None:
        now, until = self._registry.now(), began + round(self.term * 1000) - _MARGIN
        for address, note in result.notes.items():
            charge_note(self._limits.budget(address), note, now)
        for address in result.held - self._held.keys():
            self.claim(address).used = False
        moved = result.held ^ self._held.keys()
        self._held = dict.fromkeys(result.held, until)
        self._unused = {address for address in result.drain if self._was_usable(address, now)}
        for address, claim in self._claims.items():
            new = claim.until <= now
            claim.until = until if address in result.held and address not in self._unused else 0
            if new and claim.until:
                self._requeue(address)
        self.share, self._others = result.share, result.others
        # What others stored just before they ended is still unknown to this process.
        if result.process_rank.others:
            self._alone_at = now + _REMEMBER_OTHERS_FOR
        if now >= self._alone_at or result.process_rank.others:
            self.process_rank = result.process_rank
        self._pause = float(_MIN_PAUSE) if moved else min(_MAX_PAUSE, self._pause * 1.5)
        soon = not result.held or self._unused
        # At first a process looks again soon: others that are started together come within a second or two.
        self._idle_pause = (
            float(_FIRST_IDLE_PAUSE) if moved else min(self.term / 3 * 1000, self._idle_pause * 4)
        )
        wait = (self._pause if soon else self._idle_pause) * uniform(0.7, 1.3)  # noqa: S311  # spreads turns
        self.due = now + round(wait)

    def _requeue(self, address: str) -> None:
        """Put an address that was skipped back into the queues."""
        for queue in self.queues:
            queue.queue_address(address)

    def _was_usable(self, address: str, now: int) -> bool:
        """Whether an address could be spent since it was granted; before that it is not offered again."""
        budget = self._limits.budget(address)
        return self._claims[address].used or budget.available_at(self._weight, now) <= now

    def _failed(self, error: Exception) -> None:
        """Handle a failed turn.

        1. The board may come back, or has worked before: wait for it, with backoff. A board that is required
           and has never worked is waited for 30 s, then this is case 2.
        2. It is required, or the call is wrong: `start_if_due` raises the error.
        3. Otherwise go on without the board; the budgets are those of this process alone.

        A machine without a free file descriptor may stay so, and the run has to fail with that reason instead
        of waiting for ever: after some seconds this is case 2 or 3.
        """
        message = redact(str(error))
        if not isinstance(error, MarketfetchError):
            message = f"board: {type(error).__name__}: {message}"
        left = self._wait_left()
        can_pass = (
            isinstance(error, SinkUnavailable) and not self._lacks_resource_for_long(message) and left > 0
        )
        if can_pass or (self._has_worked and not isinstance(error, ConfigurationError)):
            if not self.away:
                _log.warning("budgets that are claimed are spent, then the board is waited for: %s", message)
            self.away = message if left == inf else f"{message}; given up in {ceil(left / 1000)} s"
            self._pause = min(5 * _MAX_PAUSE, max(_MAX_PAUSE, self._pause * 1.5))
            self.due = self._registry.now() + round(self._pause)
        elif self.required or isinstance(error, ConfigurationError):
            kind = type(error) if isinstance(error, MarketfetchError) else SinkError
            self.failure = kind(f"{message} ({self.board!r})")
        else:
            if self.board not in self._registry.boards_without:
                self._registry.boards_without.add(self.board)
                _log.warning("budgets are those of this process alone: %s", message)
            self._board_given_up = True
            for address, claim in self._claims.items():
                claim.until = UNKNOWN_UNTIL_RESPONSE
                self._requeue(address)

    def _lacks_resource_for_long(self, message: str) -> bool:
        """Whether no turn has worked yet, for seconds, because this machine lacks a resource."""
        if self._has_worked or resource_remedy(None, message) is None:
            self._resource_missing_since = None
            return False
        now = self._registry.now()
        if self._resource_missing_since is None:
            self._resource_missing_since = now
        return now - self._resource_missing_since >= _RESOURCE_TIMEOUT

    def _wait_left(self) -> float:
        """Return for how many milliseconds the board is waited for."""
        now = self._registry.now()
        if self._failing_since is None:
            self._failing_since = now
        if self._has_worked or not self.required:
            return inf
        return self._failing_since + _MAX_WAIT - now

    def _recovered(self) -> None:
        if self.away:
            _log.info("the board is back")
        self.away, self._failing_since = "", None


def _key_or_candidate(text: str | None, _now: float, *, candidate: str) -> tuple[str, str]:
    """Return the key that is on the board, or put the candidate there."""
    return (text, text) if text else (candidate, candidate)


def _name_on_board(address: str, key: str) -> str:
    """Return the keyed hash of an address, which the board shows; each machine has its own direct address."""
    name = f"direct of {machine_id()}" if address == "direct" else address
    return blake2b(name.encode(), key=key.encode()[:64], digest_size=8).hexdigest()


@attrs.frozen(eq=False)
class LimitQueue:
    """The egresses that serve the requests of one limit pool, and the claims on them, one for each board."""

    limits: Limits
    queue: EgressQueue
    claims: tuple[Claims, ...]

    def renew(self, now: int) -> None:
        """Start the board turns that are due; raises the error of a board that is required."""
        for claims in self.claims:
            claims.start_if_due(now)

    def hasten_turn(self, weight: int, now: int) -> int:
        """Take turns soon, because a request waits; return the time of the next look."""
        return min(
            (claims.hasten_turn(weight, now) for claims in self.claims), default=UNKNOWN_UNTIL_RESPONSE
        )
