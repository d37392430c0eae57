"""Stopping at any moment: signals to the command line, cancellation inside a host, Ctrl-C in a notebook."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from chaos.faults.lock_holders import Waiting, preparing_blocked, writing_blocked
from chaos.harness.store_contents import Oracle, check_contents
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.cancellation import cancelled_in_a_host
from marketfetch.testing import GeneratedMarket, LocalProxies, ProxyMode, SimulatedExchange, SimulatorOptions
from marketfetch.values.instruments import Composite
from tests.support import postgres
from tests.support.worlds import span_of

__all__ = ["interrupted_in_a_notebook", "signals", "stopped_by_signals"]

_SYMBOLS = ("BTCUSDT", "ETHUSDT")
_MT = Composite("MT", _SYMBOLS)
_START, _END = "2026-03-01", "2026-04-01"
_BAR = 5.0
"""Seconds within which what is told to stop has ended."""


def signals(effort: Effort) -> Iterator[Result]:
    """Try every way to stop."""
    yield stopped_by_signals(effort)
    yield cancelled_in_a_host(effort)
    yield interrupted_in_a_notebook(effort)


def stopped_by_signals(effort: Effort, server: postgres.Server | None = None) -> Result:
    """Send SIGINT and SIGTERM to the real command at random moments, whatever it waits for."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        trials = list(pool.map(lambda kind: _signals(effort, kind, server), KINDS))
    total = Trial("stopped by a signal: within 5 s, with a report, all consistent", "signals", "all, 5 s")
    total.tried = sum(trial.tried for trial in trials)
    total.failures = [failure for trial in trials for failure in trial.failures]
    return total.result()


def _signals(effort: Effort, kind: str, server: postgres.Server | None) -> Trial:
    trial, chance = Trial("", ""), effort.chance(f"signals {kind}")
    market = GeneratedMarket(_SYMBOLS)
    oracle = Oracle(market, span_of(_START, _END), [_MT])
    with (
        store_fixture(kind, server) as place,
        SimulatedExchange(market, SimulatorOptions(tls=True, limits=None)) as exchange,
        LocalProxies(1) as proxies,
    ):
        stage = _Stage(place, exchange, proxies, oracle, chance)
        first = effort.seed + KINDS.index(kind)
        moments = [moment for moment in _MOMENTS if (kind, moment) != ("parquet", prepare_hangs)]
        for number in range(first, first + effort.choose(1, 8, 200)):
            # The first store is a new one: what it is to be filled with does not get past a lock.
            moment = store_hangs if number == first else moments[number % len(moments)]
            with trial.attempt(f"{kind}, {moment.__name__}, number {number}, seed {effort.seed}"):
                code = stage.attempt(moment)
                assert code or number > first, "what was held held up nothing"
        with trial.attempt(f"{kind}, the run after all of them, seed {effort.seed}"):
            stage.complete()
    return trial


