"""A long run under faults: its memory, its file descriptors, and the latency of its event loop.

`python -m chaos.trials.soak JOB`, where JOB is the JSON of a `SoakJob`, is the measured process: it prints
one line of JSON, a `Measurements`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from chaos.harness.trials import Effort, Result, Trial
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.events import Event, Heartbeat
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.sinks import sink_from
from marketfetch.testing import FaultKind, GeneratedMarket
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.query import Query
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.worlds import assert_holds

__all__ = ["soak"]

_PAGE, _MINUTE = 10, 60_000
_SYMBOLS = [f"S{number:02}USDT" for number in range(20)]
_START = 1_735_689_600_000  # 2025-01-01
_PROXIES, _SEED = 20, 3
_TICK = 0.01
_KINDS = sorted(
    set(FaultKind)
    # These end a run or ban an egress for hours; hostile_exchange and hostile_network try them.
    - {kind for kind in FaultKind if kind.startswith(("status_403", "status_418", "status_451"))}
    - {FaultKind.STATUS_429_DAYS}
    # Bodies of 100 MB would take too long for this many requests.
    - {FaultKind.GZIP_BOMB, FaultKind.HUGE_BODY, FaultKind.HUGE_CHUNKED_BODY}
)


@attrs.frozen
class SoakJob:
    """The exchange, the proxies, the least number of requests, and the folder of the store."""

    base_url: str
    proxies: Sequence[str]
    requests: int
    folder: str


@attrs.frozen
class Measurements:
    """The report and the samples of a run; `late_...` and `busy_...` in milliseconds."""

    requests: int
    retries: int
    complete: bool
    missing: Sequence[str]
    memory: Sequence[int]
    """Resident bytes at each heartbeat."""
    descriptors: Sequence[int]
    late_p99: float
    late_worst: float
    busy_worst: float
    """The most CPU time of the loop's thread between two ticks: how late a tick is on an idle machine."""
    seconds: float


def soak(effort: Effort) -> Iterator[Result]:
    """Make as many requests as a busy day, and check that memory and descriptors do not grow."""
    requests = effort.choose(4_000, 200_000, 1_000_000)
    with TemporaryDirectory(prefix="marketfetch-") as folder, _exchange(effort.seed) as (base_url, proxies):
        measured = _measure(SoakJob(base_url, proxies, requests, folder))
        rows = Trial("… and the store has the true rows", "series")
        _check_store(folder, requests, rows)
    yield _answered(measured, requests)
    yield rows.result()
    # Quick: caches still fill during a short run, hence 1.5; a leak per fault would give several times that.
    yield from _steady(measured, memory=effort.choose(150, 105) / 100)
    if effort.name != "quick":
        yield from _punctual(measured)


def _answered(measured: Measurements, requests: int) -> Result:
    trial = Trial(f"{_PROXIES} proxies, 5 % faults: every request answered in the end", "requests")
    with trial.attempt("the run"):
        assert measured.complete, measured.missing
        assert measured.requests >= requests, measured
        assert measured.retries > requests // 50, measured
    trial.tried = measured.requests
    return trial.result()


def _steady(measured: Measurements, memory: float) -> Iterator[Result]:
    yield _figure(
        "… memory, at the end against after a fifth",
        statistics.median(_last(measured.memory)) / statistics.median(_second(measured.memory)),
        memory,
        " ×",
    )
    # The number of connections varies; a leak per fault would give thousands.
    growth = statistics.median(_last(measured.descriptors)) - statistics.median(_second(measured.descriptors))
    yield _figure("… descriptors more than then", growth, _PROXIES, "")


def _punctual(measured: Measurements) -> Iterator[Result]:
    yield _figure("… a 10 ms tick of the loop is late, 99th percentile", measured.late_p99, 10, " ms")
    yield _figure("… at worst", measured.late_worst, 50, " ms")
    yield _figure("… the loop itself computes between two ticks, at worst", measured.busy_worst, 50, " ms")


