"""The pool as the engine sees it: leases, waiting, pauses, bans, and what it says when nothing is left."""

from __future__ import annotations

import email.utils
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.lowlevel
import attrs
import pytest

from marketfetch.errors import (
    BadSymbol,
    Banned,
    ConfigurationError,
    ProxyError,
    RateLimitExceeded,
    RestrictedLocation,
    TransportError,
)
from marketfetch.protocols import Sharing
from marketfetch.proxies.address_limits import Waiter
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry, process_registry
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.values.http import Cost, LimitPool, Request, Response

HOST = "https://exchange.example"
CALLS = LimitPool("calls", 1_000, 60_000)
FILES, DOWNLOADS = "https://files.example", LimitPool("downloads", 1_000, 60_000)
PASSWORD = "hunter2-very-secret"


@pytest.fixture(autouse=True)
def alone(unspent_budgets: None) -> None:
    """These are tests of a process for itself; what it asks of a board is tested elsewhere."""
    process_registry().sharing = Sharing()


def request(weight: int = 1, pool: LimitPool = CALLS, host: str = HOST) -> Request:
    return Request("/x", cost=Cost(pool, weight), base_url=host)


def answer(**headers: str) -> Response:
    return Response(200, {name.replace("_", "-"): content for name, content in headers.items()}, b"", 0, 0)


@attrs.define
class FakeClock:
    """A clock that is moved by hand."""

    ms: int = 1_780_272_000_000

    def __call__(self) -> int:
        return self.ms


def proxies(count: int, **options: object) -> RotatingProxies:
    urls = [f"http://anna:{PASSWORD}@10.0.0.{number}:3128" for number in range(1, count + 1)]
    return RotatingProxies(urls, **{"direct": False, **options})  # type: ignore[arg-type]


async def fail(proxies: RotatingProxies, error: Exception, **options: object) -> str:
    async with proxies.lease(request(**options)) as lease:  # type: ignore[arg-type]
        lease.failed(error)
        return lease.egress.name


async def succeed(proxies: RotatingProxies, /, **options: object) -> str:
    async with proxies.lease(request(**options)) as lease:  # type: ignore[arg-type]
        lease.answered(answer())
        return lease.egress.name


async def has_to_wait(pool: RotatingProxies, work: Callable[[], Awaitable[object]]) -> bool:
    """Whether a request has to wait for its lease; it is cancelled then."""
    failures: list[Exception] = []
    ended = False

    async def run() -> None:
        nonlocal ended
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # raised below: a task group would wrap it
            failures.append(error)
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while not ended and not pool._registry.waiters:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return not ended


def states(pool: RotatingProxies) -> dict[str, str]:
    return {report.name: report.state for report in pool.statistics()}


async def test_a_lease_has_an_egress_and_is_counted() -> None:
    pool = RotatingProxies(["10.0.0.1:3128"], direct=True)
    for _ in range(4):
        await succeed(pool, weight=300)
    reports = pool.statistics()
    assert [(report.name, report.requests, report.weight) for report in reports] == [
        ("Proxy 1", 2, 600),
        ("Direct", 2, 600),
    ]


async def test_requests_in_flight_are_spread() -> None:
    pool, names = proxies(4), Counter[str]()
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            for _ in range(10):
                async with pool.lease(request()) as lease:
                    names[lease.egress.name] += 1
                    await anyio.sleep(0.001)
                    lease.answered(answer())

        for _ in range(20):
            tasks.start_soon(work)
    assert names.total() == 200
    assert max(names.values()) <= 70


async def test_waiting_ends_as_soon_as_the_window_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = FakeClock(), list[int]()

    async def wait(waiter: Waiter, milliseconds: int) -> None:
        waits.append(milliseconds)
        clock.ms += milliseconds

    monkeypatch.setattr(Waiter, "wait", wait)
    pool = RotatingProxies([], now=clock)
    quick = LimitPool("quick", 3, 300)
    for _ in range(7):
        clock.ms += 10
        await succeed(pool, pool=quick)
    assert waits == [271, 271], "until more than 300 ms have passed since the first of the last three"