@attrs.define
class _Stage:
    """A store that is filled again and again, and the exchange it is filled from."""

    place: StoreFixture
    exchange: SimulatedExchange
    proxies: LocalProxies
    oracle: Oracle
    chance: random.Random
    url: str = ""

    def attempt(self, moment: Moment) -> int:
        """Start a run, stop it at a moment, look at what is left, and return the exit code."""
        # Now and then a new store: one that is full is no trial.
        if not self.url or self.chance.random() < 0.5:
            self.url = self.place.fresh()
        self.exchange.latency, self.proxies[0].mode = self.chance.uniform(0.0, 0.03), ProxyMode.FORWARD
        with TemporaryDirectory(prefix="marketfetch-stop-") as scratch, ExitStack() as stack:
            run = stack.enter_context(self._started(scratch))
            moment(self, run, stack)
            said = _stopped(run, self.chance)
            stack.pop_all().close()  # whatever was held is let go of
            left = [file.name for file in Path(scratch).iterdir()]
            assert not left, f"left in the temporary folder: {left}"
        self._check(said, hung=moment in {store_hangs, prepare_hangs})
        return said.code

    def complete(self) -> None:
        """Let a last run come to its end."""
        self.exchange.latency, self.proxies[0].mode = 0.0, ProxyMode.FORWARD
        with TemporaryDirectory(prefix="marketfetch-stop-") as scratch, self._started(scratch) as run:
            out, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        assert json.loads(out)["complete"]
        found = check_contents(self.url, self.oracle)
        assert {series.symbol for series in found} == {*_SYMBOLS, "MT"}
        for series, held in found.items():
            assert not held.coverage.missing(self.oracle.span), f"{series} is not complete"
        _await(lambda: not left_over(self.url), lambda: f"left behind: {left_over(self.url)}")

    def _check(self, said: _Said, *, hung: bool) -> None:
        assert said.seconds < _BAR, f"it took {said.seconds:.1f} s to end"
        if "Traceback" in said.err and "marketfetch/" not in said.err:
            return  # before the first line of ours Python says what it always says
        if said.code == -signal.SIGTERM and not (said.out or said.err or self.exchange.record.total):
            return  # and dies of what every process dies of
        assert "Traceback" not in said.err, said.err
        assert "Error" not in said.err, said.err
        assert said.code in {0, 1}, f"exit code {said.code}"
        held = check_contents(self.url, self.oracle)
        assert said.out or (said.code and not self.exchange.record.total), f"no report: {said.err}"
        if said.out:
            report = json.loads(said.out)
            assert report["complete"] == (said.code == 0)
            written = sum(line["rows"] for line in report["series"])
            assert written == report["rows_written"]
            assert written <= sum(len(found.rows) for found in held.values()), "reported, but not there"
        if said.code:
            early = f"marketfetch: stopped by {said.kind} before anything was sent"
            stopped = f"marketfetch: stopped by {said.kind}; what was committed stays"
            assert said.err.splitlines()[-1] == (stopped if said.out else early)
        # A process that is ended while its store hangs leaves the log of SQLite to the next one.
        if not hung:
            _await(lambda: not left_over(self.url), lambda: f"left behind: {left_over(self.url)}")

    @contextmanager
    def _started(self, scratch: str) -> Iterator[subprocess.Popen[str]]:
        words = ["--json", "--exchange", "binance-usdm", "--interval", "1m", "--start", _START, "--end", _END]
        words += [f"--symbol={symbol}" for symbol in _SYMBOLS] + ["--composite", f"MT={','.join(_SYMBOLS)}"]
        words += ["--base-url", self.exchange.base_url, "--certificate", str(self.exchange.certificate)]
        if self.chance.random() < 0.5:
            words += ["--proxy", self.proxies.urls[0], "--no-direct"]
        self.exchange.record.clear()
        run = subprocess.Popen(
            [sys.executable, "-m", "marketfetch", "backfill", "--to", self.url, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": scratch},
            start_new_session=True,
        )
        try:
            yield run
        finally:
            if run.poll() is None:
                run.kill()
            run.communicate()
            _assert_childless(run.pid)


@attrs.frozen
class _Said:
    """How a run ended after a signal."""

    kind: str
    seconds: float
    code: int
    out: str
    err: str


def _stopped(run: subprocess.Popen[str], chance: random.Random) -> _Said:
    """Send a signal, or several one after another, and wait for the end."""
    sent = [chance.choice([signal.SIGINT, signal.SIGTERM])]
    sent += chance.choices([signal.SIGINT, signal.SIGTERM], k=chance.choice([0, 0, 1, 3]))
    began = time.monotonic()
    for kind in sent:
        run.send_signal(kind)
        time.sleep(chance.uniform(0.0, 0.05))
    out, err = run.communicate(timeout=30)
    # Of signals sent at the same time Python may hear the later one first.
    kind = next((kind for kind in sent if f"stopped by {kind.name}" in err), sent[0])
    return _Said(kind.name, time.monotonic() - began, run.returncode, out, err)


Moment = Callable[[_Stage, "subprocess.Popen[str]", ExitStack], None]


def any_moment(stage: _Stage, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """From the first instruction on."""
    _sleep_beside(run, stage.chance.uniform(0.05, 2.0))


def store_hangs(stage: _Stage, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """While somebody else holds a lock that a write needs."""
    _after_requests(stage, run, stage.chance.randint(4, 30))
    table = stage.chance.choice(["series", "coverage", "ohlcv"])
    _until_it_waits(run, stack.enter_context(writing_blocked(stage.url, [*_SYMBOLS, "MT"], table)))
    _sleep_beside(run, stage.chance.uniform(0.1, 0.5))


def network_hangs(stage: _Stage, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """While the exchange, or the proxy, does not answer any more."""
    _after_requests(stage, run, stage.chance.randint(0, 30))
    stage.exchange.latency, stage.proxies[0].mode = 60.0, ProxyMode.HANG
    _sleep_beside(run, stage.chance.uniform(0.0, 0.2))


def prepare_hangs(stage: _Stage, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """While the store is not even prepared."""
    _until_it_waits(run, stack.enter_context(preparing_blocked(stage.url)))
    _sleep_beside(run, stage.chance.uniform(0.5, 1.5))


def at_the_end(stage: _Stage, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """When everything is fetched, and the last batches, composites or the report are written."""
    stage.exchange.latency = 0.0
    _after_requests(stage, run, 60)
    _sleep_beside(run, stage.chance.uniform(0.0, 1.0))


_MOMENTS: tuple[Moment, ...] = (any_moment, store_hangs, network_hangs, at_the_end, prepare_hangs)


def _after_requests(stage: _Stage, run: subprocess.Popen[str], count: int) -> None:
    give_up = time.monotonic() + 20
    while run.poll() is None and stage.exchange.record.total < count and time.monotonic() < give_up:
        time.sleep(0.002)


def _until_it_waits(run: subprocess.Popen[str], waiting: Waiting) -> None:
    """Wait until a run has come to what is held; one that had nothing left to write ends instead."""
    if waiting is not None:
        _await(lambda: waiting() or run.poll() is not None, lambda: "the run waits for nothing that is held")


def _sleep_beside(run: subprocess.Popen[str], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)


def _assert_childless(leader: int) -> None:
    """Fail if a process of the session that a run began is still there."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return
    raise AssertionError("the run left a process behind")


def _await(holds: Callable[[], bool], failure: Callable[[], str]) -> None:
    """Wait a little for what another process, such as a server, has to notice first."""
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up, failure()
        time.sleep(0.02)


_NOTEBOOK = """
import asyncio, sys, threading, time
import marketfetch as mf

def fetch(end):
    return mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-01", end=end, base_url=sys.argv[1])

def once():
    return fetch(sys.argv[3])

async def cell():  # a notebook's loop runs in the main thread, and blocks meanwhile
    return once()

fetch("2026-06-01T00:05Z")  # with everything loaded
loop = asyncio.new_event_loop()
said = "done"
print("ready", flush=True)
try:
    once() if sys.argv[2] == "script" else loop.run_until_complete(cell())
except KeyboardInterrupt:
    said = "interrupted"
loop.close()
give_up = time.monotonic() + 5  # threads that were told to end take a moment
while threading.active_count() > 1 and time.monotonic() < give_up:
    time.sleep(0.01)
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(said, left, len(once()), flush=True)
"""


def interrupted_in_a_notebook(effort: Effort) -> Result:
    """Press Ctrl-C during a blocking fetch, in a script and inside a running loop, and fetch again."""
    trial = Trial("Ctrl-C during a blocking fetch: no thread left, the next one works", "interruptions")
    chance = effort.chance("notebook")
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange:
        for number in range(effort.choose(2, 6, 300)):
            exchange.latency = 0.05
            place = chance.choice(["script", "notebook"])
            with trial.attempt(f"{place}, number {number}, seed {effort.seed}"):
                _interrupt(exchange, place, chance)
    return trial.result()


def _interrupt(exchange: SimulatedExchange, place: str, chance: random.Random) -> None:
    command = [sys.executable, "-c", _NOTEBOOK, exchange.base_url, place, "2026-07-15"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.3))
        run.send_signal(signal.SIGINT)
        exchange.latency = 0.0
        out, err = run.communicate(timeout=30)
    assert out == f"interrupted [] {44 * 1440}\n", f"{out}{err}"
    assert not err
