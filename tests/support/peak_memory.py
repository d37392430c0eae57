"""The peak memory of a back-fill in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["backfill"]

_PEAK = """
import sys
from pathlib import Path
from marketfetch.cli.main import main
code = main(sys.argv[1:])
# Not getrusage: its peak is at least what the parent had when it started this process.
status = Path("/proc/self/status").read_text().split()
print(status[status.index("VmHWM:") + 1], file=sys.stderr)
raise SystemExit(code)
"""
# glibc raises these limits at each large block that is freed, and then keeps such blocks.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def backfill(words: Sequence[str], *, timeout: float = 280) -> tuple[dict[str, Any], int]:
    """Run the command backfill; return its report and its peak resident memory in kB, read from /proc."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, "backfill", "--json", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | _ALLOCATOR,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout), int(done.stderr.split()[-1])