async def test_who_came_first_is_served_first() -> None:
    pool, order = RotatingProxies([]), list[int]()
    quick = LimitPool("quick", 1, 40)
    async with anyio.create_task_group() as tasks:

        async def work(number: int) -> None:
            async with pool.lease(request(pool=quick)) as lease:
                order.append(number)
                lease.answered(answer())

        for number in range(8):
            tasks.start_soon(work, number)
            await anyio.sleep(0.001)
    assert order == list(range(8))


async def test_hosts_that_count_together_share_the_budget_of_an_address() -> None:
    together = LimitPool("together", 10, 60_000, hosts=("https://a.example", "https://b.example"))
    clock = FakeClock()
    pool, other = (proxies(1, registry=registry) for registry in [Registry(clock)] * 2)
    await succeed(pool, pool=together, host="https://a.example", weight=6)
    for each in (pool, other):
        (budget,) = each.budgets(together, "https://b.example").values()
        assert budget.used(clock()) == 6
    await succeed(other, pool=together, host="https://b.example", weight=3)
    (budget,) = pool.budgets(together, "https://a.example").values()
    assert budget.used(clock()) == 9
    date = email.utils.formatdate(clock() / 1000 + 60, usegmt=True)
    async with pool.lease(request(pool=together, host="https://b.example")) as lease:
        lease.answered(answer(date=date))
    for host in together.hosts:
        assert abs(pool.server_clock(host).earliest(clock()) - clock() - 60_000) <= 2_000
    (alone,) = pool.budgets(together, "http://127.0.0.1:8000").values()
    assert alone.used(clock()) == 0, "a host of the user's own counts alone"


async def test_a_ban_counts_at_all_hosts_that_count_together() -> None:
    together = LimitPool("together", 10, 60_000, hosts=("https://a.example", "https://b.example"))
    clock = FakeClock()
    pool = proxies(1, registry=Registry(clock))
    await fail(pool, Banned("418", until=clock() + 600_000), pool=together, host="https://b.example")
    for host in together.hosts:
        with pytest.raises(ProxyError, match="no egress is free before"):
            await succeed(proxies(1, registry=pool._registry, max_wait=1), pool=together, host=host)
    assert await succeed(pool, host="https://c.example") == "Proxy 1"


async def test_a_returned_lease_wakes_who_waits() -> None:
    pool = RotatingProxies([])
    probed = LimitPool("probed", 100, 60_000, used_header="X-Used")
    async with anyio.create_task_group() as tasks:
        leased, answers = anyio.Event(), anyio.Event()

        async def first() -> None:
            async with pool.lease(request(pool=probed)) as lease:
                leased.set()
                await answers.wait()
                lease.answered(answer(x_used="1"))
                await anyio.sleep_forever()

        async def second() -> None:
            async with pool.lease(request(pool=probed)):
                tasks.cancel_scope.cancel()

        tasks.start_soon(first)
        await leased.wait()
        tasks.start_soon(second)
        with anyio.fail_after(20):
            while not pool._registry.waiters:  # noqa: ASYNC110  # a set has no event
                await anyio.sleep(0.001)
            answers.set()
            await anyio.sleep_forever()


async def test_weight_used_by_others_is_learned_from_the_header() -> None:
    clock = FakeClock()
    pool = RotatingProxies([], now=clock)
    probed = LimitPool("probed", 100, 60_000, "clock", used_header="X-Used")
    clock.ms += 30_000
    async with pool.lease(request(pool=probed)) as lease:
        clock.ms += 10
        lease.answered(answer(x_used="100", date="Mon, 01 Jun 2026 00:00:30 GMT"))
    assert await has_to_wait(pool, partial(succeed, pool, pool=probed))
    clock.ms += 32_000
    await succeed(pool, pool=probed)


