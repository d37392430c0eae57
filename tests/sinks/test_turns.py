from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import attrs
import pytest

from marketfetch.sinks.turns import Turns

PATIENCE = 20


@attrs.define
class File:
    """Notes when it is opened and closed."""

    notes: list[str] = attrs.field(factory=list)
    closed: threading.Event = attrs.field(factory=threading.Event)

    @contextmanager
    def opened(self) -> Iterator[str]:
        self.notes.append("open")
        try:
            yield "connection"
        finally:
            self.notes.append("close")
            self.closed.set()


def test_it_stays_open_from_one_use_to_the_next() -> None:
    file = File()
    turns = Turns(file.opened, lambda: False, idle=1000)
    for _ in range(3):
        with turns.use() as connection:
            assert connection == "connection"
    assert file.notes == ["open"]
    turns.close()
    assert file.notes == ["open", "close"]
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(PATIENCE)  # it was told to end
            assert not thread.is_alive()


def test_a_turn_ends_when_others_want_one_but_is_not_too_short() -> None:
    file = File()
    wanted: list[bool] = []
    turns = Turns(file.opened, lambda: bool(wanted), turn=0, idle=1000)
    hasty = Turns(file.opened, lambda: bool(wanted), turn=1000, idle=1000)
    for _ in range(3):
        with turns.use():
            file.notes.append("use")
        wanted.append(True)
    assert file.notes == ["open", "use", "use", "close", "open", "use", "close"]
    file.notes.clear()
    with hasty.use():
        pass
    assert file.notes == ["open"]
    hasty.close()


def test_it_is_closed_when_nobody_uses_it() -> None:
    file = File()
    turns = Turns(file.opened, lambda: False, idle=0.01)
    with turns.use():
        pass
    assert file.closed.wait(PATIENCE)
    with turns.use():
        pass
    turns.close()
    assert file.notes == ["open", "close"] * 2


def test_after_an_error_it_is_opened_anew() -> None:
    file = File()
    turns = Turns(file.opened, lambda: False, idle=1000)
    with pytest.raises(ZeroDivisionError), turns.use():
        raise ZeroDivisionError
    assert file.notes == ["open", "close"]
    with turns.use():
        pass
    turns.close()
    assert file.notes == ["open", "close"] * 2


def test_what_cannot_be_opened_can_be_tried_again() -> None:
    def broken() -> AbstractContextManager[str]:
        raise OSError("away")

    turns = Turns(broken, lambda: False)
    for _ in range(2):
        with pytest.raises(OSError, match="away"), turns.use():
            pass
    turns.close()
