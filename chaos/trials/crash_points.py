"""Kill a writer at each of its file and network calls in turn, then check and complete the store.

    python -m chaos.trials.crash_points URL FIRST STRIDE

The library compiled from `crash_points.c` must be preloaded (LD_PRELOAD).

Each step forks two child processes before any database is opened. The first writes the same batches into a
fresh store and is killed at its n-th call that changes a file or sends data to the server. The second checks
the store and writes the batches again. Prints one line of JSON for each step.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from signal import SIGKILL

import attrs
import psycopg

from chaos.harness.store_contents import Oracle, check_contents, fingerprint
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from marketfetch.protocols import Store
from marketfetch.sinks import sink_from
from marketfetch.testing import GeneratedMarket
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import MINUTE, span_of

__all__ = ["counting_environment", "crash_points", "crash_points_in"]

_BEFORE = 60 * MINUTE
"""Length of the part of the span that lies before the listing of the instruments."""

_MODULE = ("-m", "chaos.trials.crash_points")

_STEPS = 2_000
"""The most steps to try; no store needs as many."""


def crash_points(effort: Effort) -> Iterator[Result]:
    """Kill a writer at every step of a commit, for every kind of store."""
    for kind in KINDS:
        with store_fixture(kind) as fixture:
            yield from crash_points_in(fixture, effort)


def crash_points_in(fixture: StoreFixture, effort: Effort) -> Iterator[Result]:
    """Kill a writer at every step of a commit to one kind of store; at every twentieth step in the tests.

    Raises RuntimeError where there is no C compiler.
    """
    trial = Trial(f"killed at every step of a commit, {fixture.kind}: all or nothing", "steps")
    stride = effort.choose(20, 1)
    for step in _steps(fixture, effort.rng("crash_points").randrange(stride), stride):
        with trial.attempt(f"{fixture.kind}, {step['step']}"):
            assert not step["problem"], step["problem"]
    yield trial.result()


def _steps(fixture: StoreFixture, first: int, stride: int) -> Iterator[dict[str, str]]:
    """Run this module with the library preloaded, and yield its lines."""
    command = [sys.executable, *_MODULE, fixture.fresh(), str(first), str(stride)]
    with subprocess.Popen(
        command,
        env=counting_environment(fixture.folder),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
    if process.returncode:
        yield {"step": "the end", "problem": f"exit code {process.returncode}"}


def counting_environment(folder: Path) -> dict[str, str]:
    """Compile `crash_points.c` into a folder, and return the environment of a process that it counts in.

    Raises RuntimeError where there is no C compiler.
    """
    compiler, library = shutil.which("cc"), folder / "crash_points.so"
    if compiler is None:
        raise RuntimeError("there is no C compiler: install one, such as gcc")
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    # No writes of .pyc files among the counted calls, and no threads in a process that forks.
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "LD_PRELOAD": str(library)}
    return os.environ | quiet


def batches(oracle: Oracle) -> Iterator[Batch]:
    """Yield batches that overlap, cross the end of a month, and include one of confirmed absence."""
    start = oracle.span.start + _BEFORE
    for name, first, last in [("BTCUSDT", 0, 90), ("ETHUSDT", 0, 40), ("BTCUSDT", 60, 200)]:
        series = Series.of("binance-usdm", "ohlcv", name, "1m")
        spans = SpanSet.of(Span(start + first * MINUTE, start + last * MINUTE))
        yield Batch(series, oracle.rows(series).within(spans), Coverage(spans))
    empty = SpanSet.of(Span(oracle.span.start, start))
    yield Batch(series, Columns.empty(series.dataset), Coverage(empty, empty))


def write(url: str, oracle: Oracle) -> None:
    """Prepare a store, read its coverage and write the batches, as a run does."""
    store = sink_from(url)
    assert isinstance(store, Store)
    some = list(batches(oracle))
    store.prepare([some[0].series.dataset])
    store.coverage([batch.series for batch in some])
    with store.writer() as take:
        for batch in some:
            take(batch)


@attrs.frozen
class ChildExit:
    """The exit code and the output of a child process."""

    code: int
    """The exit code, or the negative number of the signal."""
    output: str

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.code == 0

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it, as planned for a step."""
        return self.code == -SIGKILL

    @property
    def problem(self) -> str:
        """What went wrong, or an empty string."""
        return "" if self.ok else self.output or f"exit code {self.code}"


def _forked(work: Callable[[], str]) -> ChildExit:
    """Call a function in a forked child process."""
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            output, code = work(), 0
        except BaseException:  # noqa: BLE001  # sent to the parent
            output, code = traceback.format_exc()[-3000:], 1
        os.write(write_end, output.encode())
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return ChildExit(os.waitstatus_to_exitcode(status), output)


def _oracle() -> Oracle:
    span = span_of("2026-05-31T22:30Z", "2026-06-01T03:00Z")
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=3, listed_at=span.start + _BEFORE)
    return Oracle(market, span)


def _fresh(url: str, step: int) -> str:
    """Return the URL of an empty store: a new file, or the same database without the schema."""
    kind, _, path = url.partition(":")
    if kind == "postgresql":
        with psycopg.connect(url) as connection:
            connection.execute("DROP SCHEMA IF EXISTS marketfetch CASCADE")
        return url
    home = Path(path).with_name(f"step-{step}")
    home.mkdir()
    return f"{kind}:{home / 'market'}"


def _look_and_repeat(url: str, oracle: Oracle) -> str:
    """Check what the killed writer left, write the batches again, and return the store's digest."""
    check_contents(url, oracle)
    write(url, oracle)
    assert not (found := left_over(url)), f"left over: {found}"
    check_contents(url, oracle)
    return fingerprint(url)


def main(url: str, first: int, stride: int) -> None:
    """Kill at step `first`, `first + stride`, ... until a writer finishes before its step."""
    library, oracle = ctypes.CDLL(None), _oracle()
    if url.startswith("parquet:"):
        write(_fresh(url, -2), oracle)  # load pyarrow once, before the forks; it starts no thread here

    def die_at(step: int, store_url: str) -> str:
        library.arm(ctypes.c_long(step))
        try:
            write(store_url, oracle)
        finally:
            library.arm(ctypes.c_long(-1))  # do not count the calls that report an error
        return ""

    def print_step(step: str, problem: str) -> None:
        print(json.dumps({"step": step, "problem": problem}), flush=True)

    setup = _forked(partial(_fresh, url, -1))
    expected = _forked(partial(_look_and_repeat, setup.output, oracle)) if setup.ok else setup
    if expected.problem:  # otherwise every step would fail alike, equal to what is expected, and pass
        print_step("undisturbed", expected.problem)
        return
    for step in range(first, _STEPS, stride):
        setup = _forked(partial(_fresh, url, step))
        writer = _forked(partial(die_at, step, setup.output)) if setup.ok else setup
        problem = writer.output if writer.killed else writer.problem
        if not problem:
            found = _forked(partial(_look_and_repeat, setup.output, oracle))
            problem = found.problem
            if not problem and found.output != expected.output:
                problem = f"{found.output} instead of {expected.output}"
        if writer.killed or problem:
            print_step(f"step {step}", problem)
        if not writer.killed:
            return
    raise SystemExit(f"more than {_STEPS} steps")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
