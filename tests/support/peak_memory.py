"""The peak memory of a process of its own that back-fills a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["backfill", "peaks_of_run"]

_PEAK = """
import sys
from pathlib import Path

def peak():
    # Not getrusage: its peak is at least what the parent had when it started this process.
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])
"""
_COMMAND = f"""{_PEAK}
from marketfetch.cli.main import main
code = main(sys.argv[1:])
print(peak(), file=sys.stderr)
raise SystemExit(code)
"""
_RUN = f"""{_PEAK}
import json
import anyio
import marketfetch as mf
from marketfetch.events import BatchWritten

query, store, parts, rows = json.loads(sys.argv[1])
written, peaks = 0, []

def note(event):
    global written
    if isinstance(event, BatchWritten):
        written += len(event.batch.columns)
        if written >= rows * (len(peaks) + 1) / 3:
            peaks.append(peak())

pipeline = mf.Pipeline("binance-spot", mf.Query(**query), store, listeners=[note], **parts)
assert anyio.run(pipeline.run).rows_written == written == rows
print(json.dumps(peaks))
"""
# glibc raises these limits at each large block that is freed, and then keeps such blocks.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Smaller blocks stay in glibc's heap when they are freed; the arrays of a block of long lines have 100 KB.
_ALLOCATOR_OF_FILES = _ALLOCATOR | {"MALLOC_MMAP_THRESHOLD_": "65536"}


def backfill(words: Sequence[str], *, timeout: float = 280) -> tuple[dict[str, Any], int]:
    """Run the command backfill; return its report and its peak resident memory in kB, read from /proc."""
    done = _done(_COMMAND, "backfill", "--json", *words, timeout=timeout, allocator=_ALLOCATOR_OF_FILES)
    return json.loads(done.stdout), int(done.stderr.split()[-1])


def peaks_of_run(query: Mapping[str, Any], store: str, *, rows: int, **parts: object) -> tuple[int, int, int]:
    """Fetch so many rows of binance-spot; return the peaks in kB after each third of them."""
    first, second, last = json.loads(_done(_RUN, json.dumps([query, store, parts, rows])).stdout)
    return first, second, last


def _done(
    code: str, *words: str, timeout: float = 280, allocator: Mapping[str, str] = _ALLOCATOR
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **allocator},
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done
