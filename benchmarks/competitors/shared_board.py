"""One of several processes that share addresses by a board; it starts when a line arrives at standard input.

Run as `python -m benchmarks.competitors.shared_board JOB`, where JOB is the JSON of a `Part`. Prints "ready",
and at the end one line of JSON: the `requests`, the number of times it `changed` the board, and the `seconds`
of processor time of these changes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
import attrs

from benchmarks.harness.venue import scaled, unlimited
from marketfetch.api.pipeline import Pipeline
from marketfetch.protocols import Board
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["Part"]

_T = TypeVar("_T")


@attrs.frozen(kw_only=True)
class Part:
    """The query of one process.

    `minute` is the length of a rate limit minute in seconds, None for no limits. Without a `store` the rows
    are thrown away; without `proxies` the requests are direct.
    """

    base_url: str
    proxies: Sequence[str]
    board: str
    minute: float | None
    weight: int
    symbols: Sequence[str]
    start: int
    end: int
    store: str | None = None


@attrs.define(eq=False)
class _Timed:
    """A board that counts its changes and their processor time."""

    board: Board
    changed: int = 0
    seconds: float = 0.0

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        began = time.thread_time()
        try:
            return self.board.change(name, step)
        finally:
            self.changed += 1
            self.seconds += time.thread_time() - began


def main() -> None:
    """Fetch the part of the command line."""
    part = Part(**json.loads(sys.argv[1]))
    board = _Timed(board_from(part.board))
    pipeline = Pipeline(
        (scaled(part.minute, part.weight) if part.minute else unlimited())(part.base_url),
        Query(symbols=part.symbols, start=part.start, end=part.end),
        part.store,
        proxies=RotatingProxies(part.proxies, direct=not part.proxies),
        settings=Settings(heartbeat=60),
        board=board,
    )
    print("ready", flush=True)
    sys.stdin.readline()
    report = anyio.run(pipeline.run)
    outputs = {"requests": report.requests, "changed": board.changed, "seconds": board.seconds}
    print(json.dumps(outputs | {"complete": report.complete}), flush=True)


if __name__ == "__main__":
    main()
