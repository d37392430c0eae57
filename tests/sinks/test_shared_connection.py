from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic, sleep

import attrs
import pytest

from marketfetch.errors import SinkUnavailable
from marketfetch.sinks.duckdb import shared_connection as module
from marketfetch.sinks.duckdb.shared_connection import SharedConnection
from marketfetch.sinks.files import atomic_files

PATIENCE = 20


@attrs.define
class File:
    """Notes when it is opened and closed."""

    notes: list[str] = attrs.field(factory=list)
    closed: threading.Event = attrs.field(factory=threading.Event)

    @contextmanager
    def opened(self, give_up: float) -> Iterator[str]:
        self.notes.append("open")
        try:
            yield "connection"
        finally:
            self.notes.append("close")
            self.closed.set()


def duplicate(connection: str) -> AbstractContextManager[str]:
    return nullcontext(f"second {connection}")


def test_it_stays_open_from_one_use_to_the_next() -> None:
    file, before = File(), set(threading.enumerate())
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)
    for _ in range(3):
        with shared.connection() as connection:
            assert connection == "connection"
    assert file.notes == ["open"]
    shared.close()
    assert file.notes == ["open", "close"]
    for thread in set(threading.enumerate()) - before:
        if isinstance(thread, threading.Timer):
            thread.join(PATIENCE)  # it was told to end
            assert not thread.is_alive()


def test_a_turn_ends_when_others_want_one_but_is_not_too_short() -> None:
    file = File()
    wanted: list[bool] = []
    shared = SharedConnection(
        "file", file.opened, duplicate, lambda: bool(wanted), max_lifetime=0, max_idle=1000
    )
    hasty = SharedConnection(
        "file", file.opened, duplicate, lambda: bool(wanted), max_lifetime=1000, max_idle=1000
    )
    for _ in range(3):
        with shared.connection():
            file.notes.append("use")
        wanted.append(True)
    assert file.notes == ["open", "use", "use", "close", "open", "use", "close"]
    file.notes.clear()
    with hasty.connection():
        pass
    assert file.notes == ["open"]
    hasty.close()


def test_it_is_closed_when_nobody_uses_it() -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=0.01)
    with shared.connection():
        pass
    assert file.closed.wait(PATIENCE)
    with shared.connection():
        pass
    shared.close()
    assert file.notes == ["open", "close"] * 2


def test_after_an_error_it_is_opened_anew() -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)
    with pytest.raises(ZeroDivisionError), shared.connection():
        raise ZeroDivisionError
    assert file.notes == ["open", "close"]
    with shared.connection():
        pass
    shared.close()
    assert file.notes == ["open", "close"] * 2


def test_what_cannot_be_opened_can_be_tried_again() -> None:
    def broken(give_up: float) -> AbstractContextManager[str]:
        raise OSError("away")

    shared = SharedConnection("file", broken, duplicate, lambda: False)
    for _ in range(2):
        with pytest.raises(OSError, match="away"), shared.connection():
            pass
    shared.close()


