"""The board of a URL: `file:FOLDER`, `postgresql://…`, or the scheme of an installed plugin."""

from __future__ import annotations

from marketfetch.common.optional_packages import load_plug_in, scheme_of
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Board
from marketfetch.redaction import Secret

__all__ = ["board_from"]


def board_from(text: str | Secret) -> Board:
    """Make the board of a URL; nothing is opened.

    The scheme is the name of an entry point in the group `marketfetch.boards`: a class with `from_url(url)`.
    Raises ConfigurationError for a text without a scheme, for a plug-in that is broken, and, with near
    matches, for an unknown scheme.

    >>> board_from("file:/srv/marketfetch")
    FileBoard(folder='/srv/marketfetch')
    """
    text = Secret.of(text)  # replaces the plain text: debuggers show the local variables of an error
    scheme = scheme_of(text)
    if not scheme:
        raise ConfigurationError(
            "board: write auto, none, or a kind of board and its place, such as file:/var/lib/marketfetch"
        )
    kind = load_plug_in("marketfetch.boards", "board", scheme, others=["auto", "none"], method="from_url")
    board: Board = kind.from_url(text.reveal())
    return board
