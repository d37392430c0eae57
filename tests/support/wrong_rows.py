"""Exchanges that have something wrong in every answer: rows of the truth, changed one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import orjson

from marketfetch.testing.http.messages import ServerReply, ServerRequest

__all__ = ["Change", "at_times", "changing", "time_of", "with_field"]

Change = Callable[[Any], Any]
"""Takes a row, a list or an object as JSON gives it, and returns what the exchange has instead."""


def changing(change: Change, path: str = "") -> Callable[[ServerRequest, ServerReply], ServerReply]:
    """Change the rows of all answers of routes that end like `path`; a row that becomes None is left out."""

    def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
        if not request.path.endswith(path) or reply.status != 200:
            return reply
        content = orjson.loads(reply.body)
        rows = content["data"] if isinstance(content, dict) and "data" in content else content
        if not isinstance(rows, list):
            return reply
        changed = [row for row in map(change, rows) if row is not None]
        return attrs.evolve(
            reply, body=orjson.dumps({**content, "data": changed} if rows is not content else changed)
        )

    return edit


def time_of(row: Any) -> int:
    """The time of a row, whatever its shape."""
    if isinstance(row, list):
        return int(row[0])
    return int(next(row[name] for name in ("fundingTime", "timestamp") if name in row))


def at_times(times: set[int], change: Change) -> Change:
    """Change the rows of these times alone."""
    return lambda row: change(row) if time_of(row) in times else row


def with_field(place: Any, value: Any) -> Change:
    """Put a value, or what a function makes of the row, into a field."""

    def change(row: Any) -> Any:
        changed = row.copy()
        changed[place] = value(row) if callable(value) else value
        return changed

    return change
