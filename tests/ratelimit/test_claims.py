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
from marketfetch.ratelimit.claim_notes import StoredUsageNote, UsageNote
from marketfetch.ratelimit.claims import ClaimRequest, ClaimResult, take_turn

TERM, PERIOD = 6.0, 15.0


@attrs.define
class Board:
    """A text and a clock, which may be set back."""

    text: str | None = None
    now: float = 1_000.0
    set_back: float = 0.0
    ended: set[str] = attrs.field(factory=set)

    def take(self, request: ClaimRequest, *, liveness_known: bool = False) -> ClaimResult:
        def has_ended(holder: str) -> bool:
            return liveness_known and holder in self.ended

        self.text, result = take_turn(
            self.text, self.now - self.set_back, request=request, has_ended=has_ended
        )
        return result


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

    def note(self, address: str, now: float) -> UsageNote:
        spent = self.known.get(address, [])
        left = [(when, weight) for when, weight in spent if when + PERIOD > now]
        if not left:
            return UsageNote()
        return UsageNote(((now - max(when for when, _ in left), sum(weight for _, weight in left)),))

    def request(self, now: float, *, leaving: bool = False) -> ClaimRequest:
        offered = self.held if leaving else self.unused | self.exhausted
        self.unused |= self.exhausted
        return ClaimRequest(
            self.name,
            self.addresses,
            frozenset(address for address, until in self.held.items() if until > now),
            {address: self.note(address, now) for address in offered if address in self.held},
            frozenset(self.exhausted),
            TERM,
            period=PERIOD,
            leaving=leaving,
        )

    def learn(self, result: ClaimResult, now: float) -> None:
        for address, note in result.notes.items():
            self.known.setdefault(address, []).extend((now - age, weight) for age, weight in note.spent)
            if note.vanished is not None:  # nobody knows what was spent before: all of it, then
                self.known[address].append((now - note.vanished, 10**6))
        self.held = dict.fromkeys(result.held, now + TERM)
        self.unused = set(result.drain)
        self.exhausted &= result.held & self.exhausted
        self.exhausted.clear()


@attrs.define
class ClaimsModel:
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
        result = self.board.take(process.request(self.board.now, leaving=leaving), liveness_known=True)
        if answered:
            process.learn(result, self.board.now)

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
    model = ClaimsModel([Process(str(number), tuple(names)) for number, names in enumerate(lists)])
    for step in chance.choices([*STEPS], [*STEPS.values()], k=300):
        process, seconds = chance.choice(model.processes), chance.random()
        match step:
            case "turn":
                model.turn(process)
            case "lost":
                model.turn(process, answered=False)
            case "spend":
                model.spend(process)
            case "kill":
                model.kill(process)
            case "exhaust":
                model.exhaust(process)
            case "leave":
                model.turn(process, leaving=True)
            case "set back":
                model.board.set_back += 100 * seconds
            case "wait":
                model.board.now += TERM * seconds**3
        model.check()


def _settled(model: ClaimsModel, seconds: float) -> dict[str, float]:
    """Let everybody take turns for a while; return for how many seconds each had something to spend."""
    served = dict.fromkeys((process.name for process in model.processes), 0.0)
    until = model.board.now + seconds
    while model.board.now < until:
        for process in model.processes:
            model.spend(process)
            model.turn(process)
            model.check()
            if any(process.may_spend(address, model.board.now) for address in process.addresses):
                served[process.name] += 0.5
        for process in model.processes:
            for address, spent in process.known.items():
                process.known[address] = [entry for entry in spent if entry[0] + PERIOD > model.board.now]
        model.board.now += 0.5
    return served


@settings(max_examples=12)
@given(st.integers(1, 5), st.integers(1, 5))
def test_everybody_gets_a_turn_however_few_addresses_there_are(processes: int, addresses: int) -> None:
    names = tuple("abcdef"[:addresses])
    model = ClaimsModel([Process(str(number), names) for number in range(processes)])
    served = _settled(model, 6 * TERM * processes)
    assert min(served.values()) >= 0.5 * TERM


@settings(max_examples=12)
@given(LISTS)
def test_overlapping_lists_leave_nobody_without(lists: list[list[str]]) -> None:
    model = ClaimsModel([Process(str(number), tuple(names)) for number, names in enumerate(lists)])
    served = _settled(model, 25 * TERM)
    assert min(served.values()) >= 0.5 * TERM


@pytest.mark.parametrize(("processes", "addresses"), [(2, 3), (4, 12), (3, 10), (5, 5)])
def test_addresses_are_shared_out_evenly(processes: int, addresses: int) -> None:
    names = tuple(f"address {number}" for number in range(addresses))
    model = ClaimsModel([Process(str(number), names) for number in range(processes)])
    model.turn(model.processes[0])
    assert len(model.processes[0].held) == addresses  # while it is alone it has all
    _settled(model, 5 * TERM)
    counts = sorted(len(process.held) for process in model.processes)
    assert sum(counts) == addresses
    assert counts[-1] - counts[0] <= 1


def _take(
    board: Board, name: str, held: Iterable[str] = (), offers: Mapping[str, UsageNote] | None = None
) -> ClaimResult:
    request = ClaimRequest(
        name, ("a", "b"), frozenset(held), offers or {}, frozenset(offers or {}), TERM, period=PERIOD
    )
    return board.take(request)


def test_disjoint_lists_do_not_share() -> None:
    board = Board()
    for name, addresses in (("one", ("a", "b")), ("two", ("c", "d"))):
        result = board.take(ClaimRequest(name, addresses, term=TERM))
        assert (set(result.held), result.share, result.others) == (set(addresses), 2.0, 0)


