"""Two machines on one folder: whatever the ledger calls present is in a file, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import attrs
import numpy as np
import pytest

from marketfetch.common.processes import ProcessIdentity
from marketfetch.errors import SinkUnavailable
from marketfetch.sinks.files import lock_files as locks
from marketfetch.sinks.files.atomic_files import locked_directory
from marketfetch.sinks.files.lock_files import LEASE, HeldLock, try_lock
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

PROJECT = Path(__file__).parents[2]
MONTH = 31 * 1440
STEPS = 25
ELSEWHERE = ProcessIdentity("elsewhere", "1f0c22aa93bd", "4026531836", 17, "4711")

# A machine of its own: another name, numbers of processes that mean nothing here, and locks of the kernel
# that nobody else sees.
MACHINE = """
import fcntl, os, socket, sys
fcntl.flock = fcntl.lockf = lambda *_: None
name, first, url = sys.argv[1], int(sys.argv[2]), sys.argv[3]
socket.gethostname = lambda: name
from marketfetch.errors import SinkUnavailable
from marketfetch.sinks.urls import sink_from
from tests.support.batches import batch, candles

store = sink_from(url)
sys.stdin.readline()
with store.writer() as take:
    for step in range(int(sys.argv[4])):
        for month in (0, 44_640):
            minute = month + 20 * step + first
            for attempt in range(20):
                try:
                    take(batch(candles(), range(minute, minute + 10), open=first))
                    break
                except SinkUnavailable:
                    if attempt == 19:
                        raise
