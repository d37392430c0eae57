"""A DuckDB file that somebody else has open: the remedy is named, and what is not written to is free."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

import marketfetch as mf
from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.events import Event, WaitingForStore
from marketfetch.sinks import DuckDBSink
from marketfetch.sinks.duckdb.connect import has_waiters
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.support.batches import EVER, batch, candles

SERIES = candles()
VIEWER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2:] == ["viewer"])
print("open", flush=True)
sys.stdin.readline()
"""


@contextmanager
def viewed(store: DuckDBSink, how: str = "viewer") -> Iterator[subprocess.Popen[str]]:
    """Have another process open the file, to read or to write, until a line is sent to it."""
    with subprocess.Popen(
        [sys.executable, "-c", VIEWER, store.path, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as viewer:
        assert viewer.stdout is not None
        assert viewer.stdout.readline() == "open\n"
        yield viewer


@pytest.fixture
def store(tmp_path: Path) -> DuckDBSink:
    store = DuckDBSink(tmp_path / "market.duckdb")
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))
    return store


def test_a_connection_of_this_process_that_only_reads_is_named(store: DuckDBSink) -> None:
    with (
        closing(duckdb.connect(store.path, read_only=True)),
        pytest.raises(SinkError, match=r"this process has the file open with other settings.*close that "),
        store.writer(),
    ):
        pass
    with store.writer() as write:
        write(batch(SERIES, range(5, 6), close=2.0))


def test_preparing_names_it_too(store: DuckDBSink) -> None:
    with (
        closing(duckdb.connect(store.path, read_only=True)),
        pytest.raises(SinkError, match="close that connection, then run again") as caught,
    ):
        store.prepare([SERIES.dataset])
    assert not isinstance(caught.value, SinkUnavailable), "waiting for the caller's own connection is no use"


def test_a_viewer_in_another_process_is_waited_for(
    store: DuckDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketfetch.sinks.duckdb.shared_connection.LOCK_TIMEOUT", 0.2)
    with viewed(store) as viewer:
        with pytest.raises(SinkUnavailable, match=r"\(PID \d+\).*end the other one, or wait"), store.writer():
            pass
        assert len(store.read(SERIES, EVER)) == 5, "it reads, and so may we"
        viewer.communicate("\n")
    with store.writer() as write:
        write(batch(SERIES, range(5, 6), close=2.0))


@pytest.fixture
def simulator() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        yield exchange


@pytest.mark.parametrize(("call", "holder"), [(mf.fetch, "viewer"), (mf.plan, "writer")])
def test_a_call_says_what_it_waits_for(
    store: DuckDBSink,
    monkeypatch: pytest.MonkeyPatch,
    simulator: SimulatedExchange,
    call: Callable[..., Any],
    holder: str,
) -> None:
    """In a notebook nobody listens to events: without a word, waiting looks like hanging."""
    for module in ("shared_connection", "sink"):
        monkeypatch.setattr(f"marketfetch.sinks.duckdb.{module}.LOCK_TIMEOUT", 0.2)
    with viewed(store, holder) as other:
        waited = threading.Event()
        end = threading.Thread(target=lambda: waited.wait(250) and other.communicate("\n"))
        end.start()

        def listen(event: Event) -> None:
            if isinstance(event, WaitingForStore):
                waited.set()

        with pytest.warns(RuntimeWarning, match=r"waiting for the store.*\(PID \d+\)"):
            found = call(
                "binance-usdm",
                "ohlcv",
                "BTCUSDT",
                start="2026-06-01",
                end="2026-06-02",
                to=store,
                base_url=simulator.base_url,
                listeners=[listen],
            )
        end.join()
    assert waited.is_set()
    assert found.report.complete if call is mf.fetch else found.total.rows == 1440


def test_a_command_says_in_a_line_what_it_waits_for(store: DuckDBSink, tmp_path: Path) -> None:
    words = ["export", "-t", f"duckdb:{store.path}", "-s", "BTCUSDT", "-o", str(tmp_path / "rows.csv")]
    with (
        viewed(store, "writer") as writer,
        subprocess.Popen(
            [sys.executable, "-m", "marketfetch", *words], stderr=subprocess.PIPE, text=True
        ) as command,
    ):
        assert command.stderr is not None
        line = command.stderr.readline()
        writer.communicate("\n")
        assert line.startswith("marketfetch: waiting for the store")
        assert [one for one in command.stderr if not one.startswith("marketfetch: ")] == []
    assert command.returncode == 0
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 6


def test_a_reader_of_this_process_is_waited_for_and_not_blamed(store: DuckDBSink) -> None:
    """Two runs of one program on one file: one reads at length while the other one begins to write."""
    read, end = threading.Event(), threading.Event()

    def reader() -> None:
        with store._reading():
            read.set()
            end.wait(30)

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        assert read.wait(30)
        with pytest.raises(SinkUnavailable, match="another run of this process reads it"), store.writer():
            pass
    finally:
        end.set()
        thread.join()
    with store.writer() as write:
        write(batch(SERIES, range(5, 6), close=2.0))


def test_a_writer_is_before_the_readers_that_come_after_it(
    store: DuckDBSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service serves reading after reading from its file, and follows into it all the same."""
    for module in ("shared_connection", "sink"):
        monkeypatch.setattr(f"marketfetch.sinks.duckdb.{module}.LOCK_TIMEOUT", 60.0)

    def append() -> None:
        with store.writer() as write:
            write(batch(SERIES, range(5, 6), close=2.0))

    with ThreadPoolExecutor() as pool:
        with store._reading():
            written = pool.submit(append)
            while not has_waiters(store.path) and not written.done():
                time.sleep(0.01)
            later = pool.submit(store.read, SERIES, EVER)
            with pytest.raises(TimeoutError):
                later.result(timeout=0.5)
        written.result()
        assert len(later.result()) in {5, 6}, "before the commit, or after it"
    assert len(store.read(SERIES, EVER)) == 6


def test_the_file_is_free_while_there_is_nothing_to_write(store: DuckDBSink) -> None:
    """A run that waits for the exchange keeps no reader out."""
    look = f"import duckdb; print(duckdb.connect({str(store.path)!r}, read_only=True).execute('SELECT 1'))"
    with store.writer() as write:
        write(batch(SERIES, range(5, 6), close=2.0))
        closed = threading.Event()
        connections = store._shared().connections
        for _ in range(3000):  # a bound for a machine that hangs
            if not connections._open:
                closed.set()
                break
            threading.Event().wait(0.01)
        assert closed.is_set()
        assert connections.max_idle <= 0.2, "seconds without a batch after which others may have the file"
        subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, timeout=250)
        write(batch(SERIES, range(6, 7), close=2.0))
    assert len(store.read(SERIES, EVER)) == 7
