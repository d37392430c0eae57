"""RejectedRow: a wrong row of an exchange, with the text in which it came."""

from __future__ import annotations

import json
import reprlib

import attrs

__all__ = ["RejectedRow", "raw_text"]

_LENGTH = 1000
"""The number of characters of a row that are kept: an exchange may send megabytes."""


@attrs.frozen(order=True)
class RejectedRow:
    """A row of the exchange that cannot be stored: its open time, the reason, and its text as it came.

    `time` is in UTC milliseconds and may lie off the grid of the series. `reason` is one of the words under
    which `Page.rejected` counts, such as "off the grid" or "impossible".

    >>> RejectedRow(1_513_641_614_789, "off the grid", '[1513641614789,"18934.00","18934.00"]').reason
    'off the grid'
    """

    time: int
    reason: str
    raw: str


def raw_text(row: object) -> str:
    r"""Write a parsed row as JSON: one line of ASCII, cut after 1,000 characters.

    >>> raw_text([1513641614789, "18934.00", "Bitte \n warten"])
    '[1513641614789,"18934.00","Bitte \\n warten"]'
    """
    try:
        text = json.dumps(row, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):  # nested deeper than the encoder goes, or no JSON
        text = ascii(reprlib.repr(row))
    return text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "..."
