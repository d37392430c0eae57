"""Stop at any moment: signals to the command line, cancellation in a service, Ctrl-C in a notebook."""

from __future__ import annotations

import json
import os
import random
import re
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

import marketfetch
from chaos.faults.lock_holders import Waiting, preparing_blocked, writing_blocked
from chaos.harness.store_contents import Oracle, check_contents
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from chaos.harness.watch import Watch
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
"""Promised seconds between a signal and the end of the process."""
_MODULES = re.compile(rf'File "{re.escape(str(Path(marketfetch.__file__).parent))}/([^"]+)"')
_BEFORE_THE_HANDLER = {"__init__.py", "__main__.py", "cli/__init__.py", "cli/main.py", "cli/signals.py"}
"""The modules that are imported before signals are handled; tests/cli/test_start_up.py counts them."""


def signals(effort: Effort) -> Iterator[Result]:
    """Try every way to stop a run."""
    yield stopped_by_signals(effort)
    yield cancelled_in_a_host(effort)
    yield interrupted_in_a_notebook(effort)


def stopped_by_signals(effort: Effort, server: postgres.Server | None = None) -> Result:
    """Send SIGINT and SIGTERM to the command at random moments, also while it waits for a lock or a reply."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        trials = list(pool.map(lambda kind: _signals(effort, kind, server), KINDS))
    total = Trial(
        "stopped by a signal: within 5 s, with a report and a consistent store", "signals", "all, 5 s"
    )
    total.tried = sum(trial.tried for trial in trials)
    total.failures = [failure for trial in trials for failure in trial.failures]
    return total.result()


def _signals(effort: Effort, kind: str, server: postgres.Server | None) -> Trial:
    trial, rng = Trial("", ""), effort.rng(f"signals {kind}")
    market = GeneratedMarket(_SYMBOLS)
    oracle = Oracle(market, span_of(_START, _END), [_MT])
    with (
        store_fixture(kind, server) as fixture,
        SimulatedExchange(market, SimulatorOptions(tls=True, limits=None)) as exchange,
        LocalProxies(1) as proxies,
    ):
        bed = _StopTestBed(fixture, exchange, proxies, oracle, rng)
        first = effort.seed + KINDS.index(kind)
        moments = [moment for moment in _MOMENTS if (kind, moment) != ("parquet", prepare_hangs)]
        for number in range(first, first + effort.choose(1, 8, 200)):
            # The first attempt uses an empty store: its writes must wait for the lock.
            moment = store_hangs if number == first else moments[number % len(moments)]
            with trial.attempt(f"{kind}, {moment.__name__}, number {number}, seed {effort.seed}"):
                code, tries = bed.attempt(moment), 1
                while number == first and not code and tries < 5:
                    bed.url = ""  # the run had ended before the lock was held; a new store has work left
                    code, tries = bed.attempt(moment), tries + 1
                assert code or number > first, "the lock blocked nothing"
        with trial.attempt(f"{kind}, the run after all of them, seed {effort.seed}"):
            bed.complete()
    return trial


@attrs.define
class _StopTestBed:
    """A store that is filled by many stopped runs, and the exchange of these runs."""

    fixture: StoreFixture
    exchange: SimulatedExchange
    proxies: LocalProxies
    oracle: Oracle
    rng: random.Random
    url: str = ""

    def attempt(self, moment: Moment) -> int:
        """Start a run, stop it at a moment, check what it left behind, and return the exit code."""
        # Every second attempt, on average, uses a new store: a full one would leave nothing to do.
        if not self.url or self.rng.random() < 0.5:
            self.url = self.fixture.fresh()
        self.exchange.latency, self.proxies[0].mode = self.rng.uniform(0.0, 0.03), ProxyMode.FORWARD
        with TemporaryDirectory(prefix="marketfetch-stop-") as scratch, ExitStack() as stack:
            run = stack.enter_context(self._started(scratch))
            moment(self, run, stack)
            stopped = _stopped(run, self.rng)
            stack.pop_all().close()  # release the locks
            left = [file.name for file in Path(scratch).iterdir()]
            assert not left, f"left in the temporary folder: {left}"
        self._check(stopped, hung=moment in {store_hangs, prepare_hangs})
        return stopped.code

    def complete(self) -> None:
        """Let a last run complete the store."""
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

    def _check(self, stopped: _StoppedRun, *, hung: bool) -> None:
        assert stopped.seconds < _BAR, f"it took {stopped.seconds:.1f} s to end"
        if "Traceback" in stopped.err and {*_MODULES.findall(stopped.err)} <= _BEFORE_THE_HANDLER:
            return  # stopped during the start of Python: its own traceback
        if stopped.code == -signal.SIGTERM and not (
            stopped.out or stopped.err or self.exchange.request_log.total
        ):
            return  # stopped before the signal handlers were installed
        assert "Traceback" not in stopped.err, stopped.err
        assert "Error" not in stopped.err, stopped.err
        assert stopped.code in {0, 1}, f"exit code {stopped.code}"
        held = check_contents(self.url, self.oracle)
        assert stopped.out or (stopped.code and not self.exchange.request_log.total), (
            f"no report: {stopped.err}"
        )
        if stopped.out:
            report = json.loads(stopped.out)
            assert report["complete"] == (stopped.code == 0)
            written = sum(line["rows"] for line in report["series"])
            assert written == report["rows_written"]
            assert written <= sum(len(found.rows) for found in held.values()), "reported, but not there"
        if stopped.code:
            early = f"marketfetch: stopped by {stopped.kind} before anything was sent"
            ended = f"marketfetch: stopped by {stopped.kind}; what was committed stays"
            assert stopped.err.splitlines()[-1] == (ended if stopped.out else early)
        # A process that ends while its store is locked cannot remove SQLite's log; the next one does.
        if not hung:
            _await(lambda: not left_over(self.url), lambda: f"left behind: {left_over(self.url)}")

    @contextmanager
    def _started(self, scratch: str) -> Iterator[subprocess.Popen[str]]:
        words = ["--json", "--exchange", "binance-usdm", "--interval", "1m", "--start", _START, "--end", _END]
        words += [f"--symbol={symbol}" for symbol in _SYMBOLS] + ["--composite", f"MT={','.join(_SYMBOLS)}"]
        words += ["--base-url", self.exchange.base_url, "--certificate", str(self.exchange.certificate)]
        if self.rng.random() < 0.5:
            words += ["--proxy", self.proxies.urls[0], "--no-direct"]
        self.exchange.request_log.clear()
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
class _StoppedRun:
    """The end of a run after a signal."""

    kind: str
    seconds: float
    code: int
    out: str
    err: str


def _stopped(run: subprocess.Popen[str], rng: random.Random) -> _StoppedRun:
    """Send one to four signals and wait for the end of the process."""
    sent = [rng.choice([signal.SIGINT, signal.SIGTERM])]
    sent += rng.choices([signal.SIGINT, signal.SIGTERM], k=rng.choice([0, 0, 1, 3]))
    watch = Watch(run.pid)
    for kind in sent:
        run.send_signal(kind)
        time.sleep(rng.uniform(0.0, 0.05))
    out, err = _output(run, watch)
    # Python may handle signals that are pending at the same time in another order.
    kind = next((kind for kind in sent if f"stopped by {kind.name}" in err), sent[0])
    return _StoppedRun(kind.name, watch.seconds(), run.returncode, out, err)


def _output(run: subprocess.Popen[str], watch: Watch) -> tuple[str, str]:
    """Return what a process writes until it ends; look at the watch as long as there are figures."""
    give_up = time.monotonic() + 60
    while True:
        watch.look()
        try:
            return run.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() > give_up:
                raise


Moment = Callable[[_StopTestBed, "subprocess.Popen[str]", ExitStack], None]


def any_moment(bed: _StopTestBed, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """Stop at any moment of the first two seconds."""
    _sleep_while_running(run, bed.rng.uniform(0.05, 2.0))


def store_hangs(bed: _StopTestBed, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """Stop while another connection holds a lock that a write needs."""
    _after_requests(bed, run, bed.rng.randint(4, 30))
    table = bed.rng.choice(["series", "coverage", "ohlcv"])
    _until_it_waits(run, stack.enter_context(writing_blocked(bed.url, [*_SYMBOLS, "MT"], table)))
    _sleep_while_running(run, bed.rng.uniform(0.1, 0.5))


def network_hangs(bed: _StopTestBed, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """Stop while exchange and proxy do not answer."""
    _after_requests(bed, run, bed.rng.randint(0, 30))
    bed.exchange.latency, bed.proxies[0].mode = 60.0, ProxyMode.HANG
    _sleep_while_running(run, bed.rng.uniform(0.0, 0.2))


def prepare_hangs(bed: _StopTestBed, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """While the store is not even prepared."""
    _until_it_waits(run, stack.enter_context(preparing_blocked(bed.url)))
    _sleep_while_running(run, bed.rng.uniform(0.5, 1.5))


def at_the_end(bed: _StopTestBed, run: subprocess.Popen[str], stack: ExitStack) -> None:
    """When everything is fetched, and the last batches, composites or the report are written."""
    bed.exchange.latency = 0.0
    _after_requests(bed, run, 60)
    _sleep_while_running(run, bed.rng.uniform(0.0, 1.0))


_MOMENTS: tuple[Moment, ...] = (any_moment, store_hangs, network_hangs, at_the_end, prepare_hangs)


def _after_requests(bed: _StopTestBed, run: subprocess.Popen[str], count: int) -> None:
    give_up = time.monotonic() + 20
    while run.poll() is None and bed.exchange.request_log.total < count and time.monotonic() < give_up:
        time.sleep(0.002)


def _until_it_waits(run: subprocess.Popen[str], waiting: Waiting) -> None:
    """Wait until the run waits for the lock, or has ended because it had nothing left to write."""
    if waiting is not None:
        _await(lambda: waiting() or run.poll() is not None, lambda: "the run does not wait for the lock")


def _sleep_while_running(run: subprocess.Popen[str], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while run.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)


def _assert_childless(leader: int) -> None:
    """Fail if a child process of the run still exists."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return
    raise AssertionError("the run left a process behind")


