"""Which other processes share the rate limits of a pipeline's addresses."""

from __future__ import annotations

from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Board, Sharing, Sink, SupportsBoard
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.file_board import FileBoard
from marketfetch.redaction import Secret

__all__ = ["sharing_of"]


def sharing_of(board: Board | str | Secret | None, sink: Sink) -> Sharing:
    """Return the boards of a pipeline.

    `auto` means the board of this user on this machine, and then the board of the sink if it has one: a
    request needs a grant of both. `none` or None shares nothing. Any other board is used alone, and the run
    fails if it cannot be used. Raises ConfigurationError for an object that is no board.

    >>> from marketfetch.sinks.memory import MemorySink
    >>> sharing_of("none", MemorySink()), len(sharing_of("auto", MemorySink()).boards)
    (Sharing(boards=(), required=False), 1)
    """
    if isinstance(board, Secret) and board.reveal() in {"auto", "none"}:
        board = board.reveal()
    if board is None or board == "none":
        return Sharing()
    if board == "auto":
        own = (sink.board(),) if isinstance(sink, SupportsBoard) else ()
        return Sharing((FileBoard.of_user(), *own))
    if isinstance(board, str | Secret):
        return Sharing((board_from(board),), required=True)
    if isinstance(board, type) or not callable(getattr(board, "change", None)):
        raise ConfigurationError(
            f"board: {board!r} has no change(name, step); give a board, its URL, 'auto', or None"
        )
    return Sharing((board,), required=True)