@pytest.mark.parametrize("used", ["", "-1", "1.5", "many", "\u0661", "9" * 16, "9" * 400, "9" * 5_000])
async def test_a_header_without_a_plausible_weight_tells_nothing(used: str) -> None:
    """Python refuses to read numbers of more than 4,300 digits."""
    pool = RotatingProxies([])
    probed = LimitPool("probed", 100, 60_000, "clock", used_header="X-Used")
    async with pool.lease(request(pool=probed)) as lease:
        lease.answered(answer(x_used=used))
    with anyio.fail_after(20):
        await succeed(pool, pool=probed)


async def test_a_cancelled_request_counts_as_spent() -> None:
    pool = RotatingProxies([])
    small = LimitPool("small", 2, 60_000)
    with anyio.CancelScope() as scope:
        async with pool.lease(request(2, small)):
            scope.cancel()
            await anyio.sleep(1)
    assert await has_to_wait(pool, partial(succeed, pool, pool=small))
    assert pool._egresses[0].breaker.in_flight.total() == 0


async def test_cancelling_who_waits_leaves_the_queue_whole() -> None:
    clock, served = FakeClock(), anyio.Event()
    pool = RotatingProxies([], now=clock)
    quick = LimitPool("quick", 5, 60_000)
    await succeed(pool, pool=quick, weight=5)

    async def work() -> None:
        await succeed(pool, pool=quick)
        served.set()

    async def cancelled() -> None:
        with first:
            await work()

    first, waiters = anyio.CancelScope(), pool._registry.waiters
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            while not waiters:  # nothing is free by this clock
                await anyio.lowlevel.checkpoint()
            for _ in range(5):
                tasks.start_soon(work)
            (gone,) = waiters
            first.cancel()
            while not waiters - {gone}:  # the next one is the first
                await anyio.lowlevel.checkpoint()
            assert first.cancelled_caught
            assert not served.is_set()
            clock.ms += 60_001
            for waiter in waiters:
                waiter.wake()  # it sleeps by the clock of the machine
    assert served.is_set()
    assert not waiters


async def test_a_failing_proxy_rests_and_is_probed() -> None:
    clock = FakeClock()
    pool = proxies(2, now=clock)
    assert await fail(pool, ProxyError("refused")) == "Proxy 1"
    assert states(pool)["Proxy 1"].startswith("circuit open")
    assert {await succeed(pool) for _ in range(5)} == {"Proxy 2"}
    clock.ms += 1_100
    assert states(pool)["Proxy 1"] == "circuit half-open"
    async with pool.lease(request()) as one, pool.lease(request()) as two, pool.lease(request()) as three:
        names = {one.egress.name, two.egress.name, three.egress.name}
        for lease in (one, two, three):
            lease.answered(answer())
    assert names == {"Proxy 1", "Proxy 2"}
    assert set(states(pool).values()) == {"ready"}


async def test_all_dead_is_said_within_bounded_time() -> None:
    clock = FakeClock()
    pool = proxies(3, now=clock)

    async def until_told() -> None:
        for _ in range(50):
            refused = ProxyError("Proxy 1: 407: check user and password")
            clock.ms += 1_000 * await has_to_wait(pool, partial(fail, pool, refused))

    with pytest.raises(
        ProxyError, match=r"no egress left for https://exchange.example.*3 .*Last causes: .*407"
    ):
        await until_told()
    assert clock.ms < 1_780_272_000_000 + 20_000
    clock.ms += 60_000  # later on it is tried again
    await succeed(pool)
    assert "ready" in states(pool).values()


async def test_a_file_host_that_cuts_connections_delays_no_request_to_the_api() -> None:
    clock = FakeClock()
    pool = proxies(2, now=clock)

    async def until_told() -> None:
        for _ in range(100):
            cut = TransportError("the body ended too early")
            work = partial(fail, pool, cut, host=FILES, pool=DOWNLOADS)
            clock.ms += 1_000 * await has_to_wait(pool, work)
            with anyio.fail_after(20):  # the clock stands still: a rest would never end
                await succeed(pool)

    with pytest.raises(ProxyError, match=r"no egress left for https://files.example.*too early"):
        await until_told()
    assert {await succeed(pool, weight=300) for _ in range(4)} == {"Proxy 1", "Proxy 2"}
    assert all("for files.example" in state for state in states(pool).values())
    clock.ms += 60_000
    for _ in range(2):
        await succeed(pool, host=FILES, pool=DOWNLOADS, weight=500)
    assert set(states(pool).values()) == {"ready"}