def _await(holds: Callable[[], bool], failure: Callable[[], str]) -> None:
    """Poll until `holds()` is true; a process that has just been started may have to import first."""
    give_up = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < give_up, failure()
        time.sleep(0.02)


_NOTEBOOK = """
import asyncio, signal, sys, threading, time
import marketfetch as mf

signal.signal(signal.SIGINT, signal.default_int_handler)  # the background job of a shell ignores it

def fetch(end):
    return mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-01", end=end, base_url=sys.argv[1])

def once():
    return fetch(sys.argv[3])

async def cell():  # as in a notebook: a blocking call inside the loop of the main thread
    return once()

fetch("2026-06-01T00:05Z")  # with everything loaded
loop = asyncio.new_event_loop()
outcome = "done"
print("ready", flush=True)
try:
    once() if sys.argv[2] == "script" else loop.run_until_complete(cell())
except KeyboardInterrupt:
    outcome = "interrupted"
loop.close()
give_up = time.monotonic() + 5  # threads end a moment after they were told to
while threading.active_count() > 1 and time.monotonic() < give_up:
    time.sleep(0.01)
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(outcome, left, len(once()), flush=True)
"""


def interrupted_in_a_notebook(effort: Effort) -> Result:
    """Send SIGINT during a blocking fetch, in a script and inside a running loop, and fetch again."""
    trial = Trial("Ctrl-C during a blocking fetch: no thread left, the next one works", "interruptions")
    rng = effort.rng("notebook")
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange:
        for number in range(effort.choose(2, 6, 300)):
            exchange.latency = 0.5  # the fetch lasts longer than the wait before its interruption
            fixture = rng.choice(["script", "notebook"])
            with trial.attempt(f"{fixture}, number {number}, seed {effort.seed}"):
                _interrupt(exchange, fixture, rng)
    return trial.result()


def _interrupt(exchange: SimulatedExchange, fixture: str, rng: random.Random) -> None:
    command = [sys.executable, "-c", _NOTEBOOK, exchange.base_url, fixture, "2026-07-15"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.02, 0.3))
        run.send_signal(signal.SIGINT)
        exchange.latency = 0.0
        # The processes share the budget of one address, and may have to wait for its next minute.
        out, err = run.communicate(timeout=120)
    assert out == f"interrupted [] {44 * 1440}\n", f"{out}{err}"
    assert not err
