"""Check that the server of a test ends when the test's process is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["assert_tidied_up"]

_PROJECT = Path(__file__).parents[2]


def assert_tidied_up(code: str) -> None:
    """Run code that starts a server, prints its DSN and waits; kill it, and wait until its folder is gone."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=_PROJECT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        dsn = run.stdout.readline()
        home = Path(str(conninfo_to_dict(dsn)["host"]))
        psycopg.connect(dsn).close()
        run.kill()
    give_up = time.monotonic() + 120
    while home.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not home.exists()
