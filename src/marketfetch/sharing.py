"""How processes share addresses and work: the boards that all of them see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs

__all__ = ["Board", "ProcessRank", "Sharing"]

_T = TypeVar("_T")


class Board(Protocol):
    """A few small texts that several processes change atomically, such as which process holds which address.

    Blocking code: the engine calls it on threads, never on the event loop, and on several threads at once.
    Two boards at the same place are equal and have the same hash.
    """

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        """Replace the text under a name in one atomic step, and return the second result of `step`.

        `step` gets the text (None if there is none yet) and the time, and returns the new text and a result.
        The time is in seconds on the board's own clock, which is the same for all processes and runs on while
        a machine is suspended. No other process changes the text meanwhile. If `step` raises, the text stays
        as it is. `step` can be pickled, and may be called again.

        Raises SinkUnavailable if the same call may work later, SinkError if it will not.
        """
        ...


@attrs.frozen
class Sharing:
    """The boards by which budgets are shared: with every process that uses one of the same boards.

    Without a board that cannot be reached the run goes on, and logs it; with `required` the run fails.
    """

    boards: tuple[Board, ...] = ()
    required: bool = False


@attrs.frozen
class ProcessRank:
    """How many other processes are on a board, and how many of them came before this one."""

    before: int = 0
    others: int = 0
