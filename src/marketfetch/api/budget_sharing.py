"""The boards by which a pipeline shares the budgets of its addresses with other processes."""

from __future__ import annotations

from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Board, Sharing, Sink, SupportsBoard
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.file_board import FileBoard
from marketfetch.redaction import Secret, redact

__all__ = ["sharing_of"]


def sharing_of(board: Board | str | Secret | None, sink: Sink) -> Sharing:
    """Return the boards of a pipeline.

    `auto` gives the board of this user on this machine and, after it, the board of the sink, if the sink has
    one: an address that the first board grants is requested from the second. `none` or None gives no board.
    Any other board or URL is used alone. The run fails if it cannot be used; one that cannot be reached is
    waited for, 30 s if it has never worked, and until it is back if it has. Raises ConfigurationError for a
    value that is not a board.

    >>> from marketfetch.sinks.memory import MemorySink
    >>> sharing_of("none", MemorySink()), len(sharing_of("auto", MemorySink()).boards)
    (Sharing(boards=(), required=False), 1)
    """
    if board is None:
        return Sharing()
    if isinstance(board, str | Secret):
        board = Secret.of(board)  # replaces the plain text: debuggers show the local variables of an error
        if board.reveal() == "none":
            return Sharing()
        if board.reveal() == "auto":
            own = (sink.board(),) if isinstance(sink, SupportsBoard) else ()
            return Sharing((FileBoard.of_user(), *own))
        return Sharing((board_from(board),), required=True)
    if isinstance(board, type) or not callable(getattr(board, "change", None)):
        shown = redact(repr(board))
        del board  # it may hold a password
        raise ConfigurationError(
            f"board: {shown} has no change(name, step); give a board, its URL, 'auto', or None"
        )
    return Sharing((board,), required=True)
