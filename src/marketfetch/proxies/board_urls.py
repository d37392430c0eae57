"""The board of a URL: `file:FOLDER`, `postgresql://…`, or the scheme of an installed plugin."""

from __future__ import annotations

from typing import Any

from marketfetch.common.optional_packages import plug_ins
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.protocols import Board
from marketfetch.redaction import Secret

__all__ = ["board_from"]

_GROUP = "marketfetch.boards"


def board_from(text: str | Secret) -> Board:
    """Make the board of a URL; nothing is opened.

    The scheme is the name of an entry point in the group `marketfetch.boards`: a class with `from_url(url)`.
    Raises ConfigurationError for a text without a scheme and, with near matches, for an unknown scheme.

    >>> board_from("file:/srv/marketfetch")
    FileBoard(folder='/srv/marketfetch')
    """
    text = Secret.of(text)  # replaces the plain text: debuggers show the local variables of an error
    scheme = _scheme(text)
    if scheme is None:
        raise ConfigurationError(
            "board: write auto, none, or a kind of board and its place, such as file:/var/lib/marketfetch"
        )
    found = list(plug_ins(_GROUP).select(name=scheme))
    if not found:
        raise unknown("board", scheme, ["auto", "none", *plug_ins(_GROUP).names])
    kind: Any = found[0].load()
    board: Board = kind.from_url(text.reveal())
    return board


def _scheme(url: Secret) -> str | None:
    """Return what stands before the first colon; None if that may be a password, or is a drive of Windows."""
    scheme, colon, _ = url.reveal().partition(":")
    if not colon or len(scheme) < 2 or not scheme.replace("-", "").isalnum():
        return None
    return "postgresql" if scheme == "postgres" else scheme  # libpq takes both spellings
