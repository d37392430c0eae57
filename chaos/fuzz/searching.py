"""Search inputs that reach new branches, in turns: a turn is a process and continues the one before it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import attrs

from chaos.fuzz.targets import CORPUS, Target, addressed, families

__all__ = ["Search", "Turn", "searches", "turns"]

PROGRAM: tuple[str, ...] = ("-m", "chaos.fuzz.guided")
_COVERAGE = re.compile(r"\bcov: (\d+)")
_EXCEPTION = "=== Uncaught Python exception: ==="
_FAILED = re.compile(r"Test unit written to (\S+)")


@attrs.frozen
class Turn:
    """What one process did: so many inputs, the branches that all kept inputs reach, and what failed."""

    family: str
    tried: int
    edges: int
    kept: int
    seconds: float
    failures: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"    {self.family:<20} {self.tried:>9,} inputs, {self.edges:>4} edges,"
            f" {self.kept:>4} inputs kept, {self.seconds:4.0f} s"
        )


@attrs.frozen
class Search:
    """The search for one family of decoders, which share a format and nearly all of their code.

    All that it found is in its folder, so that the next turn continues there, also in another process.
    """

    family: str
    members: tuple[Target, ...]
    folder: Path

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many inputs each decoder has read and refused."""
        file = self.folder / "counts.json"
        found: dict[str, dict[str, int]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return found

    def tried(self) -> int:
        """Return the number of all inputs so far."""
        return sum(sum(verdicts.values()) for verdicts in self.counts().values())

    def forget_counts(self) -> None:
        """Count from zero, and keep the inputs: what they reached in other code proves nothing."""
        (self.folder / "counts.json").unlink(missing_ok=True)

    def turn(self, runs: int, seed: int) -> Turn:
        """Try `runs` further inputs, and give those that were kept to every decoder of the family."""
        began, before = time.monotonic(), self.tried()
        inputs = self.folder / "inputs"
        inputs.mkdir(parents=True, exist_ok=True)
        self._write_seeds()
        # A time limit of about 50 x the usual; a turn that reaches it has tried too few inputs.
        bound = 30 + runs // 200
        # Seed 0 means "random" to libFuzzer; a turn does not repeat the one before.
        command = [sys.executable, *PROGRAM, self.family, str(runs), str(seed + before + 1), str(bound)]
        done = subprocess.run(
            [*command, str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=2 * bound,
            check=False,
        )
        kept = sorted(inputs.iterdir())
        failures = self._failed(done.stdout) if done.returncode else [*self._failures_of(kept)]
        edges = max(map(int, _COVERAGE.findall(done.stdout)), default=0)
        seconds = time.monotonic() - began
        return Turn(self.family, self.tried() - before, edges, len(kept), seconds, tuple(failures))

    def _write_seeds(self) -> None:
        """Address each input of the corpus to each member."""
        folder = self.folder / "seeds"
        folder.mkdir(exist_ok=True)
        for number, target in enumerate(self.members):
            for at, text in enumerate(target.seeds()):
                (folder / f"{number}-{at}").write_bytes(bytes([number]) + text)

    def _failed(self, output: str) -> list[str]:
        """Say which decoder failed with which input."""
        name = self.family
        for written in _FAILED.findall(output):
            target, text = addressed(self.members, Path(written).read_bytes())
            name = f"{target.name}, {Path(written).name[:8]} {text!r}"
        _, _, report = output.partition(_EXCEPTION)
        excerpt = report[:1_200] or output[-600:]  # libFuzzer itself ends a process that takes too long
        return [f"{name}; mend it, and keep the input in {CORPUS / self.family}\n{excerpt}"]

    def _failures_of(self, kept: Sequence[Path]) -> Iterator[str]:
        texts = {file.read_bytes()[1:] for file in kept}
        with warnings.catch_warnings(action="error"):
            for target, text in product(self.members, texts):
                try:
                    target.read(text)
                except Exception:  # noqa: BLE001  # any error breaks the promise, and is reported
                    yield f"{target.name}, {text!r}\n{traceback.format_exc()}"


def searches(folder: Path) -> list[Search]:
    """Return a search for each family, in folders of their own."""
    return [Search(family, members, folder / family) for family, members in families().items()]


def turns(waiting: Sequence[Search], runs: int, seed: int) -> Iterator[Turn]:
    """Give each search a turn, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(partial(Search.turn, runs=runs, seed=seed), waiting)