def _second(samples: Sequence[int]) -> Sequence[int]:
    """Return the second fifth: caches, pools and connections fill during the first."""
    fifth = max(1, len(samples) // 5)
    return samples[fifth : 2 * fifth]


def _last(samples: Sequence[int]) -> Sequence[int]:
    """Return the last fifth."""
    return samples[-max(1, len(samples) // 5) :]


def _figure(what: str, found: float, bar: float, unit: str) -> Result:
    shown = f"{found:.3g}{unit}"
    return Result(what, "measured", shown, f"≤ {bar:g}{unit}", () if found <= bar else (f"it was {shown}",))


def _check_store(folder: str, requests: int, trial: Trial) -> None:
    store, market = sink_from(_url(folder)), GeneratedMarket(_SYMBOLS, _SEED)
    assert isinstance(store, Store)
    for series in store.ledger():
        with trial.attempt(str(series)):
            assert_holds(store, market, series, _query(requests).span(0))


@contextmanager
def _exchange(seed: int) -> Iterator[tuple[str, list[str]]]:
    """Run the exchange and its proxies in a child process, pinned to the last core."""
    command = [sys.executable, "-m", "marketfetch.testing", "--symbols", ",".join(_SYMBOLS), "--no-limits"]
    command += ["--seed", str(_SEED), "--proxies", str(_PROXIES), "--faults", "0.05"]
    command += ["--fault-kinds", ",".join(_KINDS), "--fault-seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as venue:
        _keep_to(-1, venue.pid)
        assert venue.stdout
        try:
            ready = json.loads(venue.stdout.readline())
            yield ready["base_url"], ready["proxies"]
        finally:
            venue.terminate()


def _keep_to(place: int, process: int = 0) -> None:
    """Pin a process, by default this one, to one of the cores that it may use."""
    os.sched_setaffinity(process, {sorted(os.sched_getaffinity(0))[place]})


def _measure(job: SoakJob) -> Measurements:
    command = [sys.executable, "-m", "chaos.trials.soak", json.dumps(attrs.asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Measurements(**json.loads(done.stdout))


class _Ohlcv(Ohlcv):
    """Candles in pages of few rows: the number of requests matters here, not of rows."""

    page_sizes = (_PAGE,)  # type: ignore[assignment]

    def cost(self, rows: int) -> Cost:
        return Cost(LimitPool("no limit", 10**12, 1_000, "clock"), 1)


class _Usdm(BinanceUsdm):
    name = "binance-usdm"
    sources = (_Ohlcv,)


def _url(folder: str) -> str:
    return f"sqlite:{folder}/market.db"


def _query(requests: int) -> Query:
    steps = -(-requests // len(_SYMBOLS)) * _PAGE
    return Query(symbols=_SYMBOLS, start=_START, end=_START + steps * _MINUTE)


async def _run(job: SoakJob) -> Measurements:
    latencies: list[float] = []
    computed: list[float] = []
    memory: list[int] = []
    descriptors: list[int] = []

    async def tick() -> None:
        while True:
            planned, used = time.perf_counter() + _TICK, time.thread_time()
            await asyncio.sleep(_TICK)
            latencies.append(time.perf_counter() - planned)
            computed.append(time.thread_time() - used)

    def listen(event: Event) -> None:
        if not isinstance(event, Heartbeat):
            return
        memory.append(_memory())
        descriptors.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))

    pipeline = Pipeline(
        _Usdm(job.base_url),
        _query(job.requests),
        sink_from(_url(job.folder)),
        proxies=RotatingProxies(job.proxies, direct=False),
        fetcher=CurlFetcher(timeout=2.0),
        settings=Settings(retries=RetryPolicy(attempts=20, initial=0.05, cap=1.0), heartbeat=0.25),
        listeners=[listen],
    )
    _keep_to(0)
    gc.freeze()  # as the command line does, and as docs/howto-service.md tells services to
    ticker, began = asyncio.create_task(tick()), time.perf_counter()
    report = await pipeline
    seconds = time.perf_counter() - began
    ticker.cancel()
    return Measurements(
        report.requests,
        sum(report.retries.values()),
        report.complete,
        [str(line) for line in report.series if line.missing][:3],
        memory,
        descriptors,
        statistics.quantiles(latencies, n=100, method="inclusive")[98] * 1000,
        max(latencies) * 1000,
        max(computed) * 1000,
        seconds,
    )


def _memory() -> int:
    status = Path("/proc/self/statm").read_text().split()
    return int(status[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(asyncio.run(_run(SoakJob(**json.loads(sys.argv[1])))))))
