"""Claims on addresses: never two holders, nothing spent is lost on the way, and everybody gets a turn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.claim_notes import LeftNote, Note
from marketfetch.ratelimit.claims import Reply, Wish, turn

TERM, PERIOD = 6.0, 15.0


@attrs.define
class Board:
    """A text and a clock, which may be set back."""

    text: str | None = None
    now: float = 1_000.0
    set_back: float = 0.0
    ended: set[str] = attrs.field(factory=set)

    def take(self, wish: Wish, *, liveness_known: bool = False) -> Reply:
        def gone(holder: str) -> bool:
            return liveness_known and holder in self.ended

        self.text, reply = turn(self.text, self.now - self.set_back, wish=wish, gone=gone)
        return reply


@attrs.define
class Process:
    """What a process believes; it spends of what it holds, and remembers all that it knows to be spent."""

    name: str
    addresses: tuple[str, ...]
    held: dict[str, float] = attrs.field(factory=dict)  # address → until when, by a clock that never jumps
    unused: set[str] = attrs.field(factory=set)  # offered or drained
    exhausted: set[str] = attrs.field(factory=set)
    known: dict[str, list[tuple[float, int]]] = attrs.field(factory=dict)
    seen: dict[str, float] = attrs.field(factory=dict)  # address → up to when nothing is unknown
    ended: bool = False

    def may_spend(self, address: str, now: float) -> bool:
        return not self.ended and address not in self.unused and self.held.get(address, 0.0) > now

    def note(self, address: str, now: float) -> Note:
        spent = self.known.get(address, [])
        left = [(when, weight) for when, weight in spent if when + PERIOD > now]
        if not left:
            return Note()
        return Note(((now - max(when for when, _ in left), sum(weight for _, weight in left)),))

    def wish(self, now: float, *, leaving: bool = False) -> Wish:
        offered = self.held if leaving else self.unused | self.exhausted
        self.unused |= self.exhausted
        return Wish(
            self.name,
            self.addresses,
            frozenset(address for address, until in self.held.items() if until > now),
            {address: self.note(address, now) for address in offered if address in self.held},
            frozenset(self.exhausted),
            TERM,
            period=PERIOD,
            leaving=leaving,
        )

    def learn(self, reply: Reply, now: float) -> None:
        for address, note in reply.notes.items():
            self.known.setdefault(address, []).extend((now - age, weight) for age, weight in note.spent)
            if note.vanished is not None:  # nobody knows what was spent before: all of it, then
                self.known[address].append((now - note.vanished, 10**6))
        self.held = dict.fromkeys(reply.held, now + TERM)
        self.unused = set(reply.drain)
        self.exhausted &= reply.held & self.exhausted
        self.exhausted.clear()


@attrs.define
class World:
    """Processes, a board, and what was really spent."""

    processes: list[Process]
    board: Board = attrs.field(factory=Board)
    spent: dict[str, list[tuple[float, int]]] = attrs.field(factory=dict)

    def check(self) -> None:
        now = self.board.now
        for address in {address for process in self.processes for address in process.addresses}:
            holders = [process for process in self.processes if process.may_spend(address, now)]
            assert len(holders) <= 1, (address, holders)
            for holder in holders:
                known = sum(weight for when, weight in holder.known.get(address, []) if when + PERIOD > now)
                truly = sum(weight for when, weight in self.spent.get(address, []) if when + PERIOD > now)
                assert known >= truly, (address, holder)

    def turn(self, process: Process, *, answered: bool = True, leaving: bool = False) -> None:
        if process.ended:
            return
        reply = self.board.take(process.wish(self.board.now, leaving=leaving), liveness_known=True)
        if answered:
            process.learn(reply, self.board.now)

    def spend(self, process: Process) -> None:
        for address in process.addresses:
            if process.may_spend(address, self.board.now):
                entry = (self.board.now, 1)
                process.known.setdefault(address, []).append(entry)
                self.spent.setdefault(address, []).append(entry)

    def kill(self, process: Process) -> None:
        process.ended = True
        self.board.ended.add(process.name)

    def exhaust(self, process: Process) -> None:
        process.exhausted = set(process.held)


STEPS = {"turn": 50, "spend": 30, "wait": 30, "exhaust": 10, "lost": 8, "leave": 3, "kill": 1, "set back": 1}
LISTS = st.lists(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True), min_size=4, max_size=4
)


@settings(max_examples=60)
@given(LISTS, st.integers(0, 2**32))
def test_no_address_has_two_holders_and_what_was_spent_is_known_to_the_next(
    lists: list[list[str]], seed: int
) -> None:
    chance = Random(seed)  # a long story, of which shrinking would leave nothing
    world = World([Process(str(number), tuple(names)) for number, names in enumerate(lists)])
    for step in chance.choices([*STEPS], [*STEPS.values()], k=300):
        process, seconds = chance.choice(world.processes), chance.random()
        match step:
            case "turn":
                world.turn(process)
            case "lost":
                world.turn(process, answered=False)
            case "spend":
                world.spend(process)
            case "kill":
                world.kill(process)
            case "exhaust":
                world.exhaust(process)
            case "leave":
                world.turn(process, leaving=True)
            case "set back":
                world.board.set_back += 100 * seconds
            case "wait":
                world.board.now += TERM * seconds**3
        world.check()


def _settled(world: World, seconds: float) -> dict[str, float]:
    """Let everybody take turns for a while; return for how many seconds each had something to spend."""
    served = dict.fromkeys((process.name for process in world.processes), 0.0)
    until = world.board.now + seconds
    while world.board.now < until:
        for process in world.processes:
            world.spend(process)
            world.turn(process)
            world.check()
            if any(process.may_spend(address, world.board.now) for address in process.addresses):
                served[process.name] += 0.5
        for process in world.processes:
            for address, spent in process.known.items():
                process.known[address] = [entry for entry in spent if entry[0] + PERIOD > world.board.now]
        world.board.now += 0.5
    return served


@settings(max_examples=12)
@given(st.integers(1, 5), st.integers(1, 5))
def test_everybody_gets_a_turn_however_few_addresses_there_are(processes: int, addresses: int) -> None:
    names = tuple("abcdef"[:addresses])
    world = World([Process(str(number), names) for number in range(processes)])
    served = _settled(world, 6 * TERM * processes)
    assert min(served.values()) >= 0.5 * TERM


@settings(max_examples=12)
@given(LISTS)
def test_overlapping_lists_leave_nobody_without(lists: list[list[str]]) -> None:
    world = World([Process(str(number), tuple(names)) for number, names in enumerate(lists)])
    served = _settled(world, 25 * TERM)
    assert min(served.values()) >= 0.5 * TERM


@pytest.mark.parametrize(("processes", "addresses"), [(2, 3), (4, 12), (3, 10), (5, 5)])
def test_addresses_are_shared_out_evenly(processes: int, addresses: int) -> None:
    names = tuple(f"address {number}" for number in range(addresses))
    world = World([Process(str(number), names) for number in range(processes)])
    world.turn(world.processes[0])
    assert len(world.processes[0].held) == addresses  # while it is alone it has all
    _settled(world, 5 * TERM)
    counts = sorted(len(process.held) for process in world.processes)
    assert sum(counts) == addresses
    assert counts[-1] - counts[0] <= 1


def _take(
    board: Board, name: str, held: Iterable[str] = (), offers: Mapping[str, Note] | None = None
) -> Reply:
    wish = Wish(name, ("a", "b"), frozenset(held), offers or {}, frozenset(offers or {}), TERM, period=PERIOD)
    return board.take(wish)


def test_disjoint_lists_do_not_share() -> None:
    board = Board()
    for name, addresses in (("one", ("a", "b")), ("two", ("c", "d"))):
        reply = board.take(Wish(name, addresses, term=TERM))
        assert (set(reply.held), reply.share, reply.others) == (set(addresses), 2.0, 0)


def test_an_exhausted_address_goes_to_who_has_none_with_what_was_spent_of_it() -> None:
    board = Board()
    assert _take(board, "one").held == {"a", "b"}
    assert not _take(board, "two").held
    board.now += 1
    offers = {"b": Note(((0.5, 20),), closed=9.0)}
    reply = _take(board, "one", "ab", offers)
    assert reply.held == {"a"}
    assert reply.share == 1.0
    board.now += 1
    reply = _take(board, "two")
    assert reply.held == {"b"}
    assert reply.notes == {"b": Note(((1.5, 20),), closed=8.0)}


def test_what_is_offered_stays_where_nobody_lacks_any() -> None:
    board = Board()
    _take(board, "one")
    assert _take(board, "one", "ab", {"b": Note()}).held == {"a", "b"}


def test_nobody_waits_for_what_it_spent_itself() -> None:
    board = Board()
    _take(board, "one")
    leaving = Wish("one", ("a", "b"), frozenset("ab"), {"a": Note(((0.0, 9),)), "b": Note()}, leaving=True)
    assert not board.take(leaving).held
    reply = _take(board, "one")
    assert reply.held == {"a", "b"}
    assert not reply.notes
    board.take(leaving)
    assert _take(board, "two").notes["a"] == Note(((0.0, 9),))


def test_who_vanished_is_dropped_after_its_term_and_who_has_ended_at_once() -> None:
    board = Board()
    _take(board, "one")
    board.now += TERM - 1
    assert not _take(board, "two").held
    board.now += 1.5
    reply = _take(board, "two")
    assert reply.notes == {name: Note(vanished=0.5) for name in "ab"}
    board.ended.add("two")
    board.now += 1
    reply = board.take(Wish("three", ("a", "b"), term=TERM), liveness_known=True)
    assert reply.notes == {name: Note(vanished=0.0) for name in "ab"}


def test_after_a_period_nothing_is_told_any_more() -> None:
    board = Board()
    _take(board, "one")
    board.now += TERM + PERIOD
    reply = _take(board, "two")
    assert reply.held == {"a", "b"}
    assert not reply.notes


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":1}', '{"format":"x","holders":3}', "\0"])
def test_what_is_not_of_marketfetch_is_left_alone(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^board: .* delete it"):
        turn(text, 0.0, wish=Wish("one", ["a"]))


@given(st.data())
def test_a_damaged_board_is_refused_or_of_use(data: st.DataObject) -> None:
    """Whatever stands in one place of it: nothing but the one error that says what to do."""
    text, _ = turn(None, 0.0, wish=Wish("one", ["a", "b"]))
    text, _ = turn(text, 1.0, wish=Wish("one", ["a"], frozenset("ab"), {"b": Note(((0.5, 3),))}))
    content = json.loads(text)
    place, key = content, data.draw(st.sampled_from(list(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    values = [None, "x", "", -1, 1e400, True, [], {}, [["x", "y"]], {"a": 1}, {"a": ["x", None]}]
    place[key] = data.draw(st.sampled_from(values))
    with suppress(ConfigurationError):
        turn(json.dumps(content), 2.0, wish=Wish("two", ["a", "b"]))


def test_the_first_format_is_read() -> None:
    first = {
        "format": 1,
        "at": 1.0,
        "lists": {"0": ["a"]},
        "holders": {},
        "claims": {},
        "notes": {"a": ["one", [[0.5, 20]], 0.0, None]},
    }
    _, reply = turn(json.dumps(first), 2.0, wish=Wish("two", ["a"]))
    assert reply.notes == {"a": Note(((1.5, 20),))}


def test_a_note_ends_with_the_minute_in_which_the_exchange_counts() -> None:
    board = Board()
    _take(board, "one")
    leaving = Wish("one", ("a", "b"), frozenset("ab"), {"a": Note(((0.5, 20),), expires=9.0)}, leaving=True)
    board.take(leaving)
    later = attrs.evolve(board, now=board.now + 2)
    assert _take(later, "two").notes["a"] == Note(((2.5, 20),), expires=7.0)


def test_two_notes_end_with_the_later_one_and_do_not_if_one_does_not_say() -> None:
    early, late = (LeftNote("one", ((1.0, 5),), expires=end) for end in (10.0, 20.0))
    assert early.united(late).expires == late.united(early).expires == 20.0
    assert early.united(LeftNote("two", ((1.0, 5),))).expires is None
    assert early.united(LeftNote("two", vanished=2.0)).expires == 10.0
    assert early.moved(-3.0).expires == 7.0


def test_a_newer_format_is_refused() -> None:
    text, _ = turn(None, 0.0, wish=Wish("one", ["a"]))
    newer = json.dumps(json.loads(text) | {"format": 3})
    with pytest.raises(
        ConfigurationError, match=r"newer marketfetch \(format 3; this one knows 2\): upgrade"
    ):
        turn(newer, 0.0, wish=Wish("one", ["a"]))


def test_two_hundred_addresses_and_many_processes_fit_on_a_board() -> None:
    names = [f"{number:016x}" for number in range(200)]
    board = Board()
    for number in range(16):
        board.take(Wish(f"process {number}", names, term=TERM))
    assert len(board.text or "") < 20_000
