"""Test every guarantee under faults: `python -m chaos [--only NAME] [--nightly] [--seed N]`, or `make chaos`.

Prints one line for each guarantee: how many attempts were made, how many succeeded, how many had to.
Exits with code 1 if a guarantee was broken.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from chaos.harness.trials import Effort, Result
from chaos.trials.archives import archives
from chaos.trials.concurrent_runs import concurrent_runs
from chaos.trials.crash_points import crash_points
from chaos.trials.follow import follow
from chaos.trials.fuzzing import fuzzing
from chaos.trials.hostile_database import hostile_database
from chaos.trials.hostile_exchange import hostile_exchange
from chaos.trials.hostile_network import hostile_network
from chaos.trials.kill9 import kill9
from chaos.trials.secret_leaks import secret_leaks
from chaos.trials.signals import signals
from chaos.trials.soak import soak

Section = Callable[[Effort], Iterator[Result]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "kill9": ("Killed anywhere", kill9),
    "crash_points": ("Killed at every step of a commit", crash_points),
    "concurrent_runs": ("Several runs at once", concurrent_runs),
    "hostile_network": ("A hostile network", hostile_network),
    "fuzzing": ("What strangers send", fuzzing),
    "hostile_exchange": ("A hostile exchange", hostile_exchange),
    "archives": ("A hostile archive", archives),
    "hostile_database": ("A hostile database", hostile_database),
    "signals": ("Stopping", signals),
    "secret_leaks": ("Secrets", secret_leaks),
    "follow": ("Following through outages", follow),
    "soak": ("A long run", soak),
}


def main() -> int:
    """Run the sections that the command line names, by default all."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Test every guarantee under faults.")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section; may be repeated")
    parser.add_argument("--nightly", action="store_true", help="try for hours instead of minutes")
    parser.add_argument("--seed", type=int, default=None, help="repeat the run that printed this seed")
    arguments = parser.parse_args()
    # Keep away from this user's own proxy board: it holds the claims of runs against real exchanges.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        return _try(arguments)


def _try(arguments: argparse.Namespace) -> int:
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    effort = Effort("nightly" if arguments.nightly else "full", seed)
    print(f"seed {seed}")
    began, broken = time.monotonic(), 0
    for name in arguments.only or SECTIONS:
        title, section = SECTIONS[name]
        print(f"\n{title}", flush=True)
        section_began = time.monotonic()
        for result in section(effort):
            print(_line(result), flush=True)
            broken += not result.holds
            for failure in result.failures[:5]:
                print(f"    {failure[:2000]}", flush=True)
        print(f"  {time.monotonic() - section_began:.0f} seconds", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. "
        + (f"{broken} promises were broken." if broken else "Every promise was kept.")
    )
    return bool(broken)


def _line(result: Result) -> str:
    kept = "kept" if result.holds else "BROKEN"
    return (
        f"  {result.promise:<72} tried {result.tried:<18} survived {result.survived:<12} "
        f"bar {result.bar:<12} {kept}"
    )


if __name__ == "__main__":
    sys.exit(main())
