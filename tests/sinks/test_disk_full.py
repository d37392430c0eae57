"""Stores in files on disks that are full, limited, read-only or damaged: one clear error, nothing is lost."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.protocols import Store, SupportsGroupCommit
from marketfetch.sinks import sqlite
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.disks import fill, small_disk
from tests.support.worlds import World, assert_holds, assert_same, run, span_of, truth

START, MIDDLE, END = "2026-05-01", "2026-05-09", "2026-05-17"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SERIES = [Series.of("binance-usdm", "ohlcv", symbol, "1m") for symbol in SYMBOLS]
KINDS = ["sqlite", "duckdb", "parquet"]


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS)


@pytest.fixture(scope="module")
def exchange(market: GeneratedMarket) -> Iterator[SimulatedExchange]:
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange:
        yield exchange


@pytest.fixture
def world(exchange: SimulatedExchange) -> World:
    return World(exchange, settings=Settings(retries=RetryPolicy(attempts=4, initial=0.01, cap=0.05)))


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(16) as folder:
        if folder is None:
            pytest.skip("only root can mount a small disk; a limit to the size of files is tried everywhere")
        yield folder


def store_in(folder: Path, kind: str) -> Store:
    store = sink_from(f"{kind}:{folder / 'market'}")
    assert isinstance(store, Store)
    return store


def fetch(world: World, store: Store, start: str = START, end: str = END) -> None:
    assert run(world.pipeline(store, symbols=SYMBOLS, start=start, end=end)).complete


def refused(world: World, store: Store, end: str = END) -> SinkError:
    """Run into a store that cannot be used, and return the one error that ends the run, told in one line."""
    with pytest.raises(SinkError) as caught:
        run(world.pipeline(store, symbols=SYMBOLS, start=START, end=end))
    assert "\n" not in str(caught.value)
    assert caught.value.report is not None
    assert not caught.value.report.complete
    return caught.value


@contextmanager
def after_a_batch(store: Store, act: Callable[[], object]) -> Iterator[None]:
    """Do something once, right after the first batch is durable and before the second is begun."""
    kind, acts = type(store), [act]
    name = "group_writer" if isinstance(store, SupportsGroupCommit) else "writer"
    original = getattr(kind, name)

    @contextmanager
    def writer(self: Store) -> Iterator[Callable[[object], None]]:
        with original(self) as write:

            def watched(batches: object) -> None:
                write(batches)
                while acts:
                    acts.pop()()

            yield watched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "max_writers", 1)  # else the second may be durable as soon as the first
        if name == "group_writer":
            patch.setattr(kind, "transaction_rows", 1)  # each batch alone: else the first may be all of them
        patch.setattr(kind, name, writer)
        yield


def assert_right(store: Store, market: GeneratedMarket) -> int:
    """What is covered is there and true; returns how much that is."""
    known = store.coverage(SERIES)
    for series in SERIES:
        for span in known[series].covered:
            assert_same(store.read(series, span), truth(market, series, span))
    return sum(known[series].covered.length for series in SERIES)


def assert_whole(store: Store, market: GeneratedMarket) -> None:
    for series in SERIES:
        assert_holds(store, market, series, span_of(START, END))


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_ends_the_run_and_with_room_it_is_finished(
    disk: Path, world: World, market: GeneratedMarket, kind: str
) -> None:
    store = store_in(disk, kind)
    with after_a_batch(store, lambda: fill(disk)):
        error = refused(world, store)
    assert "; make room on the disk" in str(error)
    assert not isinstance(error, SinkUnavailable)
    assert assert_right(store, market)
    (disk / "ballast").unlink()
    fetch(world, store)
    assert_whole(store, market)


@pytest.mark.parametrize(("kind", "kilobytes"), [("sqlite", 3000), ("duckdb", 1000), ("parquet", 500)])
def test_files_that_may_not_grow_are_one_line_and_exit_code_1(
    tmp_path: Path, market: GeneratedMarket, world: World, kind: str, kilobytes: int
) -> None:
    words = (
        f"--symbol {SYMBOLS[0]} --symbol {SYMBOLS[1]} --interval 1m --start {START} --end {END} "
        f"--exchange binance-usdm --base-url {world.exchange.base_url} --to {kind}:{tmp_path / 'market'}"
    )
    limited = ["sh", "-c", f'ulimit -f {2 * kilobytes}; exec "$@"', "sh"]
    command = [*limited, sys.executable, "-m", "marketfetch", "backfill", *words.split()]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert said.returncode == 1, said.stderr
    last = said.stderr.splitlines()[-1]
    assert last.startswith("marketfetch: ")
    assert "make room on the disk" in last
    assert "Traceback" not in said.stderr
    store = store_in(tmp_path, kind)
    assert_right(store, market)
    fetch(world, store)
    assert_whole(store, market)


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_can_only_be_read_is_told_and_left_as_it_is(
    disk: Path, world: World, market: GeneratedMarket, kind: str
) -> None:
    store = store_in(disk, kind)
    fetch(world, store, end=MIDDLE)
    remount(disk, "ro")
    try:
        with pytest.raises(
            SinkError, match=r"; make the (file and its folder|folder and its files) readable and writable"
        ):
            run(world.pipeline(store, symbols=SYMBOLS, start=START, end=END))
    finally:
        remount(disk, "rw")
    fetch(world, store)
    assert_whole(store, market)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


@pytest.mark.parametrize("harm", ["cut", "emptied", "overwritten"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named_and_with_a_copy_of_it_the_run_is_finished(
    tmp_path: Path, world: World, market: GeneratedMarket, kind: str, harm: str
) -> None:
    store = store_in(tmp_path, kind)
    fetch(world, store, end=MIDDLE)
    file = max((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    sound = file.read_bytes()
    damaged = {"cut": sound[: len(sound) // 2], "emptied": b"", "overwritten": b"\xa5" * len(sound)}
    file.write_bytes(damaged[harm])
    if (kind, harm) == ("sqlite", "emptied"):
        fetch(world, store)  # an empty file is an empty database: nothing is known, and all is fetched anew
    else:
        with pytest.raises(SinkError, match=r"; (restore it from a copy|move it away)") as caught:
            run(world.pipeline(store, symbols=SYMBOLS, start=START, end=END))
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)
        file.write_bytes(sound)
        fetch(world, store)
    assert_whole(store, market)


def test_a_file_that_somebody_keeps_locked_amid_a_run_is_named(
    tmp_path: Path, world: World, market: GeneratedMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.02)
    store = store_in(tmp_path, "sqlite")
    store.prepare([SERIES[0].dataset])
    with closing(
        sqlite3.connect(tmp_path / "market", isolation_level=None, check_same_thread=False)
    ) as other:
        with after_a_batch(store, lambda: other.execute("BEGIN IMMEDIATE")):
            error = refused(world, store)
        assert isinstance(error, SinkUnavailable)
        assert "another process holds it" in str(error)
        assert assert_right(store, market)
        other.execute("ROLLBACK")
    fetch(world, store)
    assert_whole(store, market)


def test_a_store_that_was_taken_away_is_made_anew(
    tmp_path: Path, world: World, market: GeneratedMarket
) -> None:
    store = store_in(tmp_path, "parquet")
    fetch(world, store, end=MIDDLE)
    shutil.rmtree(tmp_path / "market")
    fetch(world, store)
    assert_whole(store, market)
