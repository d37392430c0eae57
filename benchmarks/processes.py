"""Several processes on the same addresses: what they make of the budgets together, and what the board costs.

A minute is shortened, as in `rate`, so that a run takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import attrs

from benchmarks.contestants.sharing import Part
from benchmarks.exchange import Options, Running, exchange, symbols
from benchmarks.figures import Figure, at_least, at_most, known
from benchmarks.rate import BEST, refused, share

__all__ = ["shared_addresses"]

_START, _MINUTE = 1_609_459_200_000, 60_000
_ADDRESSES = 3


def shared_addresses() -> Iterator[Figure]:
    """Let 1, 4 and 16 processes fetch more than the budgets of three addresses allow."""
    for count, minute, windows in ((1, 6.0, 3), (4, 8.0, 3), (16, 10.0, 4)):
        running, said = _run(count, minute, windows)
        requests = sum(each["requests"] for each in said)
        yield at_least(
            f"{count} processes, 3 addresses: share of {BEST:,} rows", share(running.counted) * 100, 97, " %"
        )
        yield at_most(f"{count} processes: answers 429 and 418", refused(running.counted), 0)
        changes = sum(each["changed"] for each in said)
        cost = sum(each["seconds"] for each in said) / requests * 1000
        yield known(f"{count} processes: changes of the board for 1,000 requests", changes / requests * 1000)
        what = f"{count} processes: spent in the board for each request"
        yield at_most(what, cost, 0.2, " ms") if count == 4 else known(what, cost, " ms")


def _run(count: int, minute: float, windows: int) -> tuple[Running, Sequence[dict[str, Any]]]:
    """Fetch what takes `windows` whole minutes and a part of two more, each process symbols of its own."""
    names = symbols(max(count, 4) * 2)
    rows = round(BEST * _ADDRESSES * (windows + 0.5))
    end = _START + rows // len(names) * _MINUTE
    with (
        tempfile.TemporaryDirectory() as folder,
        exchange(Options(symbols=names, minute=minute, proxies=_ADDRESSES, latency=0.01)) as running,
        ExitStack() as stack,
    ):
        whole = Part(
            base_url=running.base_url,
            proxies=running.proxies,
            board=f"file:{folder}",
            minute=minute,
            symbols=names,
            start=_START,
            end=end,
        )
        parts = [attrs.evolve(whole, symbols=names[number::count]) for number in range(count)]
        processes = [stack.enter_context(_process(part)) for part in parts]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        said = [json.loads(process.communicate()[0]) for process in processes]
    assert all(each["complete"] for each in said), said
    return running, said


def _process(part: Part) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.contestants.sharing", json.dumps(attrs.asdict(part))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