async def test_an_api_that_breaks_connections_leaves_the_file_host_alone() -> None:
    pool = proxies(1, now=FakeClock())
    for _ in range(2):
        await fail(pool, TransportError("reset"))
    assert await succeed(pool, host=FILES, pool=DOWNLOADS) == "Proxy 1"
    assert await has_to_wait(pool, partial(succeed, pool))


async def test_a_probe_does_not_wait_for_a_long_download() -> None:
    clock = FakeClock()
    pool = proxies(1, now=clock)
    async with pool.lease(request(host=FILES, pool=DOWNLOADS)) as download:
        await fail(pool, ProxyError("refused"))
        clock.ms += 1_000
        with anyio.fail_after(20):  # the download does not end before
            await succeed(pool)
        download.answered(answer())


async def test_what_a_request_waits_for_is_said_while_another_host_is_broken() -> None:
    clock = FakeClock()
    pool = proxies(1, now=clock)
    for _ in range(2):
        await fail(pool, TransportError("cut"), host=FILES, pool=DOWNLOADS)
    clock.ms += 1_000
    assert states(pool) == {"Proxy 1": "circuit half-open for files.example"}
    await succeed(pool, weight=900)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(succeed, pool, weight=900))
        await pool.waiting_changed()
        assert states(pool)["Proxy 1"].endswith(" s for the limit calls")
        tasks.cancel_scope.cancel()


async def test_everybody_who_waits_is_told_that_nothing_is_left() -> None:
    pool = proxies(1)
    informed = 0
    async with anyio.create_task_group() as tasks:

        async def work() -> None:
            nonlocal informed
            while True:
                try:
                    await fail(pool, ProxyError("refused"))
                except ProxyError:
                    informed += 1
                    return

        for _ in range(3):
            pool._egresses[0].breaker.failed(ProxyError("refused"), HOST, sent=0, now=0, jitter=1.0)
        for _ in range(20):
            tasks.start_soon(work)
    assert informed == 20


async def test_a_limited_egress_is_left_alone_until_the_named_moment() -> None:
    clock = FakeClock()
    pool = proxies(2, now=clock)
    limited = await fail(pool, RateLimitExceeded("slow down", retry_after=30))
    other = ({"Proxy 1", "Proxy 2"} - {limited}).pop()
    assert {await succeed(pool) for _ in range(10)} == {other}
    # another limit pool is not concerned
    elsewhere = LimitPool("elsewhere", 10, 60_000)
    assert {await succeed(pool, pool=elsewhere, weight=5) for _ in range(2)} == {"Proxy 1", "Proxy 2"}
    clock.ms += 30_000
    assert limited in {await succeed(pool, weight=100) for _ in range(10)}


@pytest.mark.parametrize("error", [RateLimitExceeded("slow down"), RateLimitExceeded("now", retry_after=0)])
async def test_a_limit_without_a_moment_still_closes(error: Exception) -> None:
    pool = RotatingProxies([], now=FakeClock())
    await fail(pool, error)
    assert await has_to_wait(pool, partial(succeed, pool))


async def test_a_banned_egress_is_quarantined_for_all_pools_of_the_exchange() -> None:
    clock = FakeClock()
    pool = proxies(2, now=clock)
    banned = await fail(pool, Banned("418", until=clock.ms + 90_000))
    other = ({"Proxy 1", "Proxy 2"} - {banned}).pop()
    assert states(pool)[banned] == "banned until 2026-06-01T00:01:30Z by exchange.example"
    funding = LimitPool("funding", 100, 60_000)
    assert {await succeed(pool, pool=funding) for _ in range(10)} == {other}
    elsewhere = {"pool": LimitPool("elsewhere", 100, 60_000), "host": "https://else.example"}
    assert {await succeed(pool, weight=30, **elsewhere) for _ in range(4)} == {"Proxy 1", "Proxy 2"}
    clock.ms += 90_000
    assert {await succeed(pool, pool=funding, weight=30) for _ in range(4)} == {"Proxy 1", "Proxy 2"}


