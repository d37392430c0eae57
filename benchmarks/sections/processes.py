"""Several processes share addresses by a board: the share of the rate limits they use, and the board's cost.

A rate limit minute lasts 30 s, half of the published one, with the published budget. A request takes 100 ms,
as over the internet: processes that start in the same moment know of each other before they send many.
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

from benchmarks.competitors.shared_board import Part
from benchmarks.harness.exchange import Options, Running, exchange, symbols
from benchmarks.harness.results import Result, at_least, at_most, without_bar
from benchmarks.sections.rate import BEST, refused, share

__all__ = ["shared_addresses", "started"]

_START, _MINUTE = 1_609_459_200_000, 60_000
_ADDRESSES = 3
_SECONDS, _WEIGHT, _WINDOWS = 30.0, 2400, 3


def shared_addresses() -> Iterator[Result]:
    """Let 4 and 16 processes fetch more rows than the budgets of three addresses allow."""
    for count in (4, 16):
        running, outputs = _run(count)
        spent = share(running.counted) * 100
        yield at_least(f"{count} processes, 3 addresses: share of the budgets", spent, 97, " %")
        yield at_most(f"{count} processes: answers 429 and 418", refused(running.counted), 0)
        requests, changes = (sum(each[name] for each in outputs) for name in ("requests", "changed"))
        yield without_bar(
            f"{count} processes: changes of the board for 1,000 requests", changes / requests * 1000
        )
        cost = sum(each["seconds"] for each in outputs) / requests * 1000
        what = f"{count} processes: processor time of the board for each request"
        yield at_most(what, cost, 0.2, " ms") if count == 4 else without_bar(what, cost, " ms")
    yield from _many_addresses(4, 200)


def _many_addresses(count: int, addresses: int) -> Iterator[Result]:
    """Share more addresses than the processes can use up: what counts is the cost of the board."""
    running, outputs = _run(count, addresses)
    yield at_most(
        f"{count} processes, {addresses} addresses: answers 429 and 418", refused(running.counted), 0
    )
    requests, changes, seconds = (
        sum(each[name] for each in outputs) for name in ("requests", "changed", "seconds")
    )
    yield without_bar("… processor time of a change of the board", seconds / changes * 1000, " ms")
    yield without_bar("… processor time of the board for each request", seconds / requests * 1000, " ms")


def _run(count: int, addresses: int = _ADDRESSES) -> tuple[Running, Sequence[dict[str, Any]]]:
    """Fetch the rows of three and a half minutes of three addresses; each process has its own symbols."""
    names = symbols(count * 2)
    rows = round(BEST * _ADDRESSES * (_WINDOWS + 0.5))
    end = _START + rows // len(names) * _MINUTE
    with (
        tempfile.TemporaryDirectory() as folder,
        exchange(
            Options(symbols=names, minute=_SECONDS, weight=_WEIGHT, proxies=addresses, latency=0.1)
        ) as running,
        ExitStack() as stack,
    ):
        whole = Part(
            base_url=running.base_url,
            proxies=running.proxies,
            board=f"file:{folder}",
            minute=_SECONDS,
            weight=_WEIGHT,
            symbols=names,
            start=_START,
            end=end,
        )
        parts = [attrs.evolve(whole, symbols=names[number::count]) for number in range(count)]
        processes = started(parts, stack)
        outputs = [json.loads(process.communicate()[0]) for process in processes]
    assert all(each["complete"] for each in outputs), outputs
    return running, outputs


def started(parts: Sequence[Part], stack: ExitStack) -> Sequence[subprocess.Popen[str]]:
    """Start a process for each part; all begin at the same moment, once the last one has been imported."""
    processes = [stack.enter_context(_process(part)) for part in parts]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def _process(part: Part) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.competitors.shared_board", json.dumps(attrs.asdict(part))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
