from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfetch.ratelimit.server_clock import ServerClock

answers = st.lists(
    st.tuples(st.integers(0, 90_000), st.integers(0, 4_000), st.integers(0, 4_000)), min_size=1
)


def ask(clock: ServerClock, sent: int, there: int, back: int, offset: float) -> int:
    """Make the clock see one answer of a server whose time is ours plus an offset."""
    date = int(sent + there + offset) // 1000 * 1000
    clock.observe(sent, sent + there + back, date)
    return sent + there + back


@given(st.integers(-90_000_000, 90_000_000), answers)
def test_bounds_always_hold_the_truth(offset: int, answers: list[tuple[int, int, int]]) -> None:
    clock, now = ServerClock(), 1_780_000_000_000
    for pause, there, back in answers:
        now = ask(clock, now + pause, there, back, offset)
        for moment in (now - 5_000, now, now + 100_000):
            assert clock.earliest(moment) <= moment + offset <= clock.latest(moment)


@given(st.integers(-5_000, 5_000), st.floats(-4e-4, 4e-4), answers)
def test_bounds_hold_for_clocks_that_run_apart(
    offset: int, drift: float, answers: list[tuple[int, int, int]]
) -> None:
    clock, start = ServerClock(), 1_780_000_000_000
    now = start
    for pause, there, back in answers:
        sent = now + pause
        moment = sent + there
        truth = moment + offset + (moment - start) * drift
        now = sent + there + back
        clock.observe(sent, now, int(truth) // 1000 * 1000)
        assert clock.earliest(now) <= now + offset + (now - start) * drift <= clock.latest(now)


@given(st.integers(-5_000, 5_000), answers, st.integers(-60_000, 200_000))
def test_surely_at_is_the_first_moment_that_is_sure(
    offset: int, answers: list[tuple[int, int, int]], ahead: int
) -> None:
    clock, now = ServerClock(), 1_780_000_000_000
    for pause, there, back in answers:
        now = ask(clock, now + pause, there, back, offset)
    goal = now + offset + max(0, ahead) + 2_000 + 8_000
    moment = clock.surely_at(goal)
    assert clock.earliest(moment) >= goal
    assert clock.earliest(moment - 3) < goal


def test_many_answers_tell_milliseconds_out_of_a_header_of_seconds() -> None:
    clock, now = ServerClock(), 1_780_000_000_000
    for _ in range(200):
        now = ask(clock, now + 37, 4, 4, 2_345)
    assert clock.latest(now) - clock.earliest(now) < 60
    assert clock.earliest(now) <= now + 2_345 <= clock.latest(now)


@given(st.integers(3_000, 10_000_000), st.sampled_from([-1, 1]))
def test_a_clock_that_was_set_is_believed_again(jump: int, direction: int) -> None:
    clock, now = ServerClock(), 1_780_000_000_000
    for _ in range(20):
        now = ask(clock, now + 37, 4, 4, 0)
    now = ask(clock, now + 37, 4, 4, direction * jump)
    assert clock.earliest(now) <= now + direction * jump <= clock.latest(now)


def known(truth: int = 0, at: int = 1_780_000_000_000) -> ServerClock:
    """A clock that a header and the time route have set."""
    clock = ServerClock()
    ask(clock, at, 4, 4, truth)
    clock.observe(at, at + 8, at + 4 + truth, exact=True)
    assert clock.confirmed
    return clock


lies = st.integers(10_000, 10**11) | st.integers(-(10**11), -10_000)


@given(st.integers(-5_000, 5_000), st.lists(lies, min_size=1))
def test_headers_alone_replace_nothing_that_the_time_route_said(truth: int, offsets: list[int]) -> None:
    clock, now = known(truth), 1_780_000_010_000
    for offset in offsets:
        ask(clock, now, 4, 4, truth + offset)
        assert now + truth - 50 <= clock.earliest_accepted(now) <= now + truth
        assert not clock.confirmed
        # A budget waits long enough for both.
        assert clock.earliest(now) <= now + truth + min(0, offset)
        assert clock.latest(now) >= now + truth + max(0, offset)
    clock.observe(now, now + 8, now + 4 + truth, exact=True)
    assert clock.confirmed
    assert clock.latest(now) - clock.earliest(now) < 100


@given(st.integers(-5_000, 5_000), lies)
def test_of_three_answers_of_the_time_route_two_decide(truth: int, lie: int) -> None:
    now = 1_780_000_000_000
    for answers in ([lie, 0, 0], [0, lie, 0], [0, 0, lie]):
        clock = ServerClock()
        for offset in answers:
            clock.observe(now, now + 8, now + 4 + truth + offset, exact=True)
        assert now + truth - 10 <= clock.earliest_accepted(now) <= now + truth


@given(st.integers(-5_000, 5_000), lies)
def test_one_wrong_header_is_forgotten_with_the_next_right_one(truth: int, lie: int) -> None:
    clock, now = ServerClock(), 1_780_000_000_000
    for offset in (0, 0, lie, 0):
        ask(clock, now, 4, 4, truth + offset)
    assert clock.latest(now) - clock.earliest(now) <= 1_100
    assert clock.earliest(now) <= now + truth <= clock.latest(now)


def test_a_server_whose_clock_was_set_is_believed_when_its_time_route_agrees() -> None:
    clock, now = known(), 1_780_000_010_000
    ask(clock, now, 4, 4, 9_000)
    clock.observe(now, now + 8, now + 9_004, exact=True)
    assert clock.confirmed
    assert clock.earliest_accepted(now) == now + 8_994


def test_before_any_answer_the_server_has_the_local_time() -> None:
    clock = ServerClock()
    assert not clock.known
    assert clock.earliest_accepted(7) == 7
