"""Real processes on the same addresses, as fast as they can, against an exchange that enforces its limits."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from marketfetch.testing import GeneratedMarket, LimitRules, LocalProxies, SimulatedExchange, SimulatorOptions
from marketfetch.values.http import LimitPool
from tests.support.workers import Worker, workers

pytestmark = pytest.mark.slow

PERIOD = 2_000
WEIGHT = LimitPool("binance-futures weight", 60, PERIOD, "clock", used_header="x-mbx-used-weight-1m")
FUNDING = LimitPool("binance-usdm funding", 50, 3_000)
"""A sliding limit of five minutes, and no header that tells what is used."""
TERM = 1.5


@attrs.frozen
class Scene:
    """An exchange whose minute lasts two seconds, and the board of those who ask it."""

    exchange: SimulatedExchange
    board: str
    proxies: tuple[str, ...] = ()

    def job(self, limit: LimitPool = WEIGHT, goal: int | None = None) -> dict[str, object]:
        """What one of the processes does: ask what costs little, all the time.

        Its goal is to be served in a second window, too.
        """
        weighed = limit == WEIGHT
        return {
            "url": self.exchange.base_url,
            "path": "/fapi/v1/time" if weighed else "/fapi/v1/fundingRate",
            "params": {} if weighed else {"symbol": "BTCUSDT", "limit": 1},
            "limit": attrs.asdict(limit),
            "weight": 1,
            "board": self.board,
            "proxies": list(self.proxies),
            "term": TERM,
            "goal": goal or limit.capacity + 1,
            "concurrency": 5,
        }

    def assert_nobody_was_refused(self) -> None:
        assert set(self.exchange.request_log.statuses) == {200}

    def clients(self) -> Counter[str]:
        return Counter(seen.client for seen in self.exchange.request_log.latest)


@contextmanager
def scene(board: str, *, skew: int = 0, proxies: int = 0, limit: LimitPool = WEIGHT) -> Iterator[Scene]:
    rules = LimitRules(
        futures_weight=WEIGHT.capacity,
        usdm_funding_calls=FUNDING.capacity,
        period_scale=PERIOD / 60_000 if limit == WEIGHT else FUNDING.period / 300_000,
    )
    options = SimulatorOptions(limits=rules, clock_skew=skew, latency=0.01, log_size=100_000)
    with (
        SimulatedExchange(GeneratedMarket(["BTCUSDT"]), options) as exchange,
        LocalProxies(proxies) as local,
    ):
        yield Scene(exchange, board, tuple(local.urls))


def _begin(started: list[Worker]) -> None:
    for worker in started:
        worker.begin()


def _end(started: list[Worker]) -> None:
    for worker in started:
        worker.reach_goal()
    for worker in started:
        worker.served()


def _take_turns(board: str, count: int) -> None:
    """Processes on one address: each has its windows."""
    with scene(board) as stage, workers([stage.job()] * count) as started:
        _begin(started)
        _end(started)
        stage.assert_nobody_was_refused()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_on_one_address_take_turns_and_nobody_is_refused(tmp_path: Path, count: int) -> None:
    _take_turns(f"file:{tmp_path}", count)


def test_processes_take_turns_by_postgresql(postgres_dsn: str) -> None:
    _take_turns(postgres_dsn, 4)


def _share_three(board: str) -> None:
    """Four processes on three addresses."""
    with scene(board, proxies=3) as stage, workers([stage.job()] * 4) as started:
        _begin(started)
        _end(started)
        stage.assert_nobody_was_refused()
        assert len(stage.clients()) == 3


def test_four_processes_share_three_addresses(tmp_path: Path) -> None:
    _share_three(f"file:{tmp_path}")


def test_four_processes_share_three_addresses_by_postgresql(postgres_dsn: str) -> None:
    _share_three(postgres_dsn)


@pytest.mark.parametrize("skew", [-3000, 3000])
def test_clock_of_the_exchange_may_be_seconds_away(tmp_path: Path, skew: int) -> None:
    with scene(f"file:{tmp_path}", skew=skew) as stage, workers([stage.job()] * 2) as started:
        _begin(started)
        _end(started)
        stage.assert_nobody_was_refused()


@pytest.mark.parametrize("limit", [WEIGHT, FUNDING], ids=["with a header", "without"])
def test_a_holder_is_killed_and_another_one_goes_on(tmp_path: Path, limit: LimitPool) -> None:
    with scene(f"file:{tmp_path}", limit=limit) as stage:
        with workers([stage.job(limit)] * 2) as started:
            first, second = started
            first.begin()
            while stage.exchange.request_log.total < 10:  # it is amidst its first window
                time.sleep(0.01)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
            second.begin()
            _end([second])
        stage.assert_nobody_was_refused()


@pytest.mark.parametrize("limit", [WEIGHT, FUNDING], ids=["with a header", "without"])
def test_a_holder_stands_still_for_longer_than_its_term_and_goes_on(tmp_path: Path, limit: LimitPool) -> None:
    with scene(f"file:{tmp_path}", limit=limit) as stage:
        with workers([stage.job(limit)] * 2) as started:
            first, second = started
            first.begin()
            while stage.exchange.request_log.total < 10:
                time.sleep(0.01)
            first.process.send_signal(signal.SIGSTOP)
            second.begin()
            time.sleep(2 * TERM)
            first.process.send_signal(signal.SIGCONT)
            _end(started)
        stage.assert_nobody_was_refused()


def test_one_process_after_another_spends_what_is_left(tmp_path: Path) -> None:
    """Of a limit without a header, too: what the first has spent is known to the second."""
    with scene(f"file:{tmp_path}", limit=FUNDING) as stage:
        for _ in range(3):
            with workers([stage.job(FUNDING, goal=FUNDING.capacity // 2)]) as started:
                _begin(started)
                _end(started)
        stage.assert_nobody_was_refused()
        assert stage.exchange.request_log.total > FUNDING.capacity


def test_two_runs_without_a_board_would_be_refused(tmp_path: Path) -> None:
    """The exchange is as strict as these tests need it."""
    jobs = []
    with scene("") as stage:
        jobs = [attrs.evolve(stage, board=f"file:{tmp_path / name}").job() for name in "ab"]
        with workers(jobs) as started:
            _begin(started)
            while 429 not in stage.exchange.request_log.statuses:  # until the test is ended as hanging
                time.sleep(0.01)
