"""Every promise, tried: `python -m chaos [--only NAME] [--nightly] [--seed N]`, or `make chaos`.

Prints one line for each promise: what was tried, how much of it was survived, the bar. Ends with exit code 1
if one was not kept.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from chaos.confidential import confidential
from chaos.crashing import crashing
from chaos.fuzzing import fuzzing
from chaos.hostile_database import hostile_database
from chaos.hostile_exchange import hostile_exchange
from chaos.hostile_network import hostile_network
from chaos.killing import killing
from chaos.promises import Outcome, Scale
from chaos.soak import soak
from chaos.stopping import stopping
from chaos.together import together

Section = Callable[[Scale], Iterator[Outcome]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "killing": ("Killed anywhere", killing),
    "crashing": ("Killed at every step of a commit", crashing),
    "together": ("Several runs at once", together),
    "network": ("A hostile network", hostile_network),
    "fuzzing": ("What strangers send", fuzzing),
    "hostile_exchange": ("A hostile exchange", hostile_exchange),
    "database": ("A hostile database", hostile_database),
    "stopping": ("Stopping", stopping),
    "confidential": ("Secrets", confidential),
    "soak": ("A long run", soak),
}


def main() -> int:
    """Try the promises asked for."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Every promise, tried.")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="one section; may be repeated")
    parser.add_argument("--nightly", action="store_true", help="try for hours instead of minutes")
    parser.add_argument("--seed", type=int, default=None, help="repeat the run that printed this seed")
    arguments = parser.parse_args()
    # The board of this user is for real exchanges.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        return _try(arguments)


def _try(arguments: argparse.Namespace) -> int:
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
                print(f"    {failure[:2000]}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{minutes:.1f} minutes. "
        + (f"{broken} promises were broken." if broken else "Every promise was kept.")
    )
    return bool(broken)


def _line(outcome: Outcome) -> str:
    kept = "kept" if outcome.holds else "BROKEN"
    return (
        f"  {outcome.promise:<72} tried {outcome.tried:<18} survived {outcome.survived:<12} "
        f"bar {outcome.bar:<12} {kept}"
    )


if __name__ == "__main__":
    sys.exit(main())
