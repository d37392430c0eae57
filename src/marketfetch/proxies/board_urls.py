"""From `--board` to a board: `file:FOLDER`, `postgresql://…`, or one that somebody else has registered."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.protocols import Board
from marketfetch.redaction import Secret

__all__ = ["board_from"]

_GROUP = "marketfetch.boards"


def board_from(text: str | Secret) -> Board:
    """Make the board that a text names by its scheme; nothing is opened.

    A scheme is the name of an entry point in the group `marketfetch.boards`, which leads to a class with
    `from_url(text)`. Raises ConfigurationError for a text without a scheme, and, with near matches, for an
    unknown one.

    >>> board_from("file:/var/lib/marketfetch")
    FileBoard(folder='/var/lib/marketfetch')
    """
    text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
    scheme, colon, _ = text.reveal().partition(":")
    if scheme == "postgres":  # libpq takes both spellings
        scheme = "postgresql"
    if not colon or not scheme.replace("-", "").isalnum():
        raise ConfigurationError(
            "board: write auto, none, or a kind of board and its place, such as file:/var/lib/marketfetch"
        )
    found = list(entry_points(group=_GROUP, name=scheme))
    if not found:
        raise unknown("board", scheme, ["auto", "none", *entry_points(group=_GROUP).names])
    kind: Any = found[0].load()
    board: Board = kind.from_url(text.reveal())
    return board