def test_where_no_thread_can_be_started_it_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was committed before stays a success."""

    def start(timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", start)
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)
    for _ in range(2):
        with shared.connection():
            file.notes.append("use")
    assert file.notes == ["open", "use", "close"] * 2
    shared.close()


def test_who_waits_for_long_for_another_thread_is_told_and_may_ask_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.01)
    file = File()
    shared = SharedConnection("market.duckdb", file.opened, duplicate, lambda: False, max_idle=0.01)
    with ThreadPoolExecutor(1) as threads:

        def write() -> None:
            with shared.connection():
                file.notes.append("other")

        with shared.connection():
            with pytest.raises(SinkUnavailable, match=r"market\.duckdb: .* this process .*: end it, or wait"):
                threads.submit(write).result(PATIENCE)
            threads.submit(shared.close).result(PATIENCE)  # it does not wait, nor close what is in use
            file.notes.append("still open")
        threads.submit(write).result(PATIENCE)
    shared.close()
    assert file.notes[:2] == ["open", "still open"]
    assert file.notes[-2:] == ["other", "close"]


def test_what_was_waited_for_a_thread_is_not_waited_for_others_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = 1000.0
    moments = [began, began + 1.5]  # of asking for the turn, and of being opened
    monkeypatch.setattr(module, "monotonic", lambda: moments.pop(0) if len(moments) > 1 else moments[0])
    told: list[float] = []

    def opened(give_up: float) -> AbstractContextManager[str]:
        told.append(give_up)
        return nullcontext("connection")

    shared = SharedConnection("file", opened, duplicate, lambda: False)
    with shared.connection():
        pass
    shared.close()
    assert told == [began + atomic_files.LOCK_TIMEOUT]


def test_two_blocks_with_keys_of_their_own_run_side_by_side() -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)
    for _ in range(2):
        with shared.connection({"A", "B"}) as first, shared.connection({"C"}) as second:
            assert {first, second} == {"connection", "second connection"}
    with shared.connection({"A"}) as first:
        with shared.connection({"B"}):
            pass
        with shared.connection({"B"}) as second:
            assert first != second
    shared.close()
    assert file.notes == ["open", "close"]


@pytest.mark.parametrize(
    ("running", "wanted"), [({"A", "B"}, {"B"}), ({"A"}, None), (None, {"A"}), (None, None)]
)
def test_a_block_waits_for_one_that_it_shares_a_key_with(
    running: set[str] | None, wanted: set[str] | None
) -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)

    def use() -> str:
        with shared.connection(wanted) as connection:
            file.notes.append("second")
            return connection

    with ThreadPoolExecutor(1) as threads:
        with shared.connection(running):
            waiting = threads.submit(use)
            wait_for(lambda: len(shared._waiting) == 1)
            file.notes.append("first")
        assert waiting.result(PATIENCE) == "connection"
    shared.close()
    assert file.notes == ["open", "first", "second", "close"]


def test_a_third_block_waits_and_nobody_overtakes_the_one_that_waits_for_everything() -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)

    def use(name: str, keys: set[str] | None) -> None:
        with shared.connection(keys):
            file.notes.append(name)

    with ThreadPoolExecutor(2) as threads:
        with shared.connection({"A"}):
            with shared.connection({"B"}):
                everything = threads.submit(use, "everything", None)
                wait_for(lambda: len(shared._waiting) == 1)
                third = threads.submit(use, "third", {"C"})
                wait_for(lambda: len(shared._waiting) == 2)
            file.notes.append("one has ended")
        everything.result(PATIENCE)
        third.result(PATIENCE)
    shared.close()
    assert file.notes == ["open", "one has ended", "everything", "third", "close"]


def test_a_thread_that_begins_again_at_once_waits_behind_the_others() -> None:
    """The place that it has left is taken before the thread that waits for it wakes up."""
    file, waiting, again = File(), module._Block({"C"}), module._Block({"B"})
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)
    with shared.connection({"A"}), shared._changed:
        shared._waiting += [waiting, again]
        assert [shared._may_begin(block) for block in (waiting, again)] == [True, False]
        shared._waiting.clear()
    shared.close()


def test_after_an_error_it_is_closed_when_both_blocks_have_ended() -> None:
    file = File()
    shared = SharedConnection("file", file.opened, duplicate, lambda: False, max_idle=1000)

    def use() -> None:
        with shared.connection({"C"}):
            file.notes.append("use")

    with ThreadPoolExecutor(1) as threads:
        with shared.connection({"A"}):
            with pytest.raises(ZeroDivisionError), shared.connection({"B"}):
                raise ZeroDivisionError
            later = threads.submit(use)
            wait_for(lambda: len(shared._waiting) == 1)
            file.notes.append("still open")
        later.result(PATIENCE)
    shared.close()
    assert file.notes == ["open", "still open", "close", "open", "use", "close"]


def test_another_process_gets_the_file_though_two_writers_alternate() -> None:
    file, waiters = File(), list[bool]()
    shared = SharedConnection(
        "file", file.opened, duplicate, lambda: bool(waiters), max_lifetime=0, max_idle=1000
    )

    def use() -> None:
        with shared.connection({"C"}):
            file.notes.append("use")

    with ThreadPoolExecutor(1) as threads:
        with shared.connection({"A"}):
            waiters.append(True)
            with shared.connection({"B"}):
                pass
            later = threads.submit(use)
            wait_for(lambda: len(shared._waiting) == 1)
        later.result(PATIENCE)
    assert file.notes == ["open", "close", "open", "use", "close"]


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < give_up
        sleep(0.001)
