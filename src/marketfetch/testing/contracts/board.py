"""What every board has to keep: a test class to subclass, numbered.

Needs pytest beside `marketfetch[testing]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from marketfetch.protocols import Board

__all__ = ["BoardContract"]


def _append(text: str | None, now: float, word: str) -> tuple[str, float]:
    return f"{text or ''}{word}", now


def _count(text: str | None, _now: float) -> tuple[str, int]:
    return str(int(text or 0) + 1), int(text or 0) + 1


def _die(_text: str | None, _now: float) -> tuple[str, None]:
    os._exit(9)


def _read(text: str | None, _now: float) -> tuple[str, str | None]:
    return text or "", text


class BoardContract:
    """Subclass it as `TestMyBoard` and make the board; every test gets a place of its own.

    >>> from marketfetch.proxies.file_board import FileBoard
    >>> class TestFile(BoardContract):
    ...     def make_board(self, place: Path) -> Board:
    ...         return FileBoard(place)
    """

    def make_board(self, place: Path) -> Board:
        """Make the board at a place: a path in an existing, empty folder, at which there is nothing yet.

        It is called again with the same path for another instance of the same board.
        """
        raise NotImplementedError("override make_board(place)")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """Where the board of a test is."""
        return tmp_path / "board"

    @pytest.fixture
    def board(self, place: Path) -> Board:
        """A board that has not been used yet."""
        return self.make_board(place)

    def test_01_making_a_board_touches_nothing(self, place: Path) -> None:
        """The constructor does no I/O."""
        self.make_board(place)
        assert not place.exists()

    def test_02_two_boards_of_one_place_are_equal(self, place: Path) -> None:
        """Whoever has both takes them for one."""
        one, two = self.make_board(place), self.make_board(place)
        assert one == two
        assert hash(one) == hash(two)

    def test_03_a_step_gets_what_the_one_before_it_made(self, place: Path) -> None:
        """Nothing at first; also where another instance made it."""
        board = self.make_board(place)
        assert board.change("x", _read) is None
        for _ in range(3):
            self.make_board(place).change("x", lambda text, now: _append(text, now, "é "))
        assert board.change("x", _read) == "é é é "

    def test_04_names_do_not_know_each_other(self, board: Board) -> None:
        """Whatever is in a name, and whatever its case."""
        names = ["x", "X", "x ", "../x", "https://e.org weight", "ü" * 300, "a'b\"c%s", ""]
        for number, name in enumerate(names):
            board.change(name, lambda text, now, number=number: _append(text, now, str(number)))  # type: ignore[misc]
        assert [board.change(name, _read) for name in names] == [str(number) for number in range(len(names))]

    def test_05_a_step_that_raises_changes_nothing(self, board: Board) -> None:
        """And its error arrives as it is."""

        def fail(text: str | None, _now: float) -> tuple[str, None]:
            raise ZeroDivisionError(text)

        board.change("x", lambda text, now: _append(text, now, "kept"))
        with pytest.raises(ZeroDivisionError, match="kept"):
            board.change("x", fail)
        assert board.change("x", _read) == "kept"

    def test_06_no_change_is_lost_among_threads(self, place: Path) -> None:
        """Each with an instance of its own."""

        def count(_: int) -> Sequence[int]:
            board = self.make_board(place)
            return [board.change("x", _count) for _ in range(10)]

        with ThreadPoolExecutor(6) as threads:
            seen = [number for numbers in threads.map(count, range(6)) for number in numbers]
        assert sorted(seen) == list(range(1, 61))

    def test_07_no_change_is_lost_among_processes(self, place: Path) -> None:
        """Each of them has forked from this one."""

        def count() -> None:
            for _ in range(10):
                self.make_board(place).change("x", _count)

        children = [self._fork(count), self._fork(count)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert self.make_board(place).change("x", _count) == 21

    def test_08_who_dies_in_a_step_holds_nobody_up(self, place: Path) -> None:
        """And has changed nothing."""
        board = self.make_board(place)
        board.change("x", lambda text, now: _append(text, now, "kept"))
        child = self._fork(lambda: self.make_board(place).change("x", _die))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert board.change("x", _read) == "kept"

    def test_09_its_clock_is_the_same_for_everybody_and_runs_as_ours(self, place: Path) -> None:
        """By how much it is ahead of ours does not matter."""
        one, two = self.make_board(place), self.make_board(place)
        before = monotonic()
        first = one.change("x", lambda text, now: _append(text, now, "1"))
        between = monotonic()
        second = two.change("y", lambda text, now: _append(text, now, "2"))
        after = monotonic()
        assert 0 <= second - first <= after - before + 0.1
        third = one.change("x", lambda text, now: _append(text, now, "3"))
        assert third - first >= after - between - 0.1

    def test_10_a_large_text_survives(self, board: Board) -> None:
        """Some hundred addresses and a dozen holders make one of this size."""
        text = "".join(f'{{"{number:08x}":[1.5,"ü"]}}' for number in range(10_000))
        board.change("x", lambda _text, _now: (text, None))
        assert board.change("x", _read) == text

    @staticmethod
    def _fork(work: Callable[[], object]) -> int:
        """Do something in a child process, and return its id."""
        child = os.fork()
        if child == 0:
            try:
                work()
            except BaseException:  # noqa: BLE001  # the parent sees the exit code
                os._exit(1)
            os._exit(0)
        return child
