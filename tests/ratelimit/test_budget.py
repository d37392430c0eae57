"""The promise of the budgets, held against a model of an exchange that counts by its own clock."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget, usable
from marketfetch.ratelimit.claim_notes import StoredUsageNote, UsageNote, charge_note, note_of
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import Burst, LimitPool

START = 1_780_272_030_500  # half past a minute


@attrs.define
class ModelExchange:
    """Counts as published: per window of its own clock, or looking back from each request."""

    pool: LimitPool
    skew: int
    most: int = 0  # the highest count ever
    counts: dict[int, int] = attrs.field(factory=dict)
    recent: deque[tuple[int, int]] = attrs.field(factory=deque)

    def count(self, weight: int, local: int) -> tuple[int, int]:
        """Count a request arriving at a moment of our clock; return what is used and the date header."""
        now = local + self.skew
        if self.pool.window == "clock":
            window = now // self.pool.period
            used = self.counts[window] = self.counts.get(window, 0) + weight
        else:
            while self.recent and self.recent[0][0] <= now - self.pool.period:
                self.recent.popleft()
            self.recent.append((now, weight))
            used = sum(weight for _, weight in self.recent)
        self.most = max(self.most, used)
        return used, now // 1000 * 1000


@attrs.define
class TwoLimits(ModelExchange):
    """Counts each request against the limit of the shorter period, too."""

    shorter: ModelExchange = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        burst = self.pool.burst
        assert burst is not None
        pool = LimitPool("shorter", burst.capacity, burst.period, self.pool.window)
        self.shorter = ModelExchange(pool, self.skew)

    def count(self, weight: int, local: int) -> tuple[int, int]:
        self.shorter.count(weight, local)
        return super().count(weight, local)


@attrs.define
class Client:
    """So many workers that send as soon as the budget lets them; steps from event to event."""

    exchange: ModelExchange
    weight: int
    workers: int
    delays: list[tuple[int, int]]  # to the exchange and back, used in turn
    stamps: bool = True  # whether answers tell the date
    now: int = START
    sent: int = 0
    budget: RateBudget = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.budget = RateBudget(self.exchange.pool, ServerClock())

    def run(self, until: int) -> None:
        arriving: list[tuple[int, int, int]] = []  # (when, number, back)
        returning: list[tuple[int, int, int, int, int]] = []  # (when, number, sent, used, date)
        sent_at: dict[int, int] = {}
        while self.now < until:
            free = self.workers - len(arriving) - len(returning)
            moment = self.budget.available_at(self.weight, self.now) if free else UNKNOWN_UNTIL_RESPONSE
            if moment <= self.now:
                there, back = self.delays[self.sent % len(self.delays)]
                self.budget.spend(self.weight)
                sent_at[self.sent] = self.now
                heappush(arriving, (self.now + there, self.sent, back))
                self.sent += 1
                continue
            events = [moment, *(queue[0][0] for queue in (arriving, returning) if queue)]
            self.now = max(self.now, min(events))
            if self.now >= until:
                return
            while arriving and arriving[0][0] <= self.now:
                when, number, back = heappop(arriving)
                used, date = self.exchange.count(self.weight, when)
                heappush(returning, (when + back, number, sent_at.pop(number), used, date))
            while returning and returning[0][0] <= self.now:
                when, _, sent, used, date = heappop(returning)
                if self.stamps:
                    self.budget.clock.observe(sent, when, date)
                self.budget.release(self.weight, when)
                header = used if self.exchange.pool.used_header else None
                self.budget.sync_with_header(header, sent, when)


def pools(period: int = 60_000) -> st.SearchStrategy[LimitPool]:
    return st.builds(
        LimitPool,
        st.just("weight"),
        st.integers(20, 600),
        st.just(period),
        st.sampled_from(["clock", "sliding"]),
        st.sampled_from([None, "x-used"]),
    )


skews = st.integers(-3_000, 3_000) | st.integers(-86_400_000, 86_400_000)
delays = st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 3_000)), min_size=1, max_size=7)


@st.composite
def situations(draw: st.DrawFn) -> Client:
    """Clients that start anywhere in a window, and often shortly before it ends on the exchange's clock."""
    exchange = ModelExchange(draw(pools()), draw(skews))
    before = draw(st.integers(0, 3_000) | st.integers(0, 60_000))
    return Client(
        exchange,
        weight=draw(st.integers(1, 20)),
        workers=draw(st.integers(1, 60)),
        delays=draw(delays),
        stamps=draw(st.booleans()),
        now=START // 60_000 * 60_000 + 120_000 - exchange.skew - before,
    )


@settings(max_examples=300)
@given(situations())
def test_is_never_over_the_limit(client: Client) -> None:
    pool = client.exchange.pool
    client.run(client.now + 4 * pool.period)
    assert 0 < client.exchange.most <= pool.capacity


