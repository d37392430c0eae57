"""A child that is forked while its parent has a database file open gets a clear error, and no crash."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks import DuckDBSink, SQLiteSink
from tests.support.batches import EVER, batch, candles

SERIES = candles()
Kind = type[DuckDBSink] | type[SQLiteSink]
KINDS = pytest.mark.parametrize("kind", [DuckDBSink, SQLiteSink])
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # which is what is tried here


def in_child(work: Callable[[], str]) -> str:
    """Fork, do something in the child, and return what it says, or how it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)  # a child that hangs is ended
        try:
            output = work()
        except BaseException as error:  # noqa: BLE001  # the parent is told
            output = f"{type(error).__name__}: {error}"
        os.write(writer, output.encode()[:4000])
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        output = pipe.read()
    return output if os.WIFEXITED(status) else f"killed by {signal.Signals(os.WTERMSIG(status)).name}"


def read_and_write(store: DuckDBSink | SQLiteSink) -> Callable[[], str]:
    def work() -> str:
        with store.writer() as write:
            write(batch(SERIES, range(100, 105), close=1.0))
        return f"read {len(store.read(SERIES, EVER))}"

    return work


def ready(kind: Kind, folder: Path) -> DuckDBSink | SQLiteSink:
    store = kind(folder / "market.db")
    store.prepare([SERIES.dataset])
    return store


@KINDS
@pytest.mark.parametrize("same_object", [True, False])
def test_forked_during_a_run(tmp_path: Path, kind: Kind, same_object: bool) -> None:
    store = ready(kind, tmp_path)
    begun, end = threading.Event(), threading.Event()

    def run() -> None:
        with store.writer() as write:
            for start in range(0, 10**9, 50):
                write(batch(SERIES, range(start, start + 50), close=2.0))
                begun.set()
                if end.is_set():
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(30)
        other = store if same_object else kind(store.path)
        answers = [in_child(read_and_write(other)), in_child(lambda: str(other.coverage([SERIES])))]
    finally:
        end.set()
        thread.join()
    assert all("SinkError" in each and "was forked while" in each for each in answers), answers
    assert len(store.read(SERIES, EVER))


@KINDS
def test_forked_by_the_thread_that_writes(tmp_path: Path, kind: Kind) -> None:
    """The child leaves the same `with` block, and must not close what is not its own."""
    store = ready(kind, tmp_path)
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))

        def go_on() -> str:
            write(batch(SERIES, range(5, 9), close=2.0))
            return "wrote"

        assert "was forked while" in in_child(go_on)
        write(batch(SERIES, range(5, 10), close=2.0))
    assert len(store.read(SERIES, EVER)) == 10


@KINDS
def test_forked_before_or_after_a_run_is_as_good_as_ever(tmp_path: Path, kind: Kind) -> None:
    store = ready(kind, tmp_path)
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))
    assert in_child(read_and_write(store)) == "read 10"
    assert len(store.read(SERIES, EVER)) == 10


@KINDS
def test_a_grandchild_knows_too(tmp_path: Path, kind: Kind) -> None:
    store = ready(kind, tmp_path)
    with store._connected():
        assert "was forked while" in in_child(lambda: in_child(read_and_write(store)))


@KINDS
def test_other_files_may_be_used_in_the_child(tmp_path: Path, kind: Kind) -> None:
    store, other = ready(kind, tmp_path), kind(tmp_path / "other.db")
    with store._connected():

        def work() -> str:
            other.prepare([SERIES.dataset])
            return read_and_write(other)()

        assert in_child(work) == "read 5"


def _held(path: Path) -> int:
    store = DuckDBSink(path)
    return len(store.read(SERIES, EVER))


def test_a_spawned_process_is_the_remedy(tmp_path: Path) -> None:
    """What the message says works, once the file is free."""
    store = ready(DuckDBSink, tmp_path)
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert processes.submit(_held, store.path).result() == 5


def test_the_error_names_the_remedy(tmp_path: Path) -> None:
    store = ready(SQLiteSink, tmp_path)
    with store._connected():
        answers = in_child(lambda: str(store.ledger()))
    assert "get_context('spawn')" in answers
    assert str(store.path) in answers
    assert SinkError.__name__ in answers
