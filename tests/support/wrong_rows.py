"""Edits for a simulated exchange that has some rows wrong in every answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from marketfetch.testing.http.messages import ServerReply, ServerRequest

__all__ = ["Change", "at_times", "changing", "time_of", "with_field"]

Change = Callable[[Any], Any]
"""Takes a row (a JSON list or object) and returns the row that the exchange sends in its place."""


def changing(change: Change, path: str = "") -> Callable[[ServerRequest, ServerReply], ServerReply]:
    """Change all rows of routes whose path ends with `path`; None removes a row."""

    def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
        if not request.path.endswith(path) or reply.status != 200:
            return reply
        content = msgspec.json.decode(reply.body)
        rows = content["data"] if isinstance(content, dict) and "data" in content else content
        if not isinstance(rows, list):
            return reply
        changed = [row for row in map(change, rows) if row is not None]
        return attrs.evolve(
            reply, body=msgspec.json.encode({**content, "data": changed} if rows is not content else changed)
        )

    return edit


def time_of(row: Any) -> int:
    """Return the time of a row, a list or an object."""
    if isinstance(row, list):
        return int(row[0])
    return int(next(row[name] for name in ("fundingTime", "timestamp") if name in row))


def at_times(times: set[int], change: Change) -> Change:
    """Change only the rows with these times."""
    return lambda row: change(row) if time_of(row) in times else row


def with_field(place: Any, value: Any) -> Change:
    """Replace a field by a value, or by the result of a function of the row."""

    def change(row: Any) -> Any:
        changed = row.copy()
        changed[place] = value(row) if callable(value) else value
        return changed

    return change