@settings(max_examples=100)
@given(situations(), st.integers(20, 60), st.integers(2, 8))
def test_neither_of_two_limits_is_exceeded(client: Client, capacity: int, bursts: int) -> None:
    pool = attrs.evolve(client.exchange.pool, capacity=capacity * bursts, burst=Burst(capacity, 5_000))
    exchange = TwoLimits(pool, client.exchange.skew)
    attrs.evolve(client, exchange=exchange, sent=0).run(client.now + 3 * pool.period)
    assert 0 < exchange.most <= pool.capacity
    assert 0 < exchange.shorter.most <= capacity


def test_the_limit_of_the_shorter_period_is_waited_for() -> None:
    pool = LimitPool("calls", 300, 60_000, burst=Burst(10, 1000))
    exchange = TwoLimits(pool, 0)
    client = Client(exchange, 1, 20, [(5, 5)])
    client.run(START + 5_000)
    assert exchange.shorter.most == 10
    assert 40 <= client.sent <= 50  # ten in each second
    client.run(START + 10 * pool.period)
    assert exchange.most == usable(pool)
    assert client.sent >= 0.97 * 10 * pool.capacity


@pytest.mark.parametrize("burst", [None, Burst(10, 1000)])
def test_without_a_header_no_request_goes_alone_after_what_another_process_has_spent(
    burst: Burst | None,
) -> None:
    budget = RateBudget(LimitPool("calls", 300, 60_000, burst=burst), ServerClock())
    budget.charge(2, START)  # from the note of that process
    for now in (START + 10, START + 20):
        assert budget.available_at(1, now) == now
        budget.spend(1)
    assert budget.room == (295 if burst is None else 6)


@given(situations(), st.data())
def test_weight_used_by_others_before_is_respected(client: Client, data: st.DataObject) -> None:
    pool = client.exchange.pool
    assume(pool.used_header)
    # Nothing can be known before the first answer, so that there is room for one question.
    client.exchange.count(data.draw(st.integers(0, pool.capacity - client.weight)), client.now - 10)
    client.run(client.now + 2 * pool.period)
    assert client.exchange.most <= pool.capacity


def _left(client: Client, wait: int) -> UsageNote:
    """Return the note about what a client has spent, as the board has it after `wait` milliseconds."""
    left = StoredUsageNote.of(note_of(client.budget, 0, client.now), "one", client.now / 1000)
    client.now += wait
    return left.note(client.now / 1000)


@settings(max_examples=300)
@given(situations(), st.integers(0, 130_000), st.integers(0, 20_000), st.booleans())
def test_whoever_is_told_what_is_spent_goes_on_without_going_over(
    client: Client, milliseconds: int, wait: int, same_clock: bool
) -> None:
    pool, clock = client.exchange.pool, client.budget.clock
    client.run(client.now + milliseconds)
    assert len(client.budget.spent(client.now)) <= 16
    in_flight, note = client.budget.weight_in_flight, _left(client, wait)
    assert sum(weight for _, weight in note.spent) + in_flight >= client.budget.used(client.now)
    successor = attrs.evolve(client, sent=0)
    if same_clock:
        successor.budget = RateBudget(pool, clock)
    charge_note(successor.budget, note, client.now)
    successor.budget.charge(in_flight, client.now)  # what never arrived
    successor.run(client.now + 2 * pool.period)
    assert client.exchange.most <= pool.capacity


def test_whoever_does_not_know_the_clock_of_the_exchange_begins_when_the_minute_of_the_last_holder_ends() -> (
    None
):
    pool = LimitPool("weight", 100, 60_000, "clock")
    client = Client(ModelExchange(pool, skew=7_000), weight=1, workers=1, delays=[(20, 20)])
    minute = START // 60_000 * 60_000 + 60_000 - 7_000
    client.now = minute + 200
    client.run(minute + 30_000)
    assert client.sent == 100
    successor = attrs.evolve(client, sent=0)
    charge_note(successor.budget, _left(client, 10), client.now)
    successor.run(minute + 59_900)
    assert not successor.sent
    successor.run(minute + 62_500)  # the header with the date has no milliseconds
    assert successor.sent > 30


@settings(max_examples=25)
@given(skews, st.sampled_from([1, 2, 5, 10]), st.integers(5, 150), st.sampled_from([None, "x-used"]))
def test_a_saturated_window_is_used_to_97_percent(
    skew: int, weight: int, delay: int, header: str | None
) -> None:
    pool = LimitPool("weight", 2400, 60_000, "clock", header)
    exchange = ModelExchange(pool, skew)
    Client(exchange, weight, 20, [(delay, delay), (delay * 2, 5)]).run(START + 4 * pool.period)
    _, first, *others, _ = [used for _, used in sorted(exchange.counts.items())]  # cut ones at both ends
    assert min(others) >= 0.97 * pool.capacity
    # The run may have begun less than a window's worth before: what straddled the boundary counts twice.
    assert first >= 0.97 * pool.capacity - 20 * weight


