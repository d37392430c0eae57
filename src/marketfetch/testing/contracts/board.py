"""The contract of every board, as a class of numbered tests to subclass.

Needs `marketfetch[testing]`, which has pytest.
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
    """Subclass it as `TestMyBoard` and override `make_board`; every test uses its own path.

    >>> class TestMyBoard(BoardContract):
    ...     def make_board(self, place: Path) -> Board:
    ...         return MyBoard(place)
    """

    def make_board(self, place: Path) -> Board:
        """Return a board for a path in an existing, empty folder; nothing exists at the path yet.

        A second call with the same path must return another instance of the same board.
        """
        raise NotImplementedError("override make_board(place)")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """The path of the test's board."""
        return tmp_path / "board"

    @pytest.fixture
    def board(self, place: Path) -> Board:
        """An unused board."""
        return self.make_board(place)

    def test_01_making_a_board_touches_nothing(self, place: Path) -> None:
        """The constructor does no I/O."""
        self.make_board(place)
        assert not place.exists()

    def test_02_two_boards_of_one_place_are_equal(self, place: Path) -> None:
        """Processes recognize a common board by equality and hash."""
        one, two = self.make_board(place), self.make_board(place)
        assert one == two
        assert hash(one) == hash(two)

    def test_03_a_step_gets_what_the_one_before_it_made(self, place: Path) -> None:
        """The first step gets None; the text of another instance is seen as well."""
        board = self.make_board(place)
        assert board.change("x", _read) is None
        for _ in range(3):
            self.make_board(place).change("x", lambda text, now: _append(text, now, "é "))
        assert board.change("x", _read) == "é é é "

    def test_04_names_do_not_know_each_other(self, board: Board) -> None:
        """A name may contain any characters, and its case matters."""
        names = ["x", "X", "x ", "../x", "https://e.org weight", "ü" * 300, "a'b\"c%s", ""]
        for number, name in enumerate(names):
            board.change(name, lambda text, now, number=number: _append(text, now, str(number)))  # type: ignore[misc]
        assert [board.change(name, _read) for name in names] == [str(number) for number in range(len(names))]

    def test_05_a_step_that_raises_changes_nothing(self, board: Board) -> None:
        """The caller gets the step's own error."""

        def fail(text: str | None, _now: float) -> tuple[str, None]:
            raise ZeroDivisionError(text)

        board.change("x", lambda text, now: _append(text, now, "kept"))
        with pytest.raises(ZeroDivisionError, match="kept"):
            board.change("x", fail)
        assert board.change("x", _read) == "kept"

    def test_06_no_change_is_lost_among_threads(self, place: Path) -> None:
        """Each thread uses its own instance."""

        def count(_: int) -> Sequence[int]:
            board = self.make_board(place)
            return [board.change("x", _count) for _ in range(10)]

        with ThreadPoolExecutor(6) as threads:
            seen = [number for numbers in threads.map(count, range(6)) for number in numbers]
        assert sorted(seen) == list(range(1, 61))

    def test_07_no_change_is_lost_among_processes(self, place: Path) -> None:
        """The processes are forked from this one."""

        def count() -> None:
            board = self.make_board(place)
            for _ in range(10):
                board.change("x", _count)

        children = [self._fork(count), self._fork(count)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
        assert self.make_board(place).change("x", _count) == 21

    def test_08_a_process_that_dies_in_a_step_blocks_no_other(self, place: Path) -> None:
        """The text stays as it was before the step."""
        board = self.make_board(place)
        board.change("x", lambda text, now: _append(text, now, "kept"))
        child = self._fork(lambda: self.make_board(place).change("x", _die))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert board.change("x", _read) == "kept"

    def test_09_all_instances_read_one_clock_that_runs_at_normal_speed(self, place: Path) -> None:
        """Its offset to the local clock does not matter."""
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
        """Hundreds of addresses and a dozen processes need a text of this size."""
        text = "".join(f'{{"{number:08x}":[1.5,"ü"]}}' for number in range(10_000))
        board.change("x", lambda _text, _now: (text, None))
        assert board.change("x", _read) == text

    @staticmethod
    def _fork(work: Callable[[], object]) -> int:
        """Call `work` in a forked child process, and return its id."""
        if not hasattr(os, "fork"):
            pytest.skip("this system cannot fork")
        child = os.fork()
        if child == 0:
            try:
                work()
            except BaseException:  # noqa: BLE001  # the parent sees the exit code
                os._exit(1)
            os._exit(0)
        return child
