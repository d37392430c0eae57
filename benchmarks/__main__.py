"""Run all benchmarks: `python -m benchmarks [--only NAME] [--write]`, or `make bench`.

Prints every result with its bar and whether it holds; exits with code 1 if one does not. `--write` also
writes these sections of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from benchmarks.harness import report
from benchmarks.harness.results import Result
from benchmarks.sections import (
    archive,
    concurrent_runs,
    connections,
    embedded,
    fetching,
    follow,
    gaps,
    install,
    loop_latency,
    memory,
    plans,
    postgres,
    processes,
    rate,
    readback,
    startup,
    tables,
)

Section = Callable[[], Iterator[Result]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "rate": ("Bound by the published limits", rate.rate_bound),
    "processes": ("Several processes on the same addresses", processes.shared_addresses),
    "concurrent_runs": ("The same command, several times", concurrent_runs.concurrent_runs),
    "latency": ("Bound by latency", lambda: fetching.latency_bound(rounds=3)),
    "processor": ("Bound by the processor", lambda: fetching.processor_bound(rounds=3)),
    "postgres": (
        "Bound by the database: PostgreSQL",
        lambda: postgres.database_bound(rounds=3, naive_rounds=2),
    ),
    "embedded": ("Bound by the database: DuckDB, SQLite, Parquet", lambda: embedded.embedded_bound(rounds=5)),
    "archive": ("Files of an archive", archive.archive),
    "gaps": ("Gaps", lambda: gaps.gaps(rounds=5)),
    "readback": ("Reading back", lambda: readback.readback(rounds=20)),
    "tables": ("Conversion of tables", lambda: tables.conversion(rounds=10)),
    "loop_latency": ("The loop never stalls", lambda: loop_latency.loop_latency(rounds=3)),
    "memory": ("Flat memory", memory.flat_memory),
    "connections": ("Connections", connections.connections),
    "follow": ("Follow mode", follow.follow),
    "plans": ("Plans against what happened", plans.plans),
    "startup": ("Start-up", startup.startup),
    "install": ("Installation", install.install),
}


def main() -> int:
    """Run the sections that the command line names, by default all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="All benchmarks with their bars."
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section; may be repeated")
    parser.add_argument("--write", action="store_true", help="write these sections of docs/benchmarks.md")
    arguments = parser.parse_args()
    # Keep away from this user's own proxy board: it holds the claims of runs against real exchanges.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    began, found = time.monotonic(), dict[str, list[Result]]()
    for name in arguments.only or SECTIONS:
        title, section = SECTIONS[name]
        print(f"\n{title}", flush=True)
        found[title] = []
        for result in section():
            found[title].append(result)
            print(report.line(result), flush=True)
    short = [result for figures in found.values() for result in figures if result.holds is False]
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. "
        + ("Every bar holds." if not short else f"{len(short)} bars do not hold:")
    )
    for result in short:
        print(report.line(result))
    if arguments.write:
        report.write(found)
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