@settings(max_examples=25)
@given(st.integers(1, 300), st.sampled_from([1, 2, 5]))
def test_a_sliding_window_is_used_to_97_percent(delay: int, weight: int) -> None:
    pool = LimitPool("calls", 500, 300_000)
    exchange = ModelExchange(pool, 0)
    client = Client(exchange, weight, 20, [(delay, delay)])
    client.run(START + 5 * pool.period)
    assert client.sent * weight >= 0.97 * 5 * pool.capacity
    assert exchange.most <= pool.capacity


@given(skews, st.integers(0, 2_000), st.integers(0, 2_000))
def test_the_first_question_is_asked_alone(skew: int, there: int, back: int) -> None:
    pool = LimitPool("weight", 2400, 60_000, "clock", "x-used")
    budget = RateBudget(pool, ServerClock())
    assert budget.available_at(1, START) == START
    budget.spend(1)
    assert budget.available_at(1, START) == UNKNOWN_UNTIL_RESPONSE
    received = START + there + back
    budget.clock.observe(START, received, (START + there + skew) // 1000 * 1000)
    budget.release(1, received)
    budget.sync_with_header(1, START, received)
    assert budget.available_at(1, received) == received


def test_it_asks_alone_again_after_a_silent_window() -> None:
    pool = LimitPool("weight", 2400, 60_000, "clock", "x-used")
    budget = RateBudget(pool, ServerClock())
    budget.spend(1)
    budget.clock.observe(70_000, 70_010, 70_000)
    budget.release(1, 70_010)
    budget.sync_with_header(1, 70_000, 70_010)
    budget.spend(1)
    assert budget.available_at(1, 70_020) == 70_020
    budget.release(1, 70_030)
    assert budget.available_at(1, 200_000) == 200_000
    budget.spend(1)
    assert budget.available_at(1, 200_000) == UNKNOWN_UNTIL_RESPONSE


def test_what_others_used_is_believed_and_forgiven_with_the_window() -> None:
    pool = LimitPool("weight", 2400, 60_000, "clock", "x-used")
    budget = RateBudget(pool, ServerClock())
    budget.spend(2)
    budget.clock.observe(70_000, 70_020, 70_000)
    budget.release(2, 70_020)
    budget.sync_with_header(2_390, 70_000, 70_020)
    later = budget.available_at(2, 70_030)
    assert 120_000 <= later <= 121_100
    assert budget.available_at(2, later) == later


def test_a_header_never_lowers_what_is_used() -> None:
    budget = RateBudget(LimitPool("weight", 10, 60_000, "sliding", "x-used"), ServerClock())
    budget.spend(10)
    budget.release(10, 5)
    budget.sync_with_header(1, 0, 5)
    assert budget.available_at(1, 6) == 60_006


def test_a_header_that_may_be_of_the_window_before_is_waited_out_but_not_taken_along() -> None:
    pool = LimitPool("weight", 2400, 60_000, "clock", "x-used")
    budget = RateBudget(pool, ServerClock())
    budget.spend(2)
    budget.clock.observe(119_500, 120_500, 119_000)
    budget.release(2, 120_500)
    budget.sync_with_header(2_390, 119_500, 120_500)
    # By 121,502 the exchange's clock surely shows the new minute: whatever others spent is forgiven.
    assert budget.available_at(2, 120_600) == 121_502
    assert budget.available_at(2, 121_502) == 121_502


def test_nothing_is_spent_while_closed() -> None:
    budget = RateBudget(LimitPool("weight", 10, 60_000), ServerClock())
    budget.block_until(500)
    budget.block_until(400)
    assert budget.available_at(1, 100) == 500
    assert budget.available_at(1, 501) == 501


def test_a_cost_above_the_capacity_names_both() -> None:
    budget = RateBudget(LimitPool("funding", 10, 60_000), ServerClock())
    with pytest.raises(ConfigurationError, match=r"weight 11 .* 'funding' .* capacity of 10"):
        budget.available_at(11, 0)


def test_a_cost_as_large_as_the_capacity_fits() -> None:
    budget = RateBudget(LimitPool("funding", 1000, 60_000), ServerClock())
    assert budget.available_at(1000, 7) == 7


def test_a_copy_to_plan_with_goes_on_alike_and_apart() -> None:
    budget = RateBudget(LimitPool("calls", capacity=10, period=60_000, used_header="used"), ServerClock())
    budget.spend(4)
    budget.release(4, received=250)
    budget.sync_with_header(6, sent=0, received=250)
    budget.spend(1)
    copied = budget.copy(300)
    assert [copied.available_at(weight, 300) for weight in (3, 4, 10)] == [300, 60_251, 60_301]
    copied.block_until(90_000)
    copied.spend(3)
    assert budget.available_at(3, 300) == 300
    assert budget.copy(301).used(301) == 7
