"""A lock ends when its holder lets go or dies, whatever was forked while it was held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from marketfetch.protocols import Store
from marketfetch.sinks.urls import sink_from
from tests.support.batches import EVER, batch, candles

PROJECT = Path(__file__).parents[2]
KINDS = ["parquet", "duckdb"]

# Forks at the moment at which the writing thread holds its lock: when it has something synchronised with the
# disk. DuckDB's file is made under the lock, and is not there yet; Parquet's files are written under theirs.
SCRIPT = """
import json, os, signal, stat, sys, threading
from marketfetch.sinks.urls import sink_from
from tests.support.batches import batch, candles

url, then = sys.argv[1:]
store = sink_from(url)
inside, forked = threading.Event(), threading.Event()
synchronise = os.fsync


def fsync(handle):
    if not inside.is_set() and (url.startswith("duckdb:") or stat.S_ISREG(os.fstat(handle).st_mode)):
        inside.set()
        assert forked.wait(30)
    synchronise(handle)


def work():
    if url.startswith("duckdb:"):
        os.fsync = fsync
    store.prepare([candles().dataset])
    os.fsync = fsync
    with store.writer() as take:
        take(batch(candles(), range(0, 10), open=1))


worker = threading.Thread(target=work)
worker.start()
assert inside.wait(30)
child = os.fork()
if child == 0:
    os.close(1)
    signal.pause()
    os._exit(0)
os.write(1, json.dumps(child).encode() + b"\\n")
if then == "die":
    os.kill(os.getpid(), signal.SIGKILL)
forked.set()
worker.join(30)
with store.writer() as take:
    take(batch(candles(), range(10, 20), open=2))
os.write(1, b"done\\n")
sys.stdin.read()
"""


@contextmanager
def forked(url: str, then: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that forks one which lives on until the end of the block."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, url, then]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=PROJECT, text=True, **pipes) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())
        try:
            yield parent
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()


def store_in(folder: Path, kind: str) -> tuple[str, Store]:
    url = f"{kind}:{folder / 'market'}"
    store = sink_from(url)
    assert isinstance(store, Store)
    return url, store


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_only_sleeps_shuts_nobody_out(tmp_path: Path, kind: str) -> None:
    url, store = store_in(tmp_path, kind)
    with forked(url, "go on") as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        line = parent.stdout.readline()
        assert line == "done\n", parent.stderr.read()
        parent.kill()  # it has the file of DuckDB open for a moment longer
        parent.wait()
        with store.writer() as take:
            take(batch(candles(), range(20, 30), open=3))
        assert len(store.read(candles(), EVER)) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_outlives_a_killed_parent_shuts_nobody_out(tmp_path: Path, kind: str) -> None:
    url, store = store_in(tmp_path, kind)
    with forked(url, "die") as parent:
        parent.wait(30)
        store.prepare([candles().dataset])
        with store.writer() as take:
            take(batch(candles(), range(20, 30), open=3))
        assert len(store.read(candles(), EVER)) >= 10
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith((".lock", ".aside"))]


INSIDE = """
import os, sys
from pathlib import Path
from marketfetch.sinks.files.atomic_files import locked_directory

with locked_directory(Path(sys.argv[1])):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        try:
            with locked_directory(Path(sys.argv[1]), give_up=0):
                print("both are inside")
        except BlockingIOError:
            print("kept out")
"""


def test_a_child_that_leaves_the_block_does_not_let_go_of_the_lock_of_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", INSIDE, str(tmp_path / "alone")]
    line = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=250)
    assert line.stdout == "kept out\n"


def test_parent_and_children_write_into_one_store(tmp_path: Path) -> None:
    """A sink that was made before the fork serves both: nothing in it is of one process."""
    script = """
import os, sys
from marketfetch.sinks.urls import sink_from
from tests.support.batches import batch, candles

store = sink_from(sys.argv[1])
store.prepare([candles().dataset])
with store.writer() as take:
    take(batch(candles(), range(0, 10), open=1))
    children = []
    for number in range(1, 4):
        children.append(os.fork())
        if not children[-1]:
            break
    else:
        number = 0
    for step in range(5):
        first = 10 + 20 * number + 4 * step
        take(batch(candles(), range(first, first + 4), open=number))
if children[-1]:
    sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""
    url, store = store_in(tmp_path, "parquet")
    command = [sys.executable, "-W", "ignore", "-c", script, url]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=250)
    assert len(store.read(candles(), EVER)) == 90
    assert store.coverage([candles()])[candles()].present.length == 90 * 60_000
