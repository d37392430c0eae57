"""Compile the decoder of rows with sanitizers and run it under `harness.c`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs

from marketfetch.decoding.compiled import LIBRARY

__all__ = ["INPUTS", "SOURCE", "DriverCounts", "build", "drive"]

SOURCE = LIBRARY.with_suffix(".c")
INPUTS = ("rows-*/*", "binance-klines/*", "csv*/*")
"""The files of the corpus that the compiled decoder reads."""

_SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_COMMON = ("-g", "-O1", "-fno-omit-frame-pointer")


@attrs.frozen
class DriverCounts:
    """The number of inputs, of valid pages among them, and of code locations that were reached."""

    inputs: int
    pages: int
    locations: int


def build(folder: Path, source: Path = SOURCE) -> Path | str:
    """Compile decoder and harness with sanitizers; return the program, or the reason for its absence."""
    command = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if command is None:
        return "no C compiler"
    harness = Path(__file__).with_name("harness.c")
    rows, program = folder / "rows.o", folder / "harness"
    # Coverage is traced in the decoder alone, not in the harness.
    watched: list[str | Path] = [
        command,
        *_COMMON,
        *_SANITIZERS,
        "-fsanitize-coverage=trace-pc",
        "-c",
        source,
        "-o",
        rows,
    ]
    linked: list[str | Path] = [command, *_COMMON, *_SANITIZERS, harness, rows, "-lm", "-o", program]
    for step in (watched, linked):
        done = subprocess.run(step, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            return f"no sanitizers: {' '.join(done.stderr.split())[:200]}"
    return program


def drive(program: Path, inputs: int, seed: int, seeds: Sequence[Path]) -> DriverCounts | str:
    """Run `inputs` inputs; return the counts, or the sanitizers' report of the first fault."""
    command: list[str | Path] = [program, str(inputs), str(seed), *seeds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode:
        return f"exit code {done.returncode}, seed {seed}: {done.stderr[:3000]}"
    return DriverCounts(*map(int, done.stdout.split()))