async def test_a_ban_beyond_patience_is_not_waited_for() -> None:
    clock = FakeClock()
    pool = RotatingProxies([], now=clock, max_wait=3600)
    await fail(pool, Banned("418: banned", until=clock.ms + 3 * 86_400_000))
    with pytest.raises(ProxyError, match=r"free before 2026-06-04T00:00:00Z.*418: banned"):
        await succeed(pool)


@pytest.mark.parametrize("error", [BadSymbol("X"), RestrictedLocation("451")])
async def test_what_is_no_fault_of_the_egress_keeps_it_ready(error: Exception) -> None:
    pool = RotatingProxies([])
    for _ in range(10):
        await fail(pool, error)
    assert states(pool) == {"Direct": "ready"}


async def test_an_answer_may_still_turn_out_to_be_no_use() -> None:
    clock = FakeClock()
    pool = RotatingProxies([], now=clock)
    async with pool.lease(request()) as lease:
        lease.answered(answer())
        lease.failed(RateLimitExceeded("slow down", retry_after=5))
    assert await has_to_wait(pool, partial(succeed, pool))
    assert pool.statistics()[0].failures == 1


async def test_failures_are_counted() -> None:
    pool = proxies(2)
    await fail(pool, TransportError("reset"))
    await fail(pool, BadSymbol("X"))
    assert sum(report.failures for report in pool.statistics()) == 1


async def test_a_cost_that_never_fits_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="1001"):
        await succeed(RotatingProxies([]), weight=1_001)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="none; name at least one"):
        RotatingProxies([], direct=False)
    with pytest.raises(ConfigurationError, match="names: there are 1 for 2"):
        proxies(2, names=["only one"])


def test_names_and_duplicates() -> None:
    pool = RotatingProxies(["10.0.0.1:1", "http://10.0.0.1:1/", "10.0.0.2:1"], names=["Berlin", "Oslo"])
    assert list(states(pool)) == ["Berlin", "Oslo", "Direct"]


async def test_no_credential_is_shown() -> None:
    pool = proxies(7)
    await fail(pool, ProxyError("refused"))
    shown = repr(pool) + repr(pool.statistics()) + repr(pool._egresses)
    async with pool.lease(request()) as lease:
        shown += repr(lease) + repr(lease.egress)
    assert PASSWORD not in shown


def test_a_pool_serves_one_event_loop_after_another() -> None:
    pool = proxies(2)
    for _ in range(3):
        anyio.run(succeed, pool)
    assert pool.statistics()[0].requests + pool.statistics()[1].requests == 3


async def test_thousands_of_idle_proxies_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing among 2,000 egresses looks at one or two of them."""
    pool = RotatingProxies(f"10.{number // 250}.{number % 250}.1:3128" for number in range(2_000))
    looked_at = 0
    ready_at = CircuitBreaker.ready_at

    def counting(breaker: CircuitBreaker, host: str, now: int) -> int:
        nonlocal looked_at
        looked_at += 1
        return ready_at(breaker, host, now)

    monkeypatch.setattr(CircuitBreaker, "ready_at", counting)
    for _ in range(100):
        await succeed(pool)
    assert looked_at <= 200


async def test_requests_of_all_limit_pools_are_spread_over_the_egresses() -> None:
    pool, other = proxies(4), LimitPool("other calls", 1_000, 60_000)
    async with (
        pool.lease(request()) as one,
        pool.lease(request()) as two,
        pool.lease(request(pool=other)) as three,
        pool.lease(request(pool=other)) as four,
    ):
        assert len({lease.egress.name for lease in (one, two, three, four)}) == 4
