"""Compare libraries that fetch the same rows: each in its own process, pinned to one core."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks.competitors.job import Job
from benchmarks.harness.results import interleaved

__all__ = ["PEERS", "Competitor", "child", "compare"]

_HERE = Path(__file__).parents[2]
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
"""The interpreter of the environment with the other libraries, whose requirements conflict with ours."""


@attrs.frozen
class Competitor:
    """A module of `benchmarks.competitors`, and the interpreter that runs it."""

    module: str
    python: Path = Path(sys.executable)


def child(command: Sequence[str | Path], core: int | None) -> dict[str, Any]:
    """Run a command, pinned to `core` if given, and return the JSON of the last line that it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_HERE),
        "OPENBLAS_NUM_THREADS": "1",  # its threads would spin at the start and be measured
    }
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=_HERE,
        env=environment,
        timeout=600,
        preexec_fn=None if core is None else partial(os.sched_setaffinity, 0, {core}),
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))[:200]} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(
    competitors: Mapping[str, Competitor], job: Job, *, rounds: int, core: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Run all competitors in turns on the same job; AssertionError if their rows differ."""
    text = json.dumps(dataclasses.asdict(job))

    def side(competitor: Competitor) -> dict[str, Any]:
        module = f"benchmarks.competitors.{competitor.module}"
        return child([competitor.python, "-m", module, text], core)

    found = interleaved({name: partial(side, each) for name, each in competitors.items()}, rounds)
    outcomes = {(name, one["rows"], one["digest"]) for name, each in found.items() for one in each}
    if len({outcome[1:] for outcome in outcomes}) != 1:
        raise AssertionError(f"the competitors did not produce the same rows: {sorted(outcomes)}")
    return found
