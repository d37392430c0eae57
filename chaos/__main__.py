"""Every promise, tried: `python -m chaos [--only NAME] [--nightly] [--seed N]`, or `make chaos`.

Prints one line for each promise: what was tried, how much of it was survived, the bar. Ends with exit code 1
if one was not kept.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator

from chaos.promises import Outcome, Scale

Section = Callable[[Scale], Iterator[Outcome]]

SECTIONS: dict[str, tuple[str, Section]] = {}


def main() -> int:
    """Try the promises asked for."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Every promise, tried.")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section; may be repeated")
    parser.add_argument("--nightly", action="store_true", help="try for hours instead of minutes")
    parser.add_argument("--seed", type=int, default=None, help="repeat the run that printed this seed")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    scale = Scale("nightly" if arguments.nightly else "full", seed)
    print(f"seed {seed}")
    began, broken = time.monotonic(), 0
    for name in arguments.only or SECTIONS:
        title, section = SECTIONS[name]
        print(f"\n{title}", flush=True)
        for outcome in section(scale):
            print(_line(outcome), flush=True)
            broken += not outcome.holds
            for failure in outcome.failures[:5]:
                print(f"    {failure}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. "
        + (f"{broken} promises were broken." if broken else "Every promise was kept.")
    )
    return bool(broken)


def _line(outcome: Outcome) -> str:
    kept = "kept" if outcome.holds else "BROKEN"
    return (
        f"  {outcome.promise:<66} tried {outcome.tried:<18} survived {outcome.survived:<12} "
        f"bar {outcome.bar:<12} {kept}"
    )


if __name__ == "__main__":
    sys.exit(main())
