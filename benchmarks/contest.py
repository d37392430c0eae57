"""Running contestants: each in a process of its own, on one core, and all of them for the same rows."""

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

from benchmarks.contestants.job import Job
from benchmarks.figures import interleaved

__all__ = ["PEERS", "Contestant", "child", "contest"]

_HERE = Path(__file__).parents[1]
PEERS = _HERE / ".venv" / "peers" / "bin" / "python"
"""The interpreter of an environment that has the peers, which cannot share ours."""


@attrs.frozen
class Contestant:
    """A module below `benchmarks.contestants`, and whose environment it needs."""

    module: str
    python: Path = Path(sys.executable)


def child(command: Sequence[str | Path], core: int | None) -> dict[str, Any]:
    """Run a command, on one core if asked, and return the JSON of the last line that it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_HERE),
        "OPENBLAS_NUM_THREADS": "1",  # its threads spin when they start, which would count
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


def contest(
    contestants: Mapping[str, Contestant], job: Job, *, rounds: int, core: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Let contestants do the same job in turns; AssertionError if their rows are not the same."""
    text = json.dumps(dataclasses.asdict(job))

    def side(contestant: Contestant) -> dict[str, Any]:
        module = f"benchmarks.contestants.{contestant.module}"
        return child([contestant.python, "-m", module, text], core)

    found = interleaved({name: partial(side, each) for name, each in contestants.items()}, rounds)
    outcomes = {(name, one["rows"], one["digest"]) for name, each in found.items() for one in each}
    if len({outcome[1:] for outcome in outcomes}) != 1:
        raise AssertionError(f"the contestants did not produce the same rows: {sorted(outcomes)}")
    return found