def test_an_exhausted_address_goes_to_who_has_none_with_what_was_spent_of_it() -> None:
    board = Board()
    assert _take(board, "one").held == {"a", "b"}
    assert not _take(board, "two").held
    board.now += 1
    offers = {"b": UsageNote(((0.5, 20),), closed=9.0)}
    result = _take(board, "one", "ab", offers)
    assert result.held == {"a"}
    assert result.share == 1.0
    board.now += 1
    result = _take(board, "two")
    assert result.held == {"b"}
    assert result.notes == {"b": UsageNote(((1.5, 20),), closed=8.0)}


def test_what_is_offered_stays_where_nobody_lacks_any() -> None:
    board = Board()
    _take(board, "one")
    assert _take(board, "one", "ab", {"b": UsageNote()}).held == {"a", "b"}


def test_nobody_waits_for_what_it_spent_itself() -> None:
    board = Board()
    _take(board, "one")
    leaving = ClaimRequest(
        "one", ("a", "b"), frozenset("ab"), {"a": UsageNote(((0.0, 9),)), "b": UsageNote()}, leaving=True
    )
    assert not board.take(leaving).held
    result = _take(board, "one")
    assert result.held == {"a", "b"}
    assert not result.notes
    board.take(leaving)
    assert _take(board, "two").notes["a"] == UsageNote(((0.0, 9),))


def test_who_vanished_is_dropped_after_its_term_and_who_has_ended_at_once() -> None:
    board = Board()
    _take(board, "one")
    board.now += TERM - 1
    assert not _take(board, "two").held
    board.now += 1.5
    result = _take(board, "two")
    assert result.notes == {name: UsageNote(vanished=0.5) for name in "ab"}
    board.ended.add("two")
    board.now += 1
    result = board.take(ClaimRequest("three", ("a", "b"), term=TERM), liveness_known=True)
    assert result.notes == {name: UsageNote(vanished=0.0) for name in "ab"}


def test_after_a_period_nothing_is_told_any_more() -> None:
    board = Board()
    _take(board, "one")
    board.now += TERM + PERIOD
    result = _take(board, "two")
    assert result.held == {"a", "b"}
    assert not result.notes


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":1}', '{"format":"x","holders":3}', "\0"])
def test_what_is_not_of_marketfetch_is_left_alone(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^board: .* delete it"):
        take_turn(text, 0.0, request=ClaimRequest("one", ["a"]))


@given(st.data())
def test_a_damaged_board_is_refused_or_of_use(data: st.DataObject) -> None:
    """Whatever stands in one place of it: nothing but the one error that says what to do."""
    text, _ = take_turn(None, 0.0, request=ClaimRequest("one", ["a", "b"]))
    text, _ = take_turn(
        text, 1.0, request=ClaimRequest("one", ["a"], frozenset("ab"), {"b": UsageNote(((0.5, 3),))})
    )
    content = json.loads(text)
    place, key = content, data.draw(st.sampled_from(list(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    values = [None, "x", "", -1, 1e400, True, [], {}, [["x", "y"]], {"a": 1}, {"a": ["x", None]}]
    place[key] = data.draw(st.sampled_from(values))
    with suppress(ConfigurationError):
        take_turn(json.dumps(content), 2.0, request=ClaimRequest("two", ["a", "b"]))


def test_the_first_format_is_read() -> None:
    first = {
        "format": 1,
        "at": 1.0,
        "lists": {"0": ["a"]},
        "holders": {},
        "claims": {},
        "notes": {"a": ["one", [[0.5, 20]], 0.0, None]},
    }
    _, result = take_turn(json.dumps(first), 2.0, request=ClaimRequest("two", ["a"]))
    assert result.notes == {"a": UsageNote(((1.5, 20),))}


def test_a_note_ends_with_the_minute_in_which_the_exchange_counts() -> None:
    board = Board()
    _take(board, "one")
    leaving = ClaimRequest(
        "one", ("a", "b"), frozenset("ab"), {"a": UsageNote(((0.5, 20),), expires=9.0)}, leaving=True
    )
    board.take(leaving)
    later = attrs.evolve(board, now=board.now + 2)
    assert _take(later, "two").notes["a"] == UsageNote(((2.5, 20),), expires=7.0)


def test_two_notes_end_with_the_later_one_and_do_not_if_one_does_not_say() -> None:
    early, late = (StoredUsageNote("one", ((1.0, 5),), expires=end) for end in (10.0, 20.0))
    assert early.merged_with(late).expires == late.merged_with(early).expires == 20.0
    assert early.merged_with(StoredUsageNote("two", ((1.0, 5),))).expires is None
    assert early.merged_with(StoredUsageNote("two", vanished=2.0)).expires == 10.0
    assert early.shifted_by(-3.0).expires == 7.0


def test_a_newer_format_is_refused() -> None:
    text, _ = take_turn(None, 0.0, request=ClaimRequest("one", ["a"]))
    newer = json.dumps(json.loads(text) | {"format": 3})
    with pytest.raises(
        ConfigurationError, match=r"newer marketfetch \(format 3; this one knows 2\): upgrade"
    ):
        take_turn(newer, 0.0, request=ClaimRequest("one", ["a"]))


def test_two_hundred_addresses_and_many_processes_fit_on_a_board() -> None:
    names = [f"{number:016x}" for number in range(200)]
    board = Board()
    for number in range(16):
        board.take(ClaimRequest(f"process {number}", names, term=TERM))
    assert len(board.text or "") < 20_000
