"""The clock of trials that promise an end within some seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.harness.watch import Watch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("chaos.harness.watch.time.monotonic", lambda: now[0])
    return now


def waits(tasks: Path, **threads: float) -> None:
    for thread, seconds in threads.items():
        (tasks / thread).mkdir(parents=True, exist_ok=True)
        (tasks / thread / "schedstat").write_text(f"123 {int(seconds * 1e9)} 4\n", "ascii")


def test_seconds_without_a_processor_do_not_count(tmp_path: Path, clock: list[float]) -> None:
    waits(tmp_path, main=5.0)
    watch = Watch(tasks=tmp_path)
    clock[0] += 8.0
    waits(tmp_path, main=9.0, worker=1.0)
    watch.look()
    waits(tmp_path, worker=1.5)
    assert watch.seconds() == pytest.approx(8.0 - 4.0 - 0.5)


def test_threads_that_wait_at_the_same_time_wait_once(tmp_path: Path, clock: list[float]) -> None:
    waits(tmp_path, main=0.0, one=0.0, two=0.0)
    watch = Watch(tasks=tmp_path)
    clock[0] += 6.0
    waits(tmp_path, main=0.1, one=4.0, two=4.0)
    assert watch.seconds() == pytest.approx(2.0)


def test_what_a_thread_waited_is_known_after_its_end(tmp_path: Path, clock: list[float]) -> None:
    waits(tmp_path, main=5.0)
    watch = Watch(tasks=tmp_path)
    clock[0] += 3.0
    waits(tmp_path, main=6.0)
    watch.look()
    (tmp_path / "main" / "schedstat").unlink()
    assert watch.seconds() == pytest.approx(2.0)


def test_all_seconds_count_where_the_system_tells_nothing(tmp_path: Path, clock: list[float]) -> None:
    watch = Watch(tasks=tmp_path / "none")
    clock[0] += 7.0
    assert watch.seconds() == 7.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread waited")
def test_the_wait_of_a_process_can_be_read() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as run:
        watch = Watch(run.pid)
        assert str(run.pid) in watch._last
        run.communicate("\n")
    assert watch.seconds() > 0