"""


def assert_no_false_claim(store: ParquetSink) -> Coverage:
    known = store.coverage([candles()])[candles()]
    there = candles().interval.cover(store.read(candles(), EVER).times)
    assert not known.present - there, "called present, and in no file"
    return known


@pytest.mark.slow
@pytest.mark.parametrize("names", [("east", "west"), ("same", "same")], ids=["two names", "one name"])
def test_two_machines_write_the_same_months(tmp_path: Path, names: tuple[str, str]) -> None:
    store = ParquetSink(tmp_path)
    store.prepare([])
    with ExitStack() as stack:
        machines = []
        for name, first in zip(names, (0, 10), strict=True):
            machine = subprocess.Popen(
                [sys.executable, "-c", MACHINE, name, str(first), f"parquet:{tmp_path}", str(STEPS)],
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(machine)  # waits for its end
            stack.callback(machine.kill)
            machines.append(machine)
        for machine in machines:
            assert machine.stdin is not None
            machine.stdin.write("go\n")
            machine.stdin.flush()
        for machine in machines:
            _, errors = machine.communicate(timeout=250)
            assert machine.returncode == 0, errors
    expected = [Span(START + at * MINUTE, START + (at + 20 * STEPS) * MINUTE) for at in (0, MONTH)]
    assert assert_no_false_claim(store).present == SpanSet(tuple(expected))
    assert not [path for path in (tmp_path / "_marketfetch").rglob("*") if path.is_file()]


def test_a_machine_that_was_taken_for_dead_makes_no_claim_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps amid a write for longer than its lease, another one writes, and it wakes up again."""
    store = ParquetSink(tmp_path)
    writes = [batch(candles(), range(10 * n, 10 * n + 10), open=n) for n in range(3)]
    with store.writer() as take:
        take(writes[0])
        asleep, awake, synchronise = threading.Event(), threading.Event(), os.fsync

        def fsync(handle: int) -> None:
            if threading.current_thread() is sleeper and not asleep.is_set():
                asleep.set()
                assert awake.wait(30)
            synchronise(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        sleeper = threading.Thread(target=take, args=[writes[1]])
        sleeper.start()
        assert asleep.wait(30)
        (lock,) = (tmp_path / "_marketfetch" / "locks").iterdir()
        lock.write_text(f"{ELSEWHERE}.aa")
        long_ago = lock.stat().st_mtime - LEASE - 1
        os.utime(lock, (long_ago, long_ago))
        take(writes[2])
        awake.set()
        sleeper.join(30)
        assert assert_no_false_claim(store).present
        take(writes[1])  # what the next run does with what is not covered
        take(writes[2])
    assert assert_no_false_claim(store).present.length == 30 * MINUTE


@pytest.mark.parametrize("ours", [True, False])
def test_an_older_copy_of_a_file_says_what_is_in_it(tmp_path: Path, ours: bool) -> None:
    """As a machine leaves it that has overwritten what another one wrote, or somebody who restores it."""
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        take(batch(candles(), range(10), open=1))
        (month,) = tmp_path.rglob("2020-01.parquet")
        old = month.read_bytes()
        take(batch(candles(), range(10, 20), open=2))
        if ours:
            take(Batch(candles(), batch(candles(), []).columns, Coverage(SpanSet.of(EVER), SpanSet.of(EVER))))
    month.write_bytes(old)
    assert assert_no_false_claim(store).present.length == 10 * MINUTE


def test_the_lock_of_another_machine_is_waited_for_and_named(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    one = batch(candles(), [0], open=1)
    with store.writer() as take:
        take(one)
        lock = tmp_path / "_marketfetch" / "locks" / "binance-usdm,ohlcv,BTCUSDT,1m.lock"
        lock.write_text("nas7.1f0c22aa93bd.4026531836.4711.88123.0badcafe")
        with pytest.raises(SinkUnavailable, match=r"process 4711 on nas7 is at work in it.*end it, or wait"):
            take(one)
        for text, age in [
            (f"{ELSEWHERE}.0badcafe", LEASE),
            ("", 1.0),
            ("\0\0torn", 1.0),
        ]:
            lock.write_text(text)
            long_ago = lock.stat().st_mtime - age - 1
            os.utime(lock, (long_ago, long_ago))
            take(one)
            assert not lock.exists()


def test_a_process_that_died_on_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = ProcessIdentity.current()
    for owner in (attrs.evolve(me, pid=ended.pid), attrs.evolve(me, started="1")):
        assert owner.is_alive is False
        (tmp_path / ".marketfetch.lock").write_text(f"{owner}.00")
        with locked_directory(tmp_path, give_up=0):
            pass
    assert me.is_alive
    assert attrs.evolve(me, host="elsewhere").is_alive is None
    assert not list(tmp_path.iterdir())


def test_of_many_who_find_a_dead_lock_one_goes_in_at_a_time(tmp_path: Path) -> None:
    me, inside, most = ProcessIdentity.current(), list[int](), list[int]()
    (tmp_path / ".marketfetch.lock").write_text(f"{attrs.evolve(me, started='1')}.00")

    def enter() -> None:
        for _ in range(20):
            with locked_directory(tmp_path, give_up=1e12):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert most == [1] * 80
    assert not list(tmp_path.iterdir())


def test_what_others_put_aside_stays_while_they_may_need_it(tmp_path: Path) -> None:
    me = ProcessIdentity.current()
    dead, away = attrs.evolve(me, started="1"), ELSEWHERE
    for number, owner in enumerate((me, dead, away, away)):
        (tmp_path / f"{owner}.{number}").touch()
    (tmp_path / "notes.txt").touch()
    day = np.float64(86_401)
    old = (tmp_path / f"{away}.3").stat().st_mtime - float(day)
    os.utime(tmp_path / f"{away}.3", (old, old))
    locks.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{me}.0", f"{away}.2", "notes.txt"}


def test_a_lock_that_may_be_alive_is_never_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sees a dead lock and is held up; B breaks and takes it; C tries again and again; A goes on."""
    lock, taken, look = tmp_path / "x.lock", list[HeldLock | None](), locks.is_abandoned
    lock.write_text(f"{attrs.evolve(ProcessIdentity.current(), started='1')}.00")

    def held_up(file: Path) -> bool:
        abandoned = look(file)
        with monkeypatch.context() as others:  # B and C are not held up
            others.setattr(locks, "is_abandoned", look)
            taken.append(try_lock(lock))
        return abandoned

    monkeypatch.setattr(locks, "is_abandoned", held_up)
    taken.append(try_lock(lock))
    holders = [one for one in taken if one is not None]
    assert len(taken) >= 3
    assert len(holders) == 1
    assert lock.read_text() == holders[0].text
    monkeypatch.undo()
    holders[0].release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("age", [0.0, 60.0])
def test_a_guard_that_was_left_is_broken_by_its_age(tmp_path: Path, age: float) -> None:
    lock, guard = tmp_path / "x.lock", tmp_path / "x.lock.break"
    lock.write_text(f"{attrs.evolve(ProcessIdentity.current(), started='1')}.00")
    guard.write_text(f"{ELSEWHERE}.00")
    written = guard.stat().st_mtime - age
    os.utime(guard, (written, written))
    assert try_lock(lock) is None
    assert guard.exists() is (age == 0)
    assert (try_lock(lock) is not None) is (age > 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("call", ["read_text", "unlink"])
def test_a_lock_that_cannot_be_released_does_not_undo_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """Afterwards this process, which is alive, knows that it does not hold the lock."""
    store, real = ParquetSink(tmp_path), getattr(Path, call)

    def failing(self: Path, *args: object, **options: object) -> object:
        if self.suffix == ".lock":
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *args, **options)

    with store.writer() as take:
        with monkeypatch.context() as broken:
            broken.setattr(Path, call, failing)
            take(batch(candles(), range(10), open=1))
        assert list(tmp_path.rglob("*.lock"))
        take(batch(candles(), range(10, 20), open=1))
    assert len(store.read(candles(), EVER)) == 20
    assert not list(tmp_path.rglob("*.lock*"))


def test_a_lock_that_is_released_and_taken_while_it_is_judged_is_not_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads the text of a lock; the lock changes hands; the old text is not held any more."""
    lock = tmp_path / "lock"
    first = try_lock(lock)
    assert first is not None
    holders: list[HeldLock | None] = [first]
    current = ProcessIdentity.current

    def meanwhile() -> ProcessIdentity:
        if len(holders) == 1:
            holders.append(None)  # only once: what follows asks for the identity, too
            first.release()
            holders[1] = try_lock(lock)
        return current()

    monkeypatch.setattr(ProcessIdentity, "current", meanwhile)
    assert try_lock(lock) is None
    assert holders[1] is not None
    assert lock.read_text() == holders[1].text
    holders[1].release()


def test_an_old_guard_is_taken_away_and_a_new_one_is_put_back(tmp_path: Path) -> None:
    guard = tmp_path / "lock.break"
    dead = attrs.evolve(ProcessIdentity.current(), pid=99**5)
    guard.write_text(f"{dead}.00000000")
    locks._remove_old_guard(guard)
    assert not list(tmp_path.iterdir())
    alive = locks._create(guard)
    assert alive is not None
    locks._remove_old_guard(guard)
    assert guard.read_text() == alive
    HeldLock(guard, alive).release()
    assert not list(tmp_path.iterdir())
